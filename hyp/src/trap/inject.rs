//! An exception into the guest: what the CPU does on entry to EL1, in software
//! (DDI 0487, pseudocode `AArch64.TakeException`).
//!
//! EL2 uses it when a guest did something that the machine it was promised
//! answers with an exception: an instruction or register that is absent, an
//! address where nothing lives. [`Exception`] says what happened,
//! [`Interrupted`] where the guest was; [`Exception::enter`] gives the
//! [`Entry`], the registers to write before going back. A virtual SError is not
//! made here: HCR_EL2.VSE has the CPU take it, masked and routed as it must be.
//!
//! Which PSTATE bits an entry may set depends on what the *hardware* has, not
//! on what the guest is shown: a CPU with FEAT_MTE sets TCO on every entry it
//! makes itself. [`PstateBits`] is that, found once per CPU model at boot.

use crate::exit::{DataAbort, Direction, InstructionAbort};

/// SPSR and PSTATE bits (DDI 0487, "SPSR_EL2", exception taken from AArch64 state).
mod pstate {
    /// N, Z, C and V. AArch32 has Q next to them, which is not kept.
    pub(super) const CONDITION_FLAGS: u64 = 0xf << 28;
    pub(super) const TCO: u64 = 1 << 25;
    pub(super) const DIT: u64 = 1 << 24;
    pub(super) const PAN: u64 = 1 << 22;
    pub(super) const ALLINT: u64 = 1 << 13;
    pub(super) const SSBS: u64 = 1 << 12;
    /// D, A, I and F.
    pub(super) const MASKS: u64 = 0xf << 6;
    pub(super) const AARCH32: u64 = 1 << 4;
    pub(super) const EL: u64 = 3 << 2;
    pub(super) const SP_ELX: u64 = 1 << 0;
    pub(super) const EL1H: u64 = 0b0101;
}

/// SCTLR_EL1 bits that decide about exception entry.
mod sctlr {
    pub(super) const SPAN: u64 = 1 << 23;
    pub(super) const DSSBS: u64 = 1 << 44;
    pub(super) const SPINTMASK: u64 = 1 << 62;
}

/// The PSTATE bits, beyond those of Armv8.0, that this hardware has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PstateBits(u64);

impl PstateBits {
    /// An Armv8.0 CPU: none of them.
    pub const NONE: Self = Self(0);

    /// From the CPU's own ID_AA64PFR0_EL1, ID_AA64PFR1_EL1 and ID_AA64MMFR1_EL1.
    pub const fn from_id_registers(pfr0: u64, pfr1: u64, mmfr1: u64) -> Self {
        const fn when(field: u64, bit: u64) -> u64 {
            if field & 0xf == 0 { 0 } else { bit }
        }
        Self(
            when(mmfr1 >> 20, pstate::PAN)
                | when(pfr0 >> 48, pstate::DIT)
                | when(pfr1 >> 4, pstate::SSBS)
                | when(pfr1 >> 8, pstate::TCO)
                | when(pfr1 >> 36, pstate::ALLINT),
        )
    }
}

/// Where the guest was, and the registers that steer its exception entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted {
    /// PSTATE in SPSR form: SPSR_EL2.
    pub pstate: u64,
    /// Preferred return address. ELR_EL2, except for HVC, where ELR_EL2 is already past it.
    pub pc: u64,
    /// VBAR_EL1.
    pub vbar_el1: u64,
    /// SCTLR_EL1.
    pub sctlr_el1: u64,
}

impl Interrupted {
    /// Whether the guest ran at EL1; else it was at EL0.
    const fn at_el1(self) -> bool {
        self.pstate & (pstate::AARCH32 | pstate::EL) == 1 << 2
    }

    /// Offset of the vector for a synchronous exception, by where it comes from.
    const fn vector_offset(self) -> u64 {
        if self.at_el1() {
            if self.pstate & pstate::SP_ELX == 0 { 0x000 } else { 0x200 }
        } else if self.pstate & pstate::AARCH32 == 0 {
            0x400
        } else {
            0x600
        }
    }

    /// PSTATE that the handler starts with.
    const fn handler_pstate(self, implemented: PstateBits) -> u64 {
        let kept = self.pstate & (pstate::CONDITION_FLAGS | pstate::DIT | pstate::PAN);
        let mut set = pstate::TCO;
        if self.sctlr_el1 & sctlr::SPAN == 0 {
            set |= pstate::PAN;
        }
        if self.sctlr_el1 & sctlr::DSSBS != 0 {
            set |= pstate::SSBS;
        }
        if self.sctlr_el1 & sctlr::SPINTMASK == 0 {
            set |= pstate::ALLINT;
        }
        // What is neither kept nor set falls to zero, as it must: IL, SS, UAO, BTYPE, IT, T, E.
        kept | set & implemented.0 | pstate::MASKS | pstate::EL1H
    }
}

