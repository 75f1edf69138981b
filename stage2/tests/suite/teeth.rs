//! The machine bites: with one kind of maintenance left out, it notices.
//!
//! A model that accepts everything proves nothing, so each of its rules is
//! seen here to fail once.

use stage2::{Attributes, Features, Geometry, Granule, Ipa, IpaRange, Level, Maintenance, PaSize};
use stage2::{Permissions, PhysAddr, Stale};

use crate::kit::Lone;
use crate::machine::Machine;

const PAGE: u64 = 0x1000;
const MIB2: u64 = 0x20_0000;

/// What to leave out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Omit {
    Publish,
    Leaf,
    Range,
    All,
}

/// A machine whose driver forgets one kind of maintenance.
struct Careless<'m>(&'m Machine, Omit);

impl Maintenance for Careless<'_> {
    fn publish(&self) {
        if self.1 != Omit::Publish {
            self.0.publish();
        }
    }

    fn invalidate(&self, range: IpaRange, stale: Stale) {
        let kind = if matches!(stale, Stale::Leaves(_)) { Omit::Leaf } else { Omit::Range };
        if self.1 != kind {
            self.0.invalidate(range, stale);
        }
    }

    fn invalidate_local(&self, range: IpaRange, stale: Stale) {
        self.0.invalidate_local(range, stale);
    }

    fn invalidate_all(&self) {
        if self.1 != Omit::All {
            self.0.invalidate_all();
        }
    }
}

/// An invalidation for the right address with the wrong level.
struct WrongLevel<'m>(&'m Machine);

impl Maintenance for WrongLevel<'_> {
    fn publish(&self) {
        self.0.publish();
    }

    fn invalidate(&self, range: IpaRange, stale: Stale) {
        let wrong = if matches!(stale, Stale::Leaves(_)) { Stale::Leaves(Level::L1) } else { stale };
        self.0.invalidate(range, wrong);
    }

    fn invalidate_local(&self, range: IpaRange, stale: Stale) {
        self.0.invalidate_local(range, stale);
    }

    fn invalidate_all(&self) {
        self.0.invalidate_all();
    }
}

fn space(machine: &Machine) -> Lone<'_, Machine> {
    let geometry = Geometry::new(Granule::Kib4, 40, PaSize::Bits40).unwrap();
    Lone::new(geometry, Features::BASE, machine).unwrap()
}

fn range(start: u64, size: u64) -> IpaRange {
    IpaRange::new(Ipa::new(start), size).unwrap()
}

/// A space with one block, to be changed carelessly.
fn with_block(machine: &Machine) -> Lone<'_, Machine> {
    let space = space(machine);
    space.map(range(0, MIB2), PhysAddr::new(0x4000_0000), Attributes::RAM, machine).unwrap();
    space
}

#[test]
fn split_without_a_break_is_noticed() {
    let machine = Machine::new(16);
    let space = with_block(&machine);
    space.unmap(range(0, PAGE), &Careless(&machine, Omit::Leaf)).unwrap();
    assert!(!machine.take_violations().is_empty());
    space.destroy(&machine);
}

#[test]
fn break_with_the_wrong_level_is_noticed() {
    let machine = Machine::new(16);
    let space = with_block(&machine);
    space.unmap(range(0, PAGE), &WrongLevel(&machine)).unwrap();
    assert!(!machine.take_violations().is_empty());
    space.destroy(&machine);
}

#[test]
fn missing_publication_is_noticed() {
    let machine = Machine::new(16);
    let space = space(&machine);
    let careless = Careless(&machine, Omit::Publish);
    space.map(range(0, PAGE), PhysAddr::new(0), Attributes::RAM, &careless).unwrap();
    assert!(machine.is_unpublished());
    space.destroy(&machine);
}

#[test]
fn table_freed_without_invalidation_is_noticed() {
    let machine = Machine::new(16);
    let space = space(&machine);
    space.map(range(0, 2 * PAGE), PhysAddr::new(0), Attributes::RAM, &machine).unwrap();
    space.unmap(range(0, 2 * PAGE), &Careless(&machine, Omit::Range)).unwrap();
    assert!(machine.take_violations().is_empty());
    space.reclaim();
    assert!(!machine.take_violations().is_empty());
    space.destroy(&machine);
}

#[test]
fn space_destroyed_without_invalidation_is_noticed() {
    let machine = Machine::new(16);
    let space = space(&machine);
    space.map(range(0, PAGE), PhysAddr::new(0), Attributes::RAM, &machine).unwrap();
    space.destroy(&Careless(&machine, Omit::All));
    assert!(!machine.take_violations().is_empty());
}

#[test]
fn reuse_of_an_address_that_was_unmapped_without_invalidation_is_noticed() {
    let machine = Machine::new(16);
    let space = with_block(&machine);
    // A neighbour, so that no table becomes empty and is invalidated.
    space.map(range(MIB2, MIB2), PhysAddr::new(0), Attributes::RAM, &machine).unwrap();
    space.unmap(range(0, MIB2), &Careless(&machine, Omit::Leaf)).unwrap();
    space.map(range(0, MIB2), PhysAddr::new(0x8000_0000), Attributes::RAM, &machine).unwrap();
    assert!(!machine.take_violations().is_empty());
    space.destroy(&machine);
}

#[test]
#[should_panic(expected = "memory disagrees")]
fn permission_taken_away_without_invalidation_is_noticed() {
    let machine = Machine::new(16);
    let space = with_block(&machine);
    space.protect(range(0, MIB2), Permissions::READ_ONLY, &Careless(&machine, Omit::Range)).unwrap();
    machine.check();
    machine.check_coherent(&space);
}
