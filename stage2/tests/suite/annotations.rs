//! Annotations over ranges.

use stage2::{
    Annotation, Attributes, Budget, Cursor, Descriptor, Features, Geometry, Granule, Ipa, IpaRange, MapError,
    PaSize, PhysAddr, Pte, Step,
};

use crate::kit::Lone;
use crate::machine::{Counts, Machine};

const PAGE: u64 = 0x1000;
const MIB2: u64 = 0x20_0000;
const GIB1: u64 = 0x4000_0000;

fn space(machine: &Machine) -> Lone<'_, Machine> {
    let geometry = Geometry::new(Granule::Kib4, 40, PaSize::Bits40).unwrap();
    Lone::new(geometry, Features::BASE, machine).unwrap()
}

fn range(start: u64, size: u64) -> IpaRange {
    IpaRange::new(Ipa::new(start), size).unwrap()
}

fn note(value: u64) -> Annotation {
    Annotation::new(value).unwrap()
}

/// Annotates in steps of one table.
fn annotate(
    space: &Lone<'_, Machine>,
    machine: &Machine,
    whole: IpaRange,
    value: u64,
) -> Result<(), MapError> {
    let mut cursor = Cursor::new(whole);
    while space.annotate_step(&space.pin(), &mut cursor, note(value), Budget::entries(0), machine)?
        == Step::More
    {}
    Ok(())
}

fn clear(space: &Lone<'_, Machine>, machine: &Machine, whole: IpaRange) -> Result<(), MapError> {
    let mut cursor = Cursor::new(whole);
    while space.clear_annotations_step(&space.pin(), &mut cursor, Budget::entries(0), machine)? == Step::More
    {
    }
    Ok(())
}

/// Start, size and value of all annotations.
fn annotations(space: &Lone<'_, Machine>) -> Vec<(u64, u64, u64)> {
    let guard = space.pin();
    let all = space.annotations(&guard, range(0, 1 << 40));
    all.map(|it| (it.range.start().bits(), it.range.size(), it.annotation.value())).collect()
}

fn sizes(space: &Lone<'_, Machine>) -> Vec<u64> {
    space.leaves(range(0, 1 << 40)).map(|mapping| mapping.range.size()).collect()
}

/// Ends a test: nothing was violated and all tables came back.
fn finish(space: Lone<'_, Machine>, machine: &Machine) {
    machine.check_coherent(&space);
    space.destroy(machine);
    machine.check();
    assert_eq!(machine.tables_in_use(), 0);
}

#[test]
fn largest_entries_that_lie_inside_are_taken() {
    let machine = Machine::new(64);
    let space = space(&machine);
    annotate(&space, &machine, range(GIB1 - MIB2 - PAGE, PAGE + MIB2 + GIB1 + PAGE), 7).unwrap();
    let expected =
        [(GIB1 - MIB2 - PAGE, PAGE, 7), (GIB1 - MIB2, MIB2, 7), (GIB1, GIB1, 7), (2 * GIB1, PAGE, 7)];
    assert_eq!(annotations(&space), expected);
    finish(space, &machine);
}

#[test]
fn c32_no_payload_reads_back_as_anything_else() {
    let machine = Machine::new(64);
    let space = space(&machine);
    let single_bits = (0..Annotation::BITS).map(|bit| 1 << bit);
    let all = (1 << Annotation::BITS) - 1;
    for value in single_bits.chain([0, all, all ^ 1, 0x5_5555_5555_5555, 0xa_aaaa_aaaa_aaaa]) {
        annotate(&space, &machine, range(0, PAGE), value).unwrap();
        let guard = space.pin();
        assert_eq!(space.entry(&guard, Ipa::new(0)).unwrap().pte(), Pte::Annotated(note(value)));
        assert_eq!(space.lookup(Ipa::new(0)), None);
        assert_eq!(annotations(&space), [(0, PAGE, value)]);
    }
    finish(space, &machine);
}

#[test]
fn what_was_mapped_is_gone_from_every_tlb() {
    let machine = Machine::new(64);
    let space = space(&machine);
    let whole = range(GIB1 - 2 * PAGE, MIB2 + 4 * PAGE);
    space.map(whole, PhysAddr::new(GIB1 - 2 * PAGE), Attributes::RAM, &machine).unwrap();
    annotate(&space, &machine, whole, 1).unwrap();
    assert_eq!(sizes(&space), []);
    machine.check_coherent(&space);
    finish(space, &machine);
}

#[test]
fn rest_of_a_block_stays_mapped() {
    let machine = Machine::new(64);
    let space = space(&machine);
    space.map(range(0, MIB2), PhysAddr::new(0), Attributes::RAM, &machine).unwrap();
    annotate(&space, &machine, range(PAGE, PAGE), 1).unwrap();
    assert_eq!(sizes(&space), [PAGE; 511]);
    assert_eq!(annotations(&space), [(PAGE, PAGE, 1)]);
    finish(space, &machine);
}

