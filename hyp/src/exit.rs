//! Why a guest came back: ESR_EL2, decoded (DDI 0487, "ESR_EL2, Exception
//! Syndrome Register (EL2)").
//!
//! [`Esr`] is the register as the hardware wrote it. [`Syndrome::decode`] sorts
//! it by exception class; each class that says more than its name carries a
//! view ([`DataAbort`], [`SysRegAccess`], ...). A view is the same word again:
//! decoding is one switch, and a field costs one bit-field extract, paid only
//! by who asks for it. That matters because this runs on every exit.
//!
//! Nothing here judges: `trap` decides what an exit means for the guest.
//! [`abort`] holds the views of aborts, [`mmio`] the load or store that an
//! emulated device sees.
//!
//! What is not known is kept ([`Syndrome::Other`]), never guessed.

pub mod abort;
pub mod mmio;

pub use abort::{DataAbort, FaultStatus, InstructionAbort, fault_ipa};
pub use mmio::{Direction, MmioAccess};

/// The value of ESR_EL2 after an exception from a guest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Esr(u64);

impl Esr {
    /// From the register's value.
    pub const fn new(bits: u64) -> Self {
        Self(bits)
    }

    /// The register's value.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// EC: the exception class, six bits.
    #[inline]
    pub const fn class(self) -> u8 {
        self.field(26, 6) as u8
    }

    /// ISS: the 25 class-specific bits.
    #[inline]
    pub const fn iss(self) -> u32 {
        self.field(0, 25) as u32
    }

    /// ISS2: further class-specific bits, bits 55:32.
    pub const fn iss2(self) -> u32 {
        self.field(32, 24) as u32
    }

    /// IL: how long the trapped instruction is.
    #[inline]
    pub const fn instruction_bytes(self) -> u64 {
        2 + 2 * self.field(25, 1)
    }

    /// `width` bits from bit `low` up.
    #[inline]
    pub(crate) const fn field(self, low: u32, width: u32) -> u64 {
        (self.0 >> low) & ((1 << width) - 1)
    }

    /// Bit `bit`.
    #[inline]
    pub(crate) const fn has(self, bit: u32) -> bool {
        self.0 >> bit & 1 != 0
    }
}

