//! Operations that give way: as often as they can, with nothing owed, and
//! without beginning again.

use stage2::{
    Aging, Annotation, Attributes, Budget, Cursor, Detail, Features, Geometry, Granule, Ipa, IpaRange, Level,
    MapError, PaSize, Permissions, PhysAddr, Space, Step, Tlb,
};

use crate::kit::Lone;
use crate::machine::Machine;
use crate::model::rig::{Rig, range};
use crate::model::{Config, Machine as Model};

const PAGE: u64 = 0x1000;
const MIB2: u64 = 0x20_0000;
const GIB1: u64 = 0x4000_0000;

/// Off by a page, so that there are pages only.
const RAM: u64 = 0x4000_1000;

/// As little as there is: one table.
const LEAST: Budget = Budget::entries(0);

fn geometry() -> Geometry {
    Geometry::new(Granule::Kib4, 40, PaSize::Bits40).unwrap()
}

#[test]
fn c39_what_a_step_unmapped_is_out_of_reach_when_it_returns() {
    let machine = Model::new(Config::FULL);
    let rig = Rig::new(&machine);
    let cpu = rig.cpu(0);
    cpu.map(range(0, 3 * MIB2), RAM).unwrap();
    let mut cursor = Cursor::new(range(PAGE, 3 * MIB2 - 2 * PAGE));
    while rig.space.unmap_step(&cpu.pin(), &mut cursor, LEAST, &cpu.maintenance).unwrap() == Step::More {
        if let Some(done) = cursor.done() {
            machine.reuse(RAM + PAGE, done.size());
        }
        machine.check();
    }
    machine.reuse(RAM + PAGE, 3 * MIB2 - 2 * PAGE);
    machine.check();
    drop(cpu);
    rig.finish();
}

#[test]
fn step_of_a_map_is_published_when_it_returns() {
    let machine = Machine::new(16);
    let space = Lone::new(geometry(), Features::BASE, &machine).unwrap();
    let (mut cursor, output) = (Cursor::new(range(0, 2 * MIB2)), PhysAddr::new(RAM));
    let mut step = Step::More;
    while step == Step::More {
        step = space.map_step(&space.pin(), &mut cursor, output, Attributes::RAM, LEAST, &machine).unwrap();
        machine.check();
    }
    space.destroy(&machine);
}

/// Calls `step` until it is done, and checks that it gets on each time. Says
/// how often that was, and how far it came at most.
fn until_done(whole: IpaRange, mut step: impl FnMut(&mut Cursor) -> Result<Step, MapError>) -> (usize, u64) {
    let (mut cursor, mut largest) = (Cursor::new(whole), 0);
    for calls in 1.. {
        let before = cursor.done().map_or(0, IpaRange::size);
        let answer = step(&mut cursor).unwrap();
        let by = cursor.done().map_or(0, IpaRange::size) - before;
        assert!(by > 0, "no progress at {before:#x}");
        largest = largest.max(by);
        if answer == Step::Done {
            return (calls, largest);
        }
    }
    unreachable!("there is always another call")
}

#[test]
fn c40_every_operation_gets_on_if_it_gives_way_all_the_time() {
    let machine = Machine::new(64);
    let space = Lone::new(geometry(), Features::BASE, &machine).unwrap();
    let (whole, output) = (range(3 * PAGE, 5 * MIB2), PhysAddr::new(RAM));
    let pin = || space.pin();
    let calls = [
        until_done(whole, |cursor| space.map_step(&pin(), cursor, output, Attributes::RAM, LEAST, &machine)),
        until_done(whole, |cursor| {
            space.protect_step(&pin(), cursor, Permissions::READ_WRITE, LEAST, &machine)
        }),
        until_done(whole, |cursor| {
            space.age_step(&pin(), cursor, Aging::Clear(Tlb::Batch), LEAST, &machine, |_| {})
        }),
        until_done(whole, |cursor| {
            space.collect_dirty_step(&pin(), cursor, Detail::Leaves, LEAST, &machine, |_| {})
        }),
        until_done(whole, |cursor| space.split_step(&pin(), cursor, Level::L3, LEAST, &machine)),
        until_done(whole, |cursor| space.unmap_step(&pin(), cursor, LEAST, &machine)),
    ];
    // All in pages: no more than a table of them at once, or the ends of two.
    assert!(calls.iter().all(|&(calls, largest)| calls >= 3 && largest <= 2 * MIB2), "{calls:?}");
    let note = Annotation::new(7).unwrap();
    until_done(whole, |cursor| space.annotate_step(&pin(), cursor, note, LEAST, &machine));
    until_done(whole, |cursor| space.clear_annotations_step(&pin(), cursor, LEAST, &machine));
    machine.check();
    space.destroy(&machine);
    assert_eq!(machine.tables_in_use(), 0);
}

