//! The operands of TLBI operations by intermediate physical address.
//!
//! | operation | bits  | field | meaning                                          |
//! |-----------|-------|-------|--------------------------------------------------|
//! | IPAS2…    | 39:0  | IPA   | the address in units of 4 KiB, *for any granule* |
//! |           | 47:44 | TTL   | granule and level of the leaf; 0: unknown        |
//! | RIPAS2…   | 36:0  | BADDR | the first address in units of [`Units`]          |
//! |           | 38:37 | TTL   | level of the leaves; 0: unknown                  |
//! |           | 43:39 | NUM   | length of the range ...                          |
//! |           | 45:44 | SCALE | ... which is (NUM + 1) · 2^(5 · SCALE + 1) pages |
//! |           | 47:46 | TG    | granule                                          |
//!
//! Bit 63 (NS) is for Secure state only. (Arm ARM, "TLBI IPAS2E1IS" and "TLBI
//! RIPAS2E1IS".)
//!
//! A level is a *hint* only in name: hardware that believes it removes nothing
//! that is cached for another level.

use crate::addr::{Ipa, Level};
use crate::format::{AddressFormat, Format};
use crate::geometry::Granule;

/// How a space measures addresses in these operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Units {
    granule: Granule,
    base: BaseUnit,
}

/// What the BADDR field of a range operation counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BaseUnit {
    /// Pages of the granule.
    Page,
    /// 64 KiB, with FEAT_LPA2 in use (VTCR_EL2.DS).
    Kib64,
}

impl Units {
    /// The units of a space whose descriptors have this format.
    #[inline]
    pub const fn new(format: Format) -> Self {
        let base = match format.addresses() {
            AddressFormat::Bits48 | AddressFormat::Lpa => BaseUnit::Page,
            AddressFormat::Lpa2 => BaseUnit::Kib64,
        };
        Self { granule: format.granule(), base }
    }

    /// Bytes in a page.
    #[inline]
    pub const fn page_size(self) -> u64 {
        self.granule.page_size()
    }

    /// Bytes that a leaf at `level` translates.
    #[inline]
    pub(crate) const fn span(self, level: Level) -> u64 {
        self.granule.span(level)
    }

    /// The alignment of the first address of a range operation, in bytes.
    #[inline]
    pub const fn base_size(self) -> u64 {
        match self.base {
            BaseUnit::Page => self.page_size(),
            BaseUnit::Kib64 => 64 << 10,
        }
    }

    /// The granule as the TG and TTL fields spell it: 1, 2, 3.
    const fn tg(self) -> u64 {
        match self.granule {
            Granule::Kib4 => 1,
            Granule::Kib16 => 2,
            Granule::Kib64 => 3,
            #[cfg(stage2_loom)]
            Granule::Tiny => 1,
        }
    }
}

/// The operand of an operation on a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpaOperand(u64);

impl IpaOperand {
    /// Entries that translate `ipa`, whatever their level.
    #[inline]
    pub const fn new(ipa: Ipa) -> Self {
        Self(ipa.bits() >> 12)
    }

    /// Leaves at `level` that translate `ipa`.
    #[inline]
    pub const fn with_level(ipa: Ipa, level: Level, units: Units) -> Self {
        let ttl = match (level, units.base) {
            // Leaves at level 0 exist with FEAT_LPA2 only; without it, the
            // same bits have no meaning.
            (Level::L0, BaseUnit::Page) => 0,
            _ => units.tg() << 2 | level.number() as u64,
        };
        Self(ipa.bits() >> 12 | ttl << 44)
    }

    /// The register value.
    #[inline]
    pub const fn bits(self) -> u64 {
        self.0
    }
}

/// How many pages a range operation covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    num: u8,
    scale: u8,
}

impl Extent {
    /// The most pages that one operation covers.
    pub const LARGEST: u64 = Self { num: 31, scale: 3 }.pages();

    /// As many of `pages` as one operation covers; `None` for none or a single
    /// one, which no range operation covers alone.
    #[inline]
    pub const fn within(pages: u64) -> Option<Self> {
        let scale = match pages {
            0 | 1 => return None,
            0x2..0x40 => 0,
            0x40..0x800 => 1,
            0x800..0x1_0000 => 2,
            _ => 3,
        };
        let units = pages >> (5 * scale + 1);
        Some(Self { num: if units > 32 { 31 } else { units as u8 - 1 }, scale })
    }

