//! The machine's GIC: the part of it that is in memory.
//!
//! [`v2`] has everything in memory: distributor (GICD), CPU interface (GICC) and the virtual interface's control
//! registers (GICH). [`v3`] has distributor and redistributors (GICR) here; its CPU interfaces are system registers,
//! which are not this crate's business.
//!
//! EL2 uses one priority for everything and an end-of-interrupt that only drops the priority, so that a guest can
//! deactivate what is linked to one of its own interrupts.
//!
//! **Groups.** EL2 is non-secure software and takes interrupts as IRQ. Where EL3 exists, what it left to us is in
//! group 1 already and the group registers ignore our writes. Where there is no second security state (QEMU without
//! EL3), they obey: GICv2 then signals group 0 as IRQ and hides group 1 from GICC_IAR, so all is put in group 0;
//! GICv3 signals group 0 as FIQ, so all is put in group 1.

pub mod secure;
pub mod v2;
pub mod v3;

use crate::{dt::Trigger, intid::IntId, mmio::Registers};

/// Priority of every interrupt that EL2 takes: the middle of the range, which is unmasked with any number of
/// priority bits.
const PRIORITY: u8 = 0x80;

/// [`PRIORITY`] in each byte of a word.
const PRIORITIES: u32 = u32::from_ne_bytes([PRIORITY; 4]);

/// Whether an interrupt counts as active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Active {
    /// It will not be signalled until somebody deactivates it.
    Yes,
    /// It may be signalled.
    No,
}

impl Active {
    /// The bank of registers that makes an interrupt so.
    const fn bank(self) -> usize {
        match self {
            Self::Yes => offset::ISACTIVER,
            Self::No => offset::ICACTIVER,
        }
    }
}

/// Distributor registers by offset, the same in both versions (IHI 0048 and IHI 0069, "Distributor register map");
/// SGI_base of a redistributor repeats those of the private interrupts.
mod offset {
    pub(super) const CTLR: usize = 0x000;
    pub(super) const TYPER: usize = 0x004;
    pub(super) const IGROUPR: usize = 0x080;
    pub(super) const ISENABLER: usize = 0x100;
    pub(super) const ICENABLER: usize = 0x180;
    pub(super) const ISACTIVER: usize = 0x300;
    pub(super) const ICACTIVER: usize = 0x380;
    pub(super) const IPRIORITYR: usize = 0x400;
    pub(super) const ICFGR: usize = 0xc00;
}

/// Register and bit of `intid` in a bank with one bit per interrupt.
const fn bit(bank: usize, intid: IntId) -> (usize, u32) {
    (bank + (intid.raw() / 32 * 4) as usize, 1 << (intid.raw() % 32))
}

/// How many times 32 interrupts a distributor says it has (TYPER.ITLinesNumber), the private ones included.
fn banks(distributor: Registers) -> usize {
    (distributor.read32(offset::TYPER) & 0x1f) as usize + 1
}

/// Switches the 32 interrupts of `bank` off, inactive, at our priority and in the group that `group` has a bit for.
/// `block` is a distributor, or SGI_base of a redistributor.
fn quiet(block: Registers, bank: usize, group: u32) {
    block.write32(offset::ICENABLER + 4 * bank, u32::MAX);
    block.write32(offset::ICACTIVER + 4 * bank, u32::MAX);
    block.write32(offset::IGROUPR + 4 * bank, group);
    for word in 0..8 {
        block.write32(offset::IPRIORITYR + 32 * bank + 4 * word, PRIORITIES);
    }
}

/// Sets how `intid` signals, in the distributor or SGI_base `block`; it must be off. PPIs and SGIs that are wired one
/// way ignore it.
fn set_trigger(block: Registers, intid: IntId, trigger: Trigger) {
    let register = offset::ICFGR + (intid.raw() / 16 * 4) as usize;
    let edge = 0b10 << (intid.raw() % 16 * 2);
    let others = block.read32(register) & !edge;
    block.write32(register, if trigger == Trigger::Edge { others | edge } else { others });
}
