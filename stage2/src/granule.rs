//! The page size of a space, and all that follows from it.
//!
//! Everything about the shape of a tree comes from two numbers: the bits of
//! an address that are the offset within a page, and the bits that one level
//! decodes. A table fills one page, so with eight bytes to a descriptor the
//! second number is the first minus three.
//!
//! | granule | bits per level | level 1  | level 2 | level 3 |
//! |---------|----------------|----------|---------|---------|
//! | 4 KiB   | 9              | 1 GiB    | 2 MiB   | 4 KiB   |
//! | 16 KiB  | 11             | 64 GiB   | 32 MiB  | 16 KiB  |
//! | 64 KiB  | 13             | 4 TiB    | 512 MiB | 64 KiB  |
//!
//! Which of these entries may be leaves depends on the width of physical
//! addresses as well: see [`Format::allows_leaf`](crate::Format::allows_leaf).
//!
//! The rest of the crate asks a granule instead of writing 12 and 9. That is
//! what lets the models of concurrency (`cfg(stage2_loom)`) run the same code
//! on a granule of two entries to a table: no model checker could go through
//! tables of 512.

use crate::addr::{Ipa, Level};

/// The page size of a space, and with it the size of its tables.
///
/// The values are the bits of an address that are the offset within a page:
/// every step of every walk asks for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Granule {
    /// 4 KiB pages.
    Kib4 = 12,
    /// 16 KiB pages.
    Kib16 = 14,
    /// 64 KiB pages.
    Kib64 = 16,
    /// 4 KiB pages, but two entries to a table; no hardware has it.
    #[cfg(stage2_loom)]
    Tiny = 0,
}

impl Granule {
    /// Address bits that are the offset within a page.
    #[inline]
    const fn page_shift(self) -> u32 {
        match self {
            Self::Kib4 | Self::Kib16 | Self::Kib64 => self as u32,
            #[cfg(stage2_loom)]
            Self::Tiny => 12,
        }
    }

    /// Address bits one level decodes.
    #[inline]
    pub(crate) const fn bits_per_level(self) -> u32 {
        match self {
            Self::Kib4 | Self::Kib16 | Self::Kib64 => self.page_shift() - 3,
            #[cfg(stage2_loom)]
            Self::Tiny => 1,
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
        self.page_shift() + (Level::L3.number() - level.number()) * self.bits_per_level()
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

    /// Bytes in a page, and the size and alignment of a table.
    #[inline]
    pub const fn page_size(self) -> u64 {
        1 << self.page_shift()
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

    /// How many neighbouring leaves at `level` may be marked as one contiguous
    /// set, which a TLB may hold in a single entry; `None` if the level has no
    /// such sets (Arm ARM, `ContiguousSize`).
    ///
    /// A set starts at a multiple of its size, in the space and in physical
    /// memory. One that is larger than the whole space must not be marked: a
    /// walk may fault on it (`AArch64.ContiguousBitFaults`).
    #[inline]
    pub const fn contiguous_entries(self, level: Level) -> Option<usize> {
        match (self, level) {
            (Self::Kib4, Level::L1 | Level::L2 | Level::L3) => Some(16),
            (Self::Kib16, Level::L2) => Some(32),
            (Self::Kib16, Level::L3) => Some(128),
            (Self::Kib64, Level::L2 | Level::L3) => Some(32),
            (Self::Kib4, Level::L0) | (Self::Kib16 | Self::Kib64, Level::L0 | Level::L1) => None,
            #[cfg(stage2_loom)]
            (Self::Tiny, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Granule;
    use crate::addr::{Ipa, Level};

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    fn spans(granule: Granule) -> [u64; 4] {
        [Level::L0, Level::L1, Level::L2, Level::L3].map(|level| granule.span(level))
    }

    #[test]
    fn spans_are_those_of_the_manual() {
        assert_eq!(spans(Granule::Kib4), [512 * GIB, GIB, 2 * MIB, 4 * KIB]);
        assert_eq!(spans(Granule::Kib16)[1..], [64 * GIB, 32 * MIB, 16 * KIB]);
        assert_eq!(spans(Granule::Kib64)[1..], [4096 * GIB, 512 * MIB, 64 * KIB]);
    }

    #[test]
    fn table_of_eight_byte_entries_fills_a_page() {
        for granule in [Granule::Kib4, Granule::Kib16, Granule::Kib64] {
            assert_eq!(granule.entries() as u64 * 8, granule.page_size());
        }
    }

    #[test]
    fn index_takes_the_bits_of_its_level_only() {
        let ipa = Ipa::new(0b11 << 47 | 3 << 36 | 5 << 25 | 7 << 14 | 0x3fff);
        assert_eq!(Granule::Kib16.index(ipa, Level::L0), 3);
        assert_eq!(Granule::Kib16.index(ipa, Level::L1), 3);
        assert_eq!(Granule::Kib16.index(ipa, Level::L2), 5);
        assert_eq!(Granule::Kib16.index(ipa, Level::L3), 7);
    }

    #[test]
    fn contiguous_sets_have_the_sizes_of_the_manual() {
        let size = |granule: Granule, level| {
            granule.contiguous_entries(level).map(|entries| entries as u64 * granule.span(level))
        };
        assert_eq!(size(Granule::Kib4, Level::L3), Some(64 * KIB));
        assert_eq!(size(Granule::Kib4, Level::L2), Some(32 * MIB));
        assert_eq!(size(Granule::Kib4, Level::L1), Some(16 * GIB));
        assert_eq!(size(Granule::Kib16, Level::L3), Some(2 * MIB));
        assert_eq!(size(Granule::Kib16, Level::L2), Some(GIB));
        assert_eq!(size(Granule::Kib64, Level::L3), Some(2 * MIB));
        assert_eq!(size(Granule::Kib64, Level::L2), Some(16 * GIB));
    }

    #[test]
    fn block_levels_of_large_addresses_have_no_contiguous_sets() {
        assert_eq!(Granule::Kib4.contiguous_entries(Level::L0), None);
        assert_eq!(Granule::Kib16.contiguous_entries(Level::L1), None);
        assert_eq!(Granule::Kib64.contiguous_entries(Level::L1), None);
    }
}
