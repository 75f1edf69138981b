//! The table.
//!
//! Sources: the cores' Software Developer Errata Notices (SDEN), Arm's security bulletin 112137 for CVE-2025-10263, and for
//! revisions the table that Linux keeps of them (Documentation/arch/arm64/silicon-errata.rst). Where a notice ends at a
//! revision, so does the row; a core that is mended is one without the line at boot.

use super::Midr;
use core::fmt;
use core::ops::RangeInclusive;

/// What an erratum means to EL2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A completed broadcast TLBI does not mean that accesses through what it invalidated are complete, or that it is
    /// gone everywhere.
    IncompleteInvalidation,
    /// The core may translate for EL1 on its own account while EL2 changes EL1's registers, and keep what comes of a
    /// mixture.
    SpeculativeTranslation,
    /// The walker may set the access flag of an entry that has just become invalid.
    AccessFlag,
    /// The walker may make an entry writable that has just changed.
    DirtyState,
    /// HPFAR_EL2 may be wrong, and the fault stage 1's, after a fault at the edge of a page.
    FaultAddress,
}

impl Effect {
    /// Its place in a set.
    pub(super) const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IncompleteInvalidation => "TLB maintenance is repeated",
            Self::SpeculativeTranslation => "walks are stopped while vCPUs are switched",
            Self::AccessFlag => "access flags are set by software",
            Self::DirtyState => "writes are noted by software",
            Self::FaultAddress => {
                "not worked around: a guest's access across the edge of a page may be taken for another"
            }
        })
    }
}

/// A core's revision: rXpY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Revision(u8);

impl Revision {
    /// `r`VARIANT`p`PATCH, each below 16.
    pub(super) const fn new(variant: u8, patch: u8) -> Self {
        Self(variant << 4 | patch)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}p{}", self.0 >> 4, self.0 & 0xf)
    }
}

/// A core: MIDR_EL1's implementer and part number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Core(u8, u16, &'static str);

/// An erratum of one core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erratum {
    core: Core,
    revisions: RangeInclusive<Revision>,
    /// Its number in the core's notice.
    pub number: &'static str,
    /// What it means here.
    pub effect: Effect,
}

impl Erratum {
    /// Whether a core of this model has it.
    pub(super) fn is_in(&self, midr: Midr) -> bool {
        (midr.implementer(), midr.part()) == (self.core.0, self.core.1)
            && self.revisions.contains(&midr.revision())
    }
}

/// The name of a core that the table speaks of.
pub(super) fn name_of(midr: Midr) -> Option<&'static str> {
    let cores = TABLE.iter().map(|erratum| erratum.core);
    cores.into_iter().find(|core| (core.0, core.1) == (midr.implementer(), midr.part())).map(|core| core.2)
}

const ARM: u8 = 0x41;
const NVIDIA: u8 = 0x4e;
const MICROSOFT: u8 = 0x6d;
const AMPERE: u8 = 0xc0;

const A55: Core = Core(ARM, 0xd05, "Cortex-A55");
const A57: Core = Core(ARM, 0xd07, "Cortex-A57");
const A72: Core = Core(ARM, 0xd08, "Cortex-A72");
const A76: Core = Core(ARM, 0xd0b, "Cortex-A76");
const A76AE: Core = Core(ARM, 0xd0e, "Cortex-A76AE");
const A77: Core = Core(ARM, 0xd0d, "Cortex-A77");
const A78: Core = Core(ARM, 0xd41, "Cortex-A78");
const A78AE: Core = Core(ARM, 0xd42, "Cortex-A78AE");
const A78C: Core = Core(ARM, 0xd4b, "Cortex-A78C");
const A510: Core = Core(ARM, 0xd46, "Cortex-A510");
const A710: Core = Core(ARM, 0xd47, "Cortex-A710");
const X1: Core = Core(ARM, 0xd44, "Cortex-X1");
const X1C: Core = Core(ARM, 0xd4c, "Cortex-X1C");
const X2: Core = Core(ARM, 0xd48, "Cortex-X2");
const X3: Core = Core(ARM, 0xd4e, "Cortex-X3");
const X4: Core = Core(ARM, 0xd82, "Cortex-X4");
const X925: Core = Core(ARM, 0xd85, "Cortex-X925");
const C1_ULTRA: Core = Core(ARM, 0xd8c, "C1-Ultra");
const C1_PREMIUM: Core = Core(ARM, 0xd90, "C1-Premium");
const N1: Core = Core(ARM, 0xd0c, "Neoverse N1");
const N2: Core = Core(ARM, 0xd49, "Neoverse N2");
const V1: Core = Core(ARM, 0xd40, "Neoverse V1");
const V2: Core = Core(ARM, 0xd4f, "Neoverse V2");
const V3: Core = Core(ARM, 0xd84, "Neoverse V3");
const V3AE: Core = Core(ARM, 0xd83, "Neoverse V3AE");
const COBALT_100: Core = Core(MICROSOFT, 0xd49, "Azure Cobalt 100");
const OLYMPUS: Core = Core(NVIDIA, 0x010, "NVIDIA Olympus");
const AMPERE_1: Core = Core(AMPERE, 0xac3, "AmpereOne");
const AMPERE_1A: Core = Core(AMPERE, 0xac4, "AmpereOne AC04");

