//! GICv3 and v4 (IHI 0069): distributor and redistributors.

use super::{Active, PRIORITIES, PRIORITY, bit, offset};
use crate::intid::IntId;
use crate::mmio::Registers;

/// GICD_CTLR as non-secure software sees it (or with one security state).
mod ctlr {
    /// Group 1 on: EnableGrp1A with two security states, EnableGrp1 with one.
    pub(super) const ENABLE_GROUP1: u32 = 1 << 1;
    /// EnableGrp1 where two security states exist and this is the non-secure view.
    pub(super) const ENABLE_GROUP1_NS: u32 = 1;
    /// Affinity routing.
    pub(super) const AFFINITY_ROUTING: u32 = 1 << 4;
    /// A write is still taking effect.
    pub(super) const WRITE_PENDING: u32 = 1 << 31;
}

/// The distributor's routing registers, one of 64 bits per SPI.
const IROUTER: usize = 0x6000;

/// Redistributor registers in RD_base, and where SGI_base is.
mod gicr {
    pub(super) const TYPER: usize = 0x008;
    pub(super) const WAKER: usize = 0x014;
    pub(super) const SGI_BASE: usize = 0x1_0000;
    /// TYPER: the frame has two more pages, for virtual LPIs.
    pub(super) const HAS_VLPIS: u64 = 1 << 1;
    /// TYPER: this is the last frame of its range.
    pub(super) const LAST: u64 = 1 << 4;
    /// WAKER: asleep, and everything behind it asleep.
    pub(super) const PROCESSOR_SLEEP: u32 = 1 << 1;
    pub(super) const CHILDREN_ASLEEP: u32 = 1 << 2;
}

/// A machine's GICv3 distributor.
#[derive(Debug)]
pub struct Distributor {
    registers: Registers,
}

impl Distributor {
    /// The distributor at this block.
    pub const fn new(registers: Registers) -> Self {
        Self { registers }
    }

    /// Sets up what all CPUs share: everything off and in group 1, then on.
    pub fn init(&self) {
        let gicd = self.registers;
        gicd.write32(offset::CTLR, 0);
        self.wait_for_write();
        gicd.write32(offset::CTLR, ctlr::AFFINITY_ROUTING);
        self.wait_for_write();
        let lines = (gicd.read32(offset::TYPER) & 0x1f) as usize + 1;
        for bank in 1..lines.min(31) {
            gicd.write32(offset::ICENABLER + 4 * bank, u32::MAX);
            gicd.write32(offset::ICACTIVER + 4 * bank, u32::MAX);
            gicd.write32(offset::IGROUPR + 4 * bank, u32::MAX);
        }
        self.wait_for_write();
        let on = ctlr::AFFINITY_ROUTING | ctlr::ENABLE_GROUP1 | ctlr::ENABLE_GROUP1_NS;
        gicd.write32(offset::CTLR, on);
        self.wait_for_write();
    }

    /// Enables an SPI and sends it to the CPU with affinity `mpidr`.
    pub fn enable(&self, intid: IntId, mpidr: u64) {
        let gicd = self.registers;
        gicd.write8(offset::IPRIORITYR + intid.raw() as usize, PRIORITY as u8);
        gicd.write64(IROUTER + 8 * intid.raw() as usize, mpidr & 0xff_00ff_ffff);
        let (register, mask) = bit(offset::ISENABLER, intid);
        gicd.write32(register, mask);
    }

    fn wait_for_write(&self) {
        while self.registers.read32(offset::CTLR) & ctlr::WRITE_PENDING != 0 {
            core::hint::spin_loop();
        }
    }
}

/// One CPU's redistributor.
#[derive(Clone, Copy, Debug)]
pub struct Redistributor {
    registers: Registers,
}

impl Redistributor {
    /// The redistributor of the CPU with affinity `mpidr`, in one range of
    /// frames at `base`, `size` bytes. `stride`: bytes from frame to frame if
    /// the device tree says, else as each frame's GICR_TYPER.VLPIS says.
    ///
    /// `block` makes registers of the address of a frame.
    pub fn find(
        base: usize,
        size: usize,
        stride: Option<usize>,
        mpidr: u64,
        block: impl Fn(usize) -> Registers,
    ) -> Option<Self> {
        let affinity = (mpidr >> 32 & 0xff) << 24 | mpidr & 0xff_ffff;
        let mut offset = 0;
        while offset < size {
            let registers = block(base + offset);
            let typer = registers.read64(gicr::TYPER);
            if typer >> 32 == affinity {
                return Some(Self { registers });
            }
            if typer & gicr::LAST != 0 {
                return None;
            }
            let own = if typer & gicr::HAS_VLPIS != 0 { 0x4_0000 } else { 0x2_0000 };
            offset += stride.filter(|&stride| stride != 0).unwrap_or(own);
        }
        None
    }

    /// Wakes it and sets up the private interrupts: all off, in group 1.
    pub fn init(&self) {
        let gicr = self.registers;
        gicr.write32(gicr::WAKER, gicr.read32(gicr::WAKER) & !gicr::PROCESSOR_SLEEP);
        while gicr.read32(gicr::WAKER) & gicr::CHILDREN_ASLEEP != 0 {
            core::hint::spin_loop();
        }
        let sgi = |register: usize| gicr::SGI_BASE + register;
        gicr.write32(sgi(offset::ICENABLER), u32::MAX);
        gicr.write32(sgi(offset::ICACTIVER), u32::MAX);
        gicr.write32(sgi(offset::IGROUPR), u32::MAX);
        for word in 0..8 {
            gicr.write32(sgi(offset::IPRIORITYR) + 4 * word, PRIORITIES);
        }
    }

    /// Enables an SGI or PPI of this CPU.
    pub fn enable(&self, intid: IntId) {
        let (register, mask) = bit(offset::ISENABLER, intid);
        self.registers.write32(gicr::SGI_BASE + register, mask);
    }

    /// Makes an SGI or PPI of this CPU count as active or not.
    pub fn set_active(&self, intid: IntId, active: Active) {
        let bank = match active {
            Active::Yes => offset::ISACTIVER,
            Active::No => offset::ICACTIVER,
        };
        let (register, mask) = bit(bank, intid);
        self.registers.write32(gicr::SGI_BASE + register, mask);
    }
}
