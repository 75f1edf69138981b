//! Names of system registers: [`SysReg`] and the registers this hypervisor knows.

use crate::exit::SysRegAccess;

/// A system register or system instruction, named by Op0, Op1, CRn, CRm and Op2.
///
/// Held as in the syndrome of a trapped access (DDI 0487, "ISS encoding for an
/// exception from MSR, MRS, or System instruction"), so that comparing a trapped
/// access with a constant costs one mask.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SysReg(u32);

/// Where the syndrome keeps what names the register.
const NAME: u32 = 0x3f_fc1e;
const CRM: u32 = 0xf << 1;
const OP2: u32 = 7 << 17;

impl SysReg {
    /// From the five numbers that an assembler writes as `S<op0>_<op1>_C<crn>_C<crm>_<op2>`.
    pub const fn new(op0: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> Self {
        assert!(op0 < 4 && op1 < 8 && crn < 16 && crm < 16 && op2 < 8);
        Self(op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | crm << 1)
    }

    /// The register that a trapped instruction named.
    #[inline]
    pub const fn of(access: SysRegAccess) -> Self {
        Self(access.esr().bits() as u32 & NAME)
    }

    /// Op0, Op1, CRn, CRm and Op2.
    pub const fn numbers(self) -> [u32; 5] {
        [self.0 >> 20, self.0 >> 14 & 7, self.0 >> 10 & 0xf, self.crm(), self.op2()]
    }

    /// Equality, usable in constants.
    #[inline]
    pub const fn is(self, other: Self) -> bool {
        self.0 == other.0
    }

    /// CRm.
    #[inline]
    pub const fn crm(self) -> u32 {
        self.0 >> 1 & 0xf
    }

    /// Op2.
    #[inline]
    pub const fn op2(self) -> u32 {
        self.0 >> 17 & 7
    }

    /// This register with Op2 and CRm zero: what groups of registers have in common.
    #[inline]
    pub const fn group(self) -> Self {
        Self(self.0 & !(OP2 | CRM))
    }

    /// This register with CRm zero: what an array of registers has in common.
    #[inline]
    pub const fn array(self) -> Self {
        Self(self.0 & !CRM)
    }
}

impl core::fmt::Debug for SysReg {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [op0, op1, crn, crm, op2] = self.numbers();
        write!(f, "S{op0}_{op1}_C{crn}_C{crm}_{op2}")
    }
}

