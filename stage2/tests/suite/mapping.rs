//! What mapping, unmapping and protecting do, one claim at a time.

use crate::kit::Lone;
use crate::machine::{Counts, Machine};
use stage2::{
    Attributes, Dirty, Features, Geometry, Granule, Ipa, IpaRange, Level, MapError, Mapping, PaSize,
    Permissions, PhysAddr,
};

const PAGE: u64 = 0x1000;
const MIB2: u64 = 0x20_0000;
const GIB1: u64 = 0x4000_0000;

fn machine() -> Machine {
    Machine::new(64)
}

fn space(machine: &Machine) -> Lone<'_, Machine> {
    let geometry = Geometry::new(Granule::Kib4, 40, PaSize::Bits40).unwrap();
    Lone::new(geometry, Features::BASE, machine).unwrap()
}

fn range(start: u64, size: u64) -> IpaRange {
    IpaRange::new(Ipa::new(start), size).unwrap()
}

fn pa(address: u64) -> PhysAddr {
    PhysAddr::new(address)
}

/// The sizes of all leaves, in order.
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

mod map {
    use super::*;

    #[test]
    fn page_is_found_again() {
        let machine = machine();
        let space = space(&machine);
        space.map(range(0x4000_0000, PAGE), pa(0x8765_4000), Attributes::RAM, &machine).unwrap();
        let found = space.lookup(Ipa::new(0x4000_0123)).unwrap();
        let expected = Mapping {
            range: range(0x4000_0000, PAGE),
            output: pa(0x8765_4000),
            attributes: Attributes::RAM,
            young: true,
            dirty: Dirty::Dirty,
        };
        assert_eq!(found, expected);
        assert_eq!(found.translate(Ipa::new(0x4000_0123)), Some(pa(0x8765_4123)));
        finish(space, &machine);
    }

    #[test]
    fn neighbours_of_a_page_stay_unmapped() {
        let machine = machine();
        let space = space(&machine);
        space.map(range(0x4000_0000, PAGE), pa(0x8000_0000), Attributes::RAM, &machine).unwrap();
        assert_eq!(space.lookup(Ipa::new(0x3fff_ffff)), None);
        assert_eq!(space.lookup(Ipa::new(0x4000_1000)), None);
        finish(space, &machine);
    }

    #[test]
    fn largest_fitting_blocks_are_chosen() {
        let machine = machine();
        let space = space(&machine);
        let whole = range(GIB1 - MIB2 - PAGE, PAGE + MIB2 + GIB1 + MIB2 + PAGE);
        space.map(whole, pa(3 * GIB1 - MIB2 - PAGE), Attributes::RAM, &machine).unwrap();
        assert_eq!(sizes(&space), [PAGE, MIB2, GIB1, MIB2, PAGE]);
        finish(space, &machine);
    }

    #[test]
    fn block_size_is_limited_by_the_alignment_of_the_output() {
        let machine = machine();
        let space = space(&machine);
        space.map(range(GIB1, GIB1), pa(GIB1 + MIB2), Attributes::RAM, &machine).unwrap();
        assert_eq!(sizes(&space), [MIB2; 512]);
        finish(space, &machine);
    }

    #[test]
    fn largest_blocks_of_a_root_at_level_2_are_2_mib() {
        let machine = machine();
        let geometry = Geometry::new(Granule::Kib4, 32, PaSize::Bits40).unwrap();
        let space = Lone::new(geometry, Features::BASE, &machine).unwrap();
        space.map(range(GIB1, GIB1), pa(GIB1), Attributes::RAM, &machine).unwrap();
        assert_eq!(space.lookup(Ipa::new(GIB1)).unwrap().range.size(), MIB2);
        assert_eq!(machine.tables_in_use(), 4);
        finish(space, &machine);
    }

    #[test]
    fn last_page_of_the_last_concatenated_root_table_can_be_mapped() {
        for ipa_bits in 32..=48 {
            let machine = machine();
            let geometry = Geometry::new(Granule::Kib4, ipa_bits, PaSize::Bits48).unwrap();
            let space = Lone::new(geometry, Features::BASE, &machine).unwrap();
            let last = range((1 << ipa_bits) - PAGE, PAGE);
            space.map(last, pa(0x8000_0000), Attributes::RAM, &machine).unwrap();
            assert_eq!(space.lookup(last.start()).unwrap().output, pa(0x8000_0000), "{ipa_bits} bits");
            assert_eq!(space.lookup(Ipa::new(0)), None, "{ipa_bits} bits");
            space.unmap(last, &machine).unwrap();
            assert_eq!(space.lookup(last.start()), None, "{ipa_bits} bits");
            finish(space, &machine);
        }
    }

