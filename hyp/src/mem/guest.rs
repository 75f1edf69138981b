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

#[cfg(test)]
mod tests {
    use super::{GuestMemory, OutsideMemory};
    use crate::mem::pool::{CHUNK, Pieces};
    use crate::vm::testing::memory;

    const BASE: u64 = 0x4000_0000;

    /// Two pieces that are not adjacent on the host, 6 MiB in all.
    fn two_pieces() -> GuestMemory {
        let pieces = [memory(2 * CHUNK), memory(CHUNK)];
        GuestMemory::new(BASE, Pieces::from_slice(&pieces).expect("two fit"))
    }

    /// The byte at `ipa`, wherever it is.
    fn byte(memory: &GuestMemory, ipa: u64) -> u8 {
        let (start, piece) = memory
            .pieces()
            .find(|(start, piece)| (*start..start + piece.size).contains(&ipa))
            .expect("inside");
        let address = core::ptr::with_exposed_provenance::<u8>((piece.base + ipa - start) as usize);
        // SAFETY: within the piece, which is leaked host memory.
        unsafe { address.read() }
    }

    #[test]
    fn pieces_follow_each_other_in_the_guest() {
        let starts: Vec<u64> = two_pieces().pieces().map(|(start, _)| start).collect();
        assert_eq!((starts, two_pieces().size()), (vec![BASE, BASE + 2 * CHUNK], 3 * CHUNK));
    }

    #[test]
    fn only_what_is_wholly_inside_is_inside() {
        let memory = two_pieces();
        let end = BASE + 3 * CHUNK;
        let inside = [(BASE, 1), (BASE, 3 * CHUNK), (end, 0)].map(|(ipa, size)| memory.contains(ipa, size));
        let outside = [(BASE - 1, 2), (end - 1, 2), (BASE, u64::MAX), (u64::MAX, 1), (0, 0)]
            .map(|(ipa, size)| memory.contains(ipa, size));
        assert_eq!((inside, outside), ([true; 3], [false; 5]));
    }

    #[test]
    fn a_write_across_pieces_arrives_in_both() {
        let memory = two_pieces();
        let border = BASE + 2 * CHUNK;
        memory.write(border - 2, &[1, 2, 3, 4]).expect("inside");
        let seen: Vec<u8> = (border - 3..border + 3).map(|ipa| byte(&memory, ipa)).collect();
        assert_eq!(seen, [0, 1, 2, 3, 4, 0]);
    }

    #[test]
    fn zeroing_across_pieces_clears_that_range_and_no_more() {
        let memory = two_pieces();
        let border = BASE + 2 * CHUNK;
        memory.write(border - 4, &[9; 8]).expect("inside");
        memory.zero(border - 2, 3).expect("inside");
        let seen: Vec<u8> = (border - 4..border + 4).map(|ipa| byte(&memory, ipa)).collect();
        assert_eq!(seen, [9, 9, 0, 0, 0, 9, 9, 9]);
    }

    #[test]
    fn a_write_that_sticks_out_changes_nothing() {
        let memory = two_pieces();
        let last = BASE + 3 * CHUNK - 1;
        assert_eq!(memory.write(last, &[1, 2]), Err(OutsideMemory { ipa: last, size: 2 }));
        assert_eq!(byte(&memory, last), 0);
    }
}
