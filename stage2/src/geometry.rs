//! The shape of one address space: how wide it is, at which level a walk
//! starts, and how many tables its root has.
//!
//! Stage 2 may *concatenate* up to 16 tables at its first level. The address
//! bits that a level above would have decoded then pick one of them, which
//! saves that level: 40 bits of IPA need two level 1 tables side by side
//! instead of one level 0 table with two entries in use. [`Geometry::new`]
//! always makes that trade; [`Geometry::with_start_level`] lets the caller
//! keep the level, for instance to have 1 GiB blocks in a 32-bit space.
//!
//! # Which walks exist
//!
//! The start level must decode at least one bit of the IPA, and at most four
//! more than one table can (Arm ARM, `AArch64.S2InconsistentSL`). The levels
//! nearest the root are there only on CPUs whose physical addresses are wide
//! enough to need them (`AArch64.S2InvalidSL`):
//!
//! | granule | level 0          | level 1 | level 2 | level 3          |
//! |---------|------------------|---------|---------|------------------|
//! | 4 KiB   | 44 bits          | always  | always  | (too narrow)     |
//! | 16 KiB  | 52 bits and LPA2 | 42 bits | always  | (too narrow)     |
//! | 64 KiB  | never            | 44 bits | always  | up to 33 bits    |
//!
//! Addresses of 52 bits take another spelling of descriptors, and a CPU may
//! have it for one [`Granule`] and not for another. Here, the two go together:
//! [`PaSize::Bits52`] *is* the use of that spelling (FEAT_LPA with 64 KiB
//! pages, FEAT_LPA2 with smaller ones), and [`PaSize::for_granule`] says
//! whether a machine has it. [`crate::vtcr`] turns a geometry into the
//! register value that tells the hardware about it.

use core::fmt;

use crate::addr::{IpaRange, Level};
use crate::format::AddressFormat;
pub use crate::granule::Granule;

/// Narrowest supported IPA space, in bits.
pub const MIN_IPA_BITS: u32 = 32;

/// Widest supported IPA space, in bits; beyond 48 with [`PaSize::Bits52`] only.
pub const MAX_IPA_BITS: u32 = 52;

/// The most tables a root may be made of (Arm ARM, "Concatenated translation
/// tables").
pub const MAX_ROOT_TABLES: usize = 16;

/// How many physical address bits a space may use.
///
/// The smallest of all CPUs that will run the guest: a table that names an
/// address one of them can't drive gives an address size fault there. The sizes
/// are ordered, so that the smallest can be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PaSize {
    /// 4 GiB.
    Bits32,
    /// 64 GiB.
    Bits36,
    /// 1 TiB.
    Bits40,
    /// 4 TiB.
    Bits42,
    /// 16 TiB.
    Bits44,
    /// 256 TiB.
    Bits48,
    /// 4 PiB, with FEAT_LPA or FEAT_LPA2, whichever is the granule's.
    Bits52,
}

impl PaSize {
    /// What a CPU with this value of ID_AA64MMFR0_EL1 can do in a space with
    /// this granule; `None` if it does not have the granule at stage 2, or a
    /// size of physical addresses not yet given a meaning.
    ///
    /// Copying PARange blindly into VTCR_EL2.PS is a known way to get it wrong:
    /// without FEAT_LPA2, descriptors with 4 or 16 KiB pages have no room for
    /// more than 48 bits, whatever the CPU can drive.
    pub const fn for_granule(mmfr0: u64, granule: Granule) -> Option<Self> {
        let Some(size) = Self::from_parange(mmfr0 & 0xf) else { return None };
        match (size, stage2_support(mmfr0, granule)) {
            (_, Support::Absent) => None,
            (Self::Bits52, Support::Bits48) => Some(Self::Bits48),
            (size, Support::Bits48 | Support::Bits52) => Some(size),
        }
    }

    /// From the four bits of ID_AA64MMFR0_EL1.PARange, for use with any granule
    /// if cut to 48 bits. `None` for values not yet given a meaning.
    ///
    /// 56 bits are cut to 52: they need descriptors of 128 bits.
    pub const fn from_parange(field: u64) -> Option<Self> {
        match field {
            0 => Some(Self::Bits32),
            1 => Some(Self::Bits36),
            2 => Some(Self::Bits40),
            3 => Some(Self::Bits42),
            4 => Some(Self::Bits44),
            5 => Some(Self::Bits48),
            6 | 7 => Some(Self::Bits52),
            _ => None,
        }
    }