    #[test]
    fn root_is_aligned_to_all_its_tables() {
        let machine = machine();
        let _other =
            Lone::new(Geometry::new(Granule::Kib4, 39, PaSize::Bits48).unwrap(), Features::BASE, &machine);
        let geometry = Geometry::new(Granule::Kib4, 43, PaSize::Bits48).unwrap();
        let space = Lone::new(geometry, Features::BASE, &machine).unwrap();
        assert!(space.root().is_aligned(16 * PAGE));
        space.destroy(&machine);
    }

    #[test]
    fn mapping_needs_one_publication_and_no_invalidation() {
        let machine = machine();
        let space = space(&machine);
        space.map(range(0x4000_1000, MIB2), pa(0x8000_0000), Attributes::RAM, &machine).unwrap();
        assert_eq!(machine.take_counts(), Counts { publish: 1, ..Counts::default() });
        finish(space, &machine);
    }
}

mod refusal {
    use super::*;

    #[test]
    fn mapping_twice_is_refused_and_says_where() {
        let machine = machine();
        let space = space(&machine);
        space.map(range(0x4000_2000, PAGE), pa(0x8000_0000), Attributes::RAM, &machine).unwrap();
        let refused = space.map(range(0x4000_0000, 4 * PAGE), pa(0x9000_0000), Attributes::RAM, &machine);
        assert_eq!(refused, Err(MapError::AlreadyMapped { ipa: Ipa::new(0x4000_2000) }));
        finish(space, &machine);
    }

    #[test]
    fn refused_mapping_leaves_everything_as_it_was() {
        let machine = machine();
        let space = space(&machine);
        space.map(range(0x4000_2000, PAGE), pa(0x8000_0000), Attributes::RAM, &machine).unwrap();
        let before = (space.leaves(range(0, 1 << 40)).collect::<Vec<_>>(), machine.tables_in_use());
        let below = range(0x4000_2000 - 3 * MIB2, 4 * MIB2);
        assert!(space.map(below, pa(0x9000_2000), Attributes::RAM, &machine).is_err());
        let space = space;
        space.reclaim();
        let after = (space.leaves(range(0, 1 << 40)).collect::<Vec<_>>(), machine.tables_in_use());
        assert_eq!(before, after);
        finish(space, &machine);
    }

    #[test]
    fn mapping_that_runs_out_of_tables_gives_back_what_it_took() {
        // A range of two pages in two tables needs four more tables.
        for tables in 0..4 {
            let machine = machine();
            let space = space(&machine);
            let before = machine.tables_in_use();
            machine.allow_allocations(tables);
            let both = range(2 * GIB1 - PAGE, 2 * PAGE);
            let refused = space.map(both, pa(PAGE), Attributes::RAM, &machine);
            assert_eq!(refused, Err(MapError::OutOfTables));
            space.reclaim();
            assert_eq!(machine.tables_in_use(), before, "with {tables} tables");
            finish(space, &machine);
        }
    }

    #[test]
    fn mapping_inside_a_block_is_refused() {
        let machine = machine();
        let space = space(&machine);
        space.map(range(GIB1, GIB1), pa(GIB1), Attributes::RAM, &machine).unwrap();
        let refused = space.map(range(GIB1 + PAGE, PAGE), pa(GIB1 + PAGE), Attributes::RAM, &machine);
        assert_eq!(refused, Err(MapError::AlreadyMapped { ipa: Ipa::new(GIB1 + PAGE) }));
        finish(space, &machine);
    }

    #[test]
    fn mapping_a_block_over_a_page_is_refused() {
        let machine = machine();
        let space = space(&machine);
        space.map(range(GIB1 + MIB2 - PAGE, PAGE), pa(GIB1), Attributes::RAM, &machine).unwrap();
        let refused = space.map(range(GIB1, MIB2), pa(GIB1), Attributes::RAM, &machine);
        assert_eq!(refused, Err(MapError::AlreadyMapped { ipa: Ipa::new(GIB1 + MIB2 - PAGE) }));
        finish(space, &machine);
    }

