//! What a pass over a guest's memory finds, what it changes, and what is taken
//! away in the end.

use std::cell::RefCell;

use stage2::{
    Age, Aged, Aging, Annotation, Attributes, Budget, Contiguous, Cursor, Dirty, Features, Generation,
    Geometry, Granule, Ipa, IpaRange, Level, Mapping, NoTlb, PaSize, Permissions, PhysAddr, Pte, Resolved,
    Step, TableMemory, Tlb,
};

use crate::kit::Lone;
use crate::machine::{Counts, Machine};
use crate::meddle::{change_leaf, meddled_space, while_locked};

const PAGE: u64 = 0x1000;
const MIB2: u64 = 0x20_0000;
const GIB1: u64 = 0x4000_0000;

const CLEAR: Aging = Aging::Clear(Tlb::None);

fn range(start: u64, size: u64) -> IpaRange {
    IpaRange::new(Ipa::new(start), size).unwrap()
}

fn old(passes: u8) -> Age {
    Age::Old(Generation::new(passes).unwrap())
}

fn empty_space(machine: &Machine) -> Lone<'_, Machine> {
    let geometry = Geometry::new(Granule::Kib4, 40, PaSize::Bits40).unwrap();
    Lone::new(geometry, Features::BASE, machine).unwrap()
}

/// A space with pages in `ram`, all of them young.
fn with_pages(machine: &Machine, ram: IpaRange) -> Lone<'_, Machine> {
    let space = empty_space(machine);
    // Off by a page, so that there are no blocks.
    space.map(ram, PhysAddr::new(GIB1 + PAGE), Attributes::RAM, machine).unwrap();
    machine.take_counts();
    space
}

/// A space with the blocks that fit.
fn with_blocks(machine: &Machine, ram: IpaRange) -> Lone<'_, Machine> {
    let space = empty_space(machine);
    space.map(ram, PhysAddr::new(GIB1), Attributes::RAM, machine).unwrap();
    machine.take_counts();
    space
}

/// A whole pass, in as few steps as there can be.
fn pass(space: &Lone<'_, Machine>, over: IpaRange, aging: Aging, machine: &Machine) -> Vec<Aged> {
    let (cpu, mut found) = (machine.cpu(), Vec::new());
    let mut cursor = Cursor::new(over);
    let step = space.age_step(&cpu.pin(), &mut cursor, aging, Budget::UNLIMITED, machine, |aged| {
        found.push(aged);
    });
    assert_eq!(step, Ok(Step::Done));
    found
}

/// What a pass found about the addresses of `range`, page by page.
fn ages(found: &[Aged]) -> Vec<Age> {
    found.iter().map(|aged| aged.age).collect()
}

/// The guest uses a page for which its CPU's TLB holds nothing.
fn touch(space: &Lone<'_, Machine>, ipa: u64, machine: &Machine) {
    let cpu = machine.cpu();
    assert_eq!(space.make_young(&cpu.pin(), Ipa::new(ipa), machine), Resolved::Done);
}

/// Ends a test: nothing was violated and all tables came back.
fn finish(space: Lone<'_, Machine>, machine: &Machine) {
    machine.check_coherent(&space);
    space.destroy(machine);
    machine.check();
    assert_eq!(machine.tables_in_use(), 0);
}

mod ageing {
    use super::*;

    #[test]
    fn c84_idle_memory_is_found_old_and_what_is_used_again_young() {
        let machine = Machine::new(16);
        let ram = range(GIB1, 2 * MIB2);
        let space = with_pages(&machine, ram);
        assert_eq!(ages(&pass(&space, ram, CLEAR, &machine)), [Age::Young; 1024]);
        for page in [0, 1, 511, 512, 1023] {
            touch(&space, GIB1 + page * PAGE, &machine);
        }
        let found = pass(&space, ram, CLEAR, &machine);
        let young: Vec<_> = found.iter().filter(|aged| aged.age == Age::Young).collect();
        let expected = [0, 1, 511, 512, 1023].map(|page| range(GIB1 + page * PAGE, PAGE));
        assert_eq!(young.iter().map(|aged| aged.range).collect::<Vec<_>>(), expected);
        assert_eq!(found.iter().filter(|aged| aged.age == old(1)).count(), 1024 - 5);
        finish(space, &machine);
    }