impl core::fmt::Debug for Esr {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Esr({:#x}: class {:#x}, iss {:#x})", self.0, self.class(), self.iss())
    }
}

/// A synchronous exception from a guest, by class.
///
/// The variants are in the order of their class numbers, which each names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syndrome {
    /// 0x00: no more is known; an undefined instruction, for one.
    Unknown,
    /// 0x01: WFI, WFE, WFIT or WFET.
    WaitFor(WaitFor),
    /// 0x03 to 0x06, 0x08 and 0x0c: a coprocessor access by AArch32 code at EL0.
    Coprocessor(CoprocessorAccess),
    /// 0x07: Advanced SIMD or floating point while CPTR_EL2 (or CPACR_EL1 and TGE) forbids it.
    FpSimd,
    /// 0x09: a pointer authentication instruction or key while HCR_EL2.{API, APK} forbid it.
    PointerAuthentication,
    /// 0x0a: an instruction without a class of its own, such as LD64B.
    OtherInstruction,
    /// 0x0d: a branch to something that is no branch target (FEAT_BTI).
    BranchTarget,
    /// 0x0e: PSTATE.IL was set.
    IllegalState,
    /// 0x11, 0x12, 0x13: SVC, HVC or SMC in AArch32 state.
    Call32,
    /// 0x14: a 128-bit system register access or system instruction (FEAT_D128).
    SysRegPair,
    /// 0x15: SVC from AArch64 state, with its immediate.
    Svc(u16),
    /// 0x16: HVC, with its immediate. The return address is behind the instruction.
    Hvc(u16),
    /// 0x17: SMC trapped by HCR_EL2.TSC, with its immediate. The return address is the SMC itself.
    Smc(u16),
    /// 0x18: MSR, MRS or a system instruction.
    SysReg(SysRegAccess),
    /// 0x19: SVE while CPTR_EL2.TZ or ZEN forbids it.
    Sve,
    /// 0x1a: ERET, ERETAA or ERETAB trapped for nested virtualisation.
    ExceptionReturn,
    /// 0x1b: TSTART (FEAT_TME).
    TransactionStart,
    /// 0x1c: a pointer failed authentication (FEAT_FPAC).
    PointerAuthenticationFailure,
    /// 0x1d: SME while CPTR_EL2.TSM or SMEN forbids it.
    Sme,
    /// 0x1e: a granule protection check failed (FEAT_RME).
    GranuleProtection,
    /// 0x20: instruction abort from the guest.
    InstructionAbort(InstructionAbort),
    /// 0x22: misaligned PC.
    PcAlignment,
    /// 0x24: data abort from the guest.
    DataAbort(DataAbort),
    /// 0x26: misaligned SP.
    SpAlignment,
    /// 0x27: a memory copy or set instruction lost its footing (FEAT_MOPS).
    MemoryOperation,
    /// 0x28, 0x2c: trapped floating-point exception, AArch32 or AArch64.
    FloatingPoint,
    /// 0x2d: guarded control stack (FEAT_GCS).
    GuardedControlStack,
    /// 0x2f: SError interrupt.
    SError,
    /// 0x30, 0x32, 0x34, 0x38, 0x3a, 0x3c: breakpoint, software step, watchpoint, BKPT, vector
    /// catch, BRK; only while MDCR_EL2.TDE routes them here.
    Debug,
    /// 0x3d: PMU or profiling exception (FEAT_EBEP, FEAT_SPE_EXC, FEAT_TRBE_EXC).
    Profiling,
    /// A class that this code does not know, or one that only EL2 itself can raise.
    Other(Esr),
}

impl Syndrome {
    /// Sorts `esr` by its exception class.
    // Always inline: the caller's `match` and this one become a single jump table, and no variant
    // is ever built in memory.
    #[inline(always)]
    pub const fn decode(esr: Esr) -> Self {
        match esr.class() {
            0x00 => Self::Unknown,
            0x01 => Self::WaitFor(WaitFor(esr)),
            0x03..=0x06 | 0x08 | 0x0c => Self::Coprocessor(CoprocessorAccess(esr)),
            0x07 => Self::FpSimd,
            0x09 => Self::PointerAuthentication,
            0x0a => Self::OtherInstruction,
            0x0d => Self::BranchTarget,
            0x0e => Self::IllegalState,
            0x11..=0x13 => Self::Call32,
            0x14 => Self::SysRegPair,
            0x15 => Self::Svc(esr.field(0, 16) as u16),
            0x16 => Self::Hvc(esr.field(0, 16) as u16),
            0x17 => Self::Smc(esr.field(0, 16) as u16),
            0x18 => Self::SysReg(SysRegAccess(esr)),
            0x19 => Self::Sve,
            0x1a => Self::ExceptionReturn,
            0x1b => Self::TransactionStart,
            0x1c => Self::PointerAuthenticationFailure,
            0x1d => Self::Sme,
            0x1e => Self::GranuleProtection,
            0x20 => Self::InstructionAbort(InstructionAbort::new(esr)),
            0x22 => Self::PcAlignment,
            0x24 => Self::DataAbort(DataAbort::new(esr)),
            0x26 => Self::SpAlignment,
            0x27 => Self::MemoryOperation,
            0x28 | 0x2c => Self::FloatingPoint,
            0x2d => Self::GuardedControlStack,
            0x2f => Self::SError,
            0x30 | 0x32 | 0x34 | 0x38 | 0x3a | 0x3c => Self::Debug,
            0x3d => Self::Profiling,
            _ => Self::Other(esr),
        }
    }
}

/// A trapped WFI, WFE, WFIT or WFET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitFor(Esr);

