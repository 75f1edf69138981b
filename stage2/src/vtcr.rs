//! The value of VTCR_EL2 for a geometry, and the features it turns on.
//!
//! [`Features`] are properties of the machine that a space is built for and
//! that change what its descriptors or its walks look like. They are read
//! from ID registers once, by whoever knows registers; this crate only gets
//! the answer.

use crate::addr::Level;
use crate::attr::Fwb;
use crate::geometry::{Geometry, Granule, PaSize};

/// Who sets the access flag of a descriptor when a guest first uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessFlag {
    /// An access through a clear flag faults, and software sets it.
    Software,
    /// The walker sets it (FEAT_HAFDBS). CPUs without the feature ignore the
    /// control and fault, so a mixed machine works as well. Not for CPUs with
    /// an erratum in it (AmpereOne AC03_CPU_38, AC04_CPU_10): those may set
    /// the flag of an entry that has just become invalid.
    Hardware,
}

/// How many bits of VTTBR_EL2.VMID the hardware compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmidSize {
    /// Always there.
    Bits8,
    /// With FEAT_VMID16.
    Bits16,
}

/// What the machine offers to a space, beyond its geometry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Whether HCR_EL2.FWB will be set while the space is in use.
    pub fwb: Fwb,
    /// Who sets access flags.
    pub access_flag: AccessFlag,
    /// The width of VMIDs.
    pub vmid: VmidSize,
}

impl Features {
    /// What every Armv8.0 CPU can do.
    pub const BASE: Self = Self { fwb: Fwb::Off, access_flag: AccessFlag::Software, vmid: VmidSize::Bits8 };
}

// Field positions (Arm ARM, "VTCR_EL2, Virtualization Translation Control
// Register").
const T0SZ_SHIFT: u32 = 0;
const SL0_SHIFT: u32 = 6;
const TG0_SHIFT: u32 = 14;
const PS_SHIFT: u32 = 16;
const VS: u64 = 1 << 19;
const HA: u64 = 1 << 21;
const RES1: u64 = 1 << 31;

// How the walker fetches tables: as inner shareable write-back memory, which
// is how software writes them. Hardware access flag updates need this too;
// on other memory they are reported as "unsupported atomic update" faults.
const IRGN0_WRITE_BACK: u64 = 0b01 << 8;
const ORGN0_WRITE_BACK: u64 = 0b01 << 10;
const SH0_INNER: u64 = 0b11 << 12;

/// The whole value of VTCR_EL2 for spaces of this shape.
pub const fn vtcr(geometry: &Geometry, features: Features) -> u64 {
    let t0sz = 64 - geometry.ipa_bits() as u64;
    let vs = match features.vmid {
        VmidSize::Bits8 => 0,
        VmidSize::Bits16 => VS,
    };
    let ha = match features.access_flag {
        AccessFlag::Software => 0,
        AccessFlag::Hardware => HA,
    };
    RES1 | t0sz << T0SZ_SHIFT
        | sl0(geometry) << SL0_SHIFT
        | tg0(geometry.granule()) << TG0_SHIFT
        | ps(geometry.pa_size()) << PS_SHIFT
        | IRGN0_WRITE_BACK
        | ORGN0_WRITE_BACK
        | SH0_INNER
        | vs
        | ha
}

/// The start level as SL0 spells it, which depends on the granule.
const fn sl0(geometry: &Geometry) -> u64 {
    match (geometry.granule(), geometry.start_level()) {
        (Granule::Kib4, Level::L2) => 0b00,
        (Granule::Kib4, Level::L1) => 0b01,
        (Granule::Kib4, Level::L0) => 0b10,
        (Granule::Kib4, Level::L3) => panic!("no geometry starts at level 3"),
    }
}

const fn tg0(granule: Granule) -> u64 {
    match granule {
        Granule::Kib4 => 0b00,
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
    }
}
