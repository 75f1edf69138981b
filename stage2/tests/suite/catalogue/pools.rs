//! Every allocation fails once: nothing changes its meaning, and nothing is
//! lost.

use std::convert::Infallible;

use stage2::{
    Annotation, Attributes, Budget, Cursor, Detail, Features, Geometry, Granule, InstallError, Ipa, IpaRange,
    Level, MapError, Mapping, PaSize, Permissions, PhysAddr,
};

use crate::kit::Lone;
use crate::machine::Machine;
use crate::oracle::{Stretch, normal_form};

const PAGE: u64 = 0x1000;
const MIB2: u64 = 0x20_0000;
const GIB1: u64 = 0x4000_0000;

type Operation = fn(&Lone<'_, Machine>, &Machine) -> Result<(), MapError>;

fn range(start: u64, size: u64) -> IpaRange {
    IpaRange::new(Ipa::new(start), size).unwrap()
}

fn space(machine: &Machine) -> Result<Lone<'_, Machine>, MapError> {
    let geometry = Geometry::new(Granule::Kib4, 40, PaSize::Bits40).unwrap();
    Lone::new(geometry, Features::BASE, machine)
}

/// Everything that is mapped, however it is cut.
fn meaning(space: &Lone<'_, Machine>) -> Vec<Stretch> {
    normal_form(space.leaves(range(0, 1 << 40)).map(Stretch::from))
}

/// A gigabyte in one block, and some pages behind it.
fn mapped(machine: &Machine) -> Lone<'_, Machine> {
    let space = space(machine).unwrap();
    space.map(range(0, GIB1), PhysAddr::new(0), Attributes::RAM, machine).unwrap();
    space.map(range(GIB1, 3 * PAGE), PhysAddr::new(GIB1), Attributes::RAM, machine).unwrap();
    space
}

/// Runs `operation` with no table to be had, with one, and so on, until they
/// are enough; and after each failure once more with enough.
fn with_every_allocation_failing(operation: Operation) {
    for tables in 0.. {
        let machine = Machine::new(600);
        let space = mapped(&machine);
        let before = meaning(&space);
        machine.allow_allocations(tables);
        let answer = operation(&space, &machine);
        machine.allow_allocations(usize::MAX);
        machine.check();
        machine.check_coherent(&space);
        if answer == Err(MapError::OutOfTables) {
            assert_eq!(meaning(&space), before, "with {tables} tables");
            operation(&space, &machine).unwrap();
        }
        space.unmap(range(0, 1 << 40), &machine).unwrap();
        space.reclaim();
        assert_eq!(machine.tables_in_use(), space.geometry().root_tables(), "with {tables} tables");
        space.destroy(&machine);
        assert_eq!(machine.tables_in_use(), 0);
        machine.check();
        if answer.is_ok() {
            assert!(tables > 0, "the operation allocates nothing");
            return;
        }
    }
}

#[test]
fn map_survives_every_failed_allocation() {
    with_every_allocation_failing(|space, machine| {
        space.map(range(2 * GIB1 - PAGE, MIB2), PhysAddr::new(2 * GIB1), Attributes::RAM, machine)
    });
}

#[test]
fn unmap_survives_every_failed_allocation() {
    with_every_allocation_failing(|space, machine| space.unmap(range(PAGE, GIB1 - 2 * PAGE), machine));
}

#[test]
fn protection_survives_every_failed_allocation() {
    with_every_allocation_failing(|space, machine| {
        space.protect(range(MIB2 + PAGE, 3 * MIB2), Permissions::READ_ONLY, machine)
    });
}

#[test]
fn c09_split_survives_every_failed_allocation() {
    with_every_allocation_failing(|space, machine| {
        let mut cursor = Cursor::new(range(0, 5 * MIB2));
        let budget = Budget::UNLIMITED;
        space.split_step(&space.pin(), &mut cursor, Level::L3, budget, machine).map(|_| ())
    });
}

#[test]
fn collection_of_dirty_pages_survives_every_failed_allocation() {
    with_every_allocation_failing(|space, machine| {
        let mut cursor = Cursor::new(range(0, GIB1 / 256));
        let (guard, budget) = (space.pin(), Budget::UNLIMITED);
        space.collect_dirty_step(&guard, &mut cursor, Detail::Pages, budget, machine, |_| {}).map(|_| ())
    });
}

#[test]
fn c28_fault_survives_every_failed_allocation() {
    with_every_allocation_failing(|space, machine| {
        let leaf = space.leaf(Level::L3, PhysAddr::new(5 * GIB1), Attributes::RAM)?;
        let always = || Ok::<(), Infallible>(());
        match space.install(&space.pin(), Ipa::new(5 * GIB1), leaf, None, always, machine) {
            Err(InstallError::OutOfTables { .. }) => {
                // Unmapping frees what it made on its way.
                space.unmap(range(5 * GIB1, PAGE), machine)?;
                Err(MapError::OutOfTables)
            }
            other => {
                assert!(other.is_ok());
                Ok(())
            }
        }
    });
}

#[test]
fn annotation_may_be_done_in_part_when_tables_run_out_and_goes_on() {
    let annotate: Operation = |space, machine| {
        let (mut cursor, note) = (Cursor::new(range(PAGE, GIB1)), Annotation::new(7).unwrap());
        space.annotate_step(&space.pin(), &mut cursor, note, Budget::UNLIMITED, machine).map(|_| ())
    };
    for tables in 0..6 {
        let machine = Machine::new(64);
        let space = mapped(&machine);
        let outside = |leaf: &Mapping| !range(PAGE, GIB1).covers(leaf.range);
        machine.allow_allocations(tables);
        let answer = annotate(&space, &machine);
        machine.allow_allocations(usize::MAX);
        assert!(matches!(answer, Ok(()) | Err(MapError::OutOfTables)));
        annotate(&space, &machine).unwrap();
        // The first page, and two behind the gigabyte.
        assert_eq!(space.leaves(range(0, 1 << 40)).filter(outside).count(), 3);
        assert_eq!(space.leaves(range(0, 1 << 40)).count(), 3);
        machine.check();
        space.destroy(&machine);
        assert_eq!(machine.tables_in_use(), 0);
    }
}

#[test]
fn c07_space_that_can_not_be_made_takes_nothing() {
    let machine = Machine::new(8);
    machine.allow_allocations(0);
    assert_eq!(space(&machine).map(|_| ()).unwrap_err(), MapError::OutOfTables);
    assert_eq!(machine.tables_in_use(), 0);
}

#[test]
fn c61_smallest_pool_is_enough_for_the_first_page() {
    // A root of two tables, and one table at each of levels 2 and 3.
    for (tables, answer) in [(2, Err(MapError::OutOfTables)), (3, Err(MapError::OutOfTables)), (4, Ok(()))] {
        let machine = Machine::new(tables);
        let space = space(&machine).unwrap();
        let mapped = space.map(range(0, PAGE), PhysAddr::new(GIB1), Attributes::RAM, &machine);
        assert_eq!(mapped, answer, "with {tables} tables");
        space.destroy(&machine);
        assert_eq!(machine.tables_in_use(), 0);
        machine.check();
    }
}
