//! Stage 2's two traits, on this machine.
//!
//! [`Frames`] is where its tables live: frames of the pool, reached through the
//! linear map. [`Machine`] is how TLBs forget.
#![expect(unsafe_code, reason = "tables are memory at physical addresses")]

use super::pool::{self, FRAME};
use crate::arch;
use stage2::epoch::Epochs;
use stage2::pte::AtomicPte;
use stage2::{IpaRange, Maintenance, PhysAddr, Stale, TableMemory};

/// The CPUs that look into stage 2 tables.
pub static EPOCHS: Epochs = Epochs::new();

/// Tables in frames of the pool.
#[derive(Clone, Copy, Debug)]
pub struct Frames;

// SAFETY: frames come zeroed and unshared, the linear map is Normal inner
// shareable write-back, and it never changes, so `resolve` gives the same
// memory each time.
unsafe impl TableMemory for Frames {
    fn allocate(&self, bytes: u64) -> Option<PhysAddr> {
        let address = match bytes {
            FRAME => pool::allocate_frame()?,
            // A concatenated root, once per VM: adjacent frames, aligned as a
            // whole. A chunk has both and is cheap to find.
            _ => pool::allocate_adjacent_frames((bytes / FRAME) as usize)?,
        };
        PhysAddr::try_new(address)
    }

    unsafe fn free(&self, address: PhysAddr, bytes: u64) {
        for offset in (0..bytes).step_by(FRAME as usize) {
            // SAFETY: each frame of the allocation goes back once (contract).
            unsafe { pool::free_frame(address.bits() + offset) };
        }
    }

    unsafe fn resolve(&self, address: PhysAddr, entries: usize) -> &[AtomicPte] {
        let first = arch::linear(address.bits()) as *const AtomicPte;
        // SAFETY: allocated tables are frames in the linear map (contract).
        unsafe { core::slice::from_raw_parts(first, entries) }
    }

    fn epochs(&self) -> &Epochs {
        &EPOCHS
    }
}

/// TLB maintenance for the VMID that is current on this CPU.
#[derive(Clone, Copy, Debug)]
pub struct Machine;

impl Maintenance for Machine {
    fn publish(&self) {
        arch::complete_inner();
    }

    fn invalidate(&self, _: IpaRange, _: Stale) {
        arch::flush_vmid();
    }

    fn invalidate_local(&self, _: IpaRange, _: Stale) {
        arch::flush_vmid();
    }

    fn invalidate_all(&self) {
        arch::flush_vmid();
    }
}