    #[test]
    fn range_beyond_the_space_is_refused() {
        let machine = machine();
        let space = space(&machine);
        for bad in [range((1 << 40) - PAGE, 2 * PAGE), range(1 << 40, PAGE), range(1 << 52, PAGE)] {
            let error = MapError::OutsideSpace { range: bad };
            assert_eq!(space.map(bad, pa(0), Attributes::RAM, &machine), Err(error));
            assert_eq!(space.unmap(bad, &machine), Err(error));
            assert_eq!(space.protect(bad, Permissions::READ_ONLY, &machine), Err(error));
        }
        finish(space, &machine);
    }

    #[test]
    fn lookup_beyond_the_space_finds_nothing() {
        let machine = machine();
        let space = space(&machine);
        space.map(range(0, PAGE), pa(0), Attributes::RAM, &machine).unwrap();
        for bits in 40..56 {
            assert_eq!(space.lookup(Ipa::new(1 << bits)), None);
        }
        finish(space, &machine);
    }

    #[test]
    fn memory_beyond_physical_addresses_is_refused() {
        let machine = machine();
        let space = space(&machine);
        let output = pa((1 << 40) - PAGE);
        let refused = space.map(range(0, 2 * PAGE), output, Attributes::RAM, &machine);
        assert_eq!(refused, Err(MapError::OutsidePhysical { output }));
        finish(space, &machine);
    }

    #[test]
    fn half_pages_are_refused() {
        let machine = machine();
        let space = space(&machine);
        for bad in [range(0x800, PAGE), range(0, 0x800)] {
            let refused = space.map(bad, pa(0), Attributes::RAM, &machine);
            assert_eq!(refused, Err(MapError::RangeMisaligned { range: bad }));
        }
        let refused = space.map(range(0, PAGE), pa(0x800), Attributes::RAM, &machine);
        assert_eq!(refused, Err(MapError::OutputMisaligned { output: pa(0x800) }));
        finish(space, &machine);
    }

    #[test]
    fn leaf_for_a_level_without_leaves_is_refused() {
        let machine = machine();
        let space = space(&machine);
        let refused = space.leaf(Level::L0, pa(0), Attributes::RAM);
        assert_eq!(refused, Err(MapError::OutputMisaligned { output: pa(0) }));
        finish(space, &machine);
    }

    #[test]
    fn space_without_room_for_its_root_is_refused() {
        let machine = Machine::new(8);
        let geometry = Geometry::new(Granule::Kib4, 43, PaSize::Bits48).unwrap();
        assert_eq!(Lone::new(geometry, Features::BASE, &machine).err(), Some(MapError::OutOfTables));
    }
}

mod leaves {
    use super::*;

    #[test]
    fn leaves_end_where_the_space_ends() {
        let machine = machine();
        let space = space(&machine);
        space.map(range(0, PAGE), pa(0), Attributes::RAM, &machine).unwrap();
        assert_eq!(space.leaves(range(0, 1 << 45)).count(), 1);
        assert_eq!(space.leaves(range(1 << 40, 1 << 40)).count(), 0);
        finish(space, &machine);
    }

    #[test]
    fn first_and_last_leaf_may_reach_beyond_the_range() {
        let machine = machine();
        let space = space(&machine);
        space.map(range(0, 2 * MIB2), pa(0), Attributes::RAM, &machine).unwrap();
        let found: Vec<_> = space.leaves(range(MIB2 - PAGE, 2 * PAGE)).map(|mapping| mapping.range).collect();
        assert_eq!(found, [range(0, MIB2), range(MIB2, MIB2)]);
        finish(space, &machine);
    }
}

mod unmap {
    use super::*;

    #[test]
    fn unmap_of_part_of_a_block_keeps_the_rest() {
        let machine = machine();
        let space = space(&machine);
        space.map(range(GIB1, MIB2), pa(GIB1), Attributes::RAM, &machine).unwrap();
        space.unmap(range(GIB1 + 3 * PAGE, 2 * PAGE), &machine).unwrap();
        for page in 0..512 {
            let ipa = Ipa::new(GIB1 + page * PAGE);
            let expected = (page != 3 && page != 4).then(|| pa(ipa.bits()));
            assert_eq!(space.lookup(ipa).and_then(|mapping| mapping.translate(ipa)), expected, "page {page}");
        }
        finish(space, &machine);
    }

