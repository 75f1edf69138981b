//! What a fault does to one entry: what it installs, what it leaves alone, and
//! that it neither waits nor costs an invalidation it does not need.

use std::cell::Cell;
use std::convert::Infallible;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use stage2::arena::{Arena, frame};
use stage2::epoch::Participant;
use stage2::{
    Access, Aging, Annotation, Attributes, Budget, Contiguous, Cursor, Detail, Dirty, Execute, Features,
    Geometry, Granule, InstallError, Installed, Ipa, IpaRange, Leaf, Level, Maintenance, NoTlb, PaSize,
    Permissions, PhysAddr, Pte, Resolved, Space, Stale, Step, TableMemory, Tlb,
};

use crate::kit::{Lone, epochs};
use crate::machine::{Counts, Machine};
use crate::meddle::{change_leaf, meddled_space};

const PAGE: u64 = 0x1000;
const MIB2: u64 = 0x20_0000;
const GIB1: u64 = 0x4000_0000;

const ANNOTATION: Annotation = Annotation::new(7).unwrap();

fn space(machine: &Machine) -> Lone<'_, Machine> {
    let geometry = Geometry::new(Granule::Kib4, 40, PaSize::Bits40).unwrap();
    Lone::new(geometry, Features::BASE, machine).unwrap()
}

fn range(start: u64, size: u64) -> IpaRange {
    IpaRange::new(Ipa::new(start), size).unwrap()
}

fn leaf<M: TableMemory>(space: &Space<M>, level: Level, output: u64) -> Leaf {
    space.leaf(level, PhysAddr::new(output), Attributes::RAM).unwrap()
}

fn always() -> Result<(), Infallible> {
    Ok(())
}

/// A fault that maps `leaf`, which nobody contests.
fn install(
    space: &Lone<'_, Machine>,
    cpu: &Participant<'_>,
    ipa: u64,
    leaf: Leaf,
    over: Option<Annotation>,
    machine: &Machine,
) -> Result<Installed<Infallible>, InstallError> {
    space.install(&cpu.pin(), Ipa::new(ipa), leaf, over, always, machine)
}

/// Ends a test: nothing was violated and all tables came back.
fn finish(space: Lone<'_, Machine>, machine: &Machine) {
    machine.check_coherent(&space);
    space.destroy(machine);
    machine.check();
    assert_eq!(machine.tables_in_use(), 0);
}

mod install {
    use super::*;

    #[test]
    fn page_is_found_where_it_was_installed() {
        let machine = Machine::new(16);
        let (space, cpu) = (space(&machine), machine.cpu());
        let page = leaf(&space, Level::L3, 0x8000_0000);
        let installed = install(&space, &cpu, GIB1 + 0x123, page, None, &machine).unwrap();
        let found = space.lookup(Ipa::new(GIB1)).unwrap();
        assert_eq!(installed, Installed::Done(found));
        assert_eq!((found.range, found.output), (range(GIB1, PAGE), PhysAddr::new(0x8000_0000)));
        finish(space, &machine);
    }

    #[test]
    fn nothing_is_invalidated() {
        let machine = Machine::new(16);
        let (space, cpu) = (space(&machine), machine.cpu());
        let page = leaf(&space, Level::L3, 0x8000_0000);
        let _ = install(&space, &cpu, GIB1, page, None, &machine).unwrap();
        let counts = machine.take_counts();
        assert_eq!(counts, Counts { publish: counts.publish, ..Counts::default() });
        finish(space, &machine);
    }

    #[test]
    fn refused_page_leaves_the_entry_empty() {
        let machine = Machine::new(16);
        let (space, cpu) = (space(&machine), machine.cpu());
        let page = leaf(&space, Level::L3, 0x8000_0000);
        let refused = space.install(&cpu.pin(), Ipa::new(GIB1), page, None, || Err("gone"), &machine);
        assert_eq!(refused, Ok(Installed::Refused("gone")));
        assert_eq!(space.entry(&cpu.pin(), Ipa::new(GIB1)).unwrap().pte(), Pte::Empty);
        finish(space, &machine);
    }