/// Why an access failed, as the guest is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nothing answers at that address: synchronous external abort.
    External,
    /// Nothing answers where the guest keeps a stage-1 table.
    ExternalOnWalk {
        /// Stage-1 lookup level, 0 to 3.
        level: u8,
    },
    /// The address is beyond the guest's physical address size.
    AddressSize {
        /// Stage-1 lookup level, 0 to 3; 0 with the guest's MMU off.
        level: u8,
    },
    /// The access is not aligned as that memory demands.
    Alignment,
    /// Exclusive, atomic or 64-byte access to something that takes plain loads and stores only.
    UnsupportedAtomic,
}

impl Cause {
    /// DFSC or IFSC.
    const fn code(self) -> u64 {
        match self {
            Self::External => 0x10,
            Self::ExternalOnWalk { level } => 0x14 | (level & 3) as u64,
            Self::AddressSize { level } => (level & 3) as u64,
            Self::Alignment => 0x21,
            Self::UnsupportedAtomic => 0x35,
        }
    }
}

/// Something for the guest's EL1 to handle, synchronously.
///
/// Made by the constructors; `syndrome` is ESR_EL1 for an exception from EL0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    syndrome: u64,
    far: Option<u64>,
}

/// Class of ESR_EL1 and the IL bit, which all exceptions made here set:
/// DDI 0487 "ESR_EL1" wants it for unknown reasons, instruction aborts and
/// data aborts without instruction syndrome.
const fn class(ec: u64) -> u64 {
    ec << 26 | 1 << 25
}

const INSTRUCTION_ABORT_FROM_EL0: u64 = 0x20;
const DATA_ABORT_FROM_EL0: u64 = 0x24;

/// The lowest bit of an abort's class: set when it came from EL1 itself.
const FROM_SAME_LEVEL: u64 = 1 << 26;

impl Exception {
    /// The instruction does not exist on this machine (class 0, "unknown reason").
    pub const fn undefined() -> Self {
        Self { syndrome: class(0), far: None }
    }

    /// A load, store or cache maintenance at `far` failed because of `cause`.
    ///
    /// `far` is FAR_EL2 of the abort, `None` where that was not valid.
    pub const fn data_abort(abort: DataAbort, far: Option<u64>, cause: Cause) -> Self {
        let written = matches!(abort.direction(), Direction::Write) as u64;
        let maintenance = abort.is_cache_maintenance() as u64;
        let unknown_far = far.is_none() as u64;
        let iss = unknown_far << 10 | maintenance << 8 | written << 6 | cause.code();
        Self { syndrome: class(DATA_ABORT_FROM_EL0) | iss, far }
    }

    /// Fetching the instruction at `far` failed because of `cause`.
    ///
    /// `far` is FAR_EL2 of the abort, `None` where that was not valid.
    pub const fn instruction_abort(far: Option<u64>, cause: Cause) -> Self {
        let unknown_far = far.is_none() as u64;
        Self { syndrome: class(INSTRUCTION_ABORT_FROM_EL0) | unknown_far << 10 | cause.code(), far }
    }

    /// The registers with which the guest's handler starts.
    #[must_use = "the guest sees the exception only when these are written"]
    pub const fn enter(self, from: Interrupted, implemented: PstateBits) -> Entry {
        Entry {
            pc: (from.vbar_el1 & !0x7ff) + from.vector_offset(),
            pstate: from.handler_pstate(implemented),
            elr_el1: from.pc,
            spsr_el1: from.pstate,
            esr_el1: self.syndrome_from(from),
            far_el1: self.far,
        }
    }

    /// ESR_EL1: aborts have a class of their own when taken from EL1.
    const fn syndrome_from(self, from: Interrupted) -> u64 {
        match self.syndrome >> 26 {
            INSTRUCTION_ABORT_FROM_EL0 | DATA_ABORT_FROM_EL0 if from.at_el1() => {
                self.syndrome | FROM_SAME_LEVEL
            }
            _ => self.syndrome,
        }
    }
}

impl InstructionAbort {
    /// The abort that a guest gets for fetching where nothing is, `far` being FAR_EL2.
    pub const fn as_external(self, far: u64) -> Exception {
        Exception::instruction_abort(if self.far_is_valid() { Some(far) } else { None }, Cause::External)
    }
}

impl DataAbort {
    /// The abort that a guest gets for touching an address where nothing is, `far` being FAR_EL2.
    pub const fn as_external(self, far: u64) -> Exception {
        Exception::data_abort(self, if self.far_is_valid() { Some(far) } else { None }, Cause::External)
    }
}