    #[test]
    fn unmap_of_a_page_in_a_gigabyte_splits_only_on_its_way() {
        let machine = machine();
        let space = space(&machine);
        space.map(range(GIB1, GIB1), pa(GIB1), Attributes::RAM, &machine).unwrap();
        space.unmap(range(GIB1 + 5 * MIB2, PAGE), &machine).unwrap();
        let sizes = sizes(&space);
        assert_eq!(sizes.iter().filter(|&&size| size == MIB2).count(), 511);
        assert_eq!(sizes.iter().filter(|&&size| size == PAGE).count(), 511);
        finish(space, &machine);
    }

    #[test]
    fn unmap_of_whole_blocks_needs_no_table() {
        let machine = machine();
        let space = space(&machine);
        space.map(range(GIB1, 2 * GIB1 + MIB2), pa(GIB1), Attributes::RAM, &machine).unwrap();
        machine.allow_allocations(0);
        space.unmap(range(2 * GIB1, GIB1 + MIB2), &machine).unwrap();
        assert_eq!(sizes(&space), [GIB1]);
        finish(space, &machine);
    }

    #[test]
    fn unmap_without_a_table_for_the_split_changes_nothing() {
        let machine = machine();
        let space = space(&machine);
        space.map(range(GIB1, 3 * GIB1), pa(GIB1), Attributes::RAM, &machine).unwrap();
        // Enough to split at the start, not at the end.
        machine.allow_allocations(2);
        let refused = space.unmap(range(GIB1 + PAGE, 2 * GIB1), &machine);
        assert_eq!(refused, Err(MapError::OutOfTables));
        let mapped: u64 = sizes(&space).iter().sum();
        assert_eq!(mapped, 3 * GIB1);
        finish(space, &machine);
    }

    #[test]
    fn unmap_skips_what_is_not_mapped() {
        let machine = machine();
        let space = space(&machine);
        space.map(range(GIB1, PAGE), pa(GIB1), Attributes::RAM, &machine).unwrap();
        space.unmap(range(0, 1 << 40), &machine).unwrap();
        space.unmap(range(0, 1 << 40), &machine).unwrap();
        assert_eq!(sizes(&space), []);
        finish(space, &machine);
    }

    #[test]
    fn page_costs_one_invalidation_with_its_level() {
        let machine = machine();
        let space = space(&machine);
        space.map(range(GIB1, 2 * PAGE), pa(GIB1), Attributes::RAM, &machine).unwrap();
        machine.take_counts();
        space.unmap(range(GIB1, PAGE), &machine).unwrap();
        assert_eq!(machine.take_counts(), Counts { leaf: 1, ..Counts::default() });
        finish(space, &machine);
    }

    #[test]
    fn many_pages_and_their_tables_cost_one_invalidation() {
        let machine = machine();
        let space = space(&machine);
        // Eight whole tables of pages, because the output is off by a page.
        space.map(range(GIB1, 8 * MIB2), pa(GIB1 + PAGE), Attributes::RAM, &machine).unwrap();
        space.map(range(2 * GIB1 - PAGE, PAGE), pa(0), Attributes::RAM, &machine).unwrap();
        machine.take_counts();
        space.unmap(range(GIB1, 8 * MIB2), &machine).unwrap();
        assert_eq!(machine.take_counts(), Counts { range: 1, ..Counts::default() });
        finish(space, &machine);
    }

    #[test]
    fn block_and_the_table_beside_it_are_both_forgotten() {
        let machine = machine();
        let space = space(&machine);
        space.map(range(GIB1, MIB2), pa(GIB1), Attributes::RAM, &machine).unwrap();
        space.map(range(GIB1 + MIB2, 2 * PAGE), pa(PAGE), Attributes::RAM, &machine).unwrap();
        machine.take_counts();
        // One batch: a leaf at level 2, and a table with pages. Then the table above, which is empty.
        space.unmap(range(GIB1, 2 * MIB2), &machine).unwrap();
        assert_eq!(machine.take_counts(), Counts { range: 2, ..Counts::default() });
        machine.check_coherent(&space);
        finish(space, &machine);
    }

