//! The machine's GIC: the part of it that is in memory.
//!
//! [`v2`] has everything in memory: distributor (GICD), CPU interface (GICC)
//! and the virtual interface's control registers (GICH). [`v3`] has distributor
//! and redistributors (GICR) here; its CPU interfaces are system registers,
//! which are not this crate's business.
//!
//! EL2 uses group 1, one priority for everything, and an end-of-interrupt that
//! only drops the priority, so that a guest can deactivate what is linked to
//! one of its own interrupts.

pub mod v2;
pub mod v3;

/// Priority of every interrupt that EL2 takes: the middle of the range, which
/// is unmasked with any number of priority bits.
pub(crate) const PRIORITY: u32 = 0x80;

/// [`PRIORITY`] in each byte of a word.
pub(crate) const PRIORITIES: u32 = 0x0101_0101 * PRIORITY;

/// Whether an interrupt counts as active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Active {
    /// It will not be signalled until somebody deactivates it.
    Yes,
    /// It may be signalled.
    No,
}

/// Distributor registers by offset, the same in both versions (IHI 0048 and
/// IHI 0069, "Distributor register map"); SGI_base of a redistributor repeats
/// those of the private interrupts.
pub(crate) mod offset {
    pub(crate) const CTLR: usize = 0x000;
    pub(crate) const TYPER: usize = 0x004;
    pub(crate) const IGROUPR: usize = 0x080;
    pub(crate) const ISENABLER: usize = 0x100;
    pub(crate) const ICENABLER: usize = 0x180;
    pub(crate) const ISACTIVER: usize = 0x300;
    pub(crate) const ICACTIVER: usize = 0x380;
    pub(crate) const IPRIORITYR: usize = 0x400;
}

/// Register and bit of `intid` in a bank with one bit per interrupt.
pub(crate) const fn bit(bank: usize, intid: crate::intid::IntId) -> (usize, u32) {
    (bank + (intid.raw() / 32 * 4) as usize, 1 << (intid.raw() % 32))
}
