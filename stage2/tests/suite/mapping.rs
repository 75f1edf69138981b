//! What mapping, unmapping and protecting do, one claim at a time.

use crate::machine::{Counts, Machine};
use stage2::{
    Attributes, Features, Geometry, Granule, Ipa, IpaRange, Level, MapError, Mapping, PaSize, Permissions,
    PhysAddr, Space,
};

const PAGE: u64 = 0x1000;
const MIB2: u64 = 0x20_0000;
const GIB1: u64 = 0x4000_0000;

fn machine() -> Machine {
    Machine::new(64)
}

fn space(machine: &Machine) -> Space<&Machine> {
    let geometry = Geometry::new(Granule::Kib4, 40, PaSize::Bits40).unwrap();
    Space::new(geometry, Features::BASE, machine).unwrap()
}

fn range(start: u64, size: u64) -> IpaRange {
    IpaRange::new(Ipa::new(start), size).unwrap()
}

fn pa(address: u64) -> PhysAddr {
    PhysAddr::new(address)
}

/// The sizes of all leaves, in order.
fn sizes(space: &Space<&Machine>) -> Vec<u64> {
    space.leaves(range(0, 1 << 40)).map(|mapping| mapping.range.size()).collect()
}

/// Ends a test: nothing was violated and all tables came back.
fn finish(space: Space<&Machine>, machine: &Machine) {
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
        let space = Space::new(geometry, Features::BASE, &machine).unwrap();
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
            let space = Space::new(geometry, Features::BASE, &machine).unwrap();
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
            Space::new(Geometry::new(Granule::Kib4, 39, PaSize::Bits48).unwrap(), Features::BASE, &machine);
        let geometry = Geometry::new(Granule::Kib4, 43, PaSize::Bits48).unwrap();
        let space = Space::new(geometry, Features::BASE, &machine).unwrap();
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
        machine.check_forgotten(range(0x4000_2000 - 3 * MIB2, 3 * MIB2));
        let mut space = space;
        space.reclaim();
        let after = (space.leaves(range(0, 1 << 40)).collect::<Vec<_>>(), machine.tables_in_use());
        assert_eq!(before, after);
        finish(space, &machine);
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
        assert_eq!(Space::new(geometry, Features::BASE, &machine).err(), Some(MapError::OutOfTables));
    }
}