    #[test]
    fn invalidations_do_not_grow_with_the_range() {
        let machine = machine();
        let space = space(&machine);
        let uneven = range(GIB1 - 3 * PAGE, 5 * GIB1 + 6 * PAGE);
        space.map(range(0, 8 * GIB1), pa(0), Attributes::RAM, &machine).unwrap();
        // Splits the blocks at both ends, which is not what is counted here.
        space.protect(uneven, Permissions::READ_WRITE, &machine).unwrap();
        machine.take_counts();
        space.unmap(uneven, &machine).unwrap();
        // The whole gigabytes, and at either end the last pages of one.
        assert_eq!(machine.take_counts(), Counts { leaf: 3, ..Counts::default() });
        finish(space, &machine);
    }

    #[test]
    fn emptied_tables_leave_the_tree() {
        let machine = machine();
        let space = space(&machine);
        let root_only = machine.tables_in_use();
        space.map(range(GIB1, 3 * PAGE), pa(GIB1), Attributes::RAM, &machine).unwrap();
        for page in [1, 0, 2] {
            space.unmap(range(GIB1 + page * PAGE, PAGE), &machine).unwrap();
        }
        assert_eq!(space.reclaim(), 2);
        assert_eq!(machine.tables_in_use(), root_only);
        finish(space, &machine);
    }

    #[test]
    fn block_takes_the_place_of_pages_that_were_unmapped() {
        let machine = machine();
        let space = space(&machine);
        space.map(range(GIB1, MIB2), pa(GIB1 + PAGE), Attributes::RAM, &machine).unwrap();
        space.unmap(range(GIB1, MIB2), &machine).unwrap();
        space.map(range(GIB1, MIB2), pa(GIB1), Attributes::RAM, &machine).unwrap();
        assert_eq!(sizes(&space), [MIB2]);
        finish(space, &machine);
    }

    #[test]
    fn retired_tables_are_freed_by_destroy() {
        let machine = machine();
        let space = space(&machine);
        space.map(range(GIB1, GIB1), pa(GIB1 + MIB2), Attributes::RAM, &machine).unwrap();
        space.unmap(range(GIB1, GIB1), &machine).unwrap();
        finish(space, &machine);
    }
}

mod protect {
    use super::*;

    #[test]
    fn permissions_change_and_nothing_else_does() {
        let machine = machine();
        let space = space(&machine);
        space.map(range(GIB1, MIB2), pa(GIB1), Attributes::RAM, &machine).unwrap();
        let before = space.lookup(Ipa::new(GIB1)).unwrap();
        space.protect(range(GIB1, MIB2), Permissions::READ_ONLY, &machine).unwrap();
        let attributes = Attributes { permissions: Permissions::READ_ONLY, ..Attributes::RAM };
        assert_eq!(
            space.lookup(Ipa::new(GIB1)),
            Some(Mapping { attributes, dirty: Dirty::ReadOnly, ..before })
        );
        finish(space, &machine);
    }

    #[test]
    fn block_is_split_where_the_range_ends() {
        let machine = machine();
        let space = space(&machine);
        space.map(range(GIB1, MIB2), pa(GIB1), Attributes::RAM, &machine).unwrap();
        space.protect(range(GIB1, PAGE), Permissions::READ_ONLY, &machine).unwrap();
        let of = |ipa| space.lookup(Ipa::new(ipa)).unwrap().attributes.permissions;
        assert_eq!(of(GIB1), Permissions::READ_ONLY);
        assert_eq!(of(GIB1 + PAGE), Permissions::ALL);
        finish(space, &machine);
    }

    #[test]
    fn protect_without_a_table_for_the_split_changes_nothing() {
        let machine = machine();
        let space = space(&machine);
        space.map(range(GIB1, 3 * GIB1), pa(GIB1), Attributes::RAM, &machine).unwrap();
        // Enough to split at the start, not at the end.
        machine.allow_allocations(2);
        let uneven = range(GIB1 + PAGE, 2 * GIB1);
        let refused = space.protect(uneven, Permissions::READ_ONLY, &machine);
        assert_eq!(refused, Err(MapError::OutOfTables));
        let of_all = space.leaves(range(0, 1 << 40)).map(|mapping| mapping.attributes);
        assert!(of_all.into_iter().all(|attributes| attributes == Attributes::RAM));
        finish(space, &machine);
    }

