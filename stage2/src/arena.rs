//! Table memory for hosts: tests, examples, benchmarks.
//!
//! An [`Arena`] pretends that its frames lie at physical addresses. It turns
//! one back into a table by counting, never by making a pointer from an
//! integer, so everything above runs under Miri with strict provenance. It
//! panics when a table is used that is not allocated.

use core::ops::Deref;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::addr::PhysAddr;
use crate::pte::Descriptor;
use crate::sync::const_fn;
use crate::table::{Table, TableMemory};

/// One frame of an arena.
pub struct Frame {
    table: Table,
    taken: AtomicBool,
}

impl Frame {
    const_fn! {
        /// A free frame.
        #[expect(clippy::new_without_default, reason = "a frame is memory to be placed, not a plain value")]
        pub fn new() -> Self {
            Self { table: Table::new(), taken: AtomicBool::new(false) }
        }
    }
}

/// Frames that pretend to lie at physical addresses.
pub struct Arena<S> {
    base: PhysAddr,
    frames: S,
}

impl<S: Deref<Target = [Frame]>> Arena<S> {
    /// An arena of these frames, all free, of which the first is said to lie
    /// at `base`.
    ///
    /// # Panics
    ///
    /// If `base` is zero or not aligned to sixteen tables.
    pub fn new(base: PhysAddr, frames: S) -> Self {
        assert!(base.bits() != 0 && base.is_aligned(16 * TABLE_SIZE), "{base} can't be an arena's base");
        Self { base, frames }
    }

    /// How many tables are allocated.
    pub fn in_use(&self) -> usize {
        self.frames.iter().filter(|frame| frame.taken.load(Ordering::Relaxed)).count()
    }

    /// The frame at `address`.
    fn frame(&self, address: PhysAddr) -> &Frame {
        address
            .offset_from(self.base)
            .filter(|offset| offset % TABLE_SIZE == 0)
            .and_then(|offset| self.frames.get((offset / TABLE_SIZE) as usize))
            .unwrap_or_else(|| panic!("there is no table at {address}"))
    }
}

const TABLE_SIZE: u64 = size_of::<Table>() as u64;

// SAFETY: 1. A frame is handed out by whoever turns `taken` to true, and is
// empty by then, see `free`. 2. Groups of frames start at multiples of their
// number from an aligned base. 3. `frames` is never touched but to index it.
#[expect(unsafe_code, reason = "the promises of `TableMemory`, kept without an unsafe operation")]
unsafe impl<S: Deref<Target = [Frame]>> TableMemory for Arena<S> {
    fn allocate(&self, tables: usize) -> Option<PhysAddr> {
        let groups = self.frames.chunks_exact(tables);
        let (group, _) = groups.enumerate().find(|(_, frames)| take_all(frames))?;
        self.base.checked_add((group * tables) as u64 * TABLE_SIZE)
    }

    unsafe fn free(&self, first: PhysAddr, tables: usize) {
        for index in 0..tables {
            let frame = self.frame(first.plus(index as u64 * TABLE_SIZE));
            assert!(frame.taken.load(Ordering::Relaxed), "{first} is freed twice");
            for index in 0..crate::geometry::ENTRIES {
                frame.table.entry(index).fill(Descriptor::EMPTY);
            }
            // Release: pairs with the Acquire in `take_all`, so that the next
            // owner sees the table empty.
            frame.taken.store(false, Ordering::Release);
        }
    }

    unsafe fn resolve(&self, address: PhysAddr) -> &Table {
        let frame = self.frame(address);
        assert!(frame.taken.load(Ordering::Relaxed), "the table at {address} is used after it was freed");
        &frame.table
    }
}

/// Takes all of these frames, or none.
fn take_all(frames: &[Frame]) -> bool {
    for (index, frame) in frames.iter().enumerate() {
        if frame.taken.swap(true, Ordering::Acquire) {
            for frame in &frames[..index] {
                frame.taken.store(false, Ordering::Release);
            }
            return false;
        }
    }
    true
}
