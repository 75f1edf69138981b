//! The bytes on their way to the UART.

use core::fmt;

/// Bytes a [`Stage`] holds.
const SIZE: usize = 1024;

/// A queue that is filled by one step of the mux and emptied before the next,
/// so it needs no wrapping around.
pub(super) struct Stage {
    bytes: [u8; SIZE],
    sent: usize,
    end: usize,
}

impl Stage {
    pub(super) const fn new() -> Self {
        Self { bytes: [0; SIZE], sent: 0, end: 0 }
    }

    /// Adds `byte`. One step of the mux stages far less than [`SIZE`]; should
    /// that ever be wrong, the excess is left out.
    #[inline]
    pub(super) fn push(&mut self, byte: u8) {
        debug_assert!(self.end < SIZE, "one step staged more than fits");
        if let Some(slot) = self.bytes.get_mut(self.end) {
            *slot = byte;
            self.end += 1;
        }
    }

    /// Adds all of `bytes`.
    pub(super) fn push_all(&mut self, bytes: &[u8]) {
        let slots = self.bytes.get_mut(self.end..).unwrap_or(&mut []);
        let count = bytes.len().min(slots.len());
        debug_assert!(count == bytes.len(), "one step staged more than fits");
        for (slot, &byte) in slots.iter_mut().zip(bytes) {
            *slot = byte;
        }
        self.end += count;
    }

    /// What is not yet sent.
    #[inline]
    pub(super) fn unsent(&self) -> &[u8] {
        self.bytes.get(self.sent..self.end).unwrap_or(&[])
    }

    /// Drops the first `count` bytes of that.
    #[inline]
    pub(super) fn advance(&mut self, count: usize) {
        self.sent += count;
        if self.sent >= self.end {
            self.sent = 0;
            self.end = 0;
        }
    }
}

impl fmt::Write for Stage {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push_all(text.as_bytes());
        Ok(())
    }
}