    /// The number of pages.
    #[inline]
    pub const fn pages(self) -> u64 {
        (self.num as u64 + 1) << (5 * self.scale + 1)
    }
}

/// The operand of an operation on a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RangeOperand(u64);

impl RangeOperand {
    /// Entries that translate an address in the `extent` from `start` on,
    /// which is a multiple of [`Units::base_size`]; with `level`, only leaves
    /// at this level, to whose size `start` is aligned as well.
    #[inline]
    pub const fn new(start: Ipa, extent: Extent, level: Option<Level>, units: Units) -> Self {
        let ttl = match level {
            // Level 0 can't be told: zero is "unknown".
            Some(level) => level.number() as u64,
            None => 0,
        };
        Self(
            (start.bits() / units.base_size())
                | ttl << 37
                | (extent.num as u64) << 39
                | (extent.scale as u64) << 44
                | units.tg() << 46,
        )
    }

    /// The register value.
    #[inline]
    pub const fn bits(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::{BaseUnit, Extent, IpaOperand, RangeOperand, Units};
    use crate::addr::{Ipa, Level};
    use crate::geometry::Granule;

    const KIB4: Units = Units { granule: Granule::Kib4, base: BaseUnit::Page };
    const KIB4_LPA2: Units = Units { granule: Granule::Kib4, base: BaseUnit::Kib64 };
    const KIB16: Units = Units { granule: Granule::Kib16, base: BaseUnit::Page };
    const KIB64: Units = Units { granule: Granule::Kib64, base: BaseUnit::Page };

    #[test]
    fn single_operand_counts_4_kib() {
        assert_eq!(IpaOperand::new(Ipa::new(0xf_ffff_ffff_f000)).bits(), 0xff_ffff_ffff);
    }

    #[test]
    fn hint_names_granule_and_level() {
        let ttl = |level, units| IpaOperand::with_level(Ipa::new(0x4000_0000), level, units).bits() >> 44;
        assert_eq!(ttl(Level::L2, KIB4), 0b01_10);
        assert_eq!(ttl(Level::L3, KIB16), 0b10_11);
        assert_eq!(ttl(Level::L1, KIB64), 0b11_01);
    }

    #[test]
    fn level_0_is_hinted_with_lpa2_only() {
        assert_eq!(IpaOperand::with_level(Ipa::new(0x1000), Level::L0, KIB4).bits(), 1);
        assert_eq!(IpaOperand::with_level(Ipa::new(0x1000), Level::L0, KIB4_LPA2).bits(), 0b01_00 << 44 | 1);
    }

    #[test]
    fn range_operand_counts_pages() {
        let extent = Extent::within(512).unwrap_or_else(|| unreachable!());
        let operand = RangeOperand::new(Ipa::new(0x4000_0000), extent, Some(Level::L2), KIB4);
        assert_eq!(operand.bits(), 0b01 << 46 | 1 << 44 | 7 << 39 | 0b10 << 37 | 0x40000);
    }

    #[test]
    fn range_operand_names_the_granule() {
        let extent = Extent::within(3).unwrap_or_else(|| unreachable!());
        let operand = RangeOperand::new(Ipa::new(0x4001_0000), extent, Some(Level::L3), KIB64);
        assert_eq!(operand.bits(), 0b11 << 46 | 0b11 << 37 | 0x4001);
        let operand = RangeOperand::new(Ipa::new(0x4001_0000), extent, None, KIB16);
        assert_eq!(operand.bits(), 0b10 << 46 | 0x10004);
    }

    #[test]
    fn range_operand_counts_64_kib_with_lpa2() {
        let extent = Extent::within(2).unwrap_or_else(|| unreachable!());
        let operand = RangeOperand::new(Ipa::new(0x4001_0000), extent, None, KIB4_LPA2);
        assert_eq!(operand.bits(), 0b01 << 46 | 0x4001);
    }

    #[test]
    fn largest_extent_is_eight_gib_of_4_kib_pages() {
        assert_eq!(Extent::LARGEST, 1 << 21);
        assert_eq!(Extent::within(u64::MAX).map(Extent::pages), Some(Extent::LARGEST));
    }

    #[test]
    fn extent_is_the_largest_that_fits() {
        for pages in 2..0x4_0000 {
            let covered = Extent::within(pages).map_or(0, Extent::pages);
            assert!(covered <= pages && pages < 2 * covered.max(2), "{covered} of {pages}");
        }
    }
}