/// What a [`WaitFor`] waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitKind {
    /// WFI: until an interrupt is pending.
    Interrupt,
    /// WFE: until an event.
    Event,
    /// WFIT: until an interrupt is pending or CNTVCT reaches the value in a register.
    InterruptWithTimeout,
    /// WFET: until an event or until CNTVCT reaches the value in a register.
    EventWithTimeout,
}

impl WaitFor {
    /// TI: which of the four instructions it was.
    #[inline]
    pub const fn kind(self) -> WaitKind {
        match self.0.field(0, 2) {
            0 => WaitKind::Interrupt,
            1 => WaitKind::Event,
            2 => WaitKind::InterruptWithTimeout,
            _ => WaitKind::EventWithTimeout,
        }
    }

    /// RN: the register (31 = XZR) with the timeout of a WFIT or WFET; `None` where the CPU does not say (RV = 0).
    pub const fn timeout_register(self) -> Option<u8> {
        if self.0.has(2) { Some(self.0.field(5, 5) as u8) } else { None }
    }
}

/// A trapped MSR, MRS or system instruction in AArch64 state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SysRegAccess(Esr);

impl SysRegAccess {
    /// The syndrome, for who compares fields in place.
    #[inline]
    pub const fn esr(self) -> Esr {
        self.0
    }

    /// Op0: 1 for system instructions, 2 for debug registers, 3 for others.
    #[inline]
    pub const fn op0(self) -> u8 {
        self.0.field(20, 2) as u8
    }

    /// Op1.
    #[inline]
    pub const fn op1(self) -> u8 {
        self.0.field(14, 3) as u8
    }

    /// CRn.
    #[inline]
    pub const fn crn(self) -> u8 {
        self.0.field(10, 4) as u8
    }

    /// CRm.
    #[inline]
    pub const fn crm(self) -> u8 {
        self.0.field(1, 4) as u8
    }

    /// Op2.
    #[inline]
    pub const fn op2(self) -> u8 {
        self.0.field(17, 3) as u8
    }

    /// Rt: the general-purpose register, `None` for XZR.
    #[inline]
    pub const fn register(self) -> Option<u8> {
        general_purpose(self.0.field(5, 5))
    }

    /// Whether the guest reads (MRS) or writes (MSR, or runs an instruction).
    #[inline]
    pub const fn direction(self) -> Direction {
        if self.0.has(0) { Direction::Read } else { Direction::Write }
    }
}

/// A trapped coprocessor instruction (MCR, MRC, MCRR, MRRC, LDC, STC, VMRS)
/// of AArch32 code at EL0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoprocessorAccess(Esr);

impl CoprocessorAccess {
    /// COND: the instruction's condition, `None` where the CPU leaves it to the IT state (CV = 0).
    pub const fn condition(self) -> Option<u8> {
        if self.0.has(24) { Some(self.0.field(20, 4) as u8) } else { None }
    }

    /// Whether the guest reads or writes.
    pub const fn direction(self) -> Direction {
        if self.0.has(0) { Direction::Read } else { Direction::Write }
    }
}

/// A five-bit register number as an index into X0..X30, `None` for XZR.
#[inline]
const fn general_purpose(number: u64) -> Option<u8> {
    if number == 31 { None } else { Some(number as u8) }
}

#[cfg(test)]
mod tests {
    use super::{Direction, Esr, Syndrome, SysRegAccess, WaitKind};

    fn decode(bits: u64) -> Syndrome {
        Syndrome::decode(Esr::new(bits))
    }

