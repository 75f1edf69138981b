//! List registers: how one virtual interrupt is shown to the CPU interface.
//!
//! [`Lr`] is one list register's contents, whichever GIC the machine has.
//! [`ListRegs`] is the bank of them that a physical CPU owns; the hardware
//! side implements it over `ICH_LR<n>_EL2` or `GICH_LR<n>`, the tests over an
//! array with a model guest behind it. `queue.rs` decides what goes in.
//!
//! The neutral form *is* the GICv3 form (IHI 0069, "ICH_LR<n>_EL2"), because
//! GICv2's (IHI 0048, "GICH_LRn") has the same fields in fewer bits. One field
//! has a second use on GICv2 only: without a hardware interrupt behind it, the
//! low bits of the physical INTID name the vCPU that sent an SGI.

use core::fmt;

use platform::intid::IntId;

use super::sync::IS_MODEL;

/// The most list registers a CPU interface can have (ICH_VTR_EL2.ListRegs + 1
/// is at most 16; GICH_VTR allows more, but no GICv2 was built with more).
pub const MAX_LIST_REGS: usize = if IS_MODEL { 2 } else { 16 };

/// What a list register says about its interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing, or an interrupt that the guest has finished with.
    Inactive,
    /// Waiting for the guest to acknowledge it.
    Pending,
    /// Acknowledged, not yet deactivated.
    Active,
    /// Acknowledged, and has come again since.
    PendingActive,
}

/// The contents of one list register.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Lr(u64);

const STATE_SHIFT: u32 = 62;
const HARDWARE: u64 = 1 << 61;
const GROUP_ONE: u64 = 1 << 60;
const PRIORITY_SHIFT: u32 = 48;
const PHYSICAL_SHIFT: u32 = 32;
/// Bit 9 of the physical INTID while no hardware interrupt is linked.
const EOI_MAINTENANCE: u64 = 1 << 41;
const PHYSICAL_MASK: u64 = 0x3ff;
const VIRTUAL_MASK: u64 = 0x3ff;
const SOURCE_MASK: u64 = 7;

impl Lr {
    /// A free list register.
    pub const EMPTY: Self = Self(0);

    /// A pending software interrupt of group 0.
    pub const fn pending(intid: u32, priority: u8) -> Self {
        Self(
            (State::Pending as u64) << STATE_SHIFT
                | (priority as u64) << PRIORITY_SHIFT
                | intid as u64 & VIRTUAL_MASK,
        )
    }

    /// The same in group 1 if `one` is 1, in group 0 if it is 0.
    pub(super) const fn with_group_bit(self, one: u32) -> Self {
        Self(self.0 & !GROUP_ONE | (one as u64) << GROUP_ONE.trailing_zeros())
    }

    /// The same in group 1 (virtual IRQ on GICv3, FIQ-or-IRQ by choice on GICv2).
    pub const fn in_group_one(self) -> Self {
        self.with_group_bit(1)
    }

    /// The same in another state.
    pub const fn with_state(self, state: State) -> Self {
        Self(self.0 & !(3 << STATE_SHIFT) | (state as u64) << STATE_SHIFT)
    }

    /// The same, linked to a physical interrupt, which the guest's
    /// deactivation then deactivates.
    pub const fn linked_to(self, physical: IntId) -> Self {
        Self(self.0 | HARDWARE | (physical.raw() as u64 & PHYSICAL_MASK) << PHYSICAL_SHIFT)
    }

    /// The same, with a maintenance interrupt when the guest deactivates it.
    /// Only for interrupts that no hardware interrupt is linked to.
    pub const fn with_eoi_maintenance(self) -> Self {
        Self(self.0 | EOI_MAINTENANCE)
    }

    /// The same, as an SGI sent by vCPU `source` (GICv2 only).
    pub const fn from_source(self, source: usize) -> Self {
        Self(self.0 | (source as u64 & SOURCE_MASK) << PHYSICAL_SHIFT)
    }

    /// Where its interrupt stands.
    pub const fn state(self) -> State {
        match self.0 >> STATE_SHIFT {
            0 => State::Inactive,
            1 => State::Pending,
            2 => State::Active,
            _ => State::PendingActive,
        }
    }

    /// Whether the guest has it to acknowledge.
    pub const fn is_pending(self) -> bool {
        self.0 >> STATE_SHIFT & 1 != 0
    }