    #[test]
    fn c02_every_page_of_the_range_is_aged_and_no_other() {
        let machine = Machine::new(16);
        let space = with_pages(&machine, range(GIB1, 2 * MIB2));
        let inside = range(GIB1 + 3 * PAGE, MIB2);
        assert_eq!(pass(&space, inside, CLEAR, &machine).len(), 512);
        for mapping in space.leaves(range(GIB1, 2 * MIB2)) {
            assert_eq!(mapping.young, !inside.covers(mapping.range), "{}", mapping.range);
        }
        finish(space, &machine);
    }

    #[test]
    fn c02_block_is_one_leaf_wherever_the_range_begins_in_it() {
        let machine = Machine::new(16);
        let space = with_blocks(&machine, range(GIB1, GIB1 + 2 * MIB2));
        let uneven = range(GIB1 + 5 * PAGE, GIB1 + MIB2);
        let sizes: Vec<_> = pass(&space, uneven, CLEAR, &machine).iter().map(|aged| aged.range).collect();
        assert_eq!(sizes, [range(GIB1, GIB1), range(2 * GIB1, MIB2), range(2 * GIB1 + MIB2, MIB2)]);
        assert!(space.leaves(range(0, 1 << 40)).all(|mapping| !mapping.young));
        finish(space, &machine);
    }

    #[test]
    fn pass_that_only_tests_changes_nothing() {
        let machine = Machine::new(16);
        let ram = range(GIB1, 16 * PAGE);
        let space = with_pages(&machine, ram);
        touch(&space, GIB1, &machine);
        let before = pass(&space, ram, Aging::Test, &machine);
        assert_eq!(pass(&space, ram, Aging::Test, &machine), before);
        assert_eq!(ages(&before), [Age::Young; 16]);
        finish(space, &machine);
    }

    #[test]
    fn leaf_counts_the_passes_that_found_it_old() {
        let machine = Machine::new(16);
        let page = range(GIB1, PAGE);
        let space = with_pages(&machine, page);
        assert_eq!(ages(&pass(&space, page, CLEAR, &machine)), [Age::Young]);
        for passes in [1, 2, 3, 3] {
            assert_eq!(ages(&pass(&space, page, CLEAR, &machine)), [old(passes)]);
            assert_eq!(ages(&pass(&space, page, Aging::Test, &machine)), [old(passes)]);
        }
        touch(&space, GIB1, &machine);
        assert_eq!(ages(&pass(&space, page, CLEAR, &machine)), [Age::Young]);
        assert_eq!(ages(&pass(&space, page, CLEAR, &machine)), [old(1)]);
        finish(space, &machine);
    }

    #[test]
    fn c13_pages_of_a_split_block_are_as_old_as_it_was() {
        let machine = Machine::new(16);
        let block = range(GIB1, MIB2);
        let space = with_blocks(&machine, block);
        for _ in 0..3 {
            pass(&space, block, CLEAR, &machine);
        }
        space.protect(range(GIB1, PAGE), Permissions::READ_ONLY, &machine).unwrap();
        assert_eq!(ages(&pass(&space, block, Aging::Test, &machine)), [old(2); 512]);
        finish(space, &machine);
    }

    #[test]
    fn holes_and_annotations_are_not_reported() {
        let machine = Machine::new(16);
        let space = with_pages(&machine, range(GIB1, PAGE));
        let cpu = machine.cpu();
        let annotation = Annotation::new(7).unwrap();
        for ipa in [GIB1 + 2 * PAGE, 3 * GIB1] {
            space.entry(&cpu.pin(), Ipa::new(ipa)).unwrap().try_annotate(annotation).unwrap();
        }
        assert_eq!(pass(&space, range(0, 1 << 40), CLEAR, &machine).len(), 1);
        assert_eq!(space.entry(&cpu.pin(), Ipa::new(3 * GIB1)).unwrap().pte(), Pte::Annotated(annotation));
        finish(space, &machine);
    }

