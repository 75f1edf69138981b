//! Random streams of operations in spaces of every granule, every width and
//! every address format, compared with the oracle after every step. What TLBs
//! make of it is for other tests: the subject is which entry means what.

use proptest::prelude::*;
use stage2::arena::{Arena, frame};
use stage2::{
    Annotation, Attributes, Bbm, Budget, Contiguous, Cursor, Features, Geometry, Granule, Ipa, IpaRange,
    Level, MapError, NoTlb, PaSize, Permissions, PhysAddr,
};

use crate::kit::{Lone, epochs};
use crate::oracle::{Note, Oracle, Stretch, normal_form, normal_notes};

/// What is done, in units of the granule: a range is some pages and some
/// blocks of level 2 from some block and some page on.
#[derive(Clone, Debug)]
enum Operation {
    Map(Place, u64, Permissions),
    Unmap(Place),
    Protect(Place, Permissions),
    Split(Place),
    Collapse(Place),
    Fold(Place),
    Annotate(Place, u64),
    ClearAnnotations(Place),
}

/// A range, without its granule.
#[derive(Clone, Copy, Debug)]
struct Place {
    from_top: bool,
    blocks: u64,
    pages: u64,
    size_blocks: u64,
    size_pages: u64,
}

impl Place {
    /// The range in a space of this shape, near its bottom or its top.
    fn of(self, geometry: &Geometry) -> IpaRange {
        let (page, block) = (geometry.granule().page_size(), geometry.granule().span(Level::L2));
        let width = 1_u64 << geometry.ipa_bits();
        let base = if self.from_top { width - 4 * block } else { 0 };
        let start = base + self.blocks * block + self.pages * page;
        let size = (self.size_blocks * block + self.size_pages * page).max(page).min(width - start);
        IpaRange::new(Ipa::new(start), size).unwrap()
    }
}

fn place() -> impl Strategy<Value = Place> {
    let pages = || prop_oneof![3 => Just(0), 1 => 0..3_u64, 1 => 15..18_u64];
    (any::<bool>(), 0..4_u64, pages(), 0..3_u64, pages()).prop_map(
        |(from_top, blocks, pages, size_blocks, size_pages)| Place {
            from_top,
            blocks,
            pages,
            size_blocks,
            size_pages,
        },
    )
}

fn permissions() -> impl Strategy<Value = Permissions> {
    prop_oneof![Just(Permissions::ALL), Just(Permissions::READ_ONLY), Just(Permissions::READ_WRITE)]
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        6 => (place(), 0..3_u64, permissions())
            .prop_map(|(place, output, permissions)| Operation::Map(place, output, permissions)),
        3 => place().prop_map(Operation::Unmap),
        2 => (place(), permissions()).prop_map(|(place, permissions)| Operation::Protect(place, permissions)),
        1 => place().prop_map(Operation::Split),
        2 => place().prop_map(Operation::Collapse),
        1 => place().prop_map(Operation::Fold),
        1 => (place(), 1..3_u64).prop_map(|(place, value)| Operation::Annotate(place, value)),
        1 => place().prop_map(Operation::ClearAnnotations),
    ]
}