    #[test]
    fn refused_page_leaves_the_annotation() {
        let machine = Machine::new(16);
        let (space, cpu) = (space(&machine), machine.cpu());
        space.entry(&cpu.pin(), Ipa::new(GIB1)).unwrap().try_annotate(ANNOTATION).unwrap();
        let page = leaf(&space, Level::L3, 0x8000_0000);
        let refused =
            space.install(&cpu.pin(), Ipa::new(GIB1), page, Some(ANNOTATION), || Err("gone"), &machine);
        assert_eq!(refused, Ok(Installed::Refused("gone")));
        assert_eq!(space.entry(&cpu.pin(), Ipa::new(GIB1)).unwrap().pte(), Pte::Annotated(ANNOTATION));
        finish(space, &machine);
    }

    #[test]
    fn entry_is_held_while_it_is_validated_and_no_fault_waits_for_it() {
        let machine = Machine::new(16);
        let (space, cpu) = (space(&machine), machine.cpu());
        let (page, other) = (leaf(&space, Level::L3, 0x8000_0000), leaf(&space, Level::L3, 0x9000_0000));
        let second = machine.cpu();
        let validate = || {
            let ipa = Ipa::new(GIB1);
            assert_eq!(install(&space, &second, GIB1, other, None, &machine), Ok(Installed::Retry));
            assert_eq!(space.make_young(&second.pin(), ipa, &machine), Resolved::Retry);
            assert_eq!(space.relax(&second.pin(), ipa, Permissions::ALL, &machine), Resolved::Retry);
            Ok::<(), Infallible>(())
        };
        let installed = space.install(&cpu.pin(), Ipa::new(GIB1), page, None, validate, &machine);
        assert!(matches!(installed, Ok(Installed::Done(_))), "{installed:?}");
        assert_eq!(space.lookup(Ipa::new(GIB1)).unwrap().output, PhysAddr::new(0x8000_0000));
        finish(space, &machine);
    }

    #[test]
    fn c06_table_for_which_another_cpu_was_faster_goes_back_and_the_fault_goes_on() {
        let (space, cpu) = meddled_space(Features::BASE);
        let (ipa, page) = (Ipa::new(GIB1), leaf(space, Level::L3, 0x8000_0000));
        space.memory().before_next_store(move || {
            let cpu = space.memory().epochs().register().unwrap();
            let neighbour = range(GIB1 + PAGE, PAGE);
            space.map(&cpu.pin(), neighbour, PhysAddr::new(0), Attributes::RAM, &NoTlb).unwrap();
        });
        let installed = space.install(&cpu.pin(), ipa, page, None, always, &NoTlb);
        assert_eq!(installed, Ok(Installed::Done(space.lookup(&cpu.pin(), ipa).unwrap())));
        // The root's two, and one at levels 2 and 3.
        assert_eq!(space.memory().in_use(), 4);
    }

    #[test]
    fn entry_that_is_filled_before_it_was_taken_makes_the_guest_try_again() {
        let (space, cpu) = meddled_space(Features::BASE);
        let (ipa, block) = (Ipa::new(GIB1), leaf(space, Level::L1, GIB1));
        space.memory().before_next_store(move || {
            let cpu = space.memory().epochs().register().unwrap();
            space.map(&cpu.pin(), range(GIB1, GIB1), PhysAddr::new(0), Attributes::RAM, &NoTlb).unwrap();
        });
        assert_eq!(space.install(&cpu.pin(), ipa, block, None, always, &NoTlb), Ok(Installed::Retry));
    }

    #[test]
    fn c30_page_that_finds_a_block_is_already_mapped() {
        let machine = Machine::new(16);
        let (space, cpu) = (space(&machine), machine.cpu());
        let (block, page) = (leaf(&space, Level::L2, MIB2), leaf(&space, Level::L3, MIB2 + 3 * PAGE));
        let _ = install(&space, &cpu, GIB1 + 5 * PAGE, block, None, &machine).unwrap();
        let found = space.lookup(Ipa::new(GIB1)).unwrap();
        let second = install(&space, &cpu, GIB1 + 3 * PAGE, page, None, &machine);
        assert_eq!(second, Ok(Installed::AlreadyMapped(found)));
        assert_eq!(found.range, range(GIB1, MIB2));
        finish(space, &machine);
    }

