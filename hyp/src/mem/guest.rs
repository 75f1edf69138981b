//! A guest's memory as EL2 reaches it.
//!
//! Guests and devices write it at any time, so there is never a Rust reference
//! into it: bytes go in and out by copy, through ranges that were checked to
//! lie inside the guest's memory.
#![expect(unsafe_code, reason = "copies into memory that a guest shares")]

use super::pool::Pieces;
use crate::arch;
use core::fmt;
use platform::board::Region;

/// Where one guest's memory is: consecutive guest addresses from `base`, in
/// pieces of physical memory.
#[derive(Debug)]
pub struct GuestMemory {
    base: u64,
    pieces: Pieces,
}

/// A range that is not wholly inside the guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutsideMemory {
    /// First guest address of the range.
    pub ipa: u64,
    /// Its size in bytes.
    pub size: u64,
}

impl fmt::Display for OutsideMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x} bytes at {:#x} are not all inside the guest's memory", self.size, self.ipa)
    }
}

impl GuestMemory {
    /// Memory in `pieces`, seen by the guest from `base` on.
    pub fn new(base: u64, pieces: Pieces) -> Self {
        Self { base, pieces }
    }

    /// First guest address.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.size).sum()
    }

    /// Each piece: first guest address and where it is.
    pub fn pieces(&self) -> impl Iterator<Item = (u64, Region)> {
        let mut ipa = self.base;
        self.pieces.iter().map(move |&piece| {
            let at = ipa;
            ipa += piece.size;
            (at, piece)
        })
    }

    /// Whether `size` bytes at `ipa` are inside.
    pub fn contains(&self, ipa: u64, size: u64) -> bool {
        ipa >= self.base && ipa.checked_add(size).is_some_and(|end| end <= self.base + self.size())
    }

    /// Copies `bytes` to `ipa`, visible to a guest that runs with caches off.
    pub fn write(&self, ipa: u64, bytes: &[u8]) -> Result<(), OutsideMemory> {
        let mut rest = bytes;
        self.each_part(ipa, bytes.len() as u64, |address, size| {
            let Some((part, later)) = rest.split_at_checked(size) else { return };
            // SAFETY: the part lies in this guest's memory, which is in the
            // linear map and which no Rust reference points into.
            unsafe { arch::copy_to(address as *mut u8, part) };
            arch::clean_invalidate_to_coherency(address, size);
            rest = later;
        })
    }

    /// Zeroes `size` bytes at `ipa`, visible to a guest that runs with caches off.
    pub fn zero(&self, ipa: u64, size: u64) -> Result<(), OutsideMemory> {
        self.each_part(ipa, size, |address, size| {
            // SAFETY: as in `write`.
            unsafe { arch::clear(address as *mut u8, size) };
            arch::clean_invalidate_to_coherency(address, size);
        })
    }

    /// Calls `act` with the linear address and size of each piece of the range.
    fn each_part(&self, ipa: u64, size: u64, mut act: impl FnMut(usize, usize)) -> Result<(), OutsideMemory> {
        if !self.contains(ipa, size) {
            return Err(OutsideMemory { ipa, size });
        }
        let end = ipa + size;
        for (start, piece) in self.pieces() {
            let (from, to) = (ipa.max(start), end.min(start + piece.size));
            if from < to {
                act(arch::linear(piece.base + (from - start)), (to - from) as usize);
            }
        }
        Ok(())
    }
}
