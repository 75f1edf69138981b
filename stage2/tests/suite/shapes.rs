//! Splitting blocks and collapsing tables: what is mapped stays the same, and
//! so does what is known of its use.

use stage2::arena::{Arena, frame};
use stage2::{
    Attributes, Budget, CollapseError, Cursor, Dirty, Features, Geometry, Granule, Ipa, IpaRange, Level,
    MapError, MemoryType, NoTlb, PaSize, Permissions, PhysAddr, Step,
};

use crate::kit::{Lone, epochs};
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

fn sizes(space: &Lone<'_, Machine>) -> Vec<u64> {
    space.leaves(range(0, 1 << 40)).map(|mapping| mapping.range.size()).collect()
}

/// Splits in steps of one table.
fn split(space: &Lone<'_, Machine>, machine: &Machine, whole: IpaRange, to: Level) -> Result<(), MapError> {
    let mut cursor = Cursor::new(whole);
    while space.split_step(&space.pin(), &mut cursor, to, Budget::entries(0), machine)? == Step::More {}
    Ok(())
}

fn collapse(space: &Lone<'_, Machine>, machine: &Machine, ipa: u64) -> Result<IpaRange, CollapseError> {
    space.collapse(&space.pin(), Ipa::new(ipa), machine).map(|mapping| mapping.range)
}

/// Ends a test: nothing was violated and all tables came back.
fn finish(space: Lone<'_, Machine>, machine: &Machine) {
    machine.check_coherent(&space);
    space.destroy(machine);
    machine.check();
    assert_eq!(machine.tables_in_use(), 0);
}

mod split {
    use super::*;

    #[test]
    fn blocks_of_the_range_are_split_down_to_the_level() {
        let machine = Machine::new(600);
        let space = space(&machine);
        space.map(range(0, 2 * GIB1), PhysAddr::new(0), Attributes::RAM, &machine).unwrap();
        split(&space, &machine, range(0, GIB1), Level::L2).unwrap();
        assert_eq!(sizes(&space), [vec![MIB2; 512], vec![GIB1]].concat());
        split(&space, &machine, range(MIB2, PAGE), Level::L3).unwrap();
        assert_eq!(sizes(&space), [vec![MIB2], vec![PAGE; 512], vec![MIB2; 510], vec![GIB1]].concat());
        finish(space, &machine);
    }

    #[test]
    fn every_address_translates_as_before() {
        let machine = Machine::new(600);
        let space = space(&machine);
        let whole = range(GIB1, GIB1 + 2 * MIB2);
        space.map(whole, PhysAddr::new(3 * GIB1), Attributes::RAM, &machine).unwrap();
        split(&space, &machine, range(2 * GIB1 - 2 * MIB2, 4 * MIB2), Level::L3).unwrap();
        let mut at = 0;
        for mapping in space.leaves(whole) {
            assert_eq!(mapping.output, PhysAddr::new(3 * GIB1 + at));
            assert_eq!(mapping.attributes, Attributes::RAM);
            at += mapping.range.size();
        }
        assert_eq!(at, whole.size());
        finish(space, &machine);
    }

    #[test]
    fn c13_children_of_an_old_and_clean_block_are_old_and_clean() {
        let machine = Machine::new(64);
        let space = space(&machine);
        space.map(range(0, MIB2), PhysAddr::new(0), Attributes::RAM, &machine).unwrap();
        space.update(Ipa::new(0), |leaf| leaf.aged().cleaned());
        split(&space, &machine, range(0, MIB2), Level::L3).unwrap();
        for page in 0..512 {
            let leaf = space.leaf_at(Ipa::new(page * PAGE)).unwrap();
            assert!(!leaf.is_young());
            assert_eq!(leaf.dirty(), Dirty::Clean);
        }
        finish(space, &machine);
    }

    #[test]
    fn c9_running_out_of_tables_leaves_every_translation_as_it_was() {
        for tables in [0, 1, 2, 512] {
            let pool = (0..2 + tables).map(|_| frame()).collect::<Vec<_>>();
            let memory = Arena::new(PhysAddr::new(GIB1), pool, epochs());
            let geometry = Geometry::new(Granule::Kib4, 40, PaSize::Bits40).unwrap();
            let space = Lone::new(geometry, Features::BASE, &memory).unwrap();
            space.map(range(0, GIB1), PhysAddr::new(GIB1), Attributes::RAM, &NoTlb).unwrap();
            let mut cursor = Cursor::new(range(0, GIB1));
            let answer = space.split_step(&space.pin(), &mut cursor, Level::L3, Budget::UNLIMITED, &NoTlb);
            assert_eq!(answer, Err(MapError::OutOfTables), "{tables} tables");
            let mut at = 0;
            for mapping in space.leaves(range(0, GIB1)) {
                assert_eq!(mapping.range.start(), Ipa::new(at));
                assert_eq!(mapping.output, PhysAddr::new(GIB1 + at));
                at += mapping.range.size();
            }
            assert_eq!(at, GIB1);
            assert_eq!(memory.in_use(), 2 + tables);
            space.destroy(&NoTlb);
            assert_eq!(memory.in_use(), 0);
        }
    }