    #[test]
    fn c30_block_that_finds_a_table_is_installed_where_its_guest_asked() {
        let machine = Machine::new(16);
        let (space, cpu) = (space(&machine), machine.cpu());
        let (block, page) = (leaf(&space, Level::L2, MIB2), leaf(&space, Level::L3, MIB2 + 3 * PAGE));
        let _ = install(&space, &cpu, GIB1 + 3 * PAGE, page, None, &machine).unwrap();
        let Ok(Installed::Done(part)) = install(&space, &cpu, GIB1 + 5 * PAGE, block, None, &machine) else {
            panic!("the guest does not get on");
        };
        assert_eq!((part.range, part.output), (range(GIB1 + 5 * PAGE, PAGE), PhysAddr::new(MIB2 + 5 * PAGE)));
        assert_eq!(space.leaves(range(GIB1, MIB2)).count(), 2);
        finish(space, &machine);
    }

    #[test]
    fn block_larger_than_the_root_has_is_installed_in_part() {
        let machine = Machine::new(16);
        // Root tables at level 2.
        let geometry = Geometry::new(Granule::Kib4, 32, PaSize::Bits40).unwrap();
        assert_eq!(geometry.start_level(), Level::L2);
        let (space, cpu) = (Lone::new(geometry, Features::BASE, &machine).unwrap(), machine.cpu());
        let gigabyte = leaf(&space, Level::L1, 2 * GIB1);
        let _ = install(&space, &cpu, GIB1 + MIB2 + PAGE, gigabyte, None, &machine).unwrap();
        let found = space.leaves(range(0, 1 << 32)).collect::<Vec<_>>();
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].range, found[0].output),
            (range(GIB1 + MIB2, MIB2), PhysAddr::new(2 * GIB1 + MIB2))
        );
        finish(space, &machine);
    }

    #[test]
    fn c65_what_is_mapped_is_not_replaced() {
        let machine = Machine::new(16);
        let (space, cpu) = (space(&machine), machine.cpu());
        let (page, other) = (leaf(&space, Level::L3, 0x8000_0000), leaf(&space, Level::L3, 0x9000_0000));
        let _ = install(&space, &cpu, GIB1, page, None, &machine).unwrap();
        let found = space.lookup(Ipa::new(GIB1)).unwrap();
        let again = install(&space, &cpu, GIB1, other, None, &machine);
        assert_eq!(again, Ok(Installed::AlreadyMapped(found)));
        assert_eq!(space.lookup(Ipa::new(GIB1)), Some(found));
        finish(space, &machine);
    }

    #[test]
    fn annotation_stands_in_the_way_unless_it_is_the_expected_one() {
        let machine = Machine::new(16);
        let (space, cpu) = (space(&machine), machine.cpu());
        space.entry(&cpu.pin(), Ipa::new(GIB1)).unwrap().try_annotate(ANNOTATION).unwrap();
        let gigabyte = leaf(&space, Level::L1, GIB1);
        for over in [None, Annotation::new(8)] {
            let refused = install(&space, &cpu, GIB1, gigabyte, over, &machine);
            assert_eq!(refused, Ok(Installed::Annotated(ANNOTATION)));
        }
        let taken = install(&space, &cpu, GIB1, gigabyte, Some(ANNOTATION), &machine);
        assert_eq!(taken, Ok(Installed::Done(space.lookup(Ipa::new(GIB1)).unwrap())));
        finish(space, &machine);
    }

    #[test]
    fn page_over_an_annotated_block_leaves_the_rest_annotated() {
        let machine = Machine::new(16);
        let (space, cpu) = (space(&machine), machine.cpu());
        space.entry(&cpu.pin(), Ipa::new(GIB1)).unwrap().try_annotate(ANNOTATION).unwrap();
        let page = leaf(&space, Level::L3, 0x8000_0000);
        let _ = install(&space, &cpu, GIB1 + 3 * PAGE, page, Some(ANNOTATION), &machine).unwrap();
        assert!(space.lookup(Ipa::new(GIB1 + 3 * PAGE)).is_some());
        for neighbour in [GIB1 + 2 * PAGE, GIB1 + 4 * PAGE, 2 * GIB1 - PAGE] {
            let entry = space.entry(&cpu.pin(), Ipa::new(neighbour)).unwrap().pte();
            assert_eq!(entry, Pte::Annotated(ANNOTATION));
        }
        finish(space, &machine);
    }

    #[test]
    fn expected_annotation_that_is_gone_makes_the_guest_try_again() {
        let machine = Machine::new(16);
        let (space, cpu) = (space(&machine), machine.cpu());
        let page = leaf(&space, Level::L3, 0x8000_0000);
        assert_eq!(install(&space, &cpu, GIB1, page, Some(ANNOTATION), &machine), Ok(Installed::Retry));
        finish(space, &machine);
    }

    #[test]
    fn address_beyond_the_space_is_an_error() {
        let machine = Machine::new(16);
        let (space, cpu) = (space(&machine), machine.cpu());
        let page = leaf(&space, Level::L3, 0x8000_0000);
        for ipa in [1 << 40, 1 << 52, (1 << 60) - 1] {
            let refused = install(&space, &cpu, ipa, page, None, &machine);
            assert_eq!(refused, Err(InstallError::OutsideSpace { ipa: Ipa::new(ipa) }));
        }
        finish(space, &machine);
    }

    #[test]
    fn without_a_table_the_error_tells_how_many_are_on_their_way_back() {
        let machine = Machine::new(16);
        let (space, cpu) = (space(&machine), machine.cpu());
        let page = leaf(&space, Level::L3, 0x8000_0000);
        machine.allow_allocations(0);
        let refused = install(&space, &cpu, GIB1, page, None, &machine);
        assert_eq!(refused, Err(InstallError::OutOfTables { retired: 0 }));
        machine.allow_allocations(2);
        // A CPU that looks at tables all the time, so that none comes back.
        let looking = machine.cpu();
        let _guard = looking.pin();
        let _ = install(&space, &cpu, GIB1, page, None, &machine).unwrap();
        space.unmap(range(GIB1, PAGE), &machine).unwrap();
        let refused = install(&space, &cpu, GIB1, page, None, &machine);
        assert_eq!(refused, Err(InstallError::OutOfTables { retired: 2 }));
        finish(space, &machine);
    }
}

