//! Random streams of operations, in spaces of every width, compared with an
//! [`Oracle`] after every step, with the machine watching every store.

use proptest::prelude::*;
use stage2::{
    Annotation, Attributes, Budget, Contiguous, Cursor, Features, Fwb, Geometry, Granule, Ipa, IpaRange,
    Level, MapError, MemoryType, PaSize, Permissions, PhysAddr, Step,
};

use crate::kit::Lone;
use crate::machine::Machine;
use crate::oracle::{Note, Oracle, Stretch, normal_form, normal_notes};

const PAGE: u64 = 0x1000;
const MIB2: u64 = 0x20_0000;
const GIB1: u64 = 0x4000_0000;

#[derive(Clone, Debug)]
enum Operation {
    Map(IpaRange, PhysAddr, Attributes),
    Unmap(IpaRange),
    Protect(IpaRange, Permissions),
    Split(IpaRange, Level),
    Collapse(Ipa),
    Fold(Ipa),
    /// Moves the page or block there to the memory from here on, or just
    /// below, as its alignment needs.
    Migrate(Ipa, PhysAddr),
    Annotate(IpaRange, u64),
    ClearAnnotations(IpaRange),
}

/// Where things happen: few places, so that operations meet, and those near
/// the borders of pages, blocks, tables, root tables and the space.
fn address(ipa_bits: u32) -> impl Strategy<Value = u64> {
    let top = (1 << ipa_bits) - 2 * GIB1;
    let anchor = prop_oneof![Just(0), Just(GIB1), Just(top), Just((top / 2) & !(GIB1 - 1))];
    let blocks = prop_oneof![3 => 0..4u64, 1 => 508..516u64];
    let pages = prop_oneof![2 => Just(0), 1 => 0..3u64, 1 => 509..512u64];
    (anchor, blocks, pages).prop_map(|(anchor, blocks, pages)| anchor + blocks * MIB2 + pages * PAGE)
}

/// How much at once: from a page to some gigabytes, even and uneven.
fn size() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => (1..4u64).prop_map(|pages| pages * PAGE),
        3 => (1..4u64, 0..3u64).prop_map(|(blocks, pages)| blocks * MIB2 + pages * PAGE),
        1 => (1..3u64, 0..2u64, 0..2u64)
            .prop_map(|(gibs, blocks, pages)| gibs * GIB1 + blocks * MIB2 + pages * PAGE),
    ]
}

fn range(ipa_bits: u32) -> impl Strategy<Value = IpaRange> {
    (address(ipa_bits), size()).prop_map(move |(start, size)| {
        let size = size.min((1 << ipa_bits) - start);
        IpaRange::new(Ipa::new(start), size).unwrap()
    })
}

fn permissions() -> impl Strategy<Value = Permissions> {
    prop_oneof![
        Just(Permissions::ALL),
        Just(Permissions::READ_WRITE),
        Just(Permissions::READ_EXECUTE),
        Just(Permissions::READ_ONLY),
        Just(Permissions::NONE),
    ]
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let memory = prop_oneof![
        3 => Just(MemoryType::NormalWriteBack),
        1 => Just(MemoryType::NormalNonCacheable),
        1 => Just(MemoryType::DeviceNGnRE),
        1 => Just(MemoryType::DeviceNGnRnE),
    ];
    (memory, permissions()).prop_map(|(memory, permissions)| Attributes { memory, permissions })
}

/// Memory for `range`: with the same alignment, off by a block, or (for what
/// is small enough to be mapped page by page) off by a page.
fn output(range: IpaRange) -> impl Strategy<Value = PhysAddr> {
    let pages = if range.size() < 8 * MIB2 { 0..3u64 } else { 0..1 };
    (0..3u64, 0..3u64, pages).prop_map(move |(gibs, blocks, pages)| {
        let start = range.start().bits() % (1 << 40);
        PhysAddr::new(start + gibs * GIB1 + blocks * MIB2 + pages * PAGE)
    })
}

fn operation(ipa_bits: u32) -> impl Strategy<Value = Operation> {
    let map = range(ipa_bits).prop_flat_map(|range| {
        (Just(range), output(range), attributes())
            .prop_map(|(range, output, attributes)| Operation::Map(range, output, attributes))
    });
    let unmap = range(ipa_bits).prop_map(Operation::Unmap);
    let protect = (range(ipa_bits), permissions())
        .prop_map(|(range, permissions)| Operation::Protect(range, permissions));
    // Only what is small is split into pages: there would be too many.
    let split = range(ipa_bits).prop_map(|range| {
        let level = if range.size() < 8 * MIB2 { Level::L3 } else { Level::L2 };
        Operation::Split(range, level)
    });
    let collapse = address(ipa_bits).prop_map(|ipa| Operation::Collapse(Ipa::new(ipa)));
    let fold = address(ipa_bits).prop_map(|ipa| Operation::Fold(Ipa::new(ipa)));
    let migrate = (range(ipa_bits), 0..4u64)
        .prop_map(|(range, gibs)| Operation::Migrate(range.start(), PhysAddr::new(gibs * GIB1 + 5 * MIB2)));
    let annotate = (range(ipa_bits), 1..3u64).prop_map(|(range, value)| Operation::Annotate(range, value));
    let clear = range(ipa_bits).prop_map(Operation::ClearAnnotations);
    prop_oneof![
        6 => map,
        4 => unmap,
        2 => protect,
        2 => split,
        2 => collapse,
        1 => fold,
        1 => migrate,
        1 => annotate,
        1 => clear,
    ]
}

