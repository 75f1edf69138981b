//! The interrupt controller, version 2 (IHI 0048) or 3 (IHI 0069), behind one
//! set of functions. Interrupt numbers are raw INTIDs.
//!
//! Everything is one group: group 1 on version 3, group 0 on version 2, which is
//! what each delivers as IRQ to software that has the whole controller.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::machine::{GICC, GICD, GICR};
use crate::mmio::{read32, read64, write8, write32};
use crate::{cpus, sysreg};

/// Which GIC architecture the machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Version {
    /// GICv2, CPU interface in memory.
    V2 = 2,
    /// GICv3, CPU interface in system registers.
    V3 = 3,
}

/// Distributor registers, both versions.
pub mod distributor {
    /// Control.
    pub const CTLR: usize = 0x000;
    /// Type: SPI count, CPU count.
    pub const TYPER: usize = 0x004;
    /// Group.
    pub const IGROUPR: usize = 0x080;
    /// Set-enable, one bit each.
    pub const ISENABLER: usize = 0x100;
    /// Clear-enable.
    pub const ICENABLER: usize = 0x180;
    /// Set-pending.
    pub const ISPENDR: usize = 0x200;
    /// Clear-pending.
    pub const ICPENDR: usize = 0x280;
    /// Set-active.
    pub const ISACTIVER: usize = 0x300;
    /// Clear-active.
    pub const ICACTIVER: usize = 0x380;
    /// Priority, one byte each.
    pub const IPRIORITYR: usize = 0x400;
    /// Targets, one byte each (version 2).
    pub const ITARGETSR: usize = 0x800;
    /// Trigger, two bits each.
    pub const ICFGR: usize = 0xc00;
    /// Software-generated interrupt (version 2).
    pub const SGIR: usize = 0xf00;
    /// Clear-pending of SGIs, one byte each: a bit for each sender (version 2).
    pub const CPENDSGIR: usize = 0xf10;
    /// Affinity of an SPI, eight bytes each (version 3).
    pub const IROUTER: usize = 0x6000;
}

const GICC_CTLR: usize = GICC;
const GICC_PMR: usize = GICC + 0x4;
const GICC_IAR: usize = GICC + 0xc;
const GICC_EOIR: usize = GICC + 0x10;

const GICC_DIR: usize = GICC + 0x1000;

const GICR_STRIDE: usize = 0x2_0000;
const GICR_TYPER: usize = 0x8;
const GICR_WAKER: usize = 0x14;
/// The redistributor's second frame: SGIs and PPIs, laid out as in the distributor.
const GICR_SGI_FRAME: usize = 0x1_0000;

static VERSION: AtomicU32 = AtomicU32::new(Version::V2 as u32);

/// Which version is in use.
pub fn version() -> Version {
    if VERSION.load(Ordering::Relaxed) == Version::V3 as u32 { Version::V3 } else { Version::V2 }
}

pub(crate) fn set_version(version: Version) {
    VERSION.store(version as u32, Ordering::Relaxed);
}

/// Makes the distributor forward interrupts and this CPU take them. For CPU 0;
/// the others have [`init_cpu`] called for them.
pub fn init() {
    match version() {
        Version::V2 => write32(GICD + distributor::CTLR, 1),
        // Group 1 and affinity routing, in a single security state.
        Version::V3 => write32(GICD + distributor::CTLR, 1 << 1 | 1 << 4),
    }
    init_cpu();
}

/// What an end of interrupt does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndMode {
    /// Drops the priority and deactivates: the reset state.
    Both,
    /// Drops the priority; [`deactivate`] does the rest.
    PriorityDrop,
}

/// Chooses what [`end`] does on this CPU (EOImode).
pub fn set_end_mode(mode: EndMode) {
    let bit = u32::from(mode == EndMode::PriorityDrop);
    match version() {
        Version::V2 => write32(GICC_CTLR, 1 | bit << 9),
        Version::V3 => sysreg::set_icc_ctlr(u64::from(bit) << 1),
    }
}

/// Makes this CPU take interrupts of every priority.
pub fn init_cpu() {
    match version() {
        Version::V2 => {
            write32(GICC_PMR, 0xff);
            write32(GICC_CTLR, 1);
        }
        Version::V3 => {
            let waker = redistributor(cpus::this()) + GICR_WAKER;
            write32(waker, read32(waker) & !(1 << 1));
            while read32(waker) & 1 << 2 != 0 {}
            write32(private_frame() + distributor::IGROUPR, u32::MAX);
            sysreg::set_icc_sre(1);
            sysreg::set_icc_pmr(0xff);
            sysreg::set_icc_igrpen1(1);
        }
    }
}

/// The first frame of CPU `index`'s redistributor (version 3), found as the
/// architecture says: by affinity, up to the frame marked last.
pub fn redistributor(index: usize) -> usize {
    let mut frame = GICR;
    loop {
        let kind = read64(frame + GICR_TYPER);
        if kind >> 32 == index as u64 {
            return frame;
        }
        assert!(kind & 1 << 4 == 0, "CPU {index} has a redistributor");
        frame += GICR_STRIDE;
    }
}

/// Where this CPU's SGIs and PPIs are controlled, by distributor offsets.
pub fn private_frame() -> usize {
    match version() {
        Version::V2 => GICD,
        Version::V3 => redistributor(cpus::this()) + GICR_SGI_FRAME,
    }
}