    /// Whether the guest has acknowledged and not deactivated it.
    pub const fn is_active(self) -> bool {
        self.0 >> STATE_SHIFT & 2 != 0
    }

    /// The INTID that the guest sees.
    pub const fn intid(self) -> u32 {
        (self.0 & VIRTUAL_MASK) as u32
    }

    /// The priority that the guest gave it; GICv2 keeps the upper five bits.
    pub const fn priority(self) -> u8 {
        (self.0 >> PRIORITY_SHIFT) as u8
    }

    /// Whether it is in group 1.
    pub const fn is_group_one(self) -> bool {
        self.0 & GROUP_ONE != 0
    }

    /// Whether a physical interrupt is linked to it.
    pub const fn is_linked(self) -> bool {
        self.0 & HARDWARE != 0
    }

    /// The physical interrupt linked to it, if one is.
    pub const fn physical(self) -> Option<IntId> {
        if self.is_linked() {
            IntId::try_new((self.0 >> PHYSICAL_SHIFT & PHYSICAL_MASK) as u32)
        } else {
            None
        }
    }

    /// Whether deactivating it raises a maintenance interrupt.
    pub const fn has_eoi_maintenance(self) -> bool {
        self.0 & (HARDWARE | EOI_MAINTENANCE) == EOI_MAINTENANCE
    }

    /// The vCPU that sent this SGI (GICv2, no hardware interrupt linked).
    pub const fn source(self) -> usize {
        (self.0 >> PHYSICAL_SHIFT & SOURCE_MASK) as usize
    }

    /// This register with the priority and group of `other`.
    pub(super) const fn with_rank_of(self, other: Self) -> Self {
        const RANK: u64 = 0xff << PRIORITY_SHIFT | GROUP_ONE;
        Self(self.0 & !RANK | other.0 & RANK)
    }

    /// From `ICH_LR<n>_EL2`.
    pub const fn from_ich(value: u64) -> Self {
        Self(value)
    }

    /// For `ICH_LR<n>_EL2`.
    pub const fn to_ich(self) -> u64 {
        self.0
    }

    /// From `GICH_LRn`: HW 31, group 30, state 29:28, priority 27:23,
    /// physical INTID 19:10, virtual INTID 9:0.
    pub const fn from_gich(value: u32) -> Self {
        let value = value as u64;
        Self(
            (value >> 28 & 3) << STATE_SHIFT
                | (value >> 31 & 1) << HARDWARE.trailing_zeros()
                | (value >> 30 & 1) << GROUP_ONE.trailing_zeros()
                | (value >> 23 & 0x1f) << (PRIORITY_SHIFT + 3)
                | (value >> 10 & PHYSICAL_MASK) << PHYSICAL_SHIFT
                | value & VIRTUAL_MASK,
        )
    }

    /// For `GICH_LRn`.
    pub const fn to_gich(self) -> u32 {
        let value = (self.0 >> STATE_SHIFT & 3) << 28
            | (self.0 >> HARDWARE.trailing_zeros() & 1) << 31
            | (self.0 >> GROUP_ONE.trailing_zeros() & 1) << 30
            | (self.0 >> (PRIORITY_SHIFT + 3) & 0x1f) << 23
            | (self.0 >> PHYSICAL_SHIFT & PHYSICAL_MASK) << 10
            | self.0 & VIRTUAL_MASK;
        value as u32
    }
}

impl fmt::Debug for Lr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lr({:?} {} prio {:#x}", self.state(), self.intid(), self.priority())?;
        match self.physical() {
            Some(physical) => write!(f, " = physical {})", physical.raw()),
            None if self.has_eoi_maintenance() => write!(f, " from {} eoi)", self.source()),
            None => write!(f, " from {})", self.source()),
        }
    }
}

/// Which maintenance interrupts the queue needs beside the per-register EOI
/// ones; the implementation turns them into bits of ICH_HCR_EL2 or GICH_HCR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintenance(u32);

impl Maintenance {
    /// None.
    pub const NONE: Self = Self(0);
    /// When no list register is pending any more (HCR.NPIE): interrupts are
    /// waiting in memory for their turn.
    pub const NO_PENDING: Self = Self(1 << 0);
    /// When the guest ends an interrupt that is in no list register
    /// (HCR.LRENPIE): an active one had to make room.
    pub const ENTRY_NOT_PRESENT: Self = Self(1 << 1);