    #[test]
    fn c40_pass_of_many_steps_comes_to_each_leaf_once() {
        let machine = Machine::new(16);
        let ram = range(GIB1 - 3 * PAGE, 3 * MIB2);
        let space = with_pages(&machine, ram);
        let (cpu, mut cursor, mut found, mut steps) = (machine.cpu(), Cursor::new(ram), Vec::new(), 0);
        loop {
            steps += 1;
            let step = space.age_step(&cpu.pin(), &mut cursor, CLEAR, Budget::entries(1), &machine, |aged| {
                found.push(aged.range.start().bits());
            });
            if step == Ok(Step::Done) {
                break;
            }
        }
        let expected: Vec<_> = (0..3 * 512).map(|page| GIB1 + page * PAGE - 3 * PAGE).collect();
        assert_eq!(found, expected);
        assert!(steps > 2, "a budget of one table was enough for three");
        finish(space, &machine);
    }
}

mod cost {
    use super::*;

    #[test]
    fn pass_invalidates_nothing() {
        let machine = Machine::new(16);
        let ram = range(GIB1, MIB2);
        let space = with_pages(&machine, ram);
        pass(&space, ram, CLEAR, &machine);
        assert_eq!(machine.take_counts(), Counts { publish: 1, ..Counts::default() });
        finish(space, &machine);
    }

    #[test]
    fn batch_invalidates_once_for_all_that_became_old() {
        let machine = Machine::new(16);
        let ram = range(GIB1, 2 * MIB2);
        let space = with_pages(&machine, ram);
        pass(&space, ram, Aging::Clear(Tlb::Batch), &machine);
        assert_eq!(machine.take_counts(), Counts { range: 1, ..Counts::default() });
        finish(space, &machine);
    }

    #[test]
    fn batch_without_anything_young_invalidates_nothing() {
        let machine = Machine::new(16);
        let ram = range(GIB1, MIB2);
        let space = with_pages(&machine, ram);
        pass(&space, ram, CLEAR, &machine);
        machine.take_counts();
        pass(&space, ram, Aging::Clear(Tlb::Batch), &machine);
        assert_eq!(machine.take_counts(), Counts { publish: 1, ..Counts::default() });
        finish(space, &machine);
    }
}

mod others_at_work {
    use super::*;

    const PLACE: Ipa = Ipa::new(GIB1);

    #[test]
    fn c12_held_entry_is_busy_and_stays_held() {
        let machine = Machine::new(16);
        let ram = range(GIB1, 2 * PAGE);
        let space = with_pages(&machine, ram);
        while_locked(&space, PLACE, &machine, || {
            assert_eq!(ages(&pass(&space, ram, CLEAR, &machine)), [Age::Busy, Age::Young]);
        });
        // The restored leaf is what it was before.
        assert_eq!(ages(&pass(&space, ram, CLEAR, &machine)), [Age::Young, old(1)]);
        finish(space, &machine);
    }

    #[test]
    fn rest_of_a_table_that_is_being_removed_is_left_out() {
        let (space, cpu) = meddled_space(Features::BASE);
        let ram = range(GIB1, MIB2);
        space.map(&cpu.pin(), ram, PhysAddr::new(PAGE), Attributes::RAM, &NoTlb).unwrap();
        let look = move || {
            let cpu = space.memory().epochs().register().unwrap();
            let mut cursor = Cursor::new(ram);
            let step = space.age_step(&cpu.pin(), &mut cursor, CLEAR, Budget::UNLIMITED, &NoTlb, |aged| {
                panic!("{aged:?}")
            });
            assert_eq!(step, Ok(Step::Done));
        };
        // After the first entry was made DEAD, before the second is.
        let after_the_first = move || space.memory().before_next_store(look);
        space.memory().before_next_store(after_the_first);
        space.unmap(&cpu.pin(), ram, &NoTlb).unwrap();
        assert_eq!(space.leaves(&cpu.pin(), ram).count(), 0);
    }