    /// The number of bits.
    #[inline]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Bits32 => 32,
            Self::Bits36 => 36,
            Self::Bits40 => 40,
            Self::Bits42 => 42,
            Self::Bits44 => 44,
            Self::Bits48 => 48,
            Self::Bits52 => 52,
        }
    }
}

/// What a CPU can do with one granule at stage 2.
enum Support {
    Absent,
    /// Descriptors hold addresses of up to 48 bits.
    Bits48,
    /// They may also hold 52.
    Bits52,
}

/// From the TGran fields of ID_AA64MMFR0_EL1. Each granule has one for stage 2
/// alone, which is zero where the one for both stages counts.
const fn stage2_support(mmfr0: u64, granule: Granule) -> Support {
    let (stage2, both) = match granule {
        Granule::Kib4 => (mmfr0 >> 40 & 0xf, mmfr0 >> 28 & 0xf),
        Granule::Kib16 => (mmfr0 >> 32 & 0xf, mmfr0 >> 20 & 0xf),
        Granule::Kib64 => (mmfr0 >> 36 & 0xf, mmfr0 >> 24 & 0xf),
        #[cfg(stage2_loom)]
        Granule::Tiny => return Support::Bits52,
    };
    match (granule, stage2, both) {
        (_, 1, _) => Support::Absent,
        // Two of the older fields are signed, and absent is -1.
        (Granule::Kib4 | Granule::Kib64, 0, 8..=15) | (Granule::Kib16, 0, 0) => Support::Absent,
        // FEAT_LPA has no field: PARange says it all.
        (Granule::Kib64, _, _) => Support::Bits52,
        (_, 2, _) | (Granule::Kib4, 0, 0) | (Granule::Kib16, 0, 1) => Support::Bits48,
        _ => Support::Bits52,
    }
}

/// The shape of an address space. It never changes while the space lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    granule: Granule,
    ipa_bits: u32,
    pa_size: PaSize,
    start_level: Level,
}

impl Geometry {
    /// The geometry with the fewest levels for `ipa_bits` of IPA, but at least
    /// two: pages alone can't be replaced by blocks.
    ///
    /// # Errors
    ///
    /// See [`GeometryError`].
    pub const fn new(granule: Granule, ipa_bits: u32, pa_size: PaSize) -> Result<Self, GeometryError> {
        // From the shortest walk to the longest.
        let start_level = if ipa_bits <= max_bits_from(granule, Level::L2) {
            Level::L2
        } else if ipa_bits <= max_bits_from(granule, Level::L1) {
            Level::L1
        } else {
            Level::L0
        };
        Self::with_start_level(granule, ipa_bits, pa_size, start_level)
    }

    /// The geometry whose walks start at a level of the caller's choice.
    ///
    /// # Errors
    ///
    /// See [`GeometryError`].
    pub const fn with_start_level(
        granule: Granule,
        ipa_bits: u32,
        pa_size: PaSize,
        start_level: Level,
    ) -> Result<Self, GeometryError> {
        if ipa_bits < min_ipa_bits(granule) || ipa_bits > MAX_IPA_BITS {
            return Err(GeometryError::IpaBits { ipa_bits });
        }
        if ipa_bits > pa_size.bits() {
            return Err(GeometryError::WiderThanPhysical { ipa_bits, pa_bits: pa_size.bits() });
        }
        // The start level must decode at least one bit, and at most four
        // beyond a full table (Arm ARM, AArch64.S2InconsistentSL).
        if ipa_bits <= granule.shift(start_level) || ipa_bits > max_bits_from(granule, start_level) {
            return Err(GeometryError::StartLevel { ipa_bits, start_level });
        }
        if pa_size.bits() < pa_bits_needed(granule, start_level) {
            return Err(GeometryError::StartLevel { ipa_bits, start_level });
        }
        Ok(Self { granule, ipa_bits, pa_size, start_level })
    }