    /// One bit per request, for keeping.
    pub(super) const fn bits(self) -> u32 {
        self.0
    }

    /// Back from [`Self::bits`].
    pub(super) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Both requests.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether everything in `other` is requested.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The list registers of the physical CPU that runs this code.
///
/// At most [`MAX_LIST_REGS`]; all are [`Lr::EMPTY`] when the first vCPU
/// arrives. Implementations check nothing: `index` is always below `count()`.
pub trait ListRegs {
    /// How many there are.
    fn count(&self) -> usize;

    /// Reads list register `index`.
    fn read(&self, index: usize) -> Lr;

    /// Writes list register `index`.
    fn write(&mut self, index: usize, lr: Lr);

    /// One bit per list register that may be overwritten: inactive, and no EOI
    /// maintenance outstanding (ICH_ELRSR_EL2, GICH_ELRSR).
    fn empty_mask(&self) -> u32;

    /// Turns maintenance interrupts on and off. Called on changes only.
    fn maintain(&mut self, wanted: Maintenance);

    /// Reads and clears the count of interrupts that the guest has ended
    /// without a list register for them (HCR.EOIcount).
    fn take_eoi_count(&mut self) -> u32;

    /// Deactivates a physical interrupt whose virtual twin is not active any
    /// more, where the guest's CPU interface has not done so.
    fn deactivate(&mut self, physical: IntId);

    /// Whether the line of a physical interrupt that EL2 has left active is
    /// still high.
    fn is_raised(&self, physical: IntId) -> bool;
}

#[cfg(test)]
mod tests {
    use super::{Lr, Maintenance, State};
    use platform::intid::IntId;

    /// Literal values put together by hand from the field tables of IHI 0069
    /// and IHI 0048.
    #[test]
    fn encodings_are_those_of_the_manuals() {
        let golden = [
            (Lr::EMPTY, 0, 0),
            // An SGI from vCPU 3, group 0, priority 0xa0.
            (Lr::pending(5, 0xa0).from_source(3), 0x40a0_0003_0000_0005, 0x1a00_0c05),
            // The virtual timer, group 1, linked to physical PPI 27.
            (
                Lr::pending(27, 0x80).in_group_one().linked_to(IntId::ppi(11)),
                0x7080_001b_0000_001b,
                0xd800_6c1b,
            ),
            // A level-triggered UART interrupt, active, EOI maintenance.
            (
                Lr::pending(33, 0xf8).in_group_one().with_eoi_maintenance().with_state(State::Active),
                0x90f8_0200_0000_0021,
                0x6f88_0021,
            ),
            // Pending and active, most urgent priority.
            (Lr::pending(127, 0).with_state(State::PendingActive), 0xc000_0000_0000_007f, 0x3000_007f),
        ];
        for (lr, ich, gich) in golden {
            assert_eq!((lr.to_ich(), lr.to_gich()), (ich, gich), "{lr:?}");
            assert_eq!((Lr::from_ich(ich), Lr::from_gich(gich)), (lr, lr), "{lr:?}");
        }
    }

    #[test]
    fn a_linked_register_has_no_eoi_flag_even_if_the_physical_number_has_bit_nine() {
        let lr = Lr::pending(40, 0).linked_to(IntId::spi(600));
        assert!(!lr.has_eoi_maintenance());
        assert_eq!(lr.physical(), Some(IntId::spi(600)));
    }

    #[test]
    fn rank_moves_priority_and_group_only() {
        let lr = Lr::pending(9, 0x10).from_source(2).with_eoi_maintenance();
        let moved = lr.with_rank_of(Lr::pending(1, 0x98).in_group_one());
        assert_eq!((moved.priority(), moved.is_group_one()), (0x98, true));
        assert_eq!((moved.intid(), moved.source(), moved.has_eoi_maintenance()), (9, 2, true));
    }

    #[test]
    fn maintenance_requests_add_up() {
        let both = Maintenance::NO_PENDING.union(Maintenance::ENTRY_NOT_PRESENT);
        assert!(both.contains(Maintenance::NO_PENDING) && both.contains(Maintenance::ENTRY_NOT_PRESENT));
        assert!(!Maintenance::NONE.contains(Maintenance::NO_PENDING));
    }
}