/// Every revision of `core`.
const fn all(core: Core, number: &'static str, effect: Effect) -> Erratum {
    up_to(core, 15, 15, number, effect)
}

/// Revisions of `core` from r0p0 to `r`VARIANT`p`PATCH.
const fn up_to(core: Core, variant: u8, patch: u8, number: &'static str, effect: Effect) -> Erratum {
    Erratum { core, revisions: Revision::new(0, 0)..=Revision::new(variant, patch), number, effect }
}

use Effect::{AccessFlag, DirtyState, FaultAddress, IncompleteInvalidation, SpeculativeTranslation};

pub(super) static TABLE: [Erratum; 35] = [
    // Invalidations that are not complete when they say so: the first three leave translations behind, the others
    // accesses (CVE-2025-10263).
    up_to(A76, 3, 0, "1286807", IncompleteInvalidation),
    all(A55, "2441007", IncompleteInvalidation),
    up_to(A510, 1, 1, "2441009", IncompleteInvalidation),
    all(A76, "4193800", IncompleteInvalidation),
    all(A76AE, "4193801", IncompleteInvalidation),
    all(A77, "4193798", IncompleteInvalidation),
    all(A78, "4193791", IncompleteInvalidation),
    all(A78AE, "4193793", IncompleteInvalidation),
    all(A78C, "4193794", IncompleteInvalidation),
    all(A710, "4193788", IncompleteInvalidation),
    all(X1, "4193791", IncompleteInvalidation),
    all(X1C, "4193792", IncompleteInvalidation),
    all(X2, "4193788", IncompleteInvalidation),
    all(X3, "4193786", IncompleteInvalidation),
    all(X4, "4118414", IncompleteInvalidation),
    all(X925, "4193781", IncompleteInvalidation),
    all(C1_ULTRA, "4193780", IncompleteInvalidation),
    all(C1_PREMIUM, "4193780", IncompleteInvalidation),
    all(N1, "4193800", IncompleteInvalidation),
    all(N2, "4193789", IncompleteInvalidation),
    all(V1, "4193790", IncompleteInvalidation),
    all(V2, "4193787", IncompleteInvalidation),
    all(V3, "4193784", IncompleteInvalidation),
    all(V3AE, "4193784", IncompleteInvalidation),
    all(COBALT_100, "4193789", IncompleteInvalidation),
    all(OLYMPUS, "T410-OLY-1029", IncompleteInvalidation),
    // Speculative AT instructions, executed out of context.
    all(A57, "1319537", SpeculativeTranslation),
    all(A72, "1319367", SpeculativeTranslation),
    up_to(A76, 2, 0, "1165522", SpeculativeTranslation),
    up_to(A55, 2, 0, "1530923", SpeculativeTranslation),
    // Hardware management of the access flag and dirty state.
    all(AMPERE_1, "AC03_CPU_38", AccessFlag),
    all(AMPERE_1A, "AC04_CPU_10", AccessFlag),
    up_to(A55, 2, 0, "1024718", DirtyState),
    up_to(A510, 0, 2, "2051678", DirtyState),
    // Stage 2 reported where stage 1 has a fault of its own.
    up_to(A57, 1, 2, "834220", FaultAddress),
];
