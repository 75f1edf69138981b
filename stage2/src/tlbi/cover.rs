//! A range of addresses, taken apart into range operations and single ones.
//!
//! A range operation covers a multiple of 2, 64, 2048 or 65536 pages (see
//! [`Extent`]), so a range is taken apart like a number into digits, from the
//! largest unit down: an operation for each digit, and a single operation for
//! an odd last page. Where range operations must start at a multiple of 64 KiB
//! (FEAT_LPA2), single ones lead up to it. As all units but the smallest are
//! multiples of 64 KiB, and the smallest comes last, it is needed only at the
//! start.

use crate::addr::{Ipa, IpaRange};
use crate::tlbi::operand::{Extent, Units};

/// What one operation covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// The page at this address: a single operation.
    Page(Ipa),
    /// Pages from this address on: a range operation.
    Pages(Ipa, Extent),
}

/// The pieces of a range, in ascending order; they cover its pages exactly.
#[derive(Clone, Debug)]
pub struct Cover {
    rest: Option<IpaRange>,
    units: Units,
}

impl Cover {
    /// Takes apart all pages that have an address in `range`.
    #[inline]
    pub fn new(range: IpaRange, units: Units) -> Self {
        Self { rest: Some(align_outward(range, units.page_size())), units }
    }
}

/// The smallest range of whole multiples of `size`, a power of two, that covers
/// `range`.
pub(super) const fn align_outward(range: IpaRange, size: u64) -> IpaRange {
    let start = range.start().align_down(size);
    IpaRange::of_entry(start, (range.end().bits() - start.bits()).next_multiple_of(size))
}

impl Iterator for Cover {
    type Item = Piece;

    #[inline]
    fn next(&mut self) -> Option<Piece> {
        let range = self.rest?;
        let (start, page_size) = (range.start(), self.units.page_size());
        let extent = if start.is_aligned(self.units.base_size()) {
            Extent::within(range.size() / page_size)
        } else {
            None
        };
        let (piece, pages) = match extent {
            Some(extent) => (Piece::Pages(start, extent), extent.pages()),
            None => (Piece::Page(start), 1),
        };
        self.rest = IpaRange::between(start.plus(pages * page_size), range.end());
        Some(piece)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::{any, proptest};
    use proptest::sample::select;

    use super::{Cover, Piece};
    use crate::addr::{Ipa, IpaRange};
    use crate::format::Format;
    use crate::geometry::{Geometry, Granule, PaSize};
    use crate::tlbi::operand::{Extent, Units};
    use crate::vtcr::Features;

    /// Every granule, with 48 bits of address and with 52.
    const ALL: [Units; 6] = [
        units(Granule::Kib4, PaSize::Bits48),
        units(Granule::Kib16, PaSize::Bits48),
        units(Granule::Kib64, PaSize::Bits48),
        units(Granule::Kib4, PaSize::Bits52),
        units(Granule::Kib16, PaSize::Bits52),
        units(Granule::Kib64, PaSize::Bits52),
    ];

    const fn units(granule: Granule, pa_size: PaSize) -> Units {
        match Geometry::new(granule, 40, pa_size) {
            Ok(geometry) => Units::new(Format::new(&geometry, Features::BASE)),
            Err(_) => panic!("there are spaces of 40 bits with any granule"),
        }
    }

    fn pages(first: u64, count: u64, units: Units) -> IpaRange {
        IpaRange::new(Ipa::new(first * units.page_size()), count * units.page_size()).unwrap()
    }

    /// Checks that the pieces follow each other from one end to the other and
    /// start where they may, and returns how many they are.
    fn check(range: IpaRange, units: Units) -> usize {
        let mut at = range.start();
        let mut pieces = 0;
        for piece in Cover::new(range, units) {
            let (start, size) = match piece {
                Piece::Page(start) => (start, units.page_size()),
                Piece::Pages(start, extent) => {
                    assert!(start.is_aligned(units.base_size()), "{piece:?} of {range} starts between units");
                    (start, extent.pages() * units.page_size())
                }
            };
            assert_eq!(start, at, "{piece:?} of {range}");
            at = start.plus(size);
            pieces += 1;
        }
        assert_eq!(at, range.end(), "{range}");
        pieces
    }

    #[test]
    fn every_small_range_is_covered_exactly() {
        for units in ALL {
            for first in 0..34 {
                for count in 1..=2500 {
                    check(pages(first, count, units), units);
                }
            }
        }
    }

    #[test]
    fn bytes_within_a_page_stand_for_the_page() {
        let byte = IpaRange::new(Ipa::new(0x1fff), 2).unwrap();
        let cover: Vec<Piece> = Cover::new(byte, ALL[0]).collect();
        assert_eq!(cover, [Piece::Pages(Ipa::new(0x1000), Extent::within(2).unwrap())]);
    }

    #[test]
    fn digits_become_one_operation_each() {
        let units = ALL[0];
        assert_eq!(check(pages(0, 31 << 16 | 31 << 11 | 31 << 6 | 31 << 1 | 1, units), units), 5);
    }

    #[test]
    fn range_beyond_the_largest_operation_takes_several() {
        let units = ALL[0];
        assert_eq!(check(pages(0, 3 * Extent::LARGEST + 1, units), units), 4);
    }

    proptest! {
        #[test]
        fn every_range_is_covered_exactly(
            units in select(&ALL[..]),
            first in 0..1_u64 << 34,
            bits in 0..34_u32,
            low in any::<u64>(),
        ) {
            let count = 1 << bits | low & ((1 << bits) - 1);
            check(pages(first, count, units), units);
        }
    }
}