/// The frame that controls `intid`.
fn frame_of(intid: u32) -> usize {
    if intid < 32 { private_frame() } else { GICD }
}

/// Writes `intid`'s bit in a register bank with one bit for each interrupt.
fn write_bit(bank: usize, intid: u32) {
    write32(frame_of(intid) + bank + intid as usize / 32 * 4, 1 << (intid % 32));
}

/// Reads `intid`'s bit in such a bank.
fn read_bit(bank: usize, intid: u32) -> bool {
    read32(frame_of(intid) + bank + intid as usize / 32 * 4) & 1 << (intid % 32) != 0
}

/// Enables `intid`; an SPI is first put into our group and sent to CPU 0.
pub fn enable(intid: u32) {
    if intid >= 32 && version() == Version::V3 {
        let group = GICD + distributor::IGROUPR + intid as usize / 32 * 4;
        write32(group, read32(group) | 1 << (intid % 32));
    }
    if intid >= 32 {
        route(intid, 0);
    }
    write_bit(distributor::ISENABLER, intid);
}

/// Disables `intid`.
pub fn disable(intid: u32) {
    write_bit(distributor::ICENABLER, intid);
}

/// Sends SPI `intid` to CPU `cpu`.
pub fn route(intid: u32, cpu: usize) {
    match version() {
        Version::V2 => write8(GICD + distributor::ITARGETSR + intid as usize, 1 << cpu),
        Version::V3 => crate::mmio::write64(GICD + distributor::IROUTER + intid as usize * 8, cpu as u64),
    }
}

/// Makes `intid` pending, or takes it back.
pub fn set_pending(intid: u32) {
    write_bit(distributor::ISPENDR, intid);
}

/// Takes back a pending `intid`.
pub fn clear_pending(intid: u32) {
    write_bit(distributor::ICPENDR, intid);
}

/// Whether `intid` is pending.
pub fn is_pending(intid: u32) -> bool {
    read_bit(distributor::ISPENDR, intid)
}

/// Whether `intid` is active: acknowledged, not ended.
pub fn is_active(intid: u32) -> bool {
    read_bit(distributor::ISACTIVER, intid)
}

/// Gives `intid` a priority; less is more urgent.
pub fn set_priority(intid: u32, priority: u8) {
    write8(frame_of(intid) + distributor::IPRIORITYR + intid as usize, priority);
}

/// This CPU takes interrupts more urgent than `mask` only.
pub fn set_priority_mask(mask: u8) {
    match version() {
        Version::V2 => write32(GICC_PMR, u32::from(mask)),
        Version::V3 => sysreg::set_icc_pmr(u64::from(mask)),
    }
    sysreg::barrier();
}

/// Who gets a software-generated interrupt.
#[derive(Clone, Copy)]
pub enum Target {
    /// One CPU.
    Cpu(usize),
    /// Every CPU but the sender.
    Others,
}

/// Sends SGI `intid`.
pub fn send(intid: u32, target: Target) {
    sysreg::barrier();
    match (version(), target) {
        (Version::V2, Target::Cpu(cpu)) => write32(GICD + distributor::SGIR, 1 << (16 + cpu) | intid),
        (Version::V2, Target::Others) => write32(GICD + distributor::SGIR, 1 << 24 | intid),
        (Version::V3, Target::Cpu(cpu)) => sysreg::set_icc_sgi1r(u64::from(intid) << 24 | 1 << cpu),
        (Version::V3, Target::Others) => sysreg::set_icc_sgi1r(u64::from(intid) << 24 | 1 << 40),
    }
}

/// What an acknowledgement returned: on version 2 an SGI carries its sender,
/// which ending it must repeat.
#[must_use = "an acknowledged interrupt is to be ended"]
pub struct Acknowledged(u32);

impl Acknowledged {
    /// What an acknowledgement of `intid` returned, unless it is an SGI from
    /// another CPU: CPU 0 as the sender reads as no sender.
    pub fn without_sender(intid: u32) -> Self {
        Self(intid)
    }

    /// The interrupt.
    pub fn intid(&self) -> u32 {
        self.0 & 0x3ff
    }
}

/// Acknowledges the most urgent pending interrupt; `None` if there is none.
pub fn acknowledge() -> Option<Acknowledged> {
    let value = match version() {
        Version::V2 => read32(GICC_IAR),
        Version::V3 => sysreg::icc_iar1() as u32,
    };
    let acknowledged = Acknowledged(value);
    (acknowledged.intid() < 1020).then_some(acknowledged)
}

/// Ends an interrupt: drops its priority and, in the usual mode, deactivates it.
pub fn end(acknowledged: Acknowledged) {
    match version() {
        Version::V2 => write32(GICC_EOIR, acknowledged.0),
        Version::V3 => sysreg::set_icc_eoir1(u64::from(acknowledged.0)),
    }
}

/// Drops an interrupt's priority and leaves it active; for [`EndMode::PriorityDrop`].
pub fn drop_priority(acknowledged: Acknowledged) -> StillActive {
    let raw = acknowledged.0;
    end(acknowledged);
    StillActive(raw)
}

/// An interrupt that has lost its priority but not its active state.
#[must_use = "an active interrupt is to be deactivated"]
pub struct StillActive(u32);

/// Deactivates it.
pub fn deactivate(interrupt: StillActive) {
    match version() {
        Version::V2 => write32(GICC_DIR, interrupt.0),
        Version::V3 => sysreg::set_icc_dir(u64::from(interrupt.0)),
    }
    sysreg::barrier();
}
