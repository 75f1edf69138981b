//! TLB invalidation, composed from single instructions.
//!
//! [`Sequences`] implements [`Maintenance`](crate::Maintenance) on top of
//! [`Instructions`], which is no more than what the name says: the CPU's
//! barriers and TLBI operations, one at a time, and the two registers that say
//! whose translations they are about. On hardware an implementation is a
//! `match` of one-line assembly. In the tests it is the model MMU, which thus
//! runs the very sequences that hardware runs.
//!
//! # The sequence
//!
//! ```text
//!  1  DSB ISHST             the descriptor stores are visible to all walkers
//!     (DSB ISH; write VTCR_EL2, VTTBR_EL2; ISB, if another space is current)
//!  2  TLBI [R]IPAS2[L]E1IS  one or more: stage 2 entries, walk caches
//!  3  DSB ISH               ... are gone on every CPU
//!  4  TLBI VMALLE1IS        entries that combine both stages
//!  5  DSB ISH               ... are gone, and nobody is still using one
//!  6  ISB
//!     (write VTCR_EL2, VTTBR_EL2; ISB, to go back)
//! ```
//!
//! (Arm ARM, "TLB maintenance requirements" and "Using break-before-make when
//! updating translation table entries".) Why each step is there:
//!
//! * **1.** A walker that could still see the old descriptor after the TLBI
//!   would cache it again. When the registers have to change, the barrier is
//!   the full one: it also ends walks that this CPU started for the space that
//!   is current, which must not go on under mixed registers.
//! * **The registers.** A TLBI by address acts on the *current* VMID. The ISB
//!   makes the written one current before the TLBI.
//! * **3 before 4.** An operation by IPA need not find an entry that caches
//!   both stages at once, so all of those go, whatever their address. Only in
//!   this order: a combined entry can be filled from a stage 2 entry, so as
//!   long as one of these may be left, the combined one may come back.
//! * **5.** A DSB waits for the TLBIs *of its own CPU*, and for all accesses
//!   everywhere that used what they removed. So the whole sequence runs on one
//!   CPU, without a pause in which it might move.
//!
//! To forget a whole VMID, TLBI VMALLS12E1IS takes the place of 2 to 4. A local
//! sequence has the operations without IS, and barriers for this CPU alone.
//!
//! # How much at once
//!
//! All operations of a call share one run of the sequence. Whether they are
//! single ones, range operations (FEAT_TLBIRANGE) or the whole VMID is decided
//! by cost, see [`Costs`]. [`cover`] takes a range apart into operations;
//! [`operand`] spells their operands.

pub mod cover;
pub mod operand;
mod sequences;
#[cfg(test)]
mod tests;

pub use sequences::{Completion, Costs, Platform, Sequences, Support};

use operand::{IpaOperand, RangeOperand};

/// Which CPUs an operation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The one that executes it.
    Local,
    /// All in the inner shareable domain: every CPU that runs guests.
    InnerShareable,
}

/// Which cached descriptors an operation by address is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reach {
    /// Leaves: the forms with an L, such as IPAS2LE1IS.
    LastLevel,
    /// Leaves, and the tables on the way to them.
    AllLevels,
}

/// A TLBI operation, always for the current VMID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tlbi {
    /// IPAS2E1, IPAS2LE1 and their IS forms: stage 2 of one address.
    Ipas2e1(Scope, Reach, IpaOperand),
    /// RIPAS2E1, RIPAS2LE1 and their IS forms: stage 2 of a range.
    Ripas2e1(Scope, Reach, RangeOperand),
    /// VMALLE1, VMALLE1IS: all of stage 1, alone or combined with stage 2.
    Vmalle1(Scope),
    /// VMALLS12E1, VMALLS12E1IS: everything.
    Vmalls12e1(Scope),
    /// An operation that is broadcast and removes nothing anybody misses, such
    /// as VALE2IS of address zero: the second half of an erratum's workaround,
    /// see [`Completion::Repeated`].
    Repeat,
}

/// One instruction of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Instruction {
    /// DSB ISHST: all earlier stores are visible to all CPUs and walkers.
    DsbIshst,
    /// DSB ISH: and all earlier TLBIs of this CPU are complete.
    DsbIsh,
    /// DSB NSH: the same as far as this CPU is concerned.
    DsbNsh,
    /// ISB: earlier register writes are in effect.
    Isb,
    /// TLBI.
    Tlbi(Tlbi),
}

/// The registers that say which space is current on a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stage2Registers {
    /// VTTBR_EL2: the root and the VMID.
    pub vttbr: u64,
    /// VTCR_EL2: the shape of the walk.
    pub vtcr: u64,
}

/// The CPU that executes this, one instruction at a time.
///
/// The operations must act on the EL1&0 translation regime under stage 2,
/// which they do at EL2 unless HCR_EL2.TGE is set together with E2H.
pub trait Instructions {
    /// Executes one instruction.
    fn execute(&self, instruction: Instruction);

    /// Reads VTTBR_EL2 and VTCR_EL2.
    fn registers(&self) -> Stage2Registers;

    /// Writes VTCR_EL2 and VTTBR_EL2, with no barrier before or after.
    fn set_registers(&self, registers: Stage2Registers);
}

impl<T: Instructions> Instructions for &T {
    fn execute(&self, instruction: Instruction) {
        (**self).execute(instruction);
    }

    fn registers(&self) -> Stage2Registers {
        (**self).registers()
    }

    fn set_registers(&self, registers: Stage2Registers) {
        (**self).set_registers(registers);
    }
}
