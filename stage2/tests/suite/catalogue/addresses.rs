//! The ends of spaces of every shape, and what lies beyond.

use stage2::{
    Aging, Annotation, Attributes, Budget, Cursor, Detail, Features, Geometry, Granule, Ipa, IpaRange, Level,
    MapError, PaSize, Permissions, PhysAddr, Resolved, Step,
};

use crate::kit::Lone;
use crate::machine::Machine;
use crate::model::rig::{Rig, range};
use crate::model::{Config, Machine as Model};

const PAGE: u64 = 0x1000;
const RAM: u64 = 0x4000_0000;

/// Maps the first and the last page of a space, and unmaps the last.
fn try_both_ends(geometry: Geometry) {
    let page = geometry.granule().page_size();
    let machine = Model::new(Config { table_memory: 128 * page.max(1 << 16), ..Config::FULL });
    let rig = Rig::with_shape(&machine, geometry, Features::BASE, 1);
    let cpu = rig.cpu(0);
    let last = (1 << geometry.ipa_bits()) - page;
    cpu.map(range(0, page), RAM).unwrap();
    cpu.map(range(last, page), RAM + page).unwrap();
    machine.check();
    cpu.unmap(range(last, page)).unwrap();
    machine.reuse(RAM + page, page);
    let guard = cpu.pin();
    assert_eq!(rig.space.lookup(&guard, Ipa::new(0)).unwrap().output, PhysAddr::new(RAM), "{geometry:?}");
    assert!(rig.space.lookup(&guard, Ipa::new(last)).is_none(), "{geometry:?}");
    drop(guard);
    drop(cpu);
    rig.finish();
    assert_eq!(machine.in_use(), 0, "{geometry:?}");
}

#[test]
fn c48_last_page_of_every_root_of_many_tables_is_unmapped() {
    let concatenated = |ipa_bits| Geometry::new(Granule::Kib4, ipa_bits, PaSize::Bits48).ok();
    let geometries: Vec<_> = (32..=48).filter_map(concatenated).collect();
    let mut roots: Vec<_> = geometries.iter().map(Geometry::root_tables).collect();
    roots.sort_unstable();
    roots.dedup();
    assert_eq!(roots, [1, 2, 4, 8, 16]);
    geometries.into_iter().filter(|geometry| geometry.root_tables() > 1).for_each(try_both_ends);
}

#[test]
fn c67_both_ends_of_every_width_are_where_they_should_be() {
    for (granule, pa_size) in [
        (Granule::Kib4, PaSize::Bits48),
        (Granule::Kib4, PaSize::Bits52),
        (Granule::Kib16, PaSize::Bits48),
        (Granule::Kib16, PaSize::Bits52),
    ] {
        for ipa_bits in 32..=52 {
            if let Ok(geometry) = Geometry::new(granule, ipa_bits, pa_size) {
                try_both_ends(geometry);
            }
        }
    }
}

#[test]
fn c29_range_may_end_where_the_space_ends() {
    let machine = Machine::new(32);
    let geometry = Geometry::new(Granule::Kib4, 40, PaSize::Bits40).unwrap();
    let space = Lone::new(geometry, Features::BASE, &machine).unwrap();
    let last = range((1 << 40) - 3 * PAGE, 3 * PAGE);
    space.map(last, PhysAddr::new((1 << 40) - 3 * PAGE), Attributes::RAM, &machine).unwrap();
    space.protect(last, Permissions::READ_ONLY, &machine).unwrap();
    assert_eq!(space.leaves(last).count(), 3);
    space.unmap(last, &machine).unwrap();
    assert_eq!(space.leaves(range(0, 1 << 40)).count(), 0);
    space.destroy(&machine);
    machine.check();
}

/// What every operation on a range answers.
fn answers(space: &Lone<'_, Machine>, machine: &Machine, of: IpaRange) -> Vec<Result<Step, MapError>> {
    let (pin, budget, cursor) = (|| space.pin(), Budget::UNLIMITED, || Cursor::new(of));
    let (output, note) = (PhysAddr::new(RAM), Annotation::new(7).unwrap());
    vec![
        space.map(of, output, Attributes::RAM, machine).map(|()| Step::Done),
        space.map_step(&pin(), &mut cursor(), output, Attributes::RAM, budget, machine),
        space.unmap_step(&pin(), &mut cursor(), budget, machine),
        space.protect_step(&pin(), &mut cursor(), Permissions::READ_ONLY, budget, machine),
        space.split_step(&pin(), &mut cursor(), Level::L3, budget, machine),
        space.annotate_step(&pin(), &mut cursor(), note, budget, machine),
        space.clear_annotations_step(&pin(), &mut cursor(), budget, machine),
        space.age_step(&pin(), &mut cursor(), Aging::Test, budget, machine, |_| {}),
        space.collect_dirty_step(&pin(), &mut cursor(), Detail::Leaves, budget, machine, |_| {}),
    ]
}

#[test]
fn c50_no_operation_takes_an_address_for_another_one() {
    let machine = Machine::new(32);
    let geometry = Geometry::new(Granule::Kib4, 40, PaSize::Bits40).unwrap();
    let space = Lone::new(geometry, Features::BASE, &machine).unwrap();
    // What any of the addresses below is with high bits cut off.
    for ipa in [0, (1 << 40) - PAGE] {
        space.map(range(ipa, PAGE), PhysAddr::new(RAM), Attributes::RAM, &machine).unwrap();
    }
    let before: Vec<_> = space.leaves(range(0, 1 << 40)).collect();
    for start in [1 << 40, 1 << 48, 1 << 52, (1 << 52) + (1 << 40), (1 << 59) - PAGE] {
        let beyond = range(start, PAGE);
        let refusal = Err(MapError::OutsideSpace { range: beyond });
        assert!(answers(&space, &machine, beyond).iter().all(|answer| *answer == refusal), "{start:#x}");
        let (guard, ipa) = (space.pin(), beyond.start());
        assert!(space.lookup(ipa).is_none() && space.entry(&guard, ipa).is_none());
        assert_eq!(space.make_young(&guard, ipa, &machine), Resolved::NotMapped);
        assert_eq!(space.relax(&guard, ipa, Permissions::ALL, &machine), Resolved::NotMapped);
        assert!(space.collapse(&guard, ipa, &machine).is_err());
        assert!(space.migrate(&guard, ipa, PhysAddr::new(0), |_| {}, &machine).is_err());
    }
    // Half inside is outside.
    let across = range((1 << 40) - PAGE, 2 * PAGE);
    let refusal = Err(MapError::OutsideSpace { range: across });
    assert!(answers(&space, &machine, across).iter().all(|answer| *answer == refusal));
    assert_eq!(space.leaves(range(0, 1 << 40)).collect::<Vec<_>>(), before);
    space.destroy(&machine);
    machine.check();
}
