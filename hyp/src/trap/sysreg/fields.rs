//! The guest's CPU, field by field: what of each ID register a guest may see.
//!
//! [`FIELDS`] is the decision and its documentation at once; `docs/guest-cpu.md`
//! is printed from it. It is an allow-list: **a field that is not listed reads as
//! zero**, so that a feature of a CPU newer than this code stays hidden until
//! somebody has thought about it. What is hidden although well known is listed
//! all the same, for its reason.
//!
//! The rule behind all rows: a guest may use what EL2 can keep apart. A feature
//! with registers or memory of its own that EL2 neither switches nor emulates is
//! absent, and [`controls`](crate::trap::controls) traps it.

use super::register::{self as id, SysReg};

/// What a guest sees of one field, given what every CPU of the machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The least that any CPU has.
    Keep,
    /// The least that any CPU has; the field is signed, all ones meaning "absent".
    KeepSigned,
    /// The least that any CPU has, and at most this.
    Cap(u8),
    /// As `Cap`, for a signed field.
    CapSigned(u8),
    /// Every four-bit field in the range on its own: the least that any CPU has.
    KeepEach,
    /// This, whatever the CPUs have.
    Fixed(u8),
    /// Zero: not there.
    Absent,
    /// The size of the guest's physical address space, as far as the CPUs have it.
    PhysicalRange,
    /// One on a machine whose guests get a GICv3, else zero.
    GicSystemRegisters,
}

/// One row: a field of an ID register and what becomes of it.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The register.
    pub register: SysReg,
    /// The architecture's name of the field.
    pub name: &'static str,
    /// Its lowest bit.
    pub shift: u8,
    /// Its size in bits.
    pub width: u8,
    /// What the guest sees.
    pub policy: Policy,
    /// Why.
    pub reason: &'static str,
}

/// A four-bit field.
const fn field(
    register: SysReg,
    name: &'static str,
    shift: u8,
    policy: Policy,
    reason: &'static str,
) -> Field {
    Field { register, name, shift, width: 4, policy, reason }
}

/// All 32 bits of a register made of four-bit fields.
const fn whole(register: SysReg, reason: &'static str) -> Field {
    Field { register, name: "all fields", shift: 0, width: 32, policy: Policy::KeepEach, reason }
}

const INSTRUCTIONS: &str = "instructions only";
const STAGE_1: &str = "concerns the guest's own stage 1 only";
const EL2_FEATURE: &str = "belongs to EL2; no nested virtualisation";
const UNSWITCHED: &str = "its registers are not switched between vCPUs";
const NEEDS_HCRX: &str = "needs EL1 controls that are not switched";
const ARM32: &str = "what AArch32 code at EL0 can use";

use Policy::{Absent, Cap, CapSigned, Fixed, GicSystemRegisters, Keep, KeepSigned, PhysicalRange};