    #[test]
    fn error_says_in_the_cursor_how_far_it_came() {
        let machine = Machine::new(64);
        let space = space(&machine);
        let whole = range(0, 4 * MIB2);
        space.map(whole, PhysAddr::new(0), Attributes::RAM, &machine).unwrap();
        machine.allow_allocations(2);
        let mut cursor = Cursor::new(whole);
        let answer = space.split_step(&space.pin(), &mut cursor, Level::L3, Budget::UNLIMITED, &machine);
        assert_eq!(answer, Err(MapError::OutOfTables));
        assert_eq!(cursor.done(), Some(range(0, 2 * MIB2)));
        finish(space, &machine);
    }

    #[test]
    fn each_step_splits_no_more_than_its_budget_allows() {
        let machine = Machine::new(64);
        let space = space(&machine);
        let whole = range(0, 4 * MIB2);
        space.map(whole, PhysAddr::new(0), Attributes::RAM, &machine).unwrap();
        let mut cursor = Cursor::new(whole);
        let before = machine.tables_in_use();
        let step =
            space.split_step(&space.pin(), &mut cursor, Level::L3, Budget::entries(0), &machine).unwrap();
        assert_eq!(step, Step::More);
        assert_eq!(machine.tables_in_use(), before + 1);
        finish(space, &machine);
    }

    #[test]
    fn each_block_costs_one_invalidation() {
        let machine = Machine::new(64);
        let space = space(&machine);
        space.map(range(0, 4 * MIB2), PhysAddr::new(0), Attributes::RAM, &machine).unwrap();
        machine.take_counts();
        split(&space, &machine, range(0, 4 * MIB2), Level::L3).unwrap();
        assert_eq!(machine.take_counts(), Counts { publish: 4, leaf: 4, ..Counts::default() });
        split(&space, &machine, range(0, 4 * MIB2), Level::L3).unwrap();
        assert_eq!(machine.take_counts(), Counts::default());
        finish(space, &machine);
    }
}

mod collapse {
    use super::*;

