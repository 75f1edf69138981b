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

/// `cargo xtask decode`: shows `text` with the log frames in it decoded. They are the lines `log HEX` that the
/// hypervisor's prompt prints where nobody decodes for it, as on a board behind a plain terminal.
pub(crate) fn decode(elf: &Path, text: &str) -> Result<()> {
    let decoder = Decoder::open(elf)?.with_context(|| format!("{} logs nothing", elf.display()))?;
    for line in text.lines() {
        match frame_in(line) {
            Some(frame) => println!("{}", decoder.line(&frame)),
            None => println!("{line}"),
        }
    }
    Ok(())
}

/// The bytes of the last word of `... log 0123ab`.
fn frame_in(line: &str) -> Option<Vec<u8>> {
    let digits = line.trim_end().rsplit_once("log ")?.1;
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = pairs.iter().map(byte).collect();
    // The terminating zero is put there by whoever decodes.
    bytes.filter(|bytes| rest.is_empty() && !bytes.is_empty()).map(|mut bytes| {
        bytes.pop_if(|last| *last == 0);
        bytes
    })
}

fn text(frame: &Frame<'_>) -> String {
    let level = frame.level().map_or("     ", |level| level.as_str());
    let message = frame.display_message();
    match frame.display_timestamp() {
        Some(time) => format!("{time} {level:<5} {message}"),
        None => format!("{level:<5} {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::frame_in;

    #[test]
    fn line_of_the_prompt_holds_a_frame() {
        assert_eq!(frame_in("entresol: log 0a1bff00"), Some(vec![0x0a, 0x1b, 0xff]));
    }

    #[test]
    fn other_lines_hold_none() {
        assert_eq!(frame_in("3 log frames; that is all"), None);
        assert_eq!(frame_in("log in: 0"), None);
        assert_eq!(frame_in("log abc"), None);
    }
}
