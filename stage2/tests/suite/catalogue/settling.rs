//! Descriptors that are stored over valid ones: until TLBs have forgotten the
//! old one, nobody may change the new one.

use std::cell::Cell;

use stage2::bbm::is_bbm_safe_for_identical_contents;
use stage2::{
    Attributes, Bbm, Features, Geometry, Granule, Ipa, IpaRange, Level, Maintenance, PaSize, Permissions,
    PhysAddr, Resolved, Stale,
};

use crate::kit::Lone;
use crate::machine::Machine;

const PAGE: u64 = 0x1000;
const MIB2: u64 = 0x20_0000;

/// A machine on which another CPU asks for permission to write to page 0 while
/// an invalidation is under way.
struct Meanwhile<'m, 's> {
    machine: &'m Machine,
    space: &'s Lone<'m, Machine>,
    answers: Cell<Vec<Resolved>>,
}

impl Maintenance for Meanwhile<'_, '_> {
    fn publish(&self) {
        self.machine.publish();
    }

    fn invalidate(&self, range: IpaRange, stale: Stale) {
        let other = self.machine.cpu();
        let answer = self.space.relax(&other.pin(), Ipa::new(0), Permissions::ALL, self.machine);
        self.answers.set([self.answers.take(), vec![answer]].concat());
        self.machine.invalidate(range, stale);
    }

    fn invalidate_local(&self, range: IpaRange, stale: Stale) {
        self.machine.invalidate_local(range, stale);
    }

    fn invalidate_all(&self) {
        self.machine.invalidate_all();
    }
}

fn read_only_space(machine: &Machine, features: Features, size: u64) -> Lone<'_, Machine> {
    let geometry = Geometry::new(Granule::Kib4, 40, PaSize::Bits40).unwrap();
    let space = Lone::new(geometry, features, machine).unwrap();
    let attributes = Attributes { permissions: Permissions::READ_ONLY, ..Attributes::RAM };
    let range = IpaRange::new(Ipa::new(0), size).unwrap();
    space.map(range, PhysAddr::new(MIB2), attributes, machine).unwrap();
    space
}

#[test]
fn c74_table_stored_over_a_block_is_not_changed_while_tlbs_hold_the_block() {
    let machine = Machine::new(16);
    let space = read_only_space(&machine, Features { bbm: Bbm::Level2, ..Features::BASE }, MIB2);
    let meanwhile = Meanwhile { machine: &machine, space: &space, answers: Cell::default() };
    let last = IpaRange::new(Ipa::new(MIB2 - PAGE), PAGE).unwrap();
    space.protect(last, Permissions::NONE, &meanwhile).unwrap();
    // During the split, and during the invalidation of what was protected.
    assert_eq!(meanwhile.answers.take(), [Resolved::Retry, Resolved::Done]);
    // The hardware walks the table beside the block meanwhile: that is what
    // the feature allows, and this machine has not.
    machine.take_violations();
    space.destroy(&machine);
}

#[test]
fn identical_page_is_not_made_writable_while_tlbs_hold_the_old_one() {
    let machine = Machine::new(16);
    let space = read_only_space(&machine, Features::BASE, PAGE);
    machine.contents_are_identical(PhysAddr::new(MIB2), PhysAddr::new(5 * MIB2));
    let meanwhile = Meanwhile { machine: &machine, space: &space, answers: Cell::default() };
    let (ipa, output) = (Ipa::new(0), PhysAddr::new(5 * MIB2));
    let _ = space.migrate_identical(&space.pin(), ipa, output, &meanwhile).unwrap();
    assert_eq!(meanwhile.answers.take(), [Resolved::Retry]);
    machine.check();
    space.destroy(&machine);
}

#[test]
fn memory_that_may_be_written_to_is_never_identical() {
    let machine = Machine::new(16);
    let space = read_only_space(&machine, Features::BASE, PAGE);
    let leaf = |output, permissions| {
        let attributes = Attributes { permissions, ..Attributes::RAM };
        space.leaf(Level::L3, PhysAddr::new(output), attributes).unwrap()
    };
    let safe = is_bbm_safe_for_identical_contents;
    let [here, there] = [0, PAGE].map(|output| leaf(output, Permissions::READ_ONLY));
    assert!(safe(here, there));
    assert!(!safe(leaf(0, Permissions::READ_WRITE), there));
    assert!(!safe(here, leaf(PAGE, Permissions::READ_WRITE)));
    assert!(!safe(here, leaf(PAGE, Permissions::READ_WRITE).cleaned()));
    space.destroy(&machine);
}