    fn sysreg(bits: u64) -> SysRegAccess {
        match decode(bits) {
            Syndrome::SysReg(access) => access,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn hvc_carries_its_immediate() {
        // HVC #0x4a48 in AArch64: EC 0x16, IL 1.
        assert_eq!(decode(0x5a00_4a48), Syndrome::Hvc(0x4a48));
    }

    #[test]
    fn smc_is_not_hvc() {
        assert_eq!(decode(0x5e00_0000), Syndrome::Smc(0));
    }

    #[test]
    fn call_immediate_ignores_bits_above_sixteen() {
        assert_eq!(decode(0x5bff_0001), Syndrome::Hvc(1));
    }

    #[test]
    fn id_register_read_names_its_five_fields() {
        // MRS X3, ID_AA64PFR0_EL1 (3, 0, 0, 4, 0).
        let access = sysreg(0x6230_0069);
        let fields = (access.op0(), access.op1(), access.crn(), access.crm(), access.op2());
        assert_eq!(fields, (3, 0, 0, 4, 0));
    }

    #[test]
    fn id_register_read_names_its_target() {
        assert_eq!(sysreg(0x6230_0069).register(), Some(3));
    }

    #[test]
    fn id_register_read_is_a_read() {
        assert_eq!(sysreg(0x6230_0069).direction(), Direction::Read);
    }

    #[test]
    fn write_of_sgi1r_decodes() {
        // MSR ICC_SGI1R_EL1, X1 (3, 0, 12, 11, 5).
        let access = sysreg(0x623a_3036);
        let fields = (access.op0(), access.op1(), access.crn(), access.crm(), access.op2());
        assert_eq!((fields, access.direction()), ((3, 0, 12, 11, 5), Direction::Write));
    }

    #[test]
    fn register_31_is_the_zero_register() {
        // MSR OSLAR_EL1, XZR (2, 0, 1, 0, 4).
        let access = sysreg(0x6228_07e0);
        assert_eq!((access.op0(), access.crn(), access.op2(), access.register()), (2, 1, 4, None));
    }

    #[test]
    fn fields_end_where_the_manual_ends_them() {
        let access = sysreg(0x63ff_ffdf);
        let fields = (access.op0(), access.op1(), access.crn(), access.crm(), access.op2());
        assert_eq!((fields, access.register()), ((3, 7, 15, 15, 7), Some(30)));
    }

    #[test]
    fn wait_instructions_are_told_apart() {
        let kinds = [0x07e0_0000, 0x07e0_0001, 0x07e0_0002, 0x07e0_0003].map(|bits| match decode(bits) {
            Syndrome::WaitFor(wait) => wait.kind(),
            other => panic!("{other:?}"),
        });
        use WaitKind::{Event, EventWithTimeout, Interrupt, InterruptWithTimeout};
        assert_eq!(kinds, [Interrupt, Event, InterruptWithTimeout, EventWithTimeout]);
    }

    #[test]
    fn timeout_register_needs_its_valid_bit() {
        let register = |bits| match decode(bits) {
            Syndrome::WaitFor(wait) => wait.timeout_register(),
            other => panic!("{other:?}"),
        };
        assert_eq!([register(0x07e0_00e6), register(0x07e0_00e2)], [Some(7), None]);
    }

    #[test]
    fn coprocessor_condition_needs_its_valid_bit() {
        let condition = |bits| match decode(bits) {
            Syndrome::Coprocessor(access) => access.condition(),
            other => panic!("{other:?}"),
        };
        assert_eq!([condition(0x0fe0_0001), condition(0x0c00_0001)], [Some(0xe), None]);
    }

    #[test]
    fn sixteen_bit_instruction_has_two_bytes() {
        assert_eq!([0x0600_0000, 0x0400_0000].map(|bits| Esr::new(bits).instruction_bytes()), [4, 2]);
    }

    #[test]
    fn feature_traps_have_their_own_names() {
        let seen = [0x1e00_0000, 0x2600_0000, 0x6600_0000, 0x7600_0000].map(decode);
        assert_eq!(seen, [Syndrome::FpSimd, Syndrome::PointerAuthentication, Syndrome::Sve, Syndrome::Sme]);
    }

    #[test]
    fn illegal_state_and_failed_authentication_are_known() {
        assert_eq!(
            [0x3a00_0000, 0x7200_0000].map(decode),
            [Syndrome::IllegalState, Syndrome::PointerAuthenticationFailure]
        );
    }

    #[test]
    fn brk_routed_to_el2_is_a_debug_exception() {
        assert_eq!(decode(0xf200_0004), Syndrome::Debug);
    }

    #[test]
    fn unknown_class_keeps_its_bits() {
        assert_eq!(decode(0xfe00_1234), Syndrome::Other(Esr::new(0xfe00_1234)));
    }

    #[test]
    fn abort_of_el2_itself_is_not_taken_for_a_guests() {
        assert_eq!(decode(0x9600_0004), Syndrome::Other(Esr::new(0x9600_0004)));
    }

    #[test]
    fn upper_half_does_not_disturb_the_class() {
        assert_eq!(decode(0x00ff_ffff_5a00_0000), Syndrome::Hvc(0));
    }

    #[test]
    fn every_class_has_its_name_and_no_other_has_one() {
        // DDI 0487, "ESR_EL2", field EC.
        let named = [
            (0x00, "Unknown"),
            (0x01, "WaitFor"),
            (0x03, "Coprocessor"),
            (0x04, "Coprocessor"),
            (0x05, "Coprocessor"),
            (0x06, "Coprocessor"),
            (0x07, "FpSimd"),
            (0x08, "Coprocessor"),
            (0x09, "PointerAuthentication"),
            (0x0a, "OtherInstruction"),
            (0x0c, "Coprocessor"),
            (0x0d, "BranchTarget"),
            (0x0e, "IllegalState"),
            (0x11, "Call32"),
            (0x12, "Call32"),
            (0x13, "Call32"),
            (0x14, "SysRegPair"),
            (0x15, "Svc"),
            (0x16, "Hvc"),
            (0x17, "Smc"),
            (0x18, "SysReg"),
            (0x19, "Sve"),
            (0x1a, "ExceptionReturn"),
            (0x1b, "TransactionStart"),
            (0x1c, "PointerAuthenticationFailure"),
            (0x1d, "Sme"),
            (0x1e, "GranuleProtection"),
            (0x20, "InstructionAbort"),
            (0x22, "PcAlignment"),
            (0x24, "DataAbort"),
            (0x26, "SpAlignment"),
            (0x27, "MemoryOperation"),
            (0x28, "FloatingPoint"),
            (0x2c, "FloatingPoint"),
            (0x2d, "GuardedControlStack"),
            (0x2f, "SError"),
            (0x30, "Debug"),
            (0x32, "Debug"),
            (0x34, "Debug"),
            (0x38, "Debug"),
            (0x3a, "Debug"),
            (0x3c, "Debug"),
            (0x3d, "Profiling"),
        ];
        for class in 0..64 {
            let shown = format!("{:?}", decode(class << 26));
            let name = shown.split('(').next();
            let expected = named.iter().find(|row| row.0 == class).map_or("Other", |row| row.1);
            assert_eq!(name, Some(expected), "class {class:#x}");
        }
    }

    #[test]
    fn svc_carries_its_immediate() {
        assert_eq!(decode(0x5600_8001), Syndrome::Svc(0x8001));
    }

    #[test]
    fn second_syndrome_is_above_the_first() {
        assert_eq!(Esr::new(0x0012_3456_ffff_ffff).iss2(), 0x12_3456);
    }

    proptest::proptest! {
        #[test]
        fn every_syndrome_decodes_to_its_class_or_keeps_its_bits(bits: u64) {
            let esr = Esr::new(bits);
            let class = esr.class();
            match Syndrome::decode(esr) {
                Syndrome::Other(kept) => assert_eq!(kept, esr),
                Syndrome::SysReg(access) => assert_eq!((class, access.esr()), (0x18, esr)),
                Syndrome::DataAbort(abort) => assert_eq!((class, abort.esr()), (0x24, esr)),
                Syndrome::Hvc(immediate) => assert_eq!((class, u64::from(immediate)), (0x16, bits & 0xffff)),
                Syndrome::Smc(immediate) => assert_eq!((class, u64::from(immediate)), (0x17, bits & 0xffff)),
                _ => assert!(![0x16, 0x17, 0x18, 0x24].contains(&class)),
            }
        }
    }
}