mod make_young {
    use super::*;

    #[test]
    fn leaf_is_young_at_the_price_of_a_barrier() {
        let machine = Machine::new(16);
        let (space, cpu) = (space(&machine), machine.cpu());
        let page = leaf(&space, Level::L3, 0x8000_0000).aged();
        let _ = install(&space, &cpu, GIB1, page, None, &machine).unwrap();
        assert!(!space.lookup(Ipa::new(GIB1)).unwrap().young);
        machine.take_counts();
        assert_eq!(space.make_young(&cpu.pin(), Ipa::new(GIB1 + 8), &machine), Resolved::Done);
        assert!(space.lookup(Ipa::new(GIB1)).unwrap().young);
        assert_eq!(machine.take_counts(), Counts { publish: 1, ..Counts::default() });
        finish(space, &machine);
    }

    #[test]
    fn leaf_that_changed_since_it_was_read_makes_the_guest_try_again() {
        let (space, cpu) = meddled_space(Features::BASE);
        let page = range(GIB1, PAGE);
        space.map(&cpu.pin(), page, PhysAddr::new(0), Attributes::RAM, &NoTlb).unwrap();
        change_leaf(space, page.start(), |leaf| leaf.aged());
        space.memory().before_next_store(move || {
            change_leaf(space, page.start(), |leaf| leaf.with_permissions(Permissions::READ_WRITE));
        });
        assert_eq!(space.make_young(&cpu.pin(), page.start(), &NoTlb), Resolved::Retry);
        assert_eq!(space.make_young(&cpu.pin(), page.start(), &NoTlb), Resolved::Done);
    }

    #[test]
    fn what_is_not_mapped_is_said_to_be_so() {
        let machine = Machine::new(16);
        let (space, cpu) = (space(&machine), machine.cpu());
        space.entry(&cpu.pin(), Ipa::new(GIB1)).unwrap().try_annotate(ANNOTATION).unwrap();
        for ipa in [0, GIB1, 1 << 40] {
            let resolved = space.make_young(&cpu.pin(), Ipa::new(ipa), &machine);
            assert_eq!(resolved, Resolved::NotMapped);
        }
        finish(space, &machine);
    }

    #[test]
    fn one_fault_serves_all_members_of_a_contiguous_set() {
        let machine = Machine::new(16);
        let (space, cpu) = (with_set(&machine), machine.cpu());
        assert_eq!(space.make_young(&cpu.pin(), Ipa::new(GIB1 + 5 * PAGE), &machine), Resolved::Done);
        assert!(space.leaves(range(GIB1, 16 * PAGE)).all(|mapping| mapping.young));
        assert!(!space.lookup(Ipa::new(GIB1 + 16 * PAGE)).unwrap().young);
        finish(space, &machine);
    }
}

