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
//! [`Granule`] is the page size and all that follows from it. There is one
//! today; the code asks it instead of writing 12 and 9, so that 16 KiB and
//! 64 KiB become further variants. [`crate::vtcr`] turns a geometry into the
//! register value that tells the hardware about it.

use core::fmt;

use crate::addr::{Ipa, IpaRange, Level};

/// Narrowest supported IPA space, in bits.
pub const MIN_IPA_BITS: u32 = 32;

/// Widest supported IPA space, in bits; 52 comes with FEAT_LPA2.
pub const MAX_IPA_BITS: u32 = 48;

/// The most tables a root may be made of (Arm ARM, "Concatenated translation
/// tables").
pub const MAX_ROOT_TABLES: usize = 16;

/// The page size of a space, and with it the size of its tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Granule {
    /// 4 KiB pages, 2 MiB and 1 GiB blocks.
    Kib4,
}

impl Granule {
    /// Address bits one level decodes.
    #[inline]
    pub(crate) const fn bits_per_level(self) -> u32 {
        match self {
            Self::Kib4 => 9,
        }
    }

    /// Descriptors in one table.
    #[inline]
    pub const fn entries(self) -> usize {
        1 << self.bits_per_level()
    }

    /// Address bits below those that `level` decodes.
    #[inline]
    pub const fn shift(self, level: Level) -> u32 {
        match self {
            Self::Kib4 => 12 + (Level::L3.number() - level.number()) * self.bits_per_level(),
        }
    }

    /// Bytes that one entry at `level` translates.
    #[inline]
    pub const fn span(self, level: Level) -> u64 {
        1 << self.shift(level)
    }

    /// Bytes that a whole table at `level` translates.
    #[inline]
    pub(crate) const fn table_span(self, level: Level) -> u64 {
        self.span(level) << self.bits_per_level()
    }

    /// Bytes in a page, and in a table.
    #[inline]
    pub const fn page_size(self) -> u64 {
        self.span(Level::L3)
    }

    /// Whether a descriptor at `level` may map memory instead of leading to
    /// a table.
    #[inline]
    pub const fn allows_leaf(self, level: Level) -> bool {
        match (self, level) {
            // Level 0 blocks exist with FEAT_LPA2 only.
            (Self::Kib4, Level::L0) => false,
            (Self::Kib4, Level::L1 | Level::L2 | Level::L3) => true,
        }
    }

    /// Which entry of a table at `level` translates `ipa`.
    #[inline]
    pub(crate) const fn index(self, ipa: Ipa, level: Level) -> usize {
        (ipa.bits() >> self.shift(level)) as usize & (self.entries() - 1)
    }

    /// Which table of a root at `level` translates `ipa`.
    #[inline]
    pub(crate) const fn root_index(self, ipa: Ipa, level: Level) -> usize {
        (ipa.bits() >> (self.shift(level) + self.bits_per_level())) as usize
    }
}

/// How many physical address bits a space may use.
///
/// The smallest of all CPUs that will run the guest: a table that names an
/// address one of them can't drive gives an address size fault there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
}

impl PaSize {
    /// From the four bits of ID_AA64MMFR0_EL1.PARange.
    ///
    /// 52 bits and more are cut to 48: descriptors without FEAT_LPA2 have no
    /// room for the rest, and copying the field blindly into VTCR_EL2.PS is a
    /// known way to get it wrong. `None` for values not yet given a meaning.
    pub const fn from_parange(field: u64) -> Option<Self> {
        match field {
            0 => Some(Self::Bits32),
            1 => Some(Self::Bits36),
            2 => Some(Self::Bits40),
            3 => Some(Self::Bits42),
            4 => Some(Self::Bits44),
            5..=7 => Some(Self::Bits48),
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
        }
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
    /// The geometry with the fewest levels for `ipa_bits` of IPA.
    ///
    /// # Errors
    ///
    /// See [`GeometryError`].
    pub const fn new(granule: Granule, ipa_bits: u32, pa_size: PaSize) -> Result<Self, GeometryError> {
        // From the shortest walk to the longest; one level is never enough
        // for the widths we allow.
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
        if ipa_bits < MIN_IPA_BITS || ipa_bits > MAX_IPA_BITS {
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
        // With 4 KiB pages, level 0 exists on CPUs with at least 44 physical
        // address bits (Arm ARM, AArch64.S2InvalidSL).
        if matches!(start_level, Level::L0) && pa_size.bits() < 44 {
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

    /// The level at which walks start.
    #[inline]
    pub const fn start_level(&self) -> Level {
        self.start_level
    }

    /// How many tables lie side by side at the root; 1, 2, 4, 8 or 16. The
    /// root is aligned to their total size.
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

    fn shape(ipa_bits: u32) -> (Level, usize) {
        let geometry = Geometry::new(Granule::Kib4, ipa_bits, PaSize::Bits48).unwrap();
        (geometry.start_level(), geometry.root_tables())
    }

    #[test]
    fn fewest_levels_are_chosen_for_every_width() {
        let expected = [
            (32, Level::L2, 4),
            (33, Level::L2, 8),
            (34, Level::L2, 16),
            (35, Level::L1, 1),
            (36, Level::L1, 1),
            (37, Level::L1, 1),
            (38, Level::L1, 1),
            (39, Level::L1, 1),
            (40, Level::L1, 2),
            (41, Level::L1, 4),
            (42, Level::L1, 8),
            (43, Level::L1, 16),
            (44, Level::L0, 1),
            (45, Level::L0, 1),
            (46, Level::L0, 1),
            (47, Level::L0, 1),
            (48, Level::L0, 1),
        ];
        for (ipa_bits, level, tables) in expected {
            assert_eq!(shape(ipa_bits), (level, tables), "{ipa_bits} bits");
        }
    }

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
    fn widths_outside_32_to_48_are_refused() {
        for ipa_bits in [0, 31, 49, 52, 64, u32::MAX] {
            let refused = Geometry::new(Granule::Kib4, ipa_bits, PaSize::Bits48);
            assert_eq!(refused, Err(GeometryError::IpaBits { ipa_bits }));
        }
    }

    #[test]
    fn parange_beyond_48_bits_is_cut_to_48() {
        assert_eq!(PaSize::from_parange(5), Some(PaSize::Bits48));
        assert_eq!(PaSize::from_parange(6), Some(PaSize::Bits48));
        assert_eq!(PaSize::from_parange(8), None);
    }

    #[test]
    fn space_ends_where_its_width_says() {
        let geometry = Geometry::new(Granule::Kib4, 40, PaSize::Bits40).unwrap();
        let last = IpaRange::new(Ipa::new((1 << 40) - 0x1000), 0x1000).unwrap();
        let beyond = IpaRange::new(Ipa::new((1 << 40) - 0x1000), 0x1001).unwrap();
        assert!(geometry.contains(last));
        assert!(!geometry.contains(beyond));
    }

    #[test]
    fn spans_are_those_of_the_4_kib_granule() {
        let granule = Granule::Kib4;
        assert_eq!(granule.span(Level::L3), 0x1000);
        assert_eq!(granule.span(Level::L2), 0x20_0000);
        assert_eq!(granule.span(Level::L1), 0x4000_0000);
        assert_eq!(granule.span(Level::L0), 0x80_0000_0000);
    }
}
