//! Table memory for hosts: tests, examples, benchmarks.
//!
//! An [`Arena`] pretends that its frames lie at physical addresses. It turns
//! one back into a table by counting, never by making a pointer from an
//! integer, so everything above runs under Miri with strict provenance. It
//! panics when a table is used that is not allocated.

use core::ops::Deref;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::addr::PhysAddr;
use crate::epoch::Epochs;
use crate::pte::{AtomicPte, Descriptor};
use crate::table::TableMemory;

/// 4 KiB of descriptors, the smallest table there is. Larger tables take
/// several frames.
pub type Frame = [AtomicPte; ENTRIES];

const ENTRIES: usize = 512;
const FRAME_SIZE: u64 = 8 * ENTRIES as u64;

/// The most frames an arena can have.
pub const MAX_FRAMES: usize = 1 << 16;

/// A frame of empty descriptors.
pub fn frame() -> Frame {
    core::array::from_fn(|_| AtomicPte::new())
}

/// Frames that pretend to lie at physical addresses.
pub struct Arena<'e, S> {
    base: PhysAddr,
    frames: S,
    /// One bit for each frame: whether it is allocated.
    taken: [AtomicU64; MAX_FRAMES / 64],
    /// Where to look for free frames first.
    next: AtomicUsize,
    epochs: &'e Epochs,
}

impl<'e, S: Deref<Target = [Frame]>> Arena<'e, S> {
    /// An arena of these frames, all free, of which the first is said to lie
    /// at `base`. Guards of `epochs` prove that its tables stay.
    ///
    /// # Panics
    ///
    /// If `base` is zero or not aligned to a mebibyte, which is as much as the
    /// largest root takes, or if there are more than [`MAX_FRAMES`].
    pub fn new(base: PhysAddr, frames: S, epochs: &'e Epochs) -> Self {
        assert!(base.bits() != 0 && base.is_aligned(1 << 20), "{base} can't be an arena's base");
        assert!(frames.len() <= MAX_FRAMES, "an arena has at most {MAX_FRAMES} frames");
        let taken = [const { AtomicU64::new(0) }; _];
        Self { base, frames, taken, next: AtomicUsize::new(0), epochs }
    }

    /// How many frames are allocated.
    pub fn in_use(&self) -> usize {
        self.taken.iter().map(|word| word.load(Ordering::Relaxed).count_ones() as usize).sum()
    }

    /// The number of the frame at `address`.
    fn index(&self, address: PhysAddr) -> usize {
        match address.offset_from(self.base) {
            Some(offset) if offset.is_multiple_of(FRAME_SIZE) => (offset / FRAME_SIZE) as usize,
            _ => panic!("there is no table at {address}"),
        }
    }

    /// Takes `count` frames from `first` on, unless one of them is taken.
    fn take(&self, first: usize, count: usize) -> bool {
        for (word, mask) in words(first, count) {
            // Acquire: pairs with the Release in `give_back`, so that the new
            // owner sees the frames empty.
            let free = |taken| (taken & mask == 0).then_some(taken | mask);
            if self.taken[word].fetch_update(Ordering::Acquire, Ordering::Relaxed, free).is_err() {
                self.give_back(first, word * 64 - first.min(word * 64));
                return false;
            }
        }
        true
    }

    fn give_back(&self, first: usize, count: usize) {
        for (word, mask) in words(first, count) {
            self.taken[word].fetch_and(!mask, Ordering::Release);
        }
    }

    fn is_taken(&self, first: usize, count: usize) -> bool {
        words(first, count).all(|(word, mask)| self.taken[word].load(Ordering::Relaxed) & mask == mask)
    }
}

/// The words of the bitmap that hold `count` frames from `first` on, and their
/// bits. `count` is a power of two and divides `first`.
fn words(first: usize, count: usize) -> impl Iterator<Item = (usize, u64)> {
    let in_word = count.min(64);
    (first..first + count)
        .step_by(64)
        .map(move |frame| (frame / 64, (u64::MAX >> (64 - in_word)) << (frame % 64)))
}

// SAFETY: 1. A frame is handed out by whoever sets its bit in `taken`, and is
// empty by then, see `free`. 2. Groups of frames start at multiples of their
// size, from a base that is aligned to the largest.
// 3. `frames` is never touched but to index it. 4. `epochs` never changes.
#[expect(unsafe_code, reason = "the promises of `TableMemory`, kept without an unsafe operation")]
unsafe impl<S: Deref<Target = [Frame]>> TableMemory for Arena<'_, S> {
    fn allocate(&self, bytes: u64) -> Option<PhysAddr> {
        let count = bytes.div_ceil(FRAME_SIZE) as usize;
        let groups = self.frames.len() / count;
        let start = self.next.load(Ordering::Relaxed) / count;
        let mut candidates = (start..groups).chain(0..start.min(groups));
        let group = candidates.find(|&group| self.take(group * count, count))?;
        self.next.store((group + 1) * count, Ordering::Relaxed);
        self.base.checked_add((group * count) as u64 * FRAME_SIZE)
    }

    unsafe fn free(&self, address: PhysAddr, bytes: u64) {
        let count = bytes.div_ceil(FRAME_SIZE) as usize;
        let first = self.index(address);
        assert!(self.is_taken(first, count), "{address} is freed twice");
        for entry in self.frames[first..first + count].as_flattened() {
            entry.fill(Descriptor::EMPTY);
        }
        self.give_back(first, count);
        self.next.store(first, Ordering::Relaxed);
    }

    unsafe fn resolve(&self, address: PhysAddr, entries: usize) -> &[AtomicPte] {
        let first = self.index(address);
        let frames = entries.div_ceil(ENTRIES);
        assert!(self.is_taken(first, frames), "the table at {address} is used after it was freed");
        &self.frames[first..first + frames].as_flattened()[..entries]
    }

    fn epochs(&self) -> &Epochs {
        self.epochs
    }
}