#[test]
fn c38_gigabyte_of_pages_goes_in_steps_of_a_table() {
    let machine = Machine::new(600);
    let space = Lone::new(geometry(), Features::BASE, &machine).unwrap();
    let whole = range(0, GIB1);
    space.map(whole, PhysAddr::new(RAM), Attributes::RAM, &machine).unwrap();
    let (_, largest) = until_done(whole, |cursor| space.unmap_step(&space.pin(), cursor, LEAST, &machine));
    assert!(largest <= 2 * MIB2, "{largest:#x} bytes in one step");
    space.destroy(&machine);
}

#[test]
fn c25_teardown_is_done_in_steps_and_leaves_nothing() {
    let machine = Machine::new(600);
    let space = Space::new(geometry(), Features::BASE, &machine).unwrap();
    let cpu = machine.cpu();
    space.map(&cpu.pin(), range(0, GIB1), PhysAddr::new(RAM), Attributes::RAM, &machine).unwrap();
    let tables = machine.tables_in_use();
    let (mut rest, mut steps) = (Some(space.teardown(&machine)), 0);
    while let Some(teardown) = rest {
        rest = teardown.step(LEAST);
        steps += 1;
        assert!(tables - machine.tables_in_use() <= 2 * steps + 2, "more than a few tables in one step");
    }
    assert_eq!(machine.tables_in_use(), 0);
    machine.check();
}

#[test]
fn c36_tlbs_forget_a_space_before_its_tables_are_free() {
    let machine = Machine::new(16);
    let space = Lone::new(geometry(), Features::BASE, &machine).unwrap();
    space.map(range(0, PAGE), PhysAddr::new(RAM), Attributes::RAM, &machine).unwrap();
    space.destroy(&machine);
    machine.check();
}

#[test]
fn c57_tables_of_all_sizes_of_mappings_come_back_once() {
    let machine = Machine::new(600);
    let space = Lone::new(geometry(), Features::BASE, &machine).unwrap();
    let whole = range(GIB1 - 3 * MIB2 - 5 * PAGE, 2 * GIB1 + 9 * MIB2);
    for _ in 0..3 {
        space.map(whole, PhysAddr::new(whole.start().bits()), Attributes::RAM, &machine).unwrap();
        space.protect(range(GIB1 + MIB2, 3 * PAGE), Permissions::READ_ONLY, &machine).unwrap();
        space.unmap(whole, &machine).unwrap();
        space.reclaim();
        assert_eq!(machine.tables_in_use(), space.geometry().root_tables());
        machine.check();
    }
    space.destroy(&machine);
    assert_eq!(machine.tables_in_use(), 0);
}

#[test]
fn c78_walk_comes_out_of_a_hole_at_the_right_address() {
    let (blocks, gigabytes) = (MIB2 / PAGE, GIB1 / PAGE);
    let sizes = [1, 2, 511, 512, 513, blocks * 511, blocks * 512 + 1, gigabytes, 3 * gigabytes + blocks - 1];
    for hole in sizes {
        let machine = Machine::new(32);
        let space = Lone::new(geometry(), Features::BASE, &machine).unwrap();
        // Up to the last page of the space.
        let last = (1 << 40) - PAGE;
        let first = last - (hole + 1) * PAGE;
        for ipa in [first, last] {
            space.map(range(ipa, PAGE), PhysAddr::new(RAM), Attributes::RAM, &machine).unwrap();
        }
        let whole = range(first, (hole + 2) * PAGE);
        let found: Vec<_> = space.leaves(whole).map(|leaf| leaf.range.start().bits()).collect();
        assert_eq!(found, [first, last], "with a hole of {hole} pages");
        space.unmap(whole, &machine).unwrap();
        assert_eq!(space.leaves(range(0, 1 << 40)).count(), 0);
        assert!(space.lookup(Ipa::new(last)).is_none());
        space.destroy(&machine);
        machine.check();
    }
}
