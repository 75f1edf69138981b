//! Moving what is mapped to other memory, and finding what to clean.

use std::cell::Cell;

use stage2::{
    Attributes, Budget, Cursor, Dirty, Features, Fwb, Geometry, Granule, Ipa, IpaRange, MapError, MemoryType,
    MigrateError, PaSize, Permissions, PhysAddr, Step, Vacated,
};

use crate::kit::Lone;
use crate::machine::{Counts, Machine};

const PAGE: u64 = 0x1000;
const MIB2: u64 = 0x20_0000;
const GIB1: u64 = 0x4000_0000;

const OLD: PhysAddr = PhysAddr::new(GIB1);
const NEW: PhysAddr = PhysAddr::new(3 * GIB1);

fn space(machine: &Machine) -> Lone<'_, Machine> {
    let geometry = Geometry::new(Granule::Kib4, 40, PaSize::Bits40).unwrap();
    Lone::new(geometry, Features::BASE, machine).unwrap()
}

/// A space in which `size` bytes from 0 on are mapped to [`OLD`].
fn mapped(machine: &Machine, size: u64, permissions: Permissions) -> Lone<'_, Machine> {
    let space = space(machine);
    space.map(range(0, size), OLD, Attributes { permissions, ..Attributes::RAM }, machine).unwrap();
    space
}

fn range(start: u64, size: u64) -> IpaRange {
    IpaRange::new(Ipa::new(start), size).unwrap()
}

fn output(space: &Lone<'_, Machine>) -> PhysAddr {
    space.lookup(Ipa::new(0)).unwrap().output
}

fn place(vacated: &Vacated) -> (PhysAddr, u64) {
    (vacated.output(), vacated.size())
}

/// Ends a test: nothing was violated and all tables came back.
fn finish(space: Lone<'_, Machine>, machine: &Machine) {
    machine.check_coherent(&space);
    space.destroy(machine);
    machine.check();
    assert_eq!(machine.tables_in_use(), 0);
}

mod migrate {
    use super::*;

    /// Migrates to [`NEW`], with nothing to copy.
    fn migrate(space: &Lone<'_, Machine>, machine: &Machine) -> Result<Vacated, MigrateError> {
        space.migrate(&space.pin(), Ipa::new(0), NEW, |_| {}, machine)
    }

    #[test]
    fn page_and_block_move_and_leave_their_memory() {
        for size in [PAGE, MIB2, GIB1] {
            let machine = Machine::new(64);
            let space = mapped(&machine, size, Permissions::ALL);
            let vacated = migrate(&space, &machine).unwrap();
            assert_eq!(place(&vacated), (OLD, size));
            let now = space.lookup(Ipa::new(0)).unwrap();
            assert_eq!((now.output, now.range, now.attributes), (NEW, range(0, size), Attributes::RAM));
            finish(space, &machine);
        }
    }

    #[test]
    fn copy_is_made_after_the_invalidation_and_before_anything_new_is_valid() {
        let machine = Machine::new(64);
        let space = mapped(&machine, PAGE, Permissions::ALL);
        machine.take_counts();
        let copied = Cell::new(false);
        let copy = |mapping: stage2::Mapping| {
            assert_eq!((mapping.output, mapping.range), (OLD, range(0, PAGE)));
            assert_eq!(machine.take_counts(), Counts { leaf: 1, ..Counts::default() });
            copied.set(true);
        };
        let _ = space.migrate(&space.pin(), Ipa::new(0), NEW, copy, &machine).unwrap();
        assert!(copied.get());
        assert_eq!(machine.take_counts(), Counts { publish: 1, ..Counts::default() });
        finish(space, &machine);
    }

    #[test]
    fn age_and_dirty_state_move_along() {
        let machine = Machine::new(64);
        let space = mapped(&machine, MIB2, Permissions::ALL);
        space.update(Ipa::new(0), |leaf| leaf.aged().cleaned());
        let _ = migrate(&space, &machine).unwrap();
        let leaf = space.leaf_at(Ipa::new(0)).unwrap();
        assert!(!leaf.is_young());
        assert_eq!(leaf.dirty(), Dirty::Clean);
        finish(space, &machine);
    }

    #[test]
    fn what_is_not_mapped_is_refused() {
        let machine = Machine::new(64);
        let space = space(&machine);
        for ipa in [Ipa::new(0), Ipa::new(1 << 40)] {
            let answer = space.migrate(&space.pin(), ipa, NEW, |_| panic!("nothing to copy"), &machine);
            assert_eq!(answer, Err(MigrateError::NotMapped { ipa }));
        }
        finish(space, &machine);
    }

    #[test]
    fn memory_that_the_leaf_can_not_map_is_refused() {
        let machine = Machine::new(64);
        let space = mapped(&machine, MIB2, Permissions::ALL);
        for (output, error) in [
            (PhysAddr::new(PAGE), MapError::OutputMisaligned { output: PhysAddr::new(PAGE) }),
            (PhysAddr::new(1 << 40), MapError::OutsidePhysical { output: PhysAddr::new(1 << 40) }),
        ] {
            let answer = space.migrate(&space.pin(), Ipa::new(0), output, |_| panic!("refused"), &machine);
            assert_eq!(answer, Err(MigrateError::Output(error)));
        }
        finish(space, &machine);
    }
}