    #[test]
    fn leaf_that_is_used_under_the_ageing_hand_is_young_and_stays_so() {
        let (space, cpu) = meddled_space(Features::BASE);
        space.map(&cpu.pin(), range(GIB1, PAGE), PhysAddr::new(0), Attributes::RAM, &NoTlb).unwrap();
        change_leaf(space, PLACE, |leaf| leaf.aged());
        space.memory().before_next_store(|| change_leaf(space, PLACE, |leaf| leaf.young()));
        let mut cursor = Cursor::new(range(GIB1, PAGE));
        let mut found = Vec::new();
        let step = space
            .age_step(&cpu.pin(), &mut cursor, CLEAR, Budget::UNLIMITED, &NoTlb, |aged| found.push(aged.age));
        assert_eq!((step, found), (Ok(Step::Done), vec![Age::Young]));
        assert!(space.lookup(&cpu.pin(), PLACE).unwrap().young);
    }
}

mod sets {
    use super::*;

    /// A contiguous set of sixteen pages from 1 GiB on, and a page behind it.
    fn with_set(machine: &Machine) -> Lone<'_, Machine> {
        let geometry = Geometry::new(Granule::Kib4, 40, PaSize::Bits40).unwrap();
        let space = Lone::new(geometry, WITH_SETS, machine).unwrap();
        space.map(range(GIB1, 17 * PAGE), PhysAddr::new(GIB1), Attributes::RAM, machine).unwrap();
        machine.take_counts();
        space
    }

    const WITH_SETS: Features = Features { contiguous: Contiguous::Allowed, ..Features::BASE };
    const SET: u64 = 16 * PAGE;

    #[test]
    fn set_is_reported_once_wherever_the_range_begins_in_it() {
        let machine = Machine::new(16);
        let space = with_set(&machine);
        for first in [0, 1, 15] {
            let found = pass(&space, range(GIB1 + first * PAGE, PAGE), CLEAR, &machine);
            assert_eq!(found.iter().map(|aged| aged.range).collect::<Vec<_>>(), [range(GIB1, SET)]);
        }
        finish(space, &machine);
    }

    #[test]
    fn set_is_young_if_the_walker_marked_any_member_and_old_in_all_after_the_pass() {
        let machine = Machine::new(16);
        let space = with_set(&machine);
        pass(&space, range(GIB1, SET), CLEAR, &machine);
        assert_eq!(ages(&pass(&space, range(GIB1, SET), CLEAR, &machine)), [old(1)]);
        change_leaf(&space, Ipa::new(GIB1 + 7 * PAGE), |leaf| leaf.young());
        assert_eq!(ages(&pass(&space, range(GIB1, SET), CLEAR, &machine)), [Age::Young]);
        assert!(space.leaves(range(GIB1, SET)).all(|mapping| !mapping.young));
        finish(space, &machine);
    }

    #[test]
    fn set_is_of_the_generation_of_its_youngest_member() {
        let machine = Machine::new(16);
        let space = with_set(&machine);
        for _ in 0..4 {
            pass(&space, range(GIB1, SET), CLEAR, &machine);
        }
        change_leaf(&space, Ipa::new(GIB1 + 7 * PAGE), |leaf| leaf.young());
        pass(&space, range(GIB1, SET), CLEAR, &machine);
        assert_eq!(ages(&pass(&space, range(GIB1, SET), CLEAR, &machine)), [old(1)]);
        finish(space, &machine);
    }

    #[test]
    fn set_with_a_member_in_other_hands_is_busy() {
        let (space, cpu) = meddled_space(WITH_SETS);
        let set = range(GIB1, SET);
        space.map(&cpu.pin(), set, PhysAddr::new(0), Attributes::RAM, &NoTlb).unwrap();
        let found: &'static RefCell<Vec<Aged>> = Box::leak(Box::default());
        let look = move || {
            let cpu = space.memory().epochs().register().unwrap();
            let (mut cursor, visit) = (Cursor::new(set), |aged| found.borrow_mut().push(aged));
            let step = space.age_step(&cpu.pin(), &mut cursor, CLEAR, Budget::UNLIMITED, &NoTlb, visit);
            assert_eq!(step, Ok(Step::Done));
        };
        // Between the first member's lock and the second's.
        space.memory().before_next_store(move || space.memory().before_next_store(look));
        space.protect(&cpu.pin(), set, Permissions::READ_ONLY, &NoTlb).unwrap();
        let found = ages(&found.borrow());
        assert!(!found.is_empty() && found.iter().all(|&age| age == Age::Busy), "{found:?}");
    }

    #[test]
    fn cold_set_is_found_and_taken_as_a_whole() {
        let machine = Machine::new(16);
        let space = with_set(&machine);
        for _ in 0..3 {
            pass(&space, range(GIB1, SET + PAGE), CLEAR, &machine);
        }
        let cpu = machine.cpu();
        let generation = Generation::new(2).unwrap();
        let cold: Vec<_> = space.cold(&cpu.pin(), range(0, 1 << 40), generation).collect();
        assert_eq!(
            cold.iter().map(|cold| cold.range).collect::<Vec<_>>(),
            [range(GIB1, SET), range(GIB1 + SET, PAGE)]
        );
        machine.take_counts();
        assert_eq!(reclaim(&space, range(GIB1, SET + PAGE), 2, &machine), cold);
        assert_eq!(machine.take_counts(), Counts { leaf: 1, ..Counts::default() });
        assert_eq!(space.leaves(range(0, 1 << 40)).count(), 0);
        finish(space, &machine);
    }

    #[test]
    fn set_of_which_one_member_was_used_is_not_taken() {
        let machine = Machine::new(16);
        let space = with_set(&machine);
        for _ in 0..3 {
            pass(&space, range(GIB1, SET), CLEAR, &machine);
        }
        change_leaf(&space, Ipa::new(GIB1 + 7 * PAGE), |leaf| leaf.young());
        assert_eq!(
            space.cold(&machine.cpu().pin(), range(0, 1 << 40), Generation::new(1).unwrap()).count(),
            0
        );
        assert_eq!(reclaim(&space, range(GIB1, SET), 1, &machine), []);
        assert_eq!(space.leaves(range(0, 1 << 40)).count(), 17);
        finish(space, &machine);
    }

    #[test]
    fn set_of_which_one_member_is_used_in_the_last_moment_is_put_back() {
        let (space, cpu) = meddled_space(Features { contiguous: Contiguous::Allowed, ..Features::BASE });
        let set = range(GIB1, SET);
        space.map(&cpu.pin(), set, PhysAddr::new(GIB1), Attributes::RAM, &NoTlb).unwrap();
        let mut cursor = Cursor::new(set);
        let _ = space.age_step(&cpu.pin(), &mut cursor, CLEAR, Budget::UNLIMITED, &NoTlb, |_| {}).unwrap();
        space.memory().before_next_store(move || {
            change_leaf(space, Ipa::new(GIB1 + 7 * PAGE), |leaf| leaf.young());
        });
        let generation = Generation::YOUNGEST;
        let step = space.reclaim_step(
            &cpu.pin(),
            &mut Cursor::new(set),
            generation,
            Budget::UNLIMITED,
            &NoTlb,
            |taken| panic!("{taken:?} is in use"),
        );
        assert_eq!(step, Ok(Step::Done));
        assert_eq!(space.leaves(&cpu.pin(), set).filter(|leaf| leaf.young).count(), 1);
    }
}

