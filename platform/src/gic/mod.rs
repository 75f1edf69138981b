//! The machine's GIC: the part of it that is in memory.
//!
//! [`v2`] has everything in memory: distributor (GICD), CPU interface (GICC) and the virtual interface's control
//! registers (GICH). [`v3`] has distributor and redistributors (GICR) here; its CPU interfaces are system registers,
//! which are not this crate's business.
//!
//! EL2 never nests, so priorities only say what it takes first: everything has one, and what may be late has one below
//! it ([`Priority`]). The end of interrupt only drops the priority, so that a guest can deactivate what is linked to one
//! of its own interrupts.
//!
//! **Groups.** EL2 is non-secure software and takes interrupts as IRQ. Where EL3 exists, what it left to us is in
//! group 1 already and the group registers ignore our writes. Where there is no second security state (QEMU without
//! EL3), they obey: GICv2 then signals group 0 as IRQ and hides group 1 from GICC_IAR, so all is put in group 0;
//! GICv3 signals group 0 as FIQ, so all is put in group 1.

pub mod secure;
pub mod v2;
pub mod v3;

use crate::{dt::Trigger, intid::IntId, mmio::Registers};

/// Which of several pending interrupts is taken first. Among equals it is the one with the lowest number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// What every interrupt has that was not given another.
    Usual,
    /// Below that.
    Late,
}

impl Priority {
    /// The value in a priority register. Both are in the middle of the range, so that they are unmasked and differ with
    /// any number of priority bits: with the fewest that non-secure software may see, four, and even with three.
    const fn bits(self) -> u8 {
        match self {
            Self::Usual => 0x80,
            Self::Late => 0xa0,
        }
    }
}

/// [`Priority::Usual`] in each byte of a word.
const PRIORITIES: u32 = u32::from_ne_bytes([Priority::Usual.bits(); 4]);

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

/// Sets the priority of `intid` in the distributor or SGI_base `block`.
fn set_priority(block: Registers, intid: IntId, priority: Priority) {
    block.write8(offset::IPRIORITYR + intid.raw() as usize, priority.bits());
}

/// Makes `intid` count as active or not, in the distributor or SGI_base `block`, and reads it back: only then has the
/// write arrived. Whoever depends on it waits for that with a barrier.
fn set_active(block: Registers, intid: IntId, active: Active) {
    let (register, mask) = bit(active.bank(), intid);
    block.write32(register, mask);
    block.read32(register);
}

/// Sets how `intid` signals, in the distributor or SGI_base `block`; it must be off. PPIs and SGIs that are wired one
/// way ignore it.
fn set_trigger(block: Registers, intid: IntId, trigger: Trigger) {
    let register = offset::ICFGR + (intid.raw() / 16 * 4) as usize;
    let edge = 0b10 << (intid.raw() % 16 * 2);
    let others = block.read32(register) & !edge;
    block.write32(register, if trigger == Trigger::Edge { others | edge } else { others });
}
