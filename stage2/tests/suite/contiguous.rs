//! Contiguous sets: made where they fit, never seen half, undone before a part
//! is changed.

use stage2::{
    Annotation, Attributes, Budget, CollapseError, Contiguous, Cursor, Dirty, Features, Geometry, Granule,
    Ipa, IpaRange, Leaf, Level, PaSize, Permissions, PhysAddr, Step,
};

use crate::kit::Lone;
use crate::machine::{Counts, Machine};

const PAGE: u64 = 0x1000;
const SET: u64 = 16 * PAGE;
const MIB2: u64 = 0x20_0000;
const GIB1: u64 = 0x4000_0000;

fn space(machine: &Machine) -> Lone<'_, Machine> {
    let geometry = Geometry::new(Granule::Kib4, 40, PaSize::Bits40).unwrap();
    let features = Features { contiguous: Contiguous::Allowed, ..Features::BASE };
    Lone::new(geometry, features, machine).unwrap()
}

/// A space with one set of 16 pages at 0.
fn one_set(machine: &Machine) -> Lone<'_, Machine> {
    let space = space(machine);
    space.map(range(0, SET), PhysAddr::new(GIB1), Attributes::RAM, machine).unwrap();
    assert_eq!(marks(&space, range(0, SET)), [true; 16]);
    space
}

fn range(start: u64, size: u64) -> IpaRange {
    IpaRange::new(Ipa::new(start), size).unwrap()
}

/// Whether each leaf in `range` is marked.
fn marks(space: &Lone<'_, Machine>, range: IpaRange) -> Vec<bool> {
    let leaves = space.leaves(range).collect::<Vec<_>>();
    leaves.iter().map(|mapping| space.leaf_at(mapping.range.start()).unwrap().is_contiguous()).collect()
}

fn leaves(space: &Lone<'_, Machine>) -> Vec<Leaf> {
    (0..16).filter_map(|page| space.leaf_at(Ipa::new(page * PAGE))).collect()
}

/// Ends a test: nothing was violated and all tables came back.
fn finish(space: Lone<'_, Machine>, machine: &Machine) {
    machine.check_coherent(&space);
    space.destroy(machine);
    machine.check();
    assert_eq!(machine.tables_in_use(), 0);
}

mod map {
    use super::*;

    #[test]
    fn aligned_runs_are_marked_and_the_rest_is_not() {
        let machine = Machine::new(64);
        let space = space(&machine);
        let whole = range(SET - PAGE, PAGE + SET + PAGE);
        space.map(whole, PhysAddr::new(GIB1 + SET - PAGE), Attributes::RAM, &machine).unwrap();
        assert_eq!(marks(&space, whole), [vec![false], vec![true; 16], vec![false]].concat());
        finish(space, &machine);
    }

    #[test]
    fn memory_off_by_a_page_is_not_marked() {
        let machine = Machine::new(64);
        let space = space(&machine);
        space.map(range(0, 2 * SET), PhysAddr::new(PAGE), Attributes::RAM, &machine).unwrap();
        assert_eq!(marks(&space, range(0, 2 * SET)), [false; 32]);
        finish(space, &machine);
    }

    #[test]
    fn run_that_starts_within_a_set_is_not_marked() {
        let machine = Machine::new(64);
        let space = space(&machine);
        // Two tables, of which the second is linked with its leaves in it.
        for start in [PAGE, MIB2 + PAGE] {
            space.map(range(start, SET), PhysAddr::new(GIB1), Attributes::RAM, &machine).unwrap();
            assert_eq!(space.lookup(Ipa::new(start - PAGE)), None);
            assert_eq!(marks(&space, range(start, SET)), [false; 16]);
        }
        finish(space, &machine);
    }

    #[test]
    fn pages_are_marked_in_a_new_table_and_in_one_that_is_there() {
        let machine = Machine::new(64);
        let space = space(&machine);
        for start in [0, MIB2 / 2] {
            space.map(range(start, 2 * SET), PhysAddr::new(GIB1 + start), Attributes::RAM, &machine).unwrap();
            assert_eq!(marks(&space, range(start, 2 * SET)), [true; 32]);
        }
        finish(space, &machine);
    }