    #[test]
    fn whole_blocks_cost_one_invalidation_and_no_break() {
        let machine = machine();
        let space = space(&machine);
        space.map(range(GIB1, 2 * GIB1), pa(GIB1), Attributes::RAM, &machine).unwrap();
        machine.take_counts();
        space.protect(range(GIB1, 2 * GIB1), Permissions::READ_WRITE, &machine).unwrap();
        assert_eq!(machine.take_counts(), Counts { range: 1, ..Counts::default() });
        finish(space, &machine);
    }

    #[test]
    fn holes_stay_holes() {
        let machine = machine();
        let space = space(&machine);
        space.map(range(GIB1, PAGE), pa(GIB1), Attributes::RAM, &machine).unwrap();
        space.protect(range(0, 1 << 40), Permissions::READ_ONLY, &machine).unwrap();
        assert_eq!(sizes(&space), [PAGE]);
        finish(space, &machine);
    }
}

mod entry {
    use stage2::bbm::is_bbm_safe;
    use stage2::{Annotation, Leaf, Pte};

    use super::*;

    fn leaf(space: &Lone<'_, Machine>, output: u64, attributes: Attributes) -> Leaf {
        space.leaf(Level::L3, pa(output), attributes).unwrap()
    }

    /// A space with one page at 1 GiB.
    fn with_page(machine: &Machine) -> Lone<'_, Machine> {
        let space = space(machine);
        space.map(range(GIB1, PAGE), pa(GIB1), Attributes::RAM, machine).unwrap();
        space
    }

    #[test]
    fn page_moves_by_break_and_make() {
        let machine = machine();
        let space = with_page(&machine);
        let cpu = machine.cpu();
        let guard = cpu.pin();
        let new = leaf(&space, 2 * GIB1, Attributes::RAM);
        let locked = space.entry(&guard, Ipa::new(GIB1)).unwrap().try_lock().unwrap();
        locked.break_with(&machine).make(new, &machine);
        assert_eq!(space.lookup(Ipa::new(GIB1)).unwrap().output, pa(2 * GIB1));
        finish(space, &machine);
    }

    #[test]
    fn restored_entry_is_as_it_was() {
        let machine = machine();
        let space = with_page(&machine);
        let cpu = machine.cpu();
        let guard = cpu.pin();
        let before = space.lookup(Ipa::new(GIB1));
        space.entry(&guard, Ipa::new(GIB1)).unwrap().try_lock().unwrap().restore(&machine);
        assert_eq!(space.lookup(Ipa::new(GIB1)), before);
        finish(space, &machine);
    }

    #[test]
    fn stale_reading_loses() {
        let machine = machine();
        let space = with_page(&machine);
        let cpu = machine.cpu();
        let guard = cpu.pin();
        let stale = space.entry(&guard, Ipa::new(GIB1)).unwrap();
        space.protect(range(GIB1, PAGE), Permissions::READ_ONLY, &machine).unwrap();
        assert!(stale.try_lock().is_err());
        finish(space, &machine);
    }

    #[test]
    #[should_panic(expected = "needs break before make")]
    fn other_output_can_not_be_stored_in_place() {
        let machine = machine();
        let space = with_page(&machine);
        let cpu = machine.cpu();
        let guard = cpu.pin();
        let new = leaf(&space, 2 * GIB1, Attributes::RAM);
        let _ = space.entry(&guard, Ipa::new(GIB1)).unwrap().try_update(new);
    }

    #[test]
    #[should_panic(expected = "was dropped")]
    fn locked_entry_can_not_be_dropped() {
        let machine = machine();
        let space = with_page(&machine);
        let cpu = machine.cpu();
        let guard = cpu.pin();
        drop(space.entry(&guard, Ipa::new(GIB1)).unwrap().try_lock());
    }

    #[test]
    #[should_panic(expected = "was dropped")]
    fn broken_entry_can_not_be_dropped() {
        let machine = machine();
        let space = with_page(&machine);
        let cpu = machine.cpu();
        let guard = cpu.pin();
        drop(space.entry(&guard, Ipa::new(GIB1)).unwrap().try_lock().unwrap().break_with(&machine));
    }

    #[test]
    fn annotation_stands_in_the_way_of_map_until_unmapped() {
        let machine = machine();
        let space = with_page(&machine);
        let cpu = machine.cpu();
        let guard = cpu.pin();
        let annotation = Annotation::new(0x1234).unwrap();
        let locked = space.entry(&guard, Ipa::new(GIB1)).unwrap().try_lock().unwrap();
        locked.break_with(&machine).annotate(annotation);
        assert_eq!(space.entry(&guard, Ipa::new(GIB1)).unwrap().pte(), Pte::Annotated(annotation));
        let page = range(GIB1, PAGE);
        let refused = space.map(page, pa(GIB1), Attributes::RAM, &machine);
        assert_eq!(refused, Err(MapError::Annotated { ipa: page.start() }));
        space.unmap(page, &machine).unwrap();
        assert_eq!(space.map(page, pa(GIB1), Attributes::RAM, &machine), Ok(()));
        finish(space, &machine);
    }

    #[test]
    fn empty_entry_is_annotated_without_a_break() {
        let machine = machine();
        let space = space(&machine);
        let cpu = machine.cpu();
        let guard = cpu.pin();
        let annotation = Annotation::new(9).unwrap();
        space.entry(&guard, Ipa::new(GIB1)).unwrap().try_annotate(annotation).unwrap();
        let entry = space.entry(&guard, Ipa::new(2 * GIB1 - 1)).unwrap();
        assert_eq!((entry.pte(), entry.range()), (Pte::Annotated(annotation), range(GIB1, GIB1)));
        assert_eq!(machine.take_counts(), Counts::default());
        finish(space, &machine);
    }

    #[test]
    #[should_panic(expected = "must be broken before")]
    fn mapped_entry_can_not_be_annotated_in_place() {
        let machine = machine();
        let space = with_page(&machine);
        let cpu = machine.cpu();
        let guard = cpu.pin();
        let _ = space.entry(&guard, Ipa::new(GIB1)).unwrap().try_annotate(Annotation::new(9).unwrap());
    }

    #[test]
    #[should_panic(expected = "is not for level")]
    fn leaf_of_another_level_is_not_stored() {
        let machine = machine();
        let space = space(&machine);
        let cpu = machine.cpu();
        let guard = cpu.pin();
        let page = leaf(&space, GIB1, Attributes::RAM);
        let _ = space.entry(&guard, Ipa::new(GIB1)).unwrap().try_update(page);
    }

    #[test]
    fn annotation_of_a_block_is_split_like_a_block() {
        let machine = machine();
        let space = space(&machine);
        let cpu = machine.cpu();
        let guard = cpu.pin();
        space.map(range(GIB1, MIB2), pa(GIB1), Attributes::RAM, &machine).unwrap();
        let annotation = Annotation::new(7).unwrap();
        let locked = space.entry(&guard, Ipa::new(GIB1)).unwrap().try_lock().unwrap();
        locked.break_with(&machine).annotate(annotation);
        space.unmap(range(GIB1, PAGE), &machine).unwrap();
        assert_eq!(space.entry(&guard, Ipa::new(GIB1)).unwrap().pte(), Pte::Empty);
        assert_eq!(space.entry(&guard, Ipa::new(GIB1 + PAGE)).unwrap().pte(), Pte::Annotated(annotation));
        finish(space, &machine);
    }

    #[test]
    fn only_permissions_may_change_in_place() {
        let machine = machine();
        let space = space(&machine);
        let old = Pte::Leaf(leaf(&space, GIB1, Attributes::RAM));
        let read_only = Attributes { permissions: Permissions::READ_ONLY, ..Attributes::RAM };
        assert!(is_bbm_safe(old, Pte::Leaf(leaf(&space, GIB1, read_only))));
        assert!(!is_bbm_safe(old, Pte::Leaf(leaf(&space, 2 * GIB1, Attributes::RAM))));
        let device = Attributes { permissions: Permissions::ALL, ..Attributes::DEVICE };
        assert!(!is_bbm_safe(old, Pte::Leaf(leaf(&space, GIB1, device))));
        finish(space, &machine);
    }

    #[test]
    fn anything_may_follow_nothing_and_nothing_may_follow_anything() {
        let machine = machine();
        let space = space(&machine);
        let page = Pte::Leaf(leaf(&space, GIB1, Attributes::RAM));
        assert!(is_bbm_safe(Pte::Empty, page));
        assert!(is_bbm_safe(page, Pte::Empty));
        assert!(is_bbm_safe(page, Pte::Locked));
        finish(space, &machine);
    }
}
