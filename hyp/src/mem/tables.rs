//! Stage 2's two traits, on this machine.
//!
//! [`Frames`] is where its tables live: frames of the pool, reached through the
//! linear map. [`maintenance`] is how TLBs forget: [`stage2::tlbi`]'s sequences,
//! of instructions that [`arch::ThisCpu`] executes.
#![expect(unsafe_code, reason = "tables are memory at physical addresses")]

use super::pool::{self, FRAME};
use crate::arch;
use crate::vmid::Tlbs;
use stage2::epoch::Epochs;
use stage2::pte::AtomicPte;
use stage2::tlbi::{Platform, Sequences, Stage2Registers};
use stage2::{PhysAddr, Space, TableMemory};

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

impl Tlbs for arch::ThisCpu {
    fn forget_all_guests(&self) {
        arch::flush_all_guests();
    }

    fn complete_writes(&self) {
        arch::complete_inner();
    }
}

/// What makes `space` current on a CPU, as the space of this VMID.
pub fn registers(space: &Space<Frames>, vmid: u16) -> Stage2Registers {
    Stage2Registers { vttbr: space.root().bits() | u64::from(vmid) << 48, vtcr: space.vtcr() }
}

/// How TLBs forget what changes in the space with these registers.
pub fn maintenance(space: &Space<Frames>, vmid: u16, platform: Platform) -> Sequences<arch::ThisCpu> {
    Sequences::new(arch::ThisCpu, registers(space, vmid), space.format(), platform)
}