#[test]
fn table_of_pages_gives_way_to_one_annotation() {
    let machine = Machine::new(64);
    let space = space(&machine);
    space.map(range(0, MIB2), PhysAddr::new(PAGE), Attributes::RAM, &machine).unwrap();
    let before = machine.tables_in_use();
    machine.take_counts();
    annotate(&space, &machine, range(0, MIB2), 1).unwrap();
    assert_eq!(annotations(&space), [(0, MIB2, 1)]);
    assert_eq!(machine.take_counts(), Counts { range: 1, ..Counts::default() });
    space.reclaim();
    assert_eq!(machine.tables_in_use(), before - 1);
    finish(space, &machine);
}

#[test]
fn annotation_replaces_another() {
    let machine = Machine::new(64);
    let space = space(&machine);
    annotate(&space, &machine, range(0, 4 * MIB2), 1).unwrap();
    annotate(&space, &machine, range(MIB2, MIB2 + PAGE), 2).unwrap();
    let found = annotations(&space);
    assert_eq!(found[..3], [(0, MIB2, 1), (MIB2, MIB2, 2), (2 * MIB2, PAGE, 2)]);
    assert!(found[3..].iter().all(|&(_, _, value)| value == 1));
    assert_eq!(found.iter().map(|&(_, size, _)| size).sum::<u64>(), 4 * MIB2);
    finish(space, &machine);
}

#[test]
fn annotated_range_is_not_mapped_over() {
    let machine = Machine::new(64);
    let space = space(&machine);
    annotate(&space, &machine, range(PAGE, PAGE), 1).unwrap();
    let refused = space.map(range(0, MIB2), PhysAddr::new(0), Attributes::RAM, &machine);
    assert_eq!(refused, Err(MapError::Annotated { ipa: Ipa::new(PAGE) }));
    finish(space, &machine);
}

#[test]
fn clearing_leaves_what_is_mapped() {
    let machine = Machine::new(64);
    let space = space(&machine);
    space.map(range(0, 2 * MIB2), PhysAddr::new(0), Attributes::RAM, &machine).unwrap();
    annotate(&space, &machine, range(PAGE, PAGE), 1).unwrap();
    annotate(&space, &machine, range(2 * MIB2, MIB2), 2).unwrap();
    let before = sizes(&space);
    clear(&space, &machine, range(0, GIB1)).unwrap();
    assert_eq!(annotations(&space), []);
    assert_eq!(sizes(&space), before);
    finish(space, &machine);
}

#[test]
fn clearing_a_part_leaves_the_rest() {
    let machine = Machine::new(64);
    let space = space(&machine);
    annotate(&space, &machine, range(0, MIB2), 3).unwrap();
    clear(&space, &machine, range(PAGE, MIB2 - 2 * PAGE)).unwrap();
    assert_eq!(annotations(&space), [(0, PAGE, 3), (MIB2 - PAGE, PAGE, 3)]);
    finish(space, &machine);
}

#[test]
fn clearing_a_part_of_a_block_does_not_split_it() {
    let machine = Machine::new(64);
    let space = space(&machine);
    space.map(range(0, MIB2), PhysAddr::new(0), Attributes::RAM, &machine).unwrap();
    clear(&space, &machine, range(PAGE, PAGE)).unwrap();
    assert_eq!(sizes(&space), [MIB2]);
    finish(space, &machine);
}

#[test]
fn tables_that_held_annotations_only_leave_when_those_are_cleared() {
    let machine = Machine::new(64);
    let space = space(&machine);
    let before = machine.tables_in_use();
    annotate(&space, &machine, range(GIB1 - PAGE, 2 * PAGE), 1).unwrap();
    assert_eq!(machine.tables_in_use(), before + 4);
    clear(&space, &machine, range(GIB1 - PAGE, 2 * PAGE)).unwrap();
    space.reclaim();
    assert_eq!(machine.tables_in_use(), before);
    finish(space, &machine);
}

#[test]
fn running_out_of_tables_keeps_none_of_them_empty() {
    for tables in 0..4 {
        let machine = Machine::new(64);
        let space = space(&machine);
        let before = machine.tables_in_use();
        machine.allow_allocations(tables);
        let range = range(GIB1 - PAGE, 2 * PAGE);
        assert_eq!(annotate(&space, &machine, range, 1), Err(MapError::OutOfTables));
        machine.allow_allocations(usize::MAX);
        clear(&space, &machine, range).unwrap();
        space.reclaim();
        assert_eq!(machine.tables_in_use(), before, "{tables} tables");
        annotate(&space, &machine, range, 1).unwrap();
        finish(space, &machine);
    }
}

#[test]
fn annotations_are_invalid_to_the_hardware() {
    let machine = Machine::new(64);
    let space = space(&machine);
    machine.take_counts();
    annotate(&space, &machine, range(0, GIB1), u64::MAX >> 12).unwrap();
    assert_eq!(machine.take_counts(), Counts::default());
    let root = machine.snapshot(space.root());
    assert!(root[0] != Descriptor::EMPTY && !root[0].is_valid());
    finish(space, &machine);
}