/// A space with sixteen old pages from 1 GiB on that are a contiguous set, and
/// an old one behind them that is not.
fn with_set(machine: &Machine) -> Lone<'_, Machine> {
    let geometry = Geometry::new(Granule::Kib4, 40, PaSize::Bits40).unwrap();
    let features = Features { contiguous: Contiguous::Allowed, ..Features::BASE };
    let space = Lone::new(geometry, features, machine).unwrap();
    space.map(range(GIB1, 17 * PAGE), PhysAddr::new(GIB1), Attributes::RAM, machine).unwrap();
    let cpu = machine.cpu();
    let mut cursor = Cursor::new(range(GIB1, 17 * PAGE));
    let aging = Aging::Clear(Tlb::None);
    let step = space.age_step(&cpu.pin(), &mut cursor, aging, Budget::UNLIMITED, machine, |_| {});
    assert_eq!(step, Ok(Step::Done));
    space
}

mod relax {
    use super::*;

    fn with_page(machine: &Machine, permissions: Permissions) -> (Lone<'_, Machine>, Participant<'_>) {
        let (space, cpu) = (space(machine), machine.cpu());
        let attributes = Attributes { permissions, ..Attributes::RAM };
        space.map(range(GIB1, PAGE), PhysAddr::new(0x8000_0000), attributes, machine).unwrap();
        machine.take_counts();
        (space, cpu)
    }

    fn permissions(space: &Lone<'_, Machine>) -> Permissions {
        space.lookup(Ipa::new(GIB1)).unwrap().attributes.permissions
    }

    #[test]
    fn permission_is_added_and_none_is_taken_away() {
        let machine = Machine::new(16);
        let (space, cpu) = with_page(&machine, Permissions::READ_EXECUTE);
        let write = Permissions { access: Access::WriteOnly, execute: Execute::Never };
        assert_eq!(space.relax(&cpu.pin(), Ipa::new(GIB1), write, &machine), Resolved::Done);
        assert_eq!(permissions(&space), Permissions::ALL);
        finish(space, &machine);
    }

    #[test]
    fn cost_is_one_local_invalidation() {
        let machine = Machine::new(16);
        let (space, cpu) = with_page(&machine, Permissions::READ_ONLY);
        let _ = space.relax(&cpu.pin(), Ipa::new(GIB1), Permissions::ALL, &machine);
        assert_eq!(machine.take_counts(), Counts { publish: 1, local: 1, ..Counts::default() });
        finish(space, &machine);
    }

    #[test]
    fn what_another_cpu_allowed_already_is_invalidated_here_too() {
        let machine = Machine::new(16);
        let (space, cpu) = with_page(&machine, Permissions::ALL);
        let _ = space.relax(&cpu.pin(), Ipa::new(GIB1), Permissions::READ_WRITE, &machine);
        assert_eq!(machine.take_counts(), Counts { publish: 1, local: 1, ..Counts::default() });
        finish(space, &machine);
    }

    #[test]
    fn c10_exchange_that_was_lost_still_costs_the_local_invalidation_of_that_page() {
        struct Local(Cell<Vec<(IpaRange, Stale)>>);

        impl Maintenance for Local {
            fn publish(&self) {}

            fn invalidate(&self, _: IpaRange, _: Stale) {}

            fn invalidate_local(&self, of: IpaRange, stale: Stale) {
                self.0.set([self.0.take(), vec![(of, stale)]].concat());
            }

            fn invalidate_all(&self) {}
        }

        let (space, cpu) = meddled_space(Features::BASE);
        let (page, local) = (range(GIB1, PAGE), Local(Cell::default()));
        let attributes = Attributes { permissions: Permissions::READ_ONLY, ..Attributes::RAM };
        space.map(&cpu.pin(), page, PhysAddr::new(0), attributes, &NoTlb).unwrap();
        space.memory().before_next_store(move || {
            change_leaf(space, page.start(), |leaf| leaf.with_permissions(Permissions::READ_WRITE));
        });
        let write = Permissions::READ_WRITE;
        let resolved = space.relax(&cpu.pin(), page.start(), write, &local);
        assert_eq!((resolved, local.0.take()), (Resolved::Retry, vec![(page, Stale::Leaves(Level::L3))]));
    }