/// Takes what is cold in `from`.
fn reclaim(space: &Lone<'_, Machine>, from: IpaRange, passes: u8, machine: &Machine) -> Vec<Mapping> {
    let (cpu, mut taken, mut cursor) = (machine.cpu(), Vec::new(), Cursor::new(from));
    let generation = Generation::new(passes).unwrap();
    let step =
        space.reclaim_step(&cpu.pin(), &mut cursor, generation, Budget::UNLIMITED, machine, |mapping| {
            taken.push(mapping);
        });
    assert_eq!(step, Ok(Step::Done));
    taken
}

mod reclaiming {
    use super::*;

    fn starts(mappings: impl IntoIterator<Item = Mapping>) -> Vec<u64> {
        mappings.into_iter().map(|mapping| (mapping.range.start().bits() - GIB1) / PAGE).collect()
    }

    /// Pages 0 to 7 of which 2 and 5 are in use.
    fn half_used(machine: &Machine) -> Lone<'_, Machine> {
        let ram = range(GIB1, 8 * PAGE);
        let space = with_pages(machine, ram);
        for _ in 0..3 {
            for page in [2, 5] {
                touch(&space, GIB1 + page * PAGE, machine);
            }
            pass(&space, ram, CLEAR, machine);
        }
        machine.take_counts();
        space
    }

    #[test]
    fn cold_pages_are_those_that_were_old_for_long_enough() {
        let machine = Machine::new(16);
        let space = half_used(&machine);
        let cpu = machine.cpu();
        let cold = |passes| {
            let generation = Generation::new(passes).unwrap();
            starts(space.cold(&cpu.pin(), range(0, 1 << 40), generation).collect::<Vec<_>>())
        };
        assert_eq!(cold(2), [0, 1, 3, 4, 6, 7]);
        assert_eq!(cold(0), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(cold(3), []);
        touch(&space, GIB1 + 3 * PAGE, &machine);
        assert_eq!(cold(2), [0, 1, 4, 6, 7]);
        finish(space, &machine);
    }

    #[test]
    fn cold_pages_are_taken_and_the_others_stay() {
        let machine = Machine::new(16);
        let space = half_used(&machine);
        assert_eq!(starts(reclaim(&space, range(GIB1, 8 * PAGE), 2, &machine)), [0, 1, 3, 4, 6, 7]);
        assert_eq!(starts(space.leaves(range(0, 1 << 40))), [2, 5]);
        finish(space, &machine);
    }

    #[test]
    fn one_table_costs_one_invalidation() {
        let machine = Machine::new(16);
        let space = half_used(&machine);
        reclaim(&space, range(GIB1, 8 * PAGE), 2, &machine);
        assert_eq!(machine.take_counts(), Counts { leaf: 1, ..Counts::default() });
        finish(space, &machine);
    }

    #[test]
    fn where_nothing_is_cold_nothing_is_invalidated() {
        let machine = Machine::new(16);
        let space = half_used(&machine);
        assert_eq!(reclaim(&space, range(GIB1, 8 * PAGE), 3, &machine), []);
        assert_eq!(machine.take_counts(), Counts::default());
        finish(space, &machine);
    }

    #[test]
    fn what_is_taken_says_whether_it_was_written_to() {
        let machine = Machine::new(16);
        let space = half_used(&machine);
        change_leaf(&space, Ipa::new(GIB1 + PAGE), |leaf| leaf.cleaned());
        let dirty: Vec<_> =
            reclaim(&space, range(GIB1, 2 * PAGE), 2, &machine).iter().map(|taken| taken.dirty).collect();
        assert_eq!(dirty, [Dirty::Dirty, Dirty::Clean]);
        space.destroy(&machine);
    }

    #[test]
    fn block_that_reaches_beyond_the_range_is_not_taken() {
        let machine = Machine::new(16);
        let space = with_blocks(&machine, range(GIB1, 2 * MIB2));
        for _ in 0..2 {
            pass(&space, range(GIB1, 2 * MIB2), CLEAR, &machine);
        }
        let taken = reclaim(&space, range(GIB1 + PAGE, 2 * MIB2 - PAGE), 1, &machine);
        assert_eq!(starts(taken), [512]);
        finish(space, &machine);
    }

    #[test]
    fn page_that_is_used_in_the_last_moment_stays() {
        let (space, cpu) = meddled_space(Features::BASE);
        let page = range(GIB1, PAGE);
        space.map(&cpu.pin(), page, PhysAddr::new(0), Attributes::RAM, &NoTlb).unwrap();
        change_leaf(space, page.start(), |leaf| leaf.after_pass().after_pass());
        space.memory().before_next_store(move || change_leaf(space, page.start(), |leaf| leaf.young()));
        let generation = Generation::new(1).unwrap();
        let mut cursor = Cursor::new(page);
        let step =
            space.reclaim_step(&cpu.pin(), &mut cursor, generation, Budget::UNLIMITED, &NoTlb, |taken| {
                panic!("{taken:?} is in use")
            });
        assert_eq!(step, Ok(Step::Done));
        assert!(space.lookup(&cpu.pin(), page.start()).unwrap().young);
        let leaf = space.entry(&cpu.pin(), page.start()).unwrap().level();
        assert_eq!(leaf, Level::L3);
    }
}
