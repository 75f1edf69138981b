//! What belongs to one physical CPU.
//!
//! A CPU reaches its own block through TPIDR_EL2 ([`crate::arch::percpu`]).
//! Others reach it by index for the few things that are meant for them: all of
//! a block is atomics, locks and set-once cells, so sharing it is safe.

use crate::vcpu::Vcpu;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use platform::gic::v3::Redistributor;
use spin::Once;

/// Physical CPUs that Entresol uses; a board with more leaves the rest off.
pub const MAX_CPUS: usize = 16;

/// One CPU's block. `emergency_stack` is read by vectors.S.
#[repr(C, align(64))]
pub struct PerCpu {
    /// One past the stack that a failed CPU reports on.
    pub(crate) emergency_stack: AtomicUsize,
    index: AtomicUsize,
    /// The vCPUs that live here, set once when all guests are created.
    pub vcpus: Once<Vec<&'static Vcpu>>,
    /// Physical interrupts that this CPU has handled beside the guests' timers.
    pub interrupts: AtomicU64,
    /// GICv3: this CPU's redistributor.
    pub redistributor: Once<Redistributor>,
    /// GICv2: this CPU's bit in lists of targets.
    pub gic_target: AtomicU8,
}

impl PerCpu {
    const fn new() -> Self {
        Self {
            emergency_stack: AtomicUsize::new(0),
            index: AtomicUsize::new(0),
            vcpus: Once::new(),
            interrupts: AtomicU64::new(0),
            redistributor: Once::new(),
            gic_target: AtomicU8::new(0),
        }
    }

    /// Which CPU this is.
    pub fn index(&self) -> usize {
        self.index.load(Ordering::Relaxed)
    }

    /// The vCPUs that live on this CPU; none until guests are created.
    pub fn vcpus(&self) -> &[&'static Vcpu] {
        self.vcpus.get().map_or(&[], Vec::as_slice)
    }
}

/// Every CPU's block, by index. boot.S and vectors.S know the layout.
pub static PER_CPU: [PerCpu; MAX_CPUS] = [const { PerCpu::new() }; MAX_CPUS];

/// MPIDR of every CPU, by index: how a CPU that starts finds out which it is.
pub static MPIDRS: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(u64::MAX) }; MAX_CPUS];

/// Enters CPU `index` into the tables before it starts.
pub fn register(index: usize, mpidr: u64) {
    let (Some(block), Some(slot)) = (PER_CPU.get(index), MPIDRS.get(index)) else { return };
    block.index.store(index, Ordering::Relaxed);
    block.emergency_stack.store(crate::arch::emergency_stack_end(index), Ordering::Relaxed);
    slot.store(mpidr, Ordering::Release);
}

/// MPIDR of CPU `index`, if it is registered.
pub fn mpidr_of(index: usize) -> Option<u64> {
    MPIDRS.get(index).map(|slot| slot.load(Ordering::Acquire)).filter(|&mpidr| mpidr != u64::MAX)
}