    /// The page size.
    #[inline]
    pub const fn granule(&self) -> Granule {
        self.granule
    }

    /// Width of the space, in bits.
    #[inline]
    pub const fn ipa_bits(&self) -> u32 {
        self.ipa_bits
    }

    /// Width of the addresses it may map.
    #[inline]
    pub const fn pa_size(&self) -> PaSize {
        self.pa_size
    }

    /// Where in descriptors output addresses lie.
    #[inline]
    pub const fn addresses(&self) -> AddressFormat {
        match (self.pa_size, self.granule) {
            (PaSize::Bits52, Granule::Kib64) => AddressFormat::Lpa,
            (PaSize::Bits52, _) => AddressFormat::Lpa2,
            _ => AddressFormat::Bits48,
        }
    }

    /// The level at which walks start.
    #[inline]
    pub const fn start_level(&self) -> Level {
        self.start_level
    }

    /// How many tables lie side by side at the root; 1, 2, 4, 8 or 16. The
    /// root is aligned to their total size, and [`Granule::page_size`] is the
    /// size of each.
    #[inline]
    pub const fn root_tables(&self) -> usize {
        let one_table = self.granule.shift(self.start_level) + self.granule.bits_per_level();
        1 << self.ipa_bits.saturating_sub(one_table)
    }

    /// Whether the whole of `range` is inside the space.
    ///
    /// Asked before any index is taken: high bits must not alias low ones.
    #[inline]
    pub const fn contains(&self, range: IpaRange) -> bool {
        range.end().bits() <= 1 << self.ipa_bits
    }
}

/// The narrowest space.
const fn min_ipa_bits(granule: Granule) -> u32 {
    match granule {
        Granule::Kib4 | Granule::Kib16 | Granule::Kib64 => MIN_IPA_BITS,
        // One bit at level 3.
        #[cfg(stage2_loom)]
        Granule::Tiny => 13,
    }
}

/// How wide physical addresses must be for walks to start at `level`: see the
/// table at the top of this file.
const fn pa_bits_needed(granule: Granule, level: Level) -> u32 {
    match (granule, level) {
        (Granule::Kib4, Level::L0) | (Granule::Kib64, Level::L1) => 44,
        (Granule::Kib16, Level::L1) => 42,
        (Granule::Kib16, Level::L0) => 52,
        // Level 0 with 64 KiB pages is for spaces wider than any we have.
        _ => 0,
    }
}

/// The widest space that 16 tables at `level` can hold, in bits.
const fn max_bits_from(granule: Granule, level: Level) -> u32 {
    granule.shift(level) + granule.bits_per_level() + MAX_ROOT_TABLES.trailing_zeros()
}

/// Why there is no such geometry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeometryError {
    /// The width is outside [`MIN_IPA_BITS`]`..=`[`MAX_IPA_BITS`].
    IpaBits {
        /// The width asked for.
        ipa_bits: u32,
    },
    /// A space may not be wider than physical addresses are.
    WiderThanPhysical {
        /// The width asked for.
        ipa_bits: u32,
        /// The width of physical addresses.
        pa_bits: u32,
    },
    /// The architecture has no walk of this width from this level.
    StartLevel {
        /// The width asked for.
        ipa_bits: u32,
        /// The level asked for.
        start_level: Level,
    },
}

impl fmt::Display for GeometryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IpaBits { ipa_bits } => {
                write!(f, "a guest space of {ipa_bits} bits is not between {MIN_IPA_BITS} and {MAX_IPA_BITS}")
            }
            Self::WiderThanPhysical { ipa_bits, pa_bits } => {
                write!(f, "a guest space of {ipa_bits} bits is wider than this machine's {pa_bits}")
            }
            Self::StartLevel { ipa_bits, start_level } => {
                write!(f, "no walk of {ipa_bits} bits can start at level {}", start_level.number())
            }
        }
    }
}

impl core::error::Error for GeometryError {}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
mod tests {
    use super::{Geometry, GeometryError, Granule, PaSize};
    use crate::addr::{Ipa, IpaRange, Level};

    // Start level, root and register value of every width are compared with
    // the manual in `tests/suite/registers.rs`.

