//! Guests at work: access flags, dirty state, and who notices what.

use stage2::{
    AccessFlag, Dirty, DirtyState, Features, Geometry, Granule, Ipa, Leaf, Level, Maintenance, PaSize,
    Permissions, Pte, Stale,
};

use crate::model::rig::{Rig, range};
use crate::model::{Access, Config, Machine, Outcome};

const PAGE: u64 = 0x1000;
const RAM: u64 = 0x4000_0000;

/// Page 0 in a space where walkers set access flags and note writes.
fn rig(machine: &Machine) -> Rig<'_> {
    let geometry = Geometry::new(Granule::Kib4, 40, PaSize::Bits40).unwrap();
    let features =
        Features { access_flag: AccessFlag::Hardware, dirty: DirtyState::Hardware, ..Features::BASE };
    let rig = Rig::with_shape(machine, geometry, features, 1);
    rig.cpu(0).map(range(0, PAGE), RAM).unwrap();
    rig
}

fn leaf(rig: &Rig<'_>) -> Leaf {
    let cpu = rig.cpu(0);
    let guard = cpu.pin();
    match rig.space.entry(&guard, Ipa::new(0)).unwrap().pte() {
        Pte::Leaf(leaf) => leaf,
        other => panic!("{other:?} is no page"),
    }
}

/// Changes the leaf of page 0 in place, and does no maintenance.
fn change(rig: &Rig<'_>, change: impl Fn(Leaf) -> Leaf) {
    let cpu = rig.cpu(0);
    let guard = cpu.pin();
    let entry = rig.space.entry(&guard, Ipa::new(0)).unwrap();
    entry.try_update(change(leaf(rig))).unwrap();
}

fn forget(rig: &Rig<'_>) {
    rig.cpu(0).maintenance.invalidate(range(0, PAGE), Stale::Leaves(Level::L3));
}

#[test]
fn access_after_the_tlbs_forgot_sets_the_flag() {
    let machine = Machine::new(Config::FULL);
    let rig = rig(&machine);
    change(&rig, Leaf::aged);
    forget(&rig);
    assert!(!leaf(&rig).is_young());
    assert_eq!(machine.access(1, 1, 0, Access::Read, 0), Outcome::Reaches(RAM));
    assert!(leaf(&rig).is_young());
}

#[test]
fn access_through_a_tlb_entry_that_was_kept_leaves_the_flag_clear() {
    let machine = Machine::new(Config::FULL);
    let rig = rig(&machine);
    change(&rig, Leaf::aged);
    // The first way is that of the TLB.
    assert_eq!(machine.access(1, 1, 0, Access::Read, 0), Outcome::Reaches(RAM));
    assert!(!leaf(&rig).is_young());
}

#[test]
fn walker_may_set_the_flag_for_no_reason() {
    let machine = Machine::new(Config::FULL);
    let rig = rig(&machine);
    change(&rig, Leaf::aged);
    forget(&rig);
    machine.speculate(1, 1, 0);
    assert!(leaf(&rig).is_young());
}

#[test]
fn without_hardware_flags_an_access_faults() {
    let machine = Machine::new(Config::FULL);
    let rig = Rig::new(&machine);
    rig.cpu(0).map(range(0, PAGE), RAM).unwrap();
    change(&rig, Leaf::aged);
    forget(&rig);
    assert_eq!(machine.outcomes(1, 1, 0, Access::Read), [Outcome::AccessFlagFault]);
    machine.speculate(1, 1, 0);
    assert!(!leaf(&rig).is_young());
}

#[test]
fn setting_the_flag_needs_no_invalidation() {
    let machine = Machine::new(Config::FULL);
    let rig = Rig::new(&machine);
    rig.cpu(0).map(range(0, PAGE), RAM).unwrap();
    change(&rig, Leaf::aged);
    forget(&rig);
    change(&rig, Leaf::young);
    rig.cpu(0).maintenance.publish();
    assert_eq!(machine.outcomes(1, 1, 0, Access::Read), [Outcome::Reaches(RAM)]);
    machine.check();
}

#[test]
fn write_makes_a_clean_page_dirty() {
    let machine = Machine::new(Config::FULL);
    let rig = rig(&machine);
    change(&rig, Leaf::cleaned);
    forget(&rig);
    machine.copy(RAM, PAGE);
    machine.check();
    assert_eq!(machine.access(1, 1, 0, Access::Write, 0), Outcome::Reaches(RAM));
    assert_eq!(leaf(&rig).dirty(), Dirty::Dirty);
}

#[test]
fn copy_before_the_tlbs_forgot_loses_a_write() {
    let machine = Machine::new(Config::FULL);
    let rig = rig(&machine);
    change(&rig, Leaf::cleaned);
    assert_eq!(machine.access(1, 1, 0, Access::Write, 0), Outcome::Reaches(RAM));
    assert_eq!(leaf(&rig).dirty(), Dirty::Clean, "through a TLB that holds it as dirty");
    machine.copy(RAM, PAGE);
    assert_eq!(machine.take_violations().len(), 1);
}

#[test]
fn table_must_not_be_freed_under_a_page_that_may_become_dirty() {
    let machine = Machine::new(Config::FULL);
    let rig = rig(&machine);
    change(&rig, Leaf::cleaned);
    forget(&rig);
    rig.cpu(0).unmap(range(0, PAGE)).unwrap();
    rig.cpu(0).reclaim();
    rig.finish();
}

#[test]
fn permission_decides() {
    let machine = Machine::new(Config::FULL);
    let rig = rig(&machine);
    rig.cpu(0).protect(range(0, PAGE), Permissions::READ_ONLY).unwrap();
    let outcome = |access| machine.outcomes(1, 1, 0, access);
    assert_eq!(outcome(Access::Read), [Outcome::Reaches(RAM)]);
    assert_eq!(outcome(Access::Write), [Outcome::PermissionFault]);
    assert_eq!(outcome(Access::Execute), [Outcome::PermissionFault]);
}