/// Gives registers their architectural names, and the names as text to the table of ID registers.
macro_rules! registers {
    ($($(#[$meta:meta])* $name:ident = ($op0:literal, $op1:literal, $crn:literal, $crm:literal, $op2:literal);)*) => {
        $(
            $(#[$meta])*
            #[doc = concat!("`", stringify!($name), "`.")]
            pub const $name: SysReg = SysReg::new($op0, $op1, $crn, $crm, $op2);
        )*

        impl SysReg {
            /// The architecture's name, where this file has it.
            pub const fn name(self) -> Option<&'static str> {
                $(if self.0 == $name.0 { return Some(stringify!($name)); })*
                None
            }
        }
    };
}

registers! {
    ID_PFR0_EL1 = (3, 0, 0, 1, 0);
    ID_ISAR0_EL1 = (3, 0, 0, 2, 0);
    ID_ISAR1_EL1 = (3, 0, 0, 2, 1);
    ID_ISAR2_EL1 = (3, 0, 0, 2, 2);
    ID_ISAR3_EL1 = (3, 0, 0, 2, 3);
    ID_ISAR4_EL1 = (3, 0, 0, 2, 4);
    ID_ISAR5_EL1 = (3, 0, 0, 2, 5);
    ID_ISAR6_EL1 = (3, 0, 0, 2, 7);
    MVFR0_EL1 = (3, 0, 0, 3, 0);
    MVFR1_EL1 = (3, 0, 0, 3, 1);
    MVFR2_EL1 = (3, 0, 0, 3, 2);
    ID_PFR2_EL1 = (3, 0, 0, 3, 4);
    ID_AA64PFR0_EL1 = (3, 0, 0, 4, 0);
    ID_AA64PFR1_EL1 = (3, 0, 0, 4, 1);
    ID_AA64DFR0_EL1 = (3, 0, 0, 5, 0);
    ID_AA64ISAR0_EL1 = (3, 0, 0, 6, 0);
    ID_AA64ISAR1_EL1 = (3, 0, 0, 6, 1);
    ID_AA64ISAR2_EL1 = (3, 0, 0, 6, 2);
    ID_AA64ISAR3_EL1 = (3, 0, 0, 6, 3);
    ID_AA64MMFR0_EL1 = (3, 0, 0, 7, 0);
    ID_AA64MMFR1_EL1 = (3, 0, 0, 7, 1);
    ID_AA64MMFR2_EL1 = (3, 0, 0, 7, 2);
    ID_AA64MMFR3_EL1 = (3, 0, 0, 7, 3);

    ACTLR_EL1 = (3, 0, 1, 0, 1);

    ICC_SGI1R_EL1 = (3, 0, 12, 11, 5);
    ICC_ASGI1R_EL1 = (3, 0, 12, 11, 6);
    ICC_SGI0R_EL1 = (3, 0, 12, 11, 7);
    ICC_SRE_EL1 = (3, 0, 12, 12, 5);

    CNTP_TVAL_EL0 = (3, 3, 14, 2, 0);
    CNTP_CTL_EL0 = (3, 3, 14, 2, 1);
    CNTP_CVAL_EL0 = (3, 3, 14, 2, 2);

    MDCCINT_EL1 = (2, 0, 0, 2, 0);
    MDSCR_EL1 = (2, 0, 0, 2, 2);
    OSDTRRX_EL1 = (2, 0, 0, 0, 2);
    OSDTRTX_EL1 = (2, 0, 0, 3, 2);
    OSECCR_EL1 = (2, 0, 0, 6, 2);
    /// First of the breakpoint value registers; the others differ in CRm.
    DBGBVR0_EL1 = (2, 0, 0, 0, 4);
    /// First of the breakpoint control registers; the others differ in CRm.
    DBGBCR0_EL1 = (2, 0, 0, 0, 5);
    /// First of the watchpoint value registers; the others differ in CRm.
    DBGWVR0_EL1 = (2, 0, 0, 0, 6);
    /// First of the watchpoint control registers; the others differ in CRm.
    DBGWCR0_EL1 = (2, 0, 0, 0, 7);
    MDRAR_EL1 = (2, 0, 1, 0, 0);
    OSLAR_EL1 = (2, 0, 1, 0, 4);
    OSLSR_EL1 = (2, 0, 1, 1, 4);
    OSDLR_EL1 = (2, 0, 1, 3, 4);
    DBGPRCR_EL1 = (2, 0, 1, 4, 4);
    DBGCLAIMSET_EL1 = (2, 0, 7, 8, 6);
    DBGCLAIMCLR_EL1 = (2, 0, 7, 9, 6);
    DBGAUTHSTATUS_EL1 = (2, 0, 7, 14, 6);
    MDCCSR_EL0 = (2, 3, 0, 1, 0);
    DBGDTR_EL0 = (2, 3, 0, 4, 0);
    /// DBGDTRRX_EL0 when read, DBGDTRTX_EL0 when written.
    DBGDTRRX_EL0 = (2, 3, 0, 5, 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{Esr, Syndrome, SysRegAccess};

    fn access(esr: u64) -> SysRegAccess {
        match Syndrome::decode(Esr::new(esr)) {
            Syndrome::SysReg(access) => access,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn name_ignores_register_and_direction() {
        // MSR ICC_SGI1R_EL1, X1 and, though nobody can, MRS X30, ICC_SGI1R_EL1.
        assert_eq!([0x623a_3036, 0x623a_33d7].map(|esr| SysReg::of(access(esr))), [ICC_SGI1R_EL1; 2]);
    }

    #[test]
    fn numbers_come_back() {
        assert_eq!(SysReg::new(2, 7, 15, 14, 5).numbers(), [2, 7, 15, 14, 5]);
    }

    #[test]
    fn printed_as_an_assembler_reads_it() {
        assert_eq!(format!("{ID_AA64MMFR0_EL1:?}"), "S3_0_C0_C7_0");
    }

    #[test]
    fn known_registers_have_their_names() {
        let names = [ID_AA64MMFR0_EL1, SysReg::new(3, 7, 15, 15, 7)].map(SysReg::name);
        assert_eq!(names, [Some("ID_AA64MMFR0_EL1"), None]);
    }

    #[test]
    fn names_mean_what_an_assembler_takes_them_for() {
        // As assembled by LLVM: MRS X0, name, or MSR name, X0 where a register is write-only.
        let assembled = [
            (ID_PFR0_EL1, 0xd538_0100),
            (ID_ISAR0_EL1, 0xd538_0200),
            (ID_ISAR1_EL1, 0xd538_0220),
            (ID_ISAR2_EL1, 0xd538_0240),
            (ID_ISAR3_EL1, 0xd538_0260),
            (ID_ISAR4_EL1, 0xd538_0280),
            (ID_ISAR5_EL1, 0xd538_02a0),
            (ID_ISAR6_EL1, 0xd538_02e0),
            (MVFR0_EL1, 0xd538_0300),
            (MVFR1_EL1, 0xd538_0320),
            (MVFR2_EL1, 0xd538_0340),
            (ID_PFR2_EL1, 0xd538_0380),
            (ID_AA64PFR0_EL1, 0xd538_0400),
            (ID_AA64PFR1_EL1, 0xd538_0420),
            (ID_AA64DFR0_EL1, 0xd538_0500),
            (ID_AA64ISAR0_EL1, 0xd538_0600),
            (ID_AA64ISAR1_EL1, 0xd538_0620),
            (ID_AA64ISAR2_EL1, 0xd538_0640),
            (ID_AA64ISAR3_EL1, 0xd538_0660),
            (ID_AA64MMFR0_EL1, 0xd538_0700),
            (ID_AA64MMFR1_EL1, 0xd538_0720),
            (ID_AA64MMFR2_EL1, 0xd538_0740),
            (ID_AA64MMFR3_EL1, 0xd538_0760),
            (ACTLR_EL1, 0xd538_1020),
            (ICC_SGI1R_EL1, 0xd518_cba0),
            (ICC_ASGI1R_EL1, 0xd518_cbc0),
            (ICC_SGI0R_EL1, 0xd518_cbe0),
            (ICC_SRE_EL1, 0xd538_cca0),
            (CNTP_TVAL_EL0, 0xd53b_e200),
            (CNTP_CTL_EL0, 0xd53b_e220),
            (CNTP_CVAL_EL0, 0xd53b_e240),
            (MDCCINT_EL1, 0xd530_0200),
            (MDSCR_EL1, 0xd530_0240),
            (OSDTRRX_EL1, 0xd530_0040),
            (OSDTRTX_EL1, 0xd530_0340),
            (OSECCR_EL1, 0xd530_0640),
            (DBGBVR0_EL1, 0xd530_0080),
            (DBGBCR0_EL1, 0xd530_00a0),
            (DBGWVR0_EL1, 0xd530_00c0),
            (DBGWCR0_EL1, 0xd530_00e0),
            (MDRAR_EL1, 0xd530_1000),
            (OSLAR_EL1, 0xd510_1080),
            (OSLSR_EL1, 0xd530_1180),
            (OSDLR_EL1, 0xd530_1380),
            (DBGPRCR_EL1, 0xd530_1480),
            (DBGCLAIMSET_EL1, 0xd530_78c0),
            (DBGCLAIMCLR_EL1, 0xd530_79c0),
            (DBGAUTHSTATUS_EL1, 0xd530_7ec0),
            (MDCCSR_EL0, 0xd533_0100),
            (DBGDTR_EL0, 0xd533_0400),
            (DBGDTRRX_EL0, 0xd533_0500),
        ];
        for (register, word) in assembled {
            let [op0, op1, crn, crm, op2] = register.numbers();
            let fields = op0 << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5;
            assert_eq!(fields, word & 0x1f_ffe0, "{register:?}");
        }
    }
}