/// Every shape that there is, from the widths that it has.
fn geometry() -> impl Strategy<Value = Geometry> {
    let granule = prop_oneof![Just(Granule::Kib4), Just(Granule::Kib16), Just(Granule::Kib64)];
    let pa_size = prop_oneof![Just(PaSize::Bits48), Just(PaSize::Bits52)];
    let start = prop_oneof![Just(None), Just(Some(Level::L0)), Just(Some(Level::L1)), Just(Some(Level::L2))];
    (granule, pa_size, 34..=52_u32, start).prop_filter_map(
        "no such shape",
        |(granule, pa_size, bits, start)| match start {
            None => Geometry::new(granule, bits, pa_size).ok(),
            Some(level) => Geometry::with_start_level(granule, bits, pa_size, level).ok(),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]

    #[test]
    fn every_geometry_means_what_the_oracle_says(
        geometry in geometry(),
        contiguous in prop_oneof![Just(Contiguous::Never), Just(Contiguous::Allowed)],
        bbm in prop_oneof![Just(Bbm::Level0), Just(Bbm::Level2)],
        operations in prop::collection::vec(operation(), 1..16),
    ) {
        let epochs = epochs();
        let frames: Vec<_> = std::iter::repeat_with(frame).take(4096).collect();
        let memory = Arena::new(PhysAddr::new(0x1_0000_0000), frames, epochs);
        let features = Features { contiguous, bbm, ..Features::BASE };
        let space = Lone::new(geometry, features, &memory).unwrap();
        let block = geometry.granule().span(Level::L2);
        let whole = IpaRange::new(Ipa::new(0), 1 << geometry.ipa_bits()).unwrap();
        let mut oracle = Oracle::default();
        for operation in operations {
            let (guard, unlimited) = (space.pin(), Budget::UNLIMITED);
            let cursor = |place: Place| Cursor::new(place.of(&geometry));
            match operation {
                Operation::Map(place, blocks, permissions) => {
                    let range = place.of(&geometry);
                    // In step with the range, off by blocks, or off by a page.
                    let off = if blocks == 2 { geometry.granule().page_size() } else { blocks * block };
                    let output = PhysAddr::new((range.start().bits() + off) % (1 << 47));
                    let attributes = Attributes { permissions, ..Attributes::RAM };
                    let mapped = oracle.first_mapped(range).unwrap_or(u64::MAX);
                    let annotated = oracle.first_annotated(range).unwrap_or(u64::MAX);
                    let expected = if annotated < mapped {
                        Err(MapError::Annotated { ipa: Ipa::new(annotated) })
                    } else if mapped < u64::MAX {
                        Err(MapError::AlreadyMapped { ipa: Ipa::new(mapped) })
                    } else {
                        oracle.map(range, output, attributes);
                        Ok(())
                    };
                    prop_assert_eq!(space.map(range, output, attributes, &NoTlb), expected);
                }
                Operation::Unmap(place) => {
                    oracle.unmap(place.of(&geometry));
                    space.unmap(place.of(&geometry), &NoTlb).unwrap();
                }
                Operation::Protect(place, permissions) => {
                    oracle.protect(place.of(&geometry), permissions);
                    space.protect(place.of(&geometry), permissions, &NoTlb).unwrap();
                }
                Operation::Split(place) => {
                    let _ = space.split_step(&guard, &mut cursor(place), Level::L3, unlimited, &NoTlb).unwrap();
                }
                Operation::Collapse(place) => {
                    let _ = space.collapse(&guard, place.of(&geometry).start(), &NoTlb);
                }
                Operation::Fold(place) => {
                    let _ = space.fold(&guard, place.of(&geometry).start(), &NoTlb);
                }
                Operation::Annotate(place, value) => {
                    oracle.annotate(place.of(&geometry), value);
                    let note = Annotation::new(value).unwrap();
                    let _ = space.annotate_step(&guard, &mut cursor(place), note, unlimited, &NoTlb).unwrap();
                }
                Operation::ClearAnnotations(place) => {
                    oracle.clear_annotations(place.of(&geometry));
                    let _ =
                        space.clear_annotations_step(&guard, &mut cursor(place), unlimited, &NoTlb).unwrap();
                }
            }
            prop_assert_eq!(normal_form(space.leaves(whole).map(Stretch::from)), oracle.stretches());
            let notes = normal_notes(space.annotations(&guard, whole).map(Note::from));
            prop_assert_eq!(notes, oracle.notes());
            drop(guard);
            space.reclaim();
        }
        space.destroy(&NoTlb);
        prop_assert_eq!(memory.in_use(), 0);
    }
}
