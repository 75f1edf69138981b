//! Memory for tables, the same for everybody who is compared.
//!
//! A [`Pool`] is one stretch of memory that pretends to lie at a physical
//! address, as behind a hypervisor's linear map: an address becomes a pointer
//! by an addition. Free frames are on a stack behind a lock, and are cleared
//! when they are taken. Neither side has an allocator that suits it better.

#![expect(unsafe_code, reason = "both crates get their tables from here, as pointers")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::slice;
use std::sync::{Mutex, PoisonError};

use aarch64_paging::descriptor::{PhysicalAddress, Stage2Attributes};
use aarch64_paging::paging::{PageTable, Translation};
use stage2::epoch::Epochs;
use stage2::pte::AtomicPte;
use stage2::{PhysAddr, TableMemory};

/// The size of a table, and of a frame: pages are of 4 KiB everywhere here.
const FRAME: usize = 4096;

/// Where the memory is said to lie.
const BASE: usize = 1 << 32;

/// Frames for tables.
pub(crate) struct Pool {
    memory: NonNull<u8>,
    frames: usize,
    /// Offsets of the frames that are free.
    free: Mutex<Vec<usize>>,
    epochs: Epochs,
}

// SAFETY: The memory belongs to the pool and is handed out frame by frame; the
// list of free frames is behind a lock.
unsafe impl Send for Pool {}
// SAFETY: As above.
unsafe impl Sync for Pool {}

impl Pool {
    /// A pool of so many free frames.
    pub(crate) fn new(frames: usize) -> Self {
        let layout = layout(frames);
        // SAFETY: `layout` never has size zero.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(memory) = NonNull::new(memory) else { handle_alloc_error(layout) };
        let free = Mutex::new((0..frames).rev().map(|frame| frame * FRAME).collect());
        Self { memory, frames, free, epochs: Epochs::new() }
    }

    /// Takes a frame and clears it.
    fn take(&self) -> Option<usize> {
        let offset = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        // SAFETY: The frame was free, so it is ours alone; it is `FRAME` bytes.
        unsafe { self.at(offset).write_bytes(0, FRAME) };
        Some(offset)
    }

    /// Takes back a frame.
    fn give_back(&self, offset: usize) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(offset);
    }

    /// The memory at an offset, which lies inside.
    fn at(&self, offset: usize) -> NonNull<u8> {
        debug_assert!(offset < self.frames * FRAME, "an address that was never given out");
        // SAFETY: The offset lies inside.
        unsafe { self.memory.add(offset) }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: Allocated with this layout by `new`, and nobody is left.
        unsafe { dealloc(self.memory.as_ptr(), layout(self.frames)) }
    }
}

fn layout(frames: usize) -> Layout {
    assert!(frames != 0, "a pool has frames");
    Layout::from_size_align(frames * FRAME, FRAME).expect("a few megabytes")
}

// SAFETY: 1. and 2. A frame comes from the list of free ones, is cleared by
// then, and aligned, as `BASE` and the memory are. 3. An address always means
// the same offset. 4. There is only one `Epochs`.
unsafe impl TableMemory for Pool {
    fn allocate(&self, bytes: u64) -> Option<PhysAddr> {
        // Of the spaces here, none has more than one table as its root.
        if bytes != FRAME as u64 {
            return None;
        }
        Some(PhysAddr::new((BASE + self.take()?) as u64))
    }

    unsafe fn free(&self, address: PhysAddr, _bytes: u64) {
        self.give_back(address.bits() as usize - BASE);
    }

    unsafe fn resolve(&self, address: PhysAddr, entries: usize) -> &[AtomicPte] {
        let table = self.at(address.bits() as usize - BASE).cast::<AtomicPte>();
        // SAFETY: A frame that was handed out has been cleared, is aligned, and
        // is accessed by atomics alone from then on.
        unsafe { slice::from_raw_parts(table.as_ptr(), entries) }
    }

    fn epochs(&self) -> &Epochs {
        &self.epochs
    }
}

/// The pool as aarch64-paging sees it.
pub(crate) struct Shared<'p>(pub(crate) &'p Pool);

impl Translation<Stage2Attributes> for Shared<'_> {
    fn allocate_table(&mut self) -> (NonNull<PageTable<Stage2Attributes>>, PhysicalAddress) {
        let offset = self.0.take().expect("the pool is large enough");
        (self.0.at(offset).cast(), PhysicalAddress(BASE + offset))
    }

    unsafe fn deallocate_table(&mut self, table: NonNull<PageTable<Stage2Attributes>>) {
        self.0.give_back(table.addr().get() - self.0.memory.addr().get());
    }

    fn physical_to_virtual(&self, address: PhysicalAddress) -> NonNull<PageTable<Stage2Attributes>> {
        self.0.at(address.0 - BASE).cast()
    }
}