    #[test]
    fn sixteen_blocks_are_marked() {
        let machine = Machine::new(64);
        let space = space(&machine);
        let whole = range(0, 17 * MIB2);
        space.map(whole, PhysAddr::new(GIB1), Attributes::RAM, &machine).unwrap();
        assert_eq!(marks(&space, whole), [vec![true; 16], vec![false]].concat());
        finish(space, &machine);
    }

    #[test]
    fn run_with_a_taken_entry_is_not_marked() {
        let machine = Machine::new(64);
        let space = space(&machine);
        let note = Annotation::new(1).unwrap();
        let mut cursor = Cursor::new(range(9 * PAGE, PAGE));
        let step = space.annotate_step(&space.pin(), &mut cursor, note, Budget::UNLIMITED, &machine);
        assert_eq!(step, Ok(Step::Done));
        assert!(space.map(range(0, SET), PhysAddr::new(0), Attributes::RAM, &machine).is_err());
        assert_eq!(leaves(&space), []);
        finish(space, &machine);
    }

    #[test]
    fn nothing_is_marked_unless_allowed() {
        let machine = Machine::new(64);
        let geometry = Geometry::new(Granule::Kib4, 40, PaSize::Bits40).unwrap();
        let space = Lone::new(geometry, Features::BASE, &machine).unwrap();
        space.map(range(0, SET), PhysAddr::new(0), Attributes::RAM, &machine).unwrap();
        assert_eq!(marks(&space, range(0, SET)), [false; 16]);
        assert_eq!(space.fold(&space.pin(), Ipa::new(0), &machine), Err(CollapseError::NoSuchBlock));
        finish(space, &machine);
    }

    #[test]
    fn sets_need_no_invalidation() {
        let machine = Machine::new(64);
        let space = space(&machine);
        machine.take_counts();
        space.map(range(0, MIB2 / 2), PhysAddr::new(0), Attributes::RAM, &machine).unwrap();
        assert_eq!(machine.take_counts(), Counts { publish: 1, ..Counts::default() });
        finish(space, &machine);
    }
}

mod change {
    use super::*;

    #[test]
    fn unmap_of_a_part_unfolds_the_rest() {
        let machine = Machine::new(64);
        let space = one_set(&machine);
        space.unmap(range(3 * PAGE, 2 * PAGE), &machine).unwrap();
        machine.check_coherent(&space);
        assert_eq!(marks(&space, range(0, SET)), [false; 14]);
        finish(space, &machine);
    }

    #[test]
    fn unmap_of_whole_sets_takes_one_invalidation() {
        let machine = Machine::new(64);
        let space = space(&machine);
        space.map(range(0, 4 * SET), PhysAddr::new(0), Attributes::RAM, &machine).unwrap();
        machine.take_counts();
        space.unmap(range(0, 3 * SET), &machine).unwrap();
        assert_eq!(machine.take_counts(), Counts { leaf: 1, ..Counts::default() });
        assert_eq!(marks(&space, range(0, 4 * SET)), [true; 16]);
        finish(space, &machine);
    }

    #[test]
    fn unmap_in_steps_that_end_within_sets_leaves_no_half_one() {
        let machine = Machine::new(64);
        let space = space(&machine);
        let whole = range(0, MIB2 + 5 * SET + PAGE);
        space.map(whole, PhysAddr::new(SET), Attributes::RAM, &machine).unwrap();
        let mut cursor = Cursor::new(range(PAGE, whole.size() - PAGE));
        while space.unmap_step(&space.pin(), &mut cursor, Budget::entries(0), &machine).unwrap() == Step::More
        {
            machine.check_coherent(&space);
            machine.check();
        }
        assert_eq!(marks(&space, whole), [false]);
        finish(space, &machine);
    }

    #[test]
    fn protection_of_whole_sets_keeps_them_and_takes_one_invalidation() {
        let machine = Machine::new(64);
        let space = space(&machine);
        let whole = range(0, 4 * SET);
        space.map(whole, PhysAddr::new(0), Attributes::RAM, &machine).unwrap();
        machine.take_counts();
        space.protect(whole, Permissions::READ_ONLY, &machine).unwrap();
        assert_eq!(machine.take_counts(), Counts { range: 1, ..Counts::default() });
        assert_eq!(marks(&space, whole), [true; 64]);
        for mapping in space.leaves(whole) {
            assert_eq!(mapping.attributes.permissions, Permissions::READ_ONLY);
        }
        finish(space, &machine);
    }