/// The whole decision.
pub const FIELDS: &[Field] = &[
    // AArch32 as seen from AArch64: only what matters to a program at EL0.
    field(id::ID_PFR0_EL1, "State0", 0, Keep, ARM32),
    field(id::ID_PFR0_EL1, "State1", 4, Keep, ARM32),
    field(id::ID_PFR0_EL1, "State2", 8, Keep, ARM32),
    field(id::ID_PFR0_EL1, "State3", 12, Keep, ARM32),
    field(id::ID_PFR0_EL1, "DIT", 24, Keep, ARM32),
    whole(id::ID_ISAR0_EL1, ARM32),
    whole(id::ID_ISAR1_EL1, ARM32),
    whole(id::ID_ISAR2_EL1, ARM32),
    whole(id::ID_ISAR3_EL1, ARM32),
    whole(id::ID_ISAR4_EL1, ARM32),
    whole(id::ID_ISAR5_EL1, ARM32),
    whole(id::ID_ISAR6_EL1, ARM32),
    whole(id::MVFR0_EL1, ARM32),
    whole(id::MVFR1_EL1, ARM32),
    whole(id::MVFR2_EL1, ARM32),
    field(id::ID_PFR2_EL1, "CSV3", 0, Cap(1), "a promise about speculation that every CPU gives"),
    field(id::ID_PFR2_EL1, "SSBS", 4, Keep, ARM32),
    // Processor features.
    field(id::ID_AA64PFR0_EL1, "EL0", 0, Cap(2), "AArch32 programs run where the CPUs run them"),
    field(id::ID_AA64PFR0_EL1, "EL1", 4, Fixed(1), "HCR_EL2.RW: kernels are AArch64"),
    field(id::ID_AA64PFR0_EL1, "EL2", 8, Absent, EL2_FEATURE),
    field(id::ID_AA64PFR0_EL1, "EL3", 12, Absent, "the guest's firmware is EL2; PSCI over HVC"),
    field(id::ID_AA64PFR0_EL1, "FP", 16, KeepSigned, "switched with the vCPU"),
    field(id::ID_AA64PFR0_EL1, "AdvSIMD", 20, KeepSigned, "switched with the vCPU"),
    field(id::ID_AA64PFR0_EL1, "GIC", 24, GicSystemRegisters, "the vGIC has the version of the host's GIC"),
    field(id::ID_AA64PFR0_EL1, "RAS", 28, Absent, "error records describe the host's hardware"),
    field(id::ID_AA64PFR0_EL1, "SVE", 32, Absent, UNSWITCHED),
    field(id::ID_AA64PFR0_EL1, "SEL2", 36, Absent, "guests are Non-secure"),
    field(id::ID_AA64PFR0_EL1, "MPAM", 40, Absent, "would let a guest choose its share of the caches"),
    field(id::ID_AA64PFR0_EL1, "AMU", 44, Absent, "counts what other guests do"),
    field(id::ID_AA64PFR0_EL1, "DIT", 48, Keep, "one PSTATE bit"),
    field(id::ID_AA64PFR0_EL1, "RME", 52, Absent, "guests are Non-secure"),
    field(id::ID_AA64PFR0_EL1, "CSV2", 56, Cap(1), "2 and up bring SCXTNUM_ELx, which is not switched"),
    field(id::ID_AA64PFR0_EL1, "CSV3", 60, Cap(1), "a promise about speculation that every CPU gives"),
    field(id::ID_AA64PFR1_EL1, "BT", 0, Keep, STAGE_1),
    field(id::ID_AA64PFR1_EL1, "SSBS", 4, Cap(2), "one PSTATE bit"),
    field(id::ID_AA64PFR1_EL1, "MTE", 8, Absent, "tags are not kept with the page, registers not switched"),
    field(id::ID_AA64PFR1_EL1, "RAS_frac", 12, Absent, "no RAS"),
    field(id::ID_AA64PFR1_EL1, "MPAM_frac", 16, Absent, "no MPAM"),
    field(id::ID_AA64PFR1_EL1, "SME", 24, Absent, UNSWITCHED),
    field(id::ID_AA64PFR1_EL1, "CSV2_frac", 32, Cap(1), "2 brings SCXTNUM_ELx, which is not switched"),
    field(id::ID_AA64PFR1_EL1, "NMI", 36, Absent, "the vGIC gives no non-maskable interrupts"),
    field(id::ID_AA64PFR1_EL1, "GCS", 44, Absent, UNSWITCHED),
    field(id::ID_AA64PFR1_EL1, "THE", 48, Absent, UNSWITCHED),
    field(id::ID_AA64PFR1_EL1, "DF2", 56, Absent, NEEDS_HCRX),
    // Debug features: see `sysreg::debug`.
    field(id::ID_AA64DFR0_EL1, "DebugVer", 0, Fixed(6), "Armv8 debug: the architecture knows no less"),
    field(id::ID_AA64DFR0_EL1, "TraceVer", 4, Absent, UNSWITCHED),
    field(id::ID_AA64DFR0_EL1, "PMUVer", 8, Absent, UNSWITCHED),
    field(
        id::ID_AA64DFR0_EL1,
        "BRPs",
        12,
        Fixed(1),
        "two breakpoints: the least allowed, and all that is switched",
    ),
    field(
        id::ID_AA64DFR0_EL1,
        "WRPs",
        20,
        Fixed(1),
        "two watchpoints: the least allowed, and all that is switched",
    ),
    field(id::ID_AA64DFR0_EL1, "CTX_CMPs", 28, Fixed(0), "one context-aware breakpoint: the least allowed"),
    field(
        id::ID_AA64DFR0_EL1,
        "PMSVer",
        32,
        Absent,
        "SPE writes through addresses that EL2 would have to pin",
    ),
    field(id::ID_AA64DFR0_EL1, "DoubleLock", 36, Fixed(15), "no OS Double Lock: OSDLR_EL1 is RAZ/WI"),
    field(id::ID_AA64DFR0_EL1, "TraceFilt", 40, Absent, "no trace"),
    field(id::ID_AA64DFR0_EL1, "TraceBuffer", 44, Absent, "no trace"),
    field(id::ID_AA64DFR0_EL1, "BRBE", 52, Absent, UNSWITCHED),
    // Instructions.
    field(id::ID_AA64ISAR0_EL1, "AES", 4, Keep, INSTRUCTIONS),
    field(id::ID_AA64ISAR0_EL1, "SHA1", 8, Keep, INSTRUCTIONS),
    field(id::ID_AA64ISAR0_EL1, "SHA2", 12, Keep, INSTRUCTIONS),
    field(id::ID_AA64ISAR0_EL1, "CRC32", 16, Keep, INSTRUCTIONS),
    field(id::ID_AA64ISAR0_EL1, "Atomic", 20, Keep, INSTRUCTIONS),
    field(id::ID_AA64ISAR0_EL1, "TME", 24, Absent, "withdrawn, and its aborts would meet EL2"),
    field(id::ID_AA64ISAR0_EL1, "RDM", 28, Keep, INSTRUCTIONS),
    field(id::ID_AA64ISAR0_EL1, "SHA3", 32, Keep, INSTRUCTIONS),
    field(id::ID_AA64ISAR0_EL1, "SM3", 36, Keep, INSTRUCTIONS),
    field(id::ID_AA64ISAR0_EL1, "SM4", 40, Keep, INSTRUCTIONS),
    field(id::ID_AA64ISAR0_EL1, "DP", 44, Keep, INSTRUCTIONS),
    field(id::ID_AA64ISAR0_EL1, "FHM", 48, Keep, INSTRUCTIONS),
    field(id::ID_AA64ISAR0_EL1, "TS", 52, Keep, INSTRUCTIONS),
    field(
        id::ID_AA64ISAR0_EL1,
        "TLB",
        56,
        Keep,
        "range and outer-shareable invalidation act on the guest's VMID",
    ),
    field(id::ID_AA64ISAR0_EL1, "RNDR", 60, Keep, "random numbers have no owner"),
    field(id::ID_AA64ISAR1_EL1, "DPB", 0, Keep, INSTRUCTIONS),
    field(id::ID_AA64ISAR1_EL1, "APA", 4, Keep, "pointer authentication; keys switched with the vCPU"),
    field(id::ID_AA64ISAR1_EL1, "API", 8, Keep, "pointer authentication; keys switched with the vCPU"),
    field(id::ID_AA64ISAR1_EL1, "JSCVT", 12, Keep, INSTRUCTIONS),
    field(id::ID_AA64ISAR1_EL1, "FCMA", 16, Keep, INSTRUCTIONS),
    field(id::ID_AA64ISAR1_EL1, "LRCPC", 20, Keep, INSTRUCTIONS),
    field(id::ID_AA64ISAR1_EL1, "GPA", 24, Keep, "pointer authentication; keys switched with the vCPU"),
    field(id::ID_AA64ISAR1_EL1, "GPI", 28, Keep, "pointer authentication; keys switched with the vCPU"),
    field(id::ID_AA64ISAR1_EL1, "FRINTTS", 32, Keep, INSTRUCTIONS),
    field(id::ID_AA64ISAR1_EL1, "SB", 36, Keep, INSTRUCTIONS),
    field(id::ID_AA64ISAR1_EL1, "SPECRES", 40, Keep, "prediction restriction acts on the guest's VMID"),
    field(id::ID_AA64ISAR1_EL1, "BF16", 44, Keep, INSTRUCTIONS),
    field(id::ID_AA64ISAR1_EL1, "DGH", 48, Keep, INSTRUCTIONS),
    field(id::ID_AA64ISAR1_EL1, "I8MM", 52, Keep, INSTRUCTIONS),
    field(id::ID_AA64ISAR1_EL1, "XS", 56, Keep, STAGE_1),
    field(id::ID_AA64ISAR1_EL1, "LS64", 60, Absent, "no device of a guest takes 64-byte accesses"),
    field(id::ID_AA64ISAR2_EL1, "WFxT", 0, Absent, "a trapped wait carries no timeout to the scheduler"),
    field(id::ID_AA64ISAR2_EL1, "RPRES", 4, Keep, INSTRUCTIONS),
    field(id::ID_AA64ISAR2_EL1, "GPA3", 8, Keep, "pointer authentication; keys switched with the vCPU"),
    field(id::ID_AA64ISAR2_EL1, "APA3", 12, Keep, "pointer authentication; keys switched with the vCPU"),
    field(id::ID_AA64ISAR2_EL1, "MOPS", 16, Keep, "instructions only, enabled by HCRX_EL2.MSCEn"),
    field(id::ID_AA64ISAR2_EL1, "BC", 20, Keep, INSTRUCTIONS),
    field(id::ID_AA64ISAR2_EL1, "PAC_frac", 24, Keep, INSTRUCTIONS),
    field(id::ID_AA64ISAR2_EL1, "CLRBHB", 28, Keep, INSTRUCTIONS),
    field(id::ID_AA64ISAR2_EL1, "SYSREG_128", 32, Absent, NEEDS_HCRX),
    field(id::ID_AA64ISAR2_EL1, "SYSINSTR_128", 36, Absent, NEEDS_HCRX),
    field(id::ID_AA64ISAR2_EL1, "RPRFM", 48, Keep, INSTRUCTIONS),
    field(id::ID_AA64ISAR2_EL1, "CSSC", 52, Keep, INSTRUCTIONS),
    field(id::ID_AA64ISAR2_EL1, "LUT", 56, Keep, INSTRUCTIONS),
    field(id::ID_AA64ISAR3_EL1, "FAMINMAX", 4, Keep, INSTRUCTIONS),
    field(id::ID_AA64ISAR3_EL1, "LSFE", 16, Keep, INSTRUCTIONS),
    // Memory.
    field(id::ID_AA64MMFR0_EL1, "PARange", 0, PhysicalRange, "stage 2 translates no more"),
    field(id::ID_AA64MMFR0_EL1, "ASIDBits", 4, Keep, STAGE_1),
    field(id::ID_AA64MMFR0_EL1, "BigEnd", 8, Keep, STAGE_1),
    field(id::ID_AA64MMFR0_EL1, "SNSMem", 12, Absent, "guests are Non-secure"),
    field(id::ID_AA64MMFR0_EL1, "BigEndEL0", 16, Keep, STAGE_1),
    field(id::ID_AA64MMFR0_EL1, "TGran16", 20, Cap(1), "2 is for 52-bit addresses"),
    field(id::ID_AA64MMFR0_EL1, "TGran64", 24, KeepSigned, STAGE_1),
    field(id::ID_AA64MMFR0_EL1, "TGran4", 28, CapSigned(0), "1 is for 52-bit addresses"),
    field(id::ID_AA64MMFR0_EL1, "ExS", 44, Keep, "two bits of SCTLR_EL1"),
    field(id::ID_AA64MMFR0_EL1, "FGT", 56, Absent, EL2_FEATURE),
    field(id::ID_AA64MMFR0_EL1, "ECV", 60, Absent, "the counters' views are EL2's to choose"),
    field(id::ID_AA64MMFR1_EL1, "HAFDBS", 0, Cap(2), STAGE_1),
    field(id::ID_AA64MMFR1_EL1, "VMIDBits", 4, Absent, EL2_FEATURE),
    field(id::ID_AA64MMFR1_EL1, "VH", 8, Absent, EL2_FEATURE),
    field(id::ID_AA64MMFR1_EL1, "HPDS", 12, Cap(2), STAGE_1),
    field(id::ID_AA64MMFR1_EL1, "LO", 16, Absent, "ordering regions are physical addresses"),
    field(id::ID_AA64MMFR1_EL1, "PAN", 20, Cap(3), "one PSTATE bit"),
    field(id::ID_AA64MMFR1_EL1, "SpecSEI", 24, Absent, "no RAS"),
    field(id::ID_AA64MMFR1_EL1, "XNX", 28, Absent, EL2_FEATURE),
    field(id::ID_AA64MMFR1_EL1, "TWED", 32, Absent, EL2_FEATURE),
    field(id::ID_AA64MMFR1_EL1, "ETS", 36, Keep, STAGE_1),
    field(id::ID_AA64MMFR1_EL1, "HCX", 40, Absent, EL2_FEATURE),
    field(id::ID_AA64MMFR1_EL1, "AFP", 44, Keep, "three bits of FPCR"),
    field(id::ID_AA64MMFR1_EL1, "nTLBPA", 48, Keep, STAGE_1),
    field(id::ID_AA64MMFR1_EL1, "TIDCP1", 52, Keep, "one bit of SCTLR_EL1"),
    field(id::ID_AA64MMFR1_EL1, "CMOW", 56, Keep, "one bit of SCTLR_EL1"),
    field(id::ID_AA64MMFR1_EL1, "ECBHB", 60, Keep, "a promise about speculation that every CPU gives"),
    field(id::ID_AA64MMFR2_EL1, "CnP", 0, Keep, STAGE_1),
    field(id::ID_AA64MMFR2_EL1, "UAO", 4, Keep, "one PSTATE bit"),
    field(id::ID_AA64MMFR2_EL1, "LSM", 8, Keep, "two bits of SCTLR_EL1"),
    field(id::ID_AA64MMFR2_EL1, "IESB", 12, Absent, "no RAS"),
    field(id::ID_AA64MMFR2_EL1, "VARange", 16, Cap(1), "2 is for 128-bit descriptors"),
    field(id::ID_AA64MMFR2_EL1, "CCIDX", 20, Keep, "CCSIDR_EL1 is the host's"),
    field(id::ID_AA64MMFR2_EL1, "NV", 24, Absent, EL2_FEATURE),
    field(id::ID_AA64MMFR2_EL1, "ST", 28, Keep, STAGE_1),
    field(id::ID_AA64MMFR2_EL1, "AT", 32, Keep, INSTRUCTIONS),
    field(id::ID_AA64MMFR2_EL1, "IDS", 36, Keep, "how EL0 sees a trapped ID register, at EL1"),
    field(id::ID_AA64MMFR2_EL1, "FWB", 40, Absent, EL2_FEATURE),
    field(id::ID_AA64MMFR2_EL1, "TTL", 48, Keep, STAGE_1),
    field(id::ID_AA64MMFR2_EL1, "BBM", 52, Absent, "a TLB conflict abort would be taken to EL2"),
    field(id::ID_AA64MMFR2_EL1, "EVT", 56, Absent, EL2_FEATURE),
    field(id::ID_AA64MMFR2_EL1, "E0PD", 60, Keep, STAGE_1),
    field(id::ID_AA64MMFR3_EL1, "TCRX", 0, Absent, NEEDS_HCRX),
    field(id::ID_AA64MMFR3_EL1, "SCTLRX", 4, Absent, NEEDS_HCRX),
    field(id::ID_AA64MMFR3_EL1, "S1PIE", 8, Absent, UNSWITCHED),
    field(id::ID_AA64MMFR3_EL1, "S1POE", 16, Absent, UNSWITCHED),
    field(id::ID_AA64MMFR3_EL1, "AIE", 24, Absent, UNSWITCHED),
    field(id::ID_AA64MMFR3_EL1, "D128", 32, Absent, NEEDS_HCRX),
];