    #[test]
    fn age_stays_as_it_was() {
        let machine = Machine::new(16);
        let (space, cpu) = with_page(&machine, Permissions::READ_ONLY);
        let guard = cpu.pin();
        let entry = space.entry(&guard, Ipa::new(GIB1)).unwrap();
        let Pte::Leaf(page) = entry.pte() else { panic!("is mapped") };
        entry.try_update(page.aged()).unwrap();
        let _ = space.relax(&guard, Ipa::new(GIB1), Permissions::ALL, &machine);
        assert!(!space.lookup(Ipa::new(GIB1)).unwrap().young);
        drop(guard);
        space.destroy(&machine);
    }

    #[test]
    fn write_to_a_clean_leaf_makes_it_dirty_and_other_accesses_do_not() {
        let machine = Machine::new(16);
        let (space, cpu) = with_page(&machine, Permissions::READ_WRITE);
        let guard = cpu.pin();
        let entry = space.entry(&guard, Ipa::new(GIB1)).unwrap();
        let Pte::Leaf(page) = entry.pte() else { panic!("is mapped") };
        entry.try_update(page.cleaned()).unwrap();
        let dirty = || match space.entry(&guard, Ipa::new(GIB1)).unwrap().pte() {
            Pte::Leaf(leaf) => leaf.dirty(),
            other => panic!("{other:?}"),
        };
        let _ = space.relax(&guard, Ipa::new(GIB1), Permissions::READ_EXECUTE, &machine);
        assert_eq!(dirty(), Dirty::Clean);
        let write = Permissions { access: Access::WriteOnly, execute: Execute::Never };
        let _ = space.relax(&guard, Ipa::new(GIB1), write, &machine);
        assert_eq!(dirty(), Dirty::Dirty);
        drop(guard);
        space.destroy(&machine);
    }

    #[test]
    fn permission_for_one_page_takes_its_contiguous_set_apart() {
        let machine = Machine::new(16);
        let (space, cpu) = (with_set(&machine), machine.cpu());
        let (set, page) = (range(GIB1, 16 * PAGE), Ipa::new(GIB1 + 3 * PAGE));
        space.protect(set, Permissions::READ_ONLY, &machine).unwrap();
        assert_eq!(space.relax(&cpu.pin(), page, Permissions::ALL, &machine), Resolved::Retry);
        assert_eq!(space.relax(&cpu.pin(), page, Permissions::ALL, &machine), Resolved::Done);
        let allowed = |ipa| space.lookup(ipa).unwrap().attributes.permissions;
        assert_eq!(allowed(page), Permissions::ALL);
        assert_eq!(allowed(Ipa::new(GIB1 + 4 * PAGE)), Permissions::READ_ONLY);
        finish(space, &machine);
    }

    #[test]
    fn write_to_a_clean_contiguous_set_makes_all_of_it_dirty_and_leaves_it_whole() {
        let machine = Machine::new(16);
        let (space, cpu) = (with_set(&machine), machine.cpu());
        let set = range(GIB1, 16 * PAGE);
        let mut cursor = Cursor::new(set);
        let step = space.collect_dirty_step(
            &cpu.pin(),
            &mut cursor,
            Detail::Leaves,
            Budget::UNLIMITED,
            &machine,
            |_| {},
        );
        assert_eq!(step, Ok(Step::Done));
        machine.take_counts();
        let write = Permissions { access: Access::WriteOnly, execute: Execute::Never };
        assert_eq!(space.relax(&cpu.pin(), Ipa::new(GIB1 + 3 * PAGE), write, &machine), Resolved::Done);
        assert_eq!(machine.take_counts(), Counts { publish: 1, local: 1, ..Counts::default() });
        assert!(space.leaves(set).all(|leaf| leaf.dirty == Dirty::Dirty));
        finish(space, &machine);
    }
}

mod together {
    use super::*;

    const ROUNDS: u64 = if cfg!(miri) { 4 } else { 400 };