mod migrate_identical {
    use super::*;

    fn migrate(space: &Lone<'_, Machine>, machine: &Machine) -> Result<Vacated, MigrateError> {
        space.migrate_identical(&space.pin(), Ipa::new(0), NEW, machine)
    }

    #[test]
    fn read_only_leaf_moves_with_one_invalidation_and_no_break() {
        for size in [PAGE, MIB2] {
            let machine = Machine::new(64);
            let space = mapped(&machine, size, Permissions::READ_EXECUTE);
            machine.contents_are_identical(OLD, NEW);
            machine.take_counts();
            assert_eq!(place(&migrate(&space, &machine).unwrap()), (OLD, size));
            assert_eq!(machine.take_counts(), Counts { leaf: 1, ..Counts::default() });
            assert_eq!(output(&space), NEW);
            finish(space, &machine);
        }
    }

    #[test]
    fn machine_notices_contents_that_differ() {
        let machine = Machine::new(64);
        let space = mapped(&machine, PAGE, Permissions::READ_ONLY);
        let _ = migrate(&space, &machine).unwrap();
        assert_eq!(machine.take_violations().len(), 1);
        finish(space, &machine);
    }

    #[test]
    fn leaf_that_may_be_written_to_is_refused_even_while_clean() {
        for clean in [false, true] {
            let machine = Machine::new(64);
            let space = mapped(&machine, PAGE, Permissions::READ_WRITE);
            if clean {
                space.update(Ipa::new(0), |leaf| leaf.cleaned());
                machine.check();
            }
            let refused = Err(MigrateError::Writable { ipa: Ipa::new(0) });
            assert_eq!(migrate(&space, &machine), refused);
            assert_eq!(output(&space), OLD);
            space.destroy(&machine);
        }
    }
}

mod flush {
    use super::*;

    /// All pieces that are visited, in steps of one table.
    fn pieces(space: &Lone<'_, Machine>, whole: IpaRange) -> Vec<(u64, u64)> {
        let mut pieces = Vec::new();
        let mut cursor = Cursor::new(whole);
        let mut visit = |output: PhysAddr, size| pieces.push((output.bits(), size));
        while space.flush_step(&space.pin(), &mut cursor, Budget::entries(0), &mut visit).unwrap()
            == Step::More
        {}
        pieces
    }

    #[test]
    fn memory_is_visited_as_it_is_mapped() {
        let machine = Machine::new(64);
        let space = mapped(&machine, MIB2 + 2 * PAGE, Permissions::ALL);
        let expected = [(GIB1, MIB2), (GIB1 + MIB2, PAGE), (GIB1 + MIB2 + PAGE, PAGE)];
        assert_eq!(pieces(&space, range(0, 1 << 40)), expected);
        finish(space, &machine);
    }

    #[test]
    fn pieces_are_cut_off_at_the_ends_of_the_range() {
        let machine = Machine::new(64);
        let space = mapped(&machine, GIB1, Permissions::ALL);
        let expected = [(GIB1 + 3 * PAGE, 2 * PAGE)];
        assert_eq!(pieces(&space, range(3 * PAGE, 2 * PAGE)), expected);
        finish(space, &machine);
    }

    #[test]
    fn memory_that_is_not_cached_is_left_out() {
        let machine = Machine::new(64);
        let space = space(&machine);
        for memory in [MemoryType::NormalNonCacheable, MemoryType::DeviceNGnRE, MemoryType::DeviceNGnRnE] {
            let attributes = Attributes { memory, ..Attributes::RAM };
            space.map(range(0, PAGE), OLD, attributes, &machine).unwrap();
            assert_eq!(pieces(&space, range(0, GIB1)), []);
            space.unmap(range(0, PAGE), &machine).unwrap();
        }
        finish(space, &machine);
    }

    #[test]
    fn nothing_is_visited_when_guests_can_not_bypass_caches() {
        let machine = Machine::new(64);
        let geometry = Geometry::new(Granule::Kib4, 40, PaSize::Bits40).unwrap();
        let features = Features { fwb: Fwb::On, ..Features::BASE };
        let space = Lone::new(geometry, features, &machine).unwrap();
        space.map(range(0, MIB2), OLD, Attributes::RAM, &machine).unwrap();
        assert_eq!(pieces(&space, range(0, GIB1)), []);
        space.destroy(&machine);
    }

    #[test]
    fn range_outside_the_space_is_refused() {
        let machine = Machine::new(64);
        let space = space(&machine);
        let outside = range(1 << 40, PAGE);
        let mut cursor = Cursor::new(outside);
        let answer = space.flush_step(&space.pin(), &mut cursor, Budget::UNLIMITED, |_, _| {});
        assert_eq!(answer, Err(MapError::OutsideSpace { range: outside }));
        finish(space, &machine);
    }
}