    #[test]
    fn protection_of_a_part_unfolds_the_set() {
        let machine = Machine::new(64);
        let space = one_set(&machine);
        space.protect(range(5 * PAGE, PAGE), Permissions::READ_ONLY, &machine).unwrap();
        assert_eq!(marks(&space, range(0, SET)), [false; 16]);
        for (page, mapping) in space.leaves(range(0, SET)).enumerate() {
            let expected = if page == 5 { Permissions::READ_ONLY } else { Permissions::ALL };
            assert_eq!(mapping.attributes.permissions, expected);
        }
        finish(space, &machine);
    }

    #[test]
    fn split_of_a_block_unfolds_its_set() {
        let machine = Machine::new(64);
        let space = space(&machine);
        space.map(range(0, 16 * MIB2), PhysAddr::new(0), Attributes::RAM, &machine).unwrap();
        space.unmap(range(3 * MIB2, PAGE), &machine).unwrap();
        assert_eq!(marks(&space, range(0, 16 * MIB2)), [false; 15 + 511]);
        finish(space, &machine);
    }

    #[test]
    fn migration_of_a_member_unfolds_the_set() {
        let machine = Machine::new(64);
        let space = one_set(&machine);
        let moved = space.migrate(&space.pin(), Ipa::new(PAGE), PhysAddr::new(0), |_| {}, &machine).unwrap();
        assert_eq!(moved.output(), PhysAddr::new(GIB1 + PAGE));
        assert_eq!(marks(&space, range(0, SET)), [false; 16]);
        finish(space, &machine);
    }

    #[test]
    fn annotation_of_a_whole_set_takes_one_invalidation() {
        let machine = Machine::new(64);
        let space = one_set(&machine);
        machine.take_counts();
        let mut cursor = Cursor::new(range(0, SET));
        let note = Annotation::new(1).unwrap();
        let step = space.annotate_step(&space.pin(), &mut cursor, note, Budget::UNLIMITED, &machine);
        assert_eq!(step, Ok(Step::Done));
        assert_eq!(machine.take_counts(), Counts { leaf: 1, ..Counts::default() });
        assert_eq!(leaves(&space), []);
        finish(space, &machine);
    }

    #[test]
    fn table_of_sets_becomes_a_block() {
        let machine = Machine::new(64);
        let space = space(&machine);
        for half in [0, 1] {
            let start = half * MIB2 / 2;
            space.map(range(start, MIB2 / 2), PhysAddr::new(start), Attributes::RAM, &machine).unwrap();
        }
        assert_eq!(marks(&space, range(0, MIB2)), [true; 512]);
        let block = space.collapse(&space.pin(), Ipa::new(0), &machine).unwrap();
        assert_eq!(block.range, range(0, MIB2));
        assert_eq!(marks(&space, range(0, MIB2)), [false]);
        finish(space, &machine);
    }

    #[test]
    #[should_panic(expected = "without the rest of its set")]
    fn member_can_not_be_locked_alone() {
        let machine = Machine::new(64);
        let space = one_set(&machine);
        let guard = space.pin();
        let _ = space.entry(&guard, Ipa::new(0)).unwrap().try_lock();
    }

    #[test]
    #[should_panic(expected = "without the rest of its set")]
    fn member_can_not_get_other_permissions_alone() {
        let machine = Machine::new(64);
        let space = one_set(&machine);
        space.update(Ipa::new(0), |leaf| leaf.with_permissions(Permissions::READ_ONLY));
    }

    #[test]
    fn member_ages_alone() {
        let machine = Machine::new(64);
        let space = one_set(&machine);
        space.update(Ipa::new(0), |leaf| leaf.aged().cleaned());
        assert_eq!(marks(&space, range(0, SET)), [true; 16]);
        space.destroy(&machine);
        machine.check();
    }
}

mod fold {
    use super::*;

