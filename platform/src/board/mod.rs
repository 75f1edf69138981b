//! What the device tree says about this machine, as plain facts.
//!
//! [`Board::from_dt`] reads the tree once and fills a [`Board`]. A fact that is missing or wrong does not stop the
//! reading: the field stays empty and a [`Problem`] says which node is to blame and what to do about it. The boot
//! then decides what it cannot do without ([`Problem::severity`] is the advice).
//!
//! No fact is compiled in for any board, and nothing here touches hardware.

mod problem;
mod read;
#[cfg(test)]
mod tests;

use heapless::Vec;

use crate::{
    dt::{NodeRef, Tree},
    intid::IntId,
    reset::ResetInfo,
    uart::UartInfo,
    watchdog::WatchdogInfo,
};

pub use crate::dt::{DtError, Region};
pub use problem::{Kind as ProblemKind, Problem, Severity};

/// Most memory ranges that are kept.
pub const MAX_MEMORY: usize = 32;
/// Most reserved ranges that are kept.
pub const MAX_RESERVED: usize = 64;
/// Most CPUs that are used.
pub const MAX_CPUS: usize = 16;
/// Most redistributor ranges of a GICv3.
pub const MAX_REDISTRIBUTORS: usize = 8;
/// Most devices that can end the machine.
pub const MAX_RESETS: usize = 4;
/// Most watchdogs: some chips have one per CPU.
pub const MAX_WATCHDOGS: usize = 8;
/// Most problems that are kept.
pub const MAX_PROBLEMS: usize = 16;

/// The machine.
#[derive(Debug)]
pub struct Board<'dt> {
    /// The root's `model`.
    pub model: Option<&'dt str>,
    /// RAM, in the tree's order, reserved parts not yet taken out.
    pub memory: Vec<Region, MAX_MEMORY>,
    /// What nobody may use: the reservation block and the fixed ranges of `/reserved-memory`.
    pub reserved: Vec<Region, MAX_RESERVED>,
    /// The CPUs that are enabled.
    pub cpus: Vec<Cpu, MAX_CPUS>,
    /// The interrupt controller, if it can be virtualised.
    pub gic: Option<GicInfo>,
    /// Where messages go.
    pub console: Option<UartInfo>,
    /// How to call PSCI firmware. Without it, never execute `smc`: where EL3 is empty that hangs the machine.
    pub psci: Option<Conduit>,
    /// The generic timer.
    pub timer: Timer,
    /// Devices that can reset the machine or switch it off, for where there is no PSCI or it does not do that.
    pub resets: Vec<ResetInfo, MAX_RESETS>,
    /// Watchdogs that the firmware may have left running.
    pub watchdogs: Vec<WatchdogInfo, MAX_WATCHDOGS>,
    /// The command line.
    pub bootargs: Option<&'dt str>,
    /// The initial ramdisk: our bundle.
    pub initrd: Option<Region>,
    /// Random bytes from the firmware; empty if it gave none.
    pub rng_seed: &'dt [u8],
    tree: Tree<'dt>,
    /// With the blamed node's offset: a [`Problem`] itself is too large to move about sixteen of.
    problems: Vec<(Option<u32>, ProblemKind<'dt>), MAX_PROBLEMS>,
}

impl<'dt> Board<'dt> {
    /// Reads the board's facts out of a flattened device tree.
    ///
    /// # Errors
    /// Only if the tree itself is damaged; anything less is a [`Problem`].
    pub fn from_dt(blob: &'dt [u8]) -> Result<Self, DtError> {
        read::board(&Tree::new(blob)?)
    }

    /// What is missing or wrong, in the order it was found.
    pub fn problems(&self) -> impl Iterator<Item = Problem<'dt>> {
        self.problems.iter().map(|&(offset, kind)| {
            let node = offset.map(|offset| NodeRef::new(self.tree, offset));
            Problem { node, kind }
        })
    }
}

/// A physical CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Affinity fields as in `MPIDR_EL1` (other bits zero).
    pub mpidr: u64,
    /// How to start it.
    pub enable: Enable,
}

/// How to start a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enable {
    /// PSCI CPU_ON.
    Psci,
    /// Write the entry address to `release_addr` and send an event.
    SpinTable {
        /// Physical address of a 64-bit word.
        release_addr: u64,
    },
    /// The tree does not say, or says something unknown.
    Unknown,
}

/// The instruction that calls PSCI firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduit {
    /// `smc #0`
    Smc,
    /// `hvc #0`
    Hvc,
}

/// The interrupt controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GicInfo {
    /// GICv2 with virtualisation extensions.
    V2 {
        /// Distributor, GICD.
        dist: Region,
        /// CPU interface, GICC: both its 4 KiB pages, one after the other.
        cpu: Region,
        /// Virtual interface control, GICH.
        hyp: Region,
        /// Virtual CPU interface, GICV: what a guest uses as its GICC; both pages, likewise.
        vcpu: Region,
        /// Maintenance interrupt.
        maintenance: Option<IntId>,
    },
    /// GICv3 or GICv4.
    V3 {
        /// Distributor, GICD.
        dist: Region,
        /// Ranges of redistributor frames, GICR.
        redists: Vec<Region, MAX_REDISTRIBUTORS>,
        /// Bytes from one CPU's frames to the next; `None`: as `GICR_TYPER.VLPIS` says.
        stride: Option<u64>,
        /// Maintenance interrupt.
        maintenance: Option<IntId>,
    },
}

/// The generic timer's interrupts (all PPIs) and frequency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timer {
    /// CNTV.
    pub virtual_ppi: Option<IntId>,
    /// CNTHP.
    pub hypervisor_ppi: Option<IntId>,
    /// CNTP, non-secure.
    pub physical_ppi: Option<IntId>,
    /// In Hz, only where the firmware failed to set `CNTFRQ_EL0` and the tree says so.
    pub frequency: Option<u32>,
}
