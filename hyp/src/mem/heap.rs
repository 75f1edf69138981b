//! The heap: a small fixed arena for set-up.
//!
//! Boot and the creation of VMs use it; no exit does, and nothing a guest chooses
//! sizes an allocation. Running out is therefore a matter of
//! configuration, found at start, and a crash record is the honest answer.

use buddy_system_allocator::LockedHeap;

/// Bytes of the arena.
const SIZE: usize = 512 * 1024;

/// Block orders: up to the whole arena.
const ORDERS: usize = 20;

#[cfg_attr(target_os = "none", global_allocator)]
static HEAP: LockedHeap<ORDERS> = LockedHeap::empty();

/// The arena; only the allocator ever refers to it.
#[repr(C, align(4096))]
struct Arena(core::cell::UnsafeCell<[u8; SIZE]>);

#[expect(unsafe_code, reason = "hands the arena to the allocator")]
mod arena {
    use super::{Arena, HEAP, SIZE};

    // SAFETY: `init` gives the bytes to the allocator, which locks.
    unsafe impl Sync for Arena {}

    // Kept out of .bss: an allocator needs no zeroes, and boot need not write them.
    #[cfg_attr(target_os = "none", unsafe(link_section = ".unzeroed"))]
    static ARENA: Arena = Arena(core::cell::UnsafeCell::new([0; SIZE]));

    /// Opens the heap. Call once, before anything allocates.
    pub fn init() {
        // SAFETY: the arena is a static that nothing else refers to.
        unsafe { HEAP.lock().init(ARENA.0.get().addr(), SIZE) }
    }
}

pub use arena::init;
