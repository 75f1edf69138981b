//! The hypervisor's log frames as text, by the strings that only its ELF file holds.
//!
//! Main type: [`Decoder`].

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use defmt_decoder::{Frame, Table};

use crate::step::note;

/// Decodes frames of one ELF file.
pub(crate) struct Decoder {
    table: Table,
}

impl Decoder {
    /// Reads the strings out of `elf`; nothing if it logs nothing, or if what it logs can't be told.
    pub(crate) fn open(elf: &Path) -> Result<Option<Self>> {
        let bytes = fs::read(elf).with_context(|| format!("cannot read {}", elf.display()))?;
        let table = Table::parse(&bytes).unwrap_or_else(|error| {
            // The console's text is worth having even so.
            note(&format!("{} has no usable log strings: {error:#}", elf.display()));
            None
        });
        Ok(table.map(|table| Self { table }))
    }

    /// One frame as the line to show. A frame of another build is shown as what it is: bytes.
    pub(crate) fn line(&self, frame: &[u8]) -> String {
        let mut decoder = self.table.new_stream_decoder();
        decoder.received(frame);
        decoder.received(&[0]);
        match decoder.decode() {
            Ok(frame) => text(&frame),
            Err(_) => format!("a log frame that this build's ELF file does not explain: {frame:02x?}"),
        }
    }
}

fn text(frame: &Frame<'_>) -> String {
    let level = frame.level().map_or("     ", |level| level.as_str());
    let message = frame.display_message();
    match frame.display_timestamp() {
        Some(time) => format!("{time} {level:<5} {message}"),
        None => format!("{level:<5} {message}"),
    }
}