#[cfg(test)]
mod tests {
    use super::{FIELDS, Field, Policy};

    /// What `docs/guest-cpu.md` says of a policy.
    fn seen(policy: Policy) -> String {
        match policy {
            Policy::Keep | Policy::KeepSigned | Policy::KeepEach => "as the CPUs".into(),
            Policy::Cap(most) | Policy::CapSigned(most) => format!("as the CPUs, at most {most}"),
            Policy::Fixed(value) => format!("{value}"),
            Policy::Absent => "absent".into(),
            Policy::PhysicalRange => "guest's size".into(),
            Policy::GicSystemRegisters => "1 with GICv3, 0 with GICv2".into(),
        }
    }

    /// The rows as `docs/guest-cpu.md` has them.
    fn table() -> String {
        let row = |field: &Field| {
            let register = field.register.name().expect("every register here has a name");
            let (high, low) = (field.shift + field.width - 1, field.shift);
            format!(
                "| {register} | {} | {high}:{low} | {} | {} |\n",
                field.name,
                seen(field.policy),
                field.reason
            )
        };
        FIELDS.iter().map(row).collect()
    }

    #[test]
    fn document_has_this_very_table() {
        let document = include_str!("../../../../docs/guest-cpu.md");
        assert!(document.contains(&table()), "docs/guest-cpu.md must contain these rows:\n{}", table());
    }

    #[test]
    fn caps_fit_their_fields() {
        for field in FIELDS {
            if let Policy::Cap(value) | Policy::CapSigned(value) | Policy::Fixed(value) = field.policy {
                assert!(value < 16, "{} of {:?}", field.name, field.register);
            }
        }
    }
}