/// What to write before the guest runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// ELR_EL2.
    pub pc: u64,
    /// SPSR_EL2.
    pub pstate: u64,
    /// ELR_EL1.
    pub elr_el1: u64,
    /// SPSR_EL1.
    pub spsr_el1: u64,
    /// ESR_EL1.
    pub esr_el1: u64,
    /// FAR_EL1, where this exception defines it; else leave it.
    pub far_el1: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::{Cause, Entry, Exception, Interrupted, PstateBits};
    use crate::exit::{DataAbort, Esr, Syndrome};

    /// EL1h, everything masked: how Linux runs in its own handlers.
    const EL1H: u64 = 0x3c5;
    const EL1T: u64 = 0x3c4;
    const EL0: u64 = 0x000;
    const EL0_AARCH32: u64 = 0x010;
    const EL0_AARCH32_THUMB: u64 = 0x030;

    const VBAR: u64 = 0xffff_8000_0801_0800;
    /// Linux's SCTLR_EL1 on an Armv8.0 CPU: SPAN set.
    const SCTLR: u64 = 0x0000_0000_34f4_d91d;
    /// PAN, SSBS, MTE and NMI.
    const ALL: PstateBits = PstateBits::from_id_registers(1 << 48, 1 << 36 | 2 << 8 | 2 << 4, 2 << 20);

    fn from(pstate: u64) -> Interrupted {
        Interrupted { pstate, pc: 0xffff_8000_0812_3458, vbar_el1: VBAR, sctlr_el1: SCTLR }
    }

    fn undefined(pstate: u64, sctlr_el1: u64, implemented: PstateBits) -> Entry {
        Exception::undefined().enter(Interrupted { sctlr_el1, ..from(pstate) }, implemented)
    }

    fn abort(esr: u64) -> DataAbort {
        match Syndrome::decode(Esr::new(esr)) {
            Syndrome::DataAbort(abort) => abort,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn undefined_at_el1_is_complete() {
        let entry = undefined(0x6000_0005, SCTLR, PstateBits::NONE);
        let expected = Entry {
            pc: 0xffff_8000_0801_0a00,
            pstate: 0x6000_03c5,
            elr_el1: 0xffff_8000_0812_3458,
            spsr_el1: 0x6000_0005,
            esr_el1: 0x0200_0000,
            far_el1: None,
        };
        assert_eq!(entry, expected);
    }

    #[test]
    fn vector_follows_the_source() {
        let offsets = [EL1T, EL1H, EL0, EL0_AARCH32, EL0_AARCH32_THUMB]
            .map(|pstate| undefined(pstate, SCTLR, PstateBits::NONE).pc - VBAR);
        assert_eq!(offsets, [0x000, 0x200, 0x400, 0x600, 0x600]);
    }

    #[test]
    fn vbar_is_taken_as_aligned() {
        let crooked = Interrupted { vbar_el1: VBAR | 0x7ff, ..from(EL0) };
        assert_eq!(Exception::undefined().enter(crooked, PstateBits::NONE).pc, VBAR + 0x400);
    }

    #[test]
    fn vector_of_a_table_at_the_top_stays_in_range() {
        let top = Interrupted { vbar_el1: u64::MAX, ..from(EL0_AARCH32_THUMB) };
        assert_eq!(Exception::undefined().enter(top, PstateBits::NONE).pc, 0xffff_ffff_ffff_fe00);
    }

    #[test]
    fn single_step_illegal_state_and_branch_type_are_dropped() {
        // SS, IL, UAO and BTYPE set at EL0.
        assert_eq!(undefined(0x00b0_0c00, SCTLR, ALL).pstate & 0x00b0_0c00, 0);
    }

    #[test]
    fn aarch32_state_leaves_only_flags() {
        // Q, IT, GE, E, T of AArch32 all set.
        assert_eq!(undefined(0xfe0f_fe30, SCTLR, PstateBits::NONE).pstate, 0xf000_03c5);
    }

    #[test]
    fn pan_is_set_unless_span_says_no() {
        let pan = |sctlr| undefined(EL0, sctlr, ALL).pstate & 1 << 22;
        assert_eq!([pan(SCTLR & !(1 << 23)), pan(SCTLR)], [1 << 22, 0]);
    }

    #[test]
    fn pan_that_was_set_stays() {
        assert_eq!(undefined(1 << 22 | EL1H, SCTLR, ALL).pstate & 1 << 22, 1 << 22);
    }

    #[test]
    fn pan_is_never_set_on_a_cpu_without_it() {
        assert_eq!(undefined(EL0, 0, PstateBits::NONE).pstate, 0x3c5);
    }

    #[test]
    fn ssbs_is_what_dssbs_says() {
        let ssbs = |pstate, sctlr| undefined(pstate, sctlr, ALL).pstate & 1 << 12;
        assert_eq!([ssbs(EL0, SCTLR | 1 << 44), ssbs(1 << 12, SCTLR)], [1 << 12, 0]);
    }

    #[test]
    fn tag_checks_are_off_on_entry() {
        assert_ne!(undefined(EL0, SCTLR, ALL).pstate & 1 << 25, 0);
    }

    #[test]
    fn allint_is_the_inverse_of_spintmask() {
        let allint = |sctlr| undefined(EL0, sctlr, ALL).pstate & 1 << 13;
        assert_eq!([allint(SCTLR), allint(SCTLR | 1 << 62)], [1 << 13, 0]);
    }

    #[test]
    fn data_independent_timing_is_kept() {
        assert_ne!(undefined(1 << 24, SCTLR, ALL).pstate & 1 << 24, 0);
    }

    #[test]
    fn external_read_abort_at_el1() {
        let entry = abort(0x9380_0007).as_external(0xffff_8000_1000_0004).enter(from(EL1H), PstateBits::NONE);
        assert_eq!((entry.esr_el1, entry.far_el1), (0x9600_0010, Some(0xffff_8000_1000_0004)));
    }

    #[test]
    fn external_write_abort_at_el0() {
        let entry = abort(0x9380_0047).as_external(0x1000).enter(from(EL0), PstateBits::NONE);
        assert_eq!(entry.esr_el1, 0x9200_0050);
    }

    #[test]
    fn abort_without_address_says_so() {
        let entry = abort(0x9200_0410).as_external(0x1000).enter(from(EL0), PstateBits::NONE);
        assert_eq!((entry.esr_el1, entry.far_el1), (0x9200_0410, None));
    }

    #[test]
    fn cache_maintenance_abort_stays_one() {
        let entry = abort(0x9200_0147).as_external(0x1000).enter(from(EL1H), PstateBits::NONE);
        assert_eq!(entry.esr_el1, 0x9600_0150);
    }

    #[test]
    fn instruction_abort_has_both_classes() {
        let esr = |pstate| {
            Exception::instruction_abort(Some(0x4000), Cause::External)
                .enter(from(pstate), PstateBits::NONE)
                .esr_el1
        };
        assert_eq!([esr(EL0), esr(EL1H)], [0x8200_0010, 0x8600_0010]);
    }

    #[test]
    fn causes_have_their_codes() {
        let code = |cause| Exception::instruction_abort(Some(0), cause).syndrome & 0x3f;
        let codes = [
            code(Cause::ExternalOnWalk { level: 2 }),
            code(Cause::AddressSize { level: 0 }),
            code(Cause::Alignment),
            code(Cause::UnsupportedAtomic),
        ];
        assert_eq!(codes, [0x16, 0x00, 0x21, 0x35]);
    }

    #[test]
    fn pstate_bits_come_from_their_fields() {
        let bits = [
            PstateBits::from_id_registers(1 << 48, 0, 0),
            PstateBits::from_id_registers(0, 1 << 4, 0),
            PstateBits::from_id_registers(0, 1 << 8, 0),
            PstateBits::from_id_registers(0, 1 << 36, 0),
            PstateBits::from_id_registers(0, 0, 1 << 20),
        ];
        let expected = [1 << 24, 1 << 12, 1 << 25, 1 << 13, 1 << 22].map(PstateBits);
        assert_eq!(bits, expected);
    }

    #[test]
    fn instruction_abort_without_address_says_so() {
        let Syndrome::InstructionAbort(abort) = Syndrome::decode(Esr::new(0x8200_0410)) else {
            panic!("class 0x20")
        };
        let entry = abort.as_external(0x1000).enter(from(EL0), PstateBits::NONE);
        assert_eq!((entry.esr_el1, entry.far_el1), (0x8200_0410, None));
    }

    proptest::proptest! {
        #[test]
        fn handler_runs_at_el1_masked_and_inside_its_table(
            pstate: u64, pc: u64, vbar_el1: u64, sctlr_el1: u64, pfr0: u64, pfr1: u64, mmfr1: u64,
        ) {
            let from = Interrupted { pstate, pc, vbar_el1, sctlr_el1 };
            let bits = PstateBits::from_id_registers(pfr0, pfr1, mmfr1);
            let entry = Exception::undefined().enter(from, bits);
            assert_eq!(entry.pstate & 0x3df, 0x3c5);
            assert_eq!((entry.pc - (vbar_el1 & !0x7ff)) & !0x600, 0);
            assert_eq!((entry.elr_el1, entry.spsr_el1), (pc, pstate));
        }
    }
}