    /// A space with 16 pages that could be a set.
    fn pages(machine: &Machine) -> Lone<'_, Machine> {
        let space = one_set(machine);
        space.unfold(&space.pin(), Ipa::new(0), machine);
        assert_eq!(marks(&space, range(0, SET)), [false; 16]);
        space
    }

    fn fold(space: &Lone<'_, Machine>, machine: &Machine) -> Result<IpaRange, CollapseError> {
        space.fold(&space.pin(), Ipa::new(7 * PAGE), machine)
    }

    #[test]
    fn equal_neighbours_are_marked_with_one_invalidation() {
        let machine = Machine::new(64);
        let space = pages(&machine);
        machine.take_counts();
        assert_eq!(fold(&space, &machine), Ok(range(0, SET)));
        assert_eq!(machine.take_counts(), Counts { leaf: 1, publish: 1, ..Counts::default() });
        assert_eq!(marks(&space, range(0, SET)), [true; 16]);
        // Done is done.
        assert_eq!(fold(&space, &machine), Ok(range(0, SET)));
        assert_eq!(machine.take_counts(), Counts::default());
        finish(space, &machine);
    }

    #[test]
    fn fold_and_unfold_hand_age_and_dirty_state_of_one_to_all() {
        for (young, dirty) in [(false, false), (true, false), (false, true)] {
            let machine = Machine::new(64);
            let space = pages(&machine);
            let change =
                |page: u64, change: &dyn Fn(Leaf) -> Leaf| space.update(Ipa::new(page * PAGE), change);
            let state = |leaf: &Leaf| (leaf.is_young(), leaf.dirty() == Dirty::Dirty);
            let mark_one = |page| {
                (0..16).for_each(|page| change(page, &|leaf| leaf.aged().cleaned()));
                if young {
                    change(page, &Leaf::young);
                }
                if dirty {
                    change(page, &Leaf::dirtied);
                }
            };
            mark_one(9);
            fold(&space, &machine).unwrap();
            assert!(leaves(&space).iter().all(|leaf| state(leaf) == (young, dirty)));
            mark_one(15);
            space.unfold(&space.pin(), Ipa::new(0), &machine);
            assert!(leaves(&space).iter().all(|leaf| state(leaf) == (young, dirty)));
            assert_eq!(marks(&space, range(0, SET)), [false; 16]);
            space.destroy(&machine);
            machine.check();
        }
    }

    #[test]
    fn hole_is_refused() {
        let machine = Machine::new(64);
        let space = pages(&machine);
        space.unmap(range(9 * PAGE, PAGE), &machine).unwrap();
        assert_eq!(fold(&space, &machine), Err(CollapseError::NotFull { ipa: Ipa::new(9 * PAGE) }));
        finish(space, &machine);
    }

    #[test]
    fn mixed_permissions_are_refused() {
        let machine = Machine::new(64);
        let space = pages(&machine);
        space.protect(range(9 * PAGE, PAGE), Permissions::READ_ONLY, &machine).unwrap();
        assert_eq!(fold(&space, &machine), Err(CollapseError::MixedAttributes { ipa: Ipa::new(9 * PAGE) }));
        finish(space, &machine);
    }

    #[test]
    fn memory_in_pieces_is_refused() {
        let machine = Machine::new(64);
        let space = pages(&machine);
        let _ = space.migrate(&space.pin(), Ipa::new(9 * PAGE), PhysAddr::new(0), |_| {}, &machine).unwrap();
        assert_eq!(fold(&space, &machine), Err(CollapseError::NotContiguous { ipa: Ipa::new(9 * PAGE) }));
        finish(space, &machine);
    }

    #[test]
    fn memory_that_is_not_aligned_is_refused() {
        let machine = Machine::new(64);
        let space = space(&machine);
        space.map(range(0, SET), PhysAddr::new(PAGE), Attributes::RAM, &machine).unwrap();
        assert_eq!(fold(&space, &machine), Err(CollapseError::Misaligned));
        finish(space, &machine);
    }

    #[test]
    fn neighbour_that_is_split_is_refused() {
        let machine = Machine::new(64);
        let space = space(&machine);
        space.map(range(0, 16 * MIB2), PhysAddr::new(0), Attributes::RAM, &machine).unwrap();
        let mut cursor = Cursor::new(range(MIB2, MIB2));
        let step = space.split_step(&space.pin(), &mut cursor, Level::L3, Budget::UNLIMITED, &machine);
        assert_eq!(step, Ok(Step::Done));
        let answer = space.fold(&space.pin(), Ipa::new(0), &machine);
        assert_eq!(answer, Err(CollapseError::SmallerLeaves { ipa: Ipa::new(MIB2) }));
        finish(space, &machine);
    }
}