/// Every width, and where there is a choice also the longer walk.
fn geometry() -> impl Strategy<Value = Geometry> {
    (32..=48u32, any::<bool>()).prop_map(|(ipa_bits, longer)| {
        let shortest = Geometry::new(Granule::Kib4, ipa_bits, PaSize::Bits48).unwrap();
        let longer_level = match shortest.start_level() {
            Level::L2 => Level::L1,
            _ => Level::L0,
        };
        let longer = longer
            .then(|| Geometry::with_start_level(Granule::Kib4, ipa_bits, PaSize::Bits48, longer_level).ok());
        longer.flatten().unwrap_or(shortest)
    })
}

fn features() -> impl Strategy<Value = Features> {
    let fwb = prop_oneof![Just(Fwb::Off), Just(Fwb::On)];
    let contiguous = prop_oneof![Just(Contiguous::Never), Just(Contiguous::Allowed)];
    (fwb, contiguous).prop_map(|(fwb, contiguous)| Features { fwb, contiguous, ..Features::BASE })
}

type Stream = (Geometry, Features, Vec<Operation>);

fn stream() -> impl Strategy<Value = Stream> {
    (geometry(), features()).prop_flat_map(|(geometry, features)| {
        let operations = prop::collection::vec(operation(geometry.ipa_bits()), 1..24);
        (Just(geometry), Just(features), operations)
    })
}

/// Everything the space says, in the oracle's form.
fn said_by(space: &Lone<'_, Machine>) -> Vec<Stretch> {
    let whole = IpaRange::new(Ipa::new(0), 1 << space.geometry().ipa_bits()).unwrap();
    normal_form(space.leaves(whole).map(Stretch::from))
}

/// The annotations of the space, in the oracle's form.
fn notes_of(space: &Lone<'_, Machine>) -> Vec<Note> {
    let whole = IpaRange::new(Ipa::new(0), 1 << space.geometry().ipa_bits()).unwrap();
    let guard = space.pin();
    normal_notes(space.annotations(&guard, whole).map(Note::from))
}

/// Runs an operation to its end, in steps of one table where it has steps.
fn apply(space: &Lone<'_, Machine>, machine: &Machine, operation: &Operation) -> Result<(), MapError> {
    let one_table = Budget::entries(0);
    match *operation {
        Operation::Map(range, output, attributes) => space.map(range, output, attributes, machine),
        Operation::Unmap(range) => space.unmap(range, machine),
        Operation::Protect(range, permissions) => space.protect(range, permissions, machine),
        Operation::Split(range, level) => {
            let mut cursor = Cursor::new(range);
            let mut step = || space.split_step(&space.pin(), &mut cursor, level, one_table, machine);
            while step()? == Step::More {}
            Ok(())
        }
        Operation::Collapse(ipa) => {
            // A refusal changes nothing, and neither does success.
            let _ = space.collapse(&space.pin(), ipa, machine);
            Ok(())
        }
        Operation::Fold(ipa) => {
            let _ = space.fold(&space.pin(), ipa, machine);
            Ok(())
        }
        Operation::Migrate(ipa, output) => {
            let Some(mapping) = space.lookup(ipa) else { return Ok(()) };
            let output = output.align_down(mapping.range.size());
            let vacated = space.migrate(&space.pin(), ipa, output, |_| {}, machine);
            assert_eq!(vacated.unwrap().output(), mapping.output);
            Ok(())
        }
        Operation::Annotate(range, value) => {
            let (mut cursor, value) = (Cursor::new(range), Annotation::new(value).unwrap());
            let mut step = || space.annotate_step(&space.pin(), &mut cursor, value, one_table, machine);
            while step()? == Step::More {}
            Ok(())
        }
        Operation::ClearAnnotations(range) => {
            let mut cursor = Cursor::new(range);
            let mut step = || space.clear_annotations_step(&space.pin(), &mut cursor, one_table, machine);
            while step()? == Step::More {}
            Ok(())
        }
    }
}