    #[test]
    fn a_longer_walk_may_be_asked_for() {
        let geometry = Geometry::with_start_level(Granule::Kib4, 32, PaSize::Bits40, Level::L1).unwrap();
        assert_eq!(geometry.root_tables(), 1);
    }

    #[test]
    fn level_0_needs_44_physical_bits() {
        let refused = Geometry::with_start_level(Granule::Kib4, 40, PaSize::Bits42, Level::L0);
        assert_eq!(refused, Err(GeometryError::StartLevel { ipa_bits: 40, start_level: Level::L0 }));
    }

    #[test]
    fn a_level_that_would_decode_no_bit_is_refused() {
        let refused = Geometry::with_start_level(Granule::Kib4, 39, PaSize::Bits48, Level::L0);
        assert_eq!(refused, Err(GeometryError::StartLevel { ipa_bits: 39, start_level: Level::L0 }));
    }

    #[test]
    fn more_than_sixteen_root_tables_are_refused() {
        let refused = Geometry::with_start_level(Granule::Kib4, 35, PaSize::Bits48, Level::L2);
        assert_eq!(refused, Err(GeometryError::StartLevel { ipa_bits: 35, start_level: Level::L2 }));
    }

    #[test]
    fn space_wider_than_physical_addresses_is_refused() {
        let refused = Geometry::new(Granule::Kib4, 40, PaSize::Bits36);
        assert_eq!(refused, Err(GeometryError::WiderThanPhysical { ipa_bits: 40, pa_bits: 36 }));
    }

    #[test]
    fn widths_outside_32_to_52_are_refused() {
        for ipa_bits in [0, 31, 53, 64, u32::MAX] {
            let refused = Geometry::new(Granule::Kib4, ipa_bits, PaSize::Bits52);
            assert_eq!(refused, Err(GeometryError::IpaBits { ipa_bits }));
        }
    }

    #[test]
    fn more_than_48_bits_take_physical_addresses_of_52() {
        for granule in [Granule::Kib4, Granule::Kib16, Granule::Kib64] {
            let refused = Geometry::new(granule, 49, PaSize::Bits48);
            assert_eq!(refused, Err(GeometryError::WiderThanPhysical { ipa_bits: 49, pa_bits: 48 }));
            assert!(Geometry::new(granule, 52, PaSize::Bits52).is_ok());
        }
    }

    #[test]
    fn parange_of_56_bits_is_cut_to_52() {
        assert_eq!(PaSize::from_parange(5), Some(PaSize::Bits48));
        assert_eq!(PaSize::from_parange(6), Some(PaSize::Bits52));
        assert_eq!(PaSize::from_parange(7), Some(PaSize::Bits52));
        assert_eq!(PaSize::from_parange(8), None);
    }

    #[test]
    fn last_address_of_every_width_is_in_the_last_root_table() {
        for granule in [Granule::Kib4, Granule::Kib16, Granule::Kib64] {
            for ipa_bits in 32..=52 {
                let geometry = Geometry::new(granule, ipa_bits, PaSize::Bits52).unwrap();
                let last = Ipa::new((1 << ipa_bits) - 1);
                let index = granule.root_index(last, geometry.start_level());
                assert_eq!(index + 1, geometry.root_tables(), "{geometry:?}");
            }
        }
    }

    #[test]
    #[cfg(stage2_loom)]
    fn tiny_granule_has_four_levels_of_two_entries() {
        let geometry = Geometry::with_start_level(Granule::Tiny, 16, PaSize::Bits40, Level::L0).unwrap();
        assert_eq!((geometry.root_tables(), geometry.granule().entries()), (1, 2));
        assert_eq!(geometry.granule().span(Level::L0), 0x8000);
        assert_eq!(geometry.granule().span(Level::L3), 0x1000);
    }

    #[test]
    fn space_ends_where_its_width_says() {
        let geometry = Geometry::new(Granule::Kib4, 40, PaSize::Bits40).unwrap();
        let last = IpaRange::new(Ipa::new((1 << 40) - 0x1000), 0x1000).unwrap();
        let beyond = IpaRange::new(Ipa::new((1 << 40) - 0x1000), 0x1001).unwrap();
        assert!(geometry.contains(last));
        assert!(!geometry.contains(beyond));
    }
}