    /// Runs `work` on this many CPUs at once.
    fn on_cpus<M: TableMemory + Sync>(
        space: &Space<&M>,
        cpus: usize,
        work: impl Fn(&Participant<'_>, usize, &Barrier) + Sync,
    ) {
        let barrier = Barrier::new(cpus);
        thread::scope(|scope| {
            for index in 0..cpus {
                let (work, barrier, epochs) = (&work, &barrier, space.memory().epochs());
                scope.spawn(move || work(&epochs.register().unwrap(), index, barrier));
            }
        });
    }

    fn with_space(work: impl FnOnce(&Space<&Arena<'static, Vec<stage2::arena::Frame>>>)) {
        let memory = Arena::new(PhysAddr::new(0x1_0000_0000), (0..1024).map(|_| frame()).collect(), epochs());
        let geometry = Geometry::new(Granule::Kib4, 39, PaSize::Bits40).unwrap();
        let space = Space::new(geometry, Features::BASE, &memory).unwrap();
        work(&space);
        space.destroy(&NoTlb);
        assert_eq!(memory.in_use(), 0);
    }

    #[test]
    fn c06_fault_that_loses_the_race_for_a_table_gives_its_own_back() {
        with_space(|space| {
            on_cpus(space, 2, |cpu, index, barrier| {
                for round in 0..ROUNDS {
                    barrier.wait();
                    let page = leaf(space, Level::L3, index as u64 * PAGE);
                    let ipa = Ipa::new(round * MIB2 + index as u64 * PAGE);
                    let done = space.install(&cpu.pin(), ipa, page, None, always, &NoTlb);
                    assert!(matches!(done, Ok(Installed::Done(_))), "{done:?}");
                }
            });
            // The root, a table for each gigabyte, and one for each round.
            let gigabytes = (ROUNDS * MIB2).div_ceil(GIB1);
            assert_eq!(space.memory().in_use() as u64, 1 + gigabytes + ROUNDS);
        });
    }

    #[test]
    fn c47_of_many_cpus_that_fault_on_one_page_one_installs_it_and_all_get_on() {
        with_space(|space| {
            let installed = AtomicUsize::new(0);
            on_cpus(space, 16, |cpu, index, barrier| {
                for round in 0..ROUNDS / 4 {
                    barrier.wait();
                    let page = leaf(space, Level::L3, index as u64 * PAGE);
                    loop {
                        match space.install(&cpu.pin(), Ipa::new(round * PAGE), page, None, always, &NoTlb) {
                            Ok(Installed::Retry) => thread::yield_now(),
                            Ok(Installed::AlreadyMapped(_)) => break,
                            Ok(Installed::Done(_)) => {
                                installed.fetch_add(1, Ordering::Relaxed);
                                break;
                            }
                            other => panic!("{other:?}"),
                        }
                    }
                }
            });
            assert_eq!(installed.into_inner() as u64, ROUNDS / 4);
        });
    }

    /// Local invalidations must say which page, at which level, always.
    struct Strict;

    impl Maintenance for Strict {
        fn publish(&self) {}

        fn invalidate(&self, _: IpaRange, _: Stale) {
            panic!("a permission that is granted concerns this CPU only");
        }

        fn invalidate_local(&self, of: IpaRange, stale: Stale) {
            assert_eq!((of.size(), stale), (PAGE, Stale::Leaves(Level::L3)));
        }

        fn invalidate_all(&self) {
            panic!("as above");
        }
    }

    #[test]
    fn c10_two_cpus_that_relax_one_page_get_on_after_two_faults_with_the_right_level() {
        with_space(|space| {
            let pages = range(0, ROUNDS * PAGE);
            let attributes = Attributes { permissions: Permissions::NONE, ..Attributes::RAM };
            let cpu = space.memory().epochs().register().unwrap();
            // Off by a page, so that there are no blocks.
            space.map(&cpu.pin(), pages, PhysAddr::new(PAGE), attributes, &NoTlb).unwrap();
            on_cpus(space, 2, |cpu, index, barrier| {
                let wanted = [Permissions::READ_EXECUTE, Permissions::READ_WRITE][index];
                for round in 0..ROUNDS {
                    barrier.wait();
                    let ipa = Ipa::new(round * PAGE);
                    let faults = (1..)
                        .find(|_| space.relax(&cpu.pin(), ipa, wanted, &Strict) == Resolved::Done)
                        .unwrap();
                    assert!(faults <= 2, "{faults} faults");
                }
            });
            assert!(space.leaves(&cpu.pin(), pages).all(|mapping| mapping.attributes == Attributes::RAM));
        });
    }
}