/// What the operation should do and answer, with tables enough. `space` is as
/// it was before, and tells the oracle how large the leaves are.
fn expect(oracle: &mut Oracle, space: &Lone<'_, Machine>, operation: &Operation) -> Result<(), MapError> {
    match *operation {
        Operation::Map(range, output, attributes) => {
            let mapped = oracle.first_mapped(range).unwrap_or(u64::MAX);
            let annotated = oracle.first_annotated(range).unwrap_or(u64::MAX);
            if annotated < mapped {
                return Err(MapError::Annotated { ipa: Ipa::new(annotated) });
            } else if mapped < u64::MAX {
                return Err(MapError::AlreadyMapped { ipa: Ipa::new(mapped) });
            }
            oracle.map(range, output, attributes);
        }
        Operation::Unmap(range) => oracle.unmap(range),
        Operation::Protect(range, permissions) => oracle.protect(range, permissions),
        Operation::Split(..) | Operation::Collapse(_) | Operation::Fold(_) => {}
        Operation::Migrate(ipa, output) => {
            if let Some(mapping) = space.lookup(ipa) {
                oracle.unmap(mapping.range);
                oracle.map(mapping.range, output.align_down(mapping.range.size()), mapping.attributes);
            }
        }
        Operation::Annotate(range, value) => oracle.annotate(range, value),
        Operation::ClearAnnotations(range) => oracle.clear_annotations(range),
    }
    Ok(())
}

/// Unmaps everything and sees all tables but the root come back.
fn empty_and_destroy(space: Lone<'_, Machine>, machine: &Machine) {
    let whole = IpaRange::new(Ipa::new(0), 1 << space.geometry().ipa_bits()).unwrap();
    space.unmap(whole, machine).unwrap();
    space.reclaim();
    assert_eq!(machine.tables_in_use(), space.geometry().root_tables());
    space.destroy(machine);
    assert_eq!(machine.tables_in_use(), 0);
    machine.check();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]

    #[test]
    fn every_stream_means_what_the_oracle_says((geometry, features, operations) in stream()) {
        let machine = Machine::new(512);
        let space = Lone::new(geometry, features, &machine).unwrap();
        let mut oracle = Oracle::default();
        for operation in &operations {
            let expected = expect(&mut oracle, &space, operation);
            prop_assert_eq!(apply(&space, &machine, operation), expected);
            prop_assert_eq!(said_by(&space), oracle.stretches());
            prop_assert_eq!(notes_of(&space), oracle.notes());
            machine.check();
            machine.check_coherent(&space);
        }
        empty_and_destroy(space, &machine);
    }

    #[test]
    fn an_operation_without_tables_changes_no_meaning(
        (geometry, features, operations) in stream(),
        tables in 0..6usize,
    ) {
        let machine = Machine::new(512);
        let space = Lone::new(geometry, features, &machine).unwrap();
        let mut oracle = Oracle::default();
        for operation in &operations {
            let mut as_it_should_be = oracle.clone();
            let expected = expect(&mut as_it_should_be, &space, operation);
            machine.allow_allocations(tables);
            let mut answer = apply(&space, &machine, operation);
            machine.allow_allocations(usize::MAX);
            if answer == Err(MapError::OutOfTables) && matches!(operation, Operation::Annotate(..) | Operation::ClearAnnotations(_))
            {
                // Part of it may be done. The rest can be.
                answer = apply(&space, &machine, operation);
            }
            if answer != Err(MapError::OutOfTables) {
                prop_assert_eq!(answer, expected);
                oracle = as_it_should_be;
            }
            prop_assert_eq!(said_by(&space), oracle.stretches());
            prop_assert_eq!(notes_of(&space), oracle.notes());
            machine.check();
            machine.check_coherent(&space);
            space.reclaim();
        }
        empty_and_destroy(space, &machine);
    }

    #[test]
    fn an_empty_space_is_mapped_with_the_largest_blocks_that_fit(
        (geometry, range, output) in geometry().prop_flat_map(|geometry| {
            range(geometry.ipa_bits())
                .prop_flat_map(move |range| (Just(geometry), Just(range), output(range)))
        })
    ) {
        let machine = Machine::new(512);
        let space = Lone::new(geometry, Features::BASE, &machine).unwrap();
        space.map(range, output, Attributes::RAM, &machine).unwrap();
        let largest = if geometry.start_level() == Level::L2 { MIB2 } else { GIB1 };
        let mut at = 0;
        for mapping in space.leaves(range) {
            let (ipa, pa) = (range.start().bits() + at, output.bits() + at);
            let expected = [GIB1, MIB2, PAGE].into_iter().find(|size| {
                *size <= largest && ipa % size == 0 && pa % size == 0 && at + size <= range.size()
            });
            prop_assert_eq!(Some(mapping.range.size()), expected);
            at += mapping.range.size();
        }
        prop_assert_eq!(at, range.size());
        space.destroy(&machine);
        machine.check();
    }
}