    /// A space with 2 MiB mapped page by page at `start`.
    fn pages(machine: &Machine, start: u64) -> Lone<'_, Machine> {
        let space = space(machine);
        let whole = range(start, MIB2);
        space.map(whole, PhysAddr::new(GIB1), Attributes::RAM, machine).unwrap();
        split(&space, machine, whole, Level::L3).unwrap();
        assert_eq!(sizes(&space), [PAGE; 512]);
        space
    }

    #[test]
    fn table_of_pages_becomes_the_block_that_it_was() {
        let machine = Machine::new(64);
        let space = pages(&machine, MIB2);
        assert_eq!(collapse(&space, &machine, MIB2 + 5 * PAGE), Ok(range(MIB2, MIB2)));
        assert_eq!(sizes(&space), [MIB2]);
        let block = space.lookup(Ipa::new(MIB2)).unwrap();
        assert_eq!((block.output, block.attributes), (PhysAddr::new(GIB1), Attributes::RAM));
        finish(space, &machine);
    }

    #[test]
    fn table_goes_back_when_nobody_can_be_looking_at_it() {
        let machine = Machine::new(64);
        let space = pages(&machine, MIB2);
        let before = machine.tables_in_use();
        collapse(&space, &machine, MIB2).unwrap();
        assert_eq!(space.reclaim(), 1);
        assert_eq!(machine.tables_in_use(), before - 1);
        finish(space, &machine);
    }

    #[test]
    fn table_of_blocks_becomes_a_larger_block() {
        let machine = Machine::new(64);
        let space = space(&machine);
        space.map(range(0, GIB1), PhysAddr::new(0), Attributes::RAM, &machine).unwrap();
        split(&space, &machine, range(7 * MIB2, PAGE), Level::L3).unwrap();
        let smaller = CollapseError::SmallerLeaves { ipa: Ipa::new(7 * MIB2) };
        assert_eq!(collapse(&space, &machine, 0), Err(smaller));
        collapse(&space, &machine, 7 * MIB2).unwrap();
        assert_eq!(collapse(&space, &machine, 0), Ok(range(0, GIB1)));
        assert_eq!(sizes(&space), [GIB1]);
        finish(space, &machine);
    }

    #[test]
    fn block_costs_one_invalidation() {
        let machine = Machine::new(64);
        let space = pages(&machine, 0);
        machine.take_counts();
        collapse(&space, &machine, 0).unwrap();
        assert_eq!(machine.take_counts(), Counts { publish: 1, range: 1, ..Counts::default() });
        finish(space, &machine);
    }

    #[test]
    fn block_is_young_or_dirty_if_one_page_was() {
        for (young, dirty) in [(false, false), (true, false), (false, true)] {
            let machine = Machine::new(64);
            let space = pages(&machine, 0);
            for page in 0..512 {
                space.update(Ipa::new(page * PAGE), |leaf| leaf.aged().cleaned());
            }
            space.update(Ipa::new(300 * PAGE), |leaf| {
                let leaf = if young { leaf.young() } else { leaf };
                if dirty { leaf.dirtied() } else { leaf }
            });
            collapse(&space, &machine, 0).unwrap();
            let block = space.leaf_at(Ipa::new(0)).unwrap();
            assert_eq!(block.is_young(), young);
            assert_eq!(block.dirty() == Dirty::Dirty, dirty);
            finish(space, &machine);
        }
    }

    /// What [`collapse`] answers after something was done to the pages, and
    /// that it left everything alone.
    fn refusal(change: impl FnOnce(&Lone<'_, Machine>, &Machine)) -> CollapseError {
        let machine = Machine::new(64);
        let space = pages(&machine, 0);
        change(&space, &machine);
        machine.take_counts();
        let before: Vec<_> = space.leaves(range(0, MIB2)).collect();
        let error = collapse(&space, &machine, 0).unwrap_err();
        assert_eq!(machine.take_counts(), Counts::default());
        assert_eq!(space.leaves(range(0, MIB2)).collect::<Vec<_>>(), before);
        finish(space, &machine);
        error
    }

    const FIFTH: Ipa = Ipa::new(5 * PAGE);

    #[test]
    fn hole_is_refused() {
        let error = refusal(|space, machine| space.unmap(range(5 * PAGE, PAGE), machine).unwrap());
        assert_eq!(error, CollapseError::NotFull { ipa: FIFTH });
    }

    #[test]
    fn memory_in_pieces_is_refused() {
        let error = refusal(|space, machine| {
            space.unmap(range(5 * PAGE, PAGE), machine).unwrap();
            space.map(range(5 * PAGE, PAGE), PhysAddr::new(0), Attributes::RAM, machine).unwrap();
        });
        assert_eq!(error, CollapseError::NotContiguous { ipa: FIFTH });
    }

    #[test]
    fn mixed_permissions_are_refused() {
        let error = refusal(|space, machine| {
            space.protect(range(5 * PAGE, PAGE), Permissions::READ_EXECUTE, machine).unwrap();
        });
        assert_eq!(error, CollapseError::MixedAttributes { ipa: FIFTH });
    }

    #[test]
    fn mixed_memory_types_are_refused() {
        let error = refusal(|space, machine| {
            let attributes = Attributes { memory: MemoryType::NormalNonCacheable, ..Attributes::RAM };
            space.unmap(range(5 * PAGE, PAGE), machine).unwrap();
            space.map(range(5 * PAGE, PAGE), PhysAddr::new(GIB1 + 5 * PAGE), attributes, machine).unwrap();
        });
        assert_eq!(error, CollapseError::MixedAttributes { ipa: FIFTH });
    }

    #[test]
    fn memory_that_is_not_aligned_is_refused() {
        let machine = Machine::new(64);
        let space = space(&machine);
        space.map(range(0, MIB2), PhysAddr::new(PAGE), Attributes::RAM, &machine).unwrap();
        assert_eq!(collapse(&space, &machine, 0), Err(CollapseError::Misaligned));
        finish(space, &machine);
    }

    #[test]
    fn table_in_place_of_what_can_not_be_a_block_is_refused() {
        let machine = Machine::new(64);
        let geometry = Geometry::new(Granule::Kib4, 48, PaSize::Bits48).unwrap();
        let space = Lone::new(geometry, Features::BASE, &machine).unwrap();
        space.map(range(0, GIB1), PhysAddr::new(0), Attributes::RAM, &machine).unwrap();
        assert_eq!(collapse(&space, &machine, 0), Err(CollapseError::NoSuchBlock));
        finish(space, &machine);
    }

    #[test]
    fn leaf_in_the_root_is_refused() {
        let machine = Machine::new(64);
        let space = space(&machine);
        space.map(range(0, GIB1), PhysAddr::new(0), Attributes::RAM, &machine).unwrap();
        assert_eq!(collapse(&space, &machine, 0), Err(CollapseError::InRoot));
        finish(space, &machine);
    }

    #[test]
    fn address_outside_the_space_is_refused() {
        let machine = Machine::new(64);
        let space = space(&machine);
        let outside = CollapseError::OutsideSpace { ipa: Ipa::new(1 << 40) };
        assert_eq!(collapse(&space, &machine, 1 << 40), Err(outside));
        finish(space, &machine);
    }

    #[test]
    fn c46_split_and_collapse_by_turns_leak_no_table() {
        let machine = Machine::new(16);
        let space = pages(&machine, 0);
        for _ in 0..100 {
            collapse(&space, &machine, 0).unwrap();
            split(&space, &machine, range(0, PAGE), Level::L3).unwrap();
        }
        space.reclaim();
        assert_eq!(machine.tables_in_use(), 4);
        finish(space, &machine);
    }

    #[test]
    fn c58_unmap_of_a_whole_block_needs_no_table() {
        let machine = Machine::new(16);
        let space = space(&machine);
        space.map(range(0, GIB1), PhysAddr::new(0), Attributes::RAM, &machine).unwrap();
        machine.allow_allocations(0);
        space.unmap(range(0, GIB1), &machine).unwrap();
        assert_eq!(sizes(&space), []);
        finish(space, &machine);
    }
}
