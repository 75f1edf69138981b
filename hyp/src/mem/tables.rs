//! Stage 2's two traits, on this machine.
//!
//! [`Frames`] is where its tables live: frames of the pool, reached through the
//! linear map. [`Machine`] is how TLBs forget.
#![expect(unsafe_code, reason = "tables are memory at physical addresses")]

use super::pool::{self, FRAME};
use crate::arch;
use stage2::{Granule, IpaRange, Maintenance, PhysAddr, Stale, Table, TableMemory};

/// Tables in frames of the pool.
#[derive(Clone, Copy, Debug)]
pub struct Frames;

// SAFETY: frames come zeroed and unshared, the linear map is Normal inner
// shareable write-back, and it never changes, so `resolve` gives the same
// memory each time.
unsafe impl TableMemory for Frames {
    fn allocate(&self, tables: usize) -> Option<PhysAddr> {
        let address = match tables {
            1 => pool::allocate_frame()?,
            // A concatenated root, once per VM: adjacent frames, aligned as a
            // whole. A chunk has both and is cheap to find.
            _ => pool::allocate_adjacent_frames(tables)?,
        };
        PhysAddr::try_new(address)
    }

    unsafe fn free(&self, first: PhysAddr, tables: usize) {
        for index in 0..tables as u64 {
            // SAFETY: each frame of the allocation goes back once (contract).
            unsafe { pool::free_frame(first.bits() + index * FRAME) };
        }
    }

    unsafe fn resolve(&self, address: PhysAddr) -> &Table {
        let table = arch::linear(address.bits()) as *const Table;
        // SAFETY: an allocated table is a frame in the linear map (contract).
        unsafe { &*table }
    }
}

/// TLB maintenance for the VMID that is current on this CPU.
#[derive(Clone, Copy, Debug)]
pub struct Machine;

impl Maintenance for Machine {
    fn publish(&self) {
        arch::complete_inner();
    }

    fn invalidate(&self, range: IpaRange, stale: Stale) {
        match stale {
            Stale::Leaves(level) if range.size() == Granule::Kib4.span(level) => {
                arch::flush_ipa(range.start().bits());
            }
            Stale::Leaves(_) | Stale::AnyLeaves | Stale::Tables => arch::flush_vmid(),
        }
    }

    fn invalidate_local(&self, range: IpaRange, stale: Stale) {
        self.invalidate(range, stale);
    }

    fn invalidate_all(&self) {
        arch::flush_vmid();
    }
}
