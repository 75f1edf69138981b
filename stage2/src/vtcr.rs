//! The value of VTCR_EL2 for a geometry, and the features it turns on.
//!
//! [`Features`] are properties of the machine that a space is built for and
//! that change what its descriptors or its walks look like, or how they may be
//! changed. They are read from ID registers once, by whoever knows registers,
//! and are what *all* CPUs that will run the guest have; this crate only gets
//! the answer.

use crate::addr::Level;
use crate::attr::Fwb;
use crate::format::AddressFormat;
use crate::geometry::{Geometry, Granule, PaSize};

/// Who sets the access flag of a descriptor when a guest first uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccessFlag {
    /// An access through a clear flag faults, and software sets it.
    Software,
    /// The walker sets it (FEAT_HAFDBS). CPUs without the feature ignore the
    /// control and fault, so a mixed machine works as well. Not for CPUs with
    /// an erratum in it (AmpereOne AC03_CPU_38, AC04_CPU_10): those may set
    /// the flag of an entry that has just become invalid.
    Hardware,
}

/// Who notes that a guest wrote to memory whose leaf was
/// [cleaned](crate::Leaf::cleaned).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DirtyState {
    /// A write to a clean leaf faults, and software makes it dirty.
    WriteProtect,
    /// The walker makes it dirty (FEAT_HAFDBS, ID_AA64MMFR1_EL1.HAFDBS of 2 or
    /// more), which includes that it sets access flags. CPUs without it fault
    /// as above, and those with an erratum in it must not use it either.
    Hardware,
}

/// Whether execution at EL0 and at EL1 is allowed separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Xnx {
    /// Both or neither.
    Absent,
    /// With FEAT_XNX.
    Present,
}

/// What the size of a live mapping may change to without a break (FEAT_BBM).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bbm {
    /// Nothing.
    Level0,
    /// A block and a table of the same may replace each other while the block
    /// has its nT bit set. This crate makes no use of it.
    Level1,
    /// A block and a table of the same may replace each other, and the
    /// contiguous bit may change. A CPU may meanwhile report a TLB conflict.
    Level2,
}

/// Whether runs of equal leaves may be marked as contiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Contiguous {
    /// Each leaf stands for itself.
    Never,
    /// [Sets](Granule::contiguous_entries) are marked where one fits.
    Allowed,
}

/// How many bits of VTTBR_EL2.VMID the hardware compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VmidSize {
    /// Always there.
    Bits8,
    /// With FEAT_VMID16.
    Bits16,
}

/// What the machine offers to a space, beyond its geometry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Features {
    /// Whether HCR_EL2.FWB will be set while the space is in use.
    pub fwb: Fwb,
    /// Who sets access flags.
    pub access_flag: AccessFlag,
    /// Who notes writes.
    pub dirty: DirtyState,
    /// Whether EL0 and EL1 may execute separately.
    pub xnx: Xnx,
    /// How sizes may change.
    pub bbm: Bbm,
    /// Whether contiguous sets are used.
    pub contiguous: Contiguous,
    /// The width of VMIDs.
    pub vmid: VmidSize,
}

impl Features {
    /// What every Armv8.0 CPU can do.
    pub const BASE: Self = Self {
        fwb: Fwb::Off,
        access_flag: AccessFlag::Software,
        dirty: DirtyState::WriteProtect,
        xnx: Xnx::Absent,
        bbm: Bbm::Level0,
        contiguous: Contiguous::Never,
        vmid: VmidSize::Bits8,
    };
}

// Field positions (Arm ARM, "VTCR_EL2, Virtualization Translation Control
// Register").
const T0SZ_SHIFT: u32 = 0;
const SL0_SHIFT: u32 = 6;
const TG0_SHIFT: u32 = 14;
const PS_SHIFT: u32 = 16;
const VS: u64 = 1 << 19;
const HA: u64 = 1 << 21;
const HD: u64 = 1 << 22;
const RES1: u64 = 1 << 31;
const DS: u64 = 1 << 32;

// How the walker fetches tables: as inner shareable write-back memory, which
// is how software writes them. Hardware access flag updates need this too;
// on other memory they are reported as "unsupported atomic update" faults.
// With DS set, SH0 is also the shareability of what is mapped.
const IRGN0_WRITE_BACK: u64 = 0b01 << 8;
const ORGN0_WRITE_BACK: u64 = 0b01 << 10;
const SH0_INNER: u64 = 0b11 << 12;

/// The whole value of VTCR_EL2 for spaces of this shape.
///
/// SL2 (bit 33), which makes a walk start at level -1, is never set: see
/// [`Geometry`].
pub const fn vtcr(geometry: &Geometry, features: Features) -> u64 {
    let t0sz = 64 - geometry.ipa_bits() as u64;
    let vs = match features.vmid {
        VmidSize::Bits8 => 0,
        VmidSize::Bits16 => VS,
    };
    let ds = match geometry.addresses() {
        AddressFormat::Bits48 | AddressFormat::Lpa => 0,
        AddressFormat::Lpa2 => DS,
    };
    RES1 | t0sz << T0SZ_SHIFT
        | sl0(geometry) << SL0_SHIFT
        | tg0(geometry.granule()) << TG0_SHIFT
        | ps(geometry.pa_size()) << PS_SHIFT
        | IRGN0_WRITE_BACK
        | ORGN0_WRITE_BACK
        | SH0_INNER
        | vs
        | walker_updates(features)
        | ds
}

/// HA and HD; HD without HA is reserved.
const fn walker_updates(features: Features) -> u64 {
    match (features.access_flag, features.dirty) {
        (AccessFlag::Software, DirtyState::WriteProtect) => 0,
        (AccessFlag::Hardware, DirtyState::WriteProtect) => HA,
        (_, DirtyState::Hardware) => HA | HD,
    }
}

/// The start level as SL0 spells it, which depends on the granule.
const fn sl0(geometry: &Geometry) -> u64 {
    match (geometry.granule(), geometry.start_level()) {
        (Granule::Kib4, Level::L2) | (Granule::Kib16 | Granule::Kib64, Level::L3) => 0b00,
        (Granule::Kib4, Level::L1) | (Granule::Kib16 | Granule::Kib64, Level::L2) => 0b01,
        (Granule::Kib4, Level::L0) | (Granule::Kib16 | Granule::Kib64, Level::L1) => 0b10,
        (Granule::Kib16, Level::L0) => 0b11,
        (Granule::Kib4, Level::L3) | (Granule::Kib64, Level::L0) => panic!("no geometry starts there"),
        #[cfg(stage2_loom)]
        (Granule::Tiny, _) => 0b00,
    }
}

const fn tg0(granule: Granule) -> u64 {
    match granule {
        Granule::Kib4 => 0b00,
        Granule::Kib64 => 0b01,
        Granule::Kib16 => 0b10,
        #[cfg(stage2_loom)]
        Granule::Tiny => 0b00,
    }
}

const fn ps(pa_size: PaSize) -> u64 {
    match pa_size {
        PaSize::Bits32 => 0b000,
        PaSize::Bits36 => 0b001,
        PaSize::Bits40 => 0b010,
        PaSize::Bits42 => 0b011,
        PaSize::Bits44 => 0b100,
        PaSize::Bits48 => 0b101,
        PaSize::Bits52 => 0b110,
    }
}
