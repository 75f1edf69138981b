//! What was written to is found, once, and nothing that was written is lost:
//! with a walker that marks writes and with faults that do.

use std::collections::BTreeMap;

use proptest::prelude::*;
use stage2::{
    Age, Aging, Attributes, Budget, Cursor, Detail, Dirty, DirtyState, Features, Ipa, IpaRange, MapError,
    Mapping, NoTlb, Permissions, PhysAddr, Step, Tlb,
};

use crate::guest::{Guest, PAGE, memory};
use crate::meddle::{change_leaf, meddled_space, while_locked};

const MIB2: u64 = 0x20_0000;
const GIB1: u64 = 0x4000_0000;
/// The first page of the guest's memory.
const FIRST: u64 = GIB1 / PAGE;

const BOTH: [DirtyState; 2] = [DirtyState::WriteProtect, DirtyState::Hardware];

fn range(start: u64, size: u64) -> IpaRange {
    IpaRange::new(Ipa::new(start), size).unwrap()
}

/// Some pages of the guest's memory.
fn pages(first: u64, count: u64) -> IpaRange {
    range(GIB1 + first * PAGE, count * PAGE)
}

/// The first page of a range and the one behind the last, counted from the
/// first of the guest's memory.
fn numbers(of: IpaRange) -> (u64, u64) {
    (of.start().bits() / PAGE - FIRST, of.end().bits() / PAGE - FIRST)
}

/// Maps pages, not blocks.
fn map_pages(guest: &Guest<'_>, of: IpaRange) {
    let output = PhysAddr::new(of.start().bits() + PAGE);
    guest.space.map(&guest.cpu.pin(), of, output, Attributes::RAM, guest).unwrap();
}

fn map_blocks(guest: &Guest<'_>, of: IpaRange) {
    guest.space.map(&guest.cpu.pin(), of, PhysAddr::new(of.start().bits()), Attributes::RAM, guest).unwrap();
}

/// A round: what it told of.
fn collect(guest: &Guest<'_>, of: IpaRange, detail: Detail) -> Vec<(u64, u64)> {
    let (mut told, mut cursor) = (Vec::new(), Cursor::new(of));
    let step = guest.space.collect_dirty_step(
        &guest.cpu.pin(),
        &mut cursor,
        detail,
        Budget::UNLIMITED,
        guest,
        |found| told.push(numbers(found)),
    );
    assert_eq!(step, Ok(Step::Done));
    told
}

/// Does a test with a walker that marks writes, and with one that does not.
fn with_both(test: impl Fn(&Guest<'_>)) {
    for dirty in BOTH {
        let memory = memory();
        let guest = Guest::new(&memory, dirty);
        test(&guest);
        guest.finish();
    }
}

mod collecting {
    use super::*;

    #[test]
    fn first_round_tells_of_everything_that_may_be_written_to() {
        with_both(|guest| {
            map_pages(guest, pages(0, 8));
            guest.space.protect(&guest.cpu.pin(), pages(2, 1), Permissions::READ_EXECUTE, guest).unwrap();
            assert_eq!(collect(guest, pages(0, 100), Detail::Leaves), [(0, 2), (3, 8)]);
        });
    }

    #[test]
    fn later_rounds_tell_of_what_was_written_to_since() {
        with_both(|guest| {
            map_pages(guest, pages(0, 1000));
            collect(guest, pages(0, 1000), Detail::Leaves);
            assert_eq!(collect(guest, pages(0, 1000), Detail::Leaves), []);
            for page in [3, 4, 5, 511, 512, 999] {
                guest.write(FIRST + page);
                guest.read(FIRST + page + 7);
            }
            assert_eq!(
                collect(guest, pages(0, 1000), Detail::Leaves),
                [(3, 6), (511, 512), (512, 513), (999, 1000)]
            );
            assert_eq!(collect(guest, pages(0, 1000), Detail::Leaves), []);
        });
    }

    #[test]
    fn c33_write_in_the_moment_of_the_exchange_is_not_lost() {
        let (space, cpu) = meddled_space(Features { dirty: DirtyState::Hardware, ..Features::BASE });
        let page = pages(0, 1);
        space.map(&cpu.pin(), page, PhysAddr::new(0), Attributes::RAM, &NoTlb).unwrap();
        change_leaf(space, page.start(), |leaf| leaf.cleaned().aged());
        // The walker marks a write between the reading and the exchange of a
        // pass, of a change of permissions, and of a removal.
        let write = move || change_leaf(space, page.start(), |leaf| leaf.dirtied());
        let dirty = || space.lookup(&cpu.pin(), page.start()).unwrap().dirty;

        space.memory().before_next_store(write);
        let aging = Aging::Clear(Tlb::None);
        let _ = space
            .age_step(&cpu.pin(), &mut Cursor::new(page), aging, Budget::UNLIMITED, &NoTlb, |_| {})
            .unwrap();
        assert_eq!(dirty(), Dirty::Dirty);

        change_leaf(space, page.start(), |leaf| leaf.cleaned());
        space.memory().before_next_store(write);
        space.protect(&cpu.pin(), page, Permissions::READ_WRITE, &NoTlb).unwrap();
        assert_eq!(dirty(), Dirty::Dirty);

        change_leaf(space, page.start(), |leaf| leaf.cleaned());
        space.memory().before_next_store(write);
        let mut gone = Vec::new();
        let step =
            space.unmap_step_with(&cpu.pin(), &mut Cursor::new(page), Budget::UNLIMITED, &NoTlb, |leaf| {
                gone.push(leaf.dirty);
            });
        assert_eq!((step, gone), (Ok(Step::Done), vec![Dirty::Dirty]));
    }

    #[test]
    fn c34_write_to_the_middle_of_a_block_makes_all_of_it_dirty() {
        with_both(|guest| {
            map_blocks(guest, pages(0, 1024));
            collect(guest, pages(0, 1024), Detail::Leaves);
            guest.write(FIRST + 256);
            assert_eq!(collect(guest, pages(0, 1024), Detail::Leaves), [(0, 512)]);
        });
    }

    #[test]
    fn c34_with_detail_only_the_page_that_was_written_to_is_told_of() {
        with_both(|guest| {
            map_blocks(guest, pages(0, 1024));
            assert_eq!(collect(guest, pages(0, 1024), Detail::Pages), [(0, 512), (512, 1024)]);
            guest.write(FIRST + 256);
            assert_eq!(collect(guest, pages(0, 1024), Detail::Pages), [(256, 257)]);
        });
    }

    #[test]
    fn block_that_is_clean_is_not_split() {
        with_both(|guest| {
            map_blocks(guest, pages(0, 1024));
            collect(guest, pages(0, 1024), Detail::Leaves);
            guest.write(FIRST + 600);
            collect(guest, pages(0, 1024), Detail::Pages);
            let sizes: Vec<_> = {
                let guard = guest.cpu.pin();
                guest.space.leaves(&guard, pages(0, 1024)).map(|leaf| leaf.range.size()).collect()
            };
            assert_eq!(sizes.first(), Some(&MIB2));
            assert_eq!(sizes.len(), 1 + 512);
        });
    }

    #[test]
    fn without_a_table_for_the_split_nothing_is_lost() {
        with_both(|guest| {
            // A gigabyte takes more tables than there are.
            map_pages(guest, range(GIB1 - PAGE, PAGE));
            map_blocks(guest, range(GIB1, GIB1));
            let (mut told, mut cursor) = (0, Cursor::new(range(0, 1 << 40)));
            let refused = guest.space.collect_dirty_step(
                &guest.cpu.pin(),
                &mut cursor,
                Detail::Pages,
                Budget::UNLIMITED,
                guest,
                |found| told += found.size(),
            );
            assert_eq!(refused, Err(MapError::OutOfTables));
            let done = cursor.done().unwrap();
            assert_eq!(told, done.end().bits() - (GIB1 - PAGE));
            let guard = guest.cpu.pin();
            for leaf in guest.space.leaves(&guard, range(0, 1 << 40)) {
                let expected = if done.covers(leaf.range) { Dirty::Clean } else { Dirty::Dirty };
                assert_eq!(leaf.dirty, expected, "{}", leaf.range);
            }
        });
    }

    #[test]
    fn refused_step_that_begins_within_a_block_can_be_taken_again() {
        with_both(|guest| {
            map_blocks(guest, range(GIB1, GIB1));
            // Pages all over the rest of the space, until no table is left.
            let taken = (2..).find(|gib| {
                let page = range(gib * GIB1, PAGE);
                guest.space.map(&guest.cpu.pin(), page, PhysAddr::new(0), Attributes::RAM, guest).is_err()
            });
            assert!(taken.is_some());
            let within = range(GIB1 + MIB2, MIB2);
            let mut cursor = Cursor::new(within);
            let refused = guest.space.collect_dirty_step(
                &guest.cpu.pin(),
                &mut cursor,
                Detail::Pages,
                Budget::UNLIMITED,
                guest,
                |found| panic!("{found:?}"),
            );
            assert_eq!((refused, cursor.rest()), (Err(MapError::OutOfTables), Some(within)));
        });
    }

    #[test]
    fn one_table_costs_one_invalidation() {
        with_both(|guest| {
            map_pages(guest, pages(0, 1024));
            collect(guest, pages(0, 1024), Detail::Leaves);
            for page in 0..100 {
                guest.write(FIRST + 5 * page);
            }
            guest.invalidations.set(0);
            collect(guest, pages(0, 1024), Detail::Leaves);
            assert_eq!(guest.invalidations.get(), 1);
            collect(guest, pages(0, 1024), Detail::Leaves);
            assert_eq!(guest.invalidations.get(), 1);
        });
    }

    #[test]
    fn write_before_the_invalidation_is_in_the_copy() {
        with_both(|guest| {
            map_pages(guest, pages(0, 4));
            collect(guest, pages(0, 4), Detail::Leaves);
            guest.write(FIRST + 1);
            // This goes through the TLB after the leaf was cleaned.
            guest.mischief.borrow_mut().push(FIRST + 1);
            let (mut copied, mut cursor) = (0, Cursor::new(pages(0, 4)));
            let step = guest.space.collect_dirty_step(
                &guest.cpu.pin(),
                &mut cursor,
                Detail::Leaves,
                Budget::UNLIMITED,
                guest,
                |_| copied = guest.version(FIRST + 1),
            );
            assert_eq!((step, copied, guest.version(FIRST + 1)), (Ok(Step::Done), 2, 2));
            guest.write(FIRST + 1);
            assert_eq!(collect(guest, pages(0, 4), Detail::Leaves), [(1, 2)]);
        });
    }

    #[test]
    fn c14_what_lies_behind_holes_and_races_is_collected_as_well() {
        let (space, cpu) = meddled_space(Features::BASE);
        for page in [0, 1, 5, 600] {
            let output = PhysAddr::new(page * PAGE);
            space.map(&cpu.pin(), pages(page, 1), output, Attributes::RAM, &NoTlb).unwrap();
        }
        // The first exchange is lost.
        space.memory().before_next_store(move || change_leaf(space, pages(0, 1).start(), |leaf| leaf.aged()));
        let mut told = Vec::new();
        let step = space.collect_dirty_step(
            &cpu.pin(),
            &mut Cursor::new(range(0, 1 << 40)),
            Detail::Leaves,
            Budget::UNLIMITED,
            &NoTlb,
            |found| told.push(numbers(found)),
        );
        assert_eq!((step, told), (Ok(Step::Done), vec![(0, 2), (5, 6), (600, 601)]));
    }

    #[test]
    fn set_is_dirty_if_the_walker_marked_any_member() {
        with_both(|guest| {
            map_blocks(guest, pages(0, 17));
            guest.space.fold(&guest.cpu.pin(), pages(0, 1).start(), guest).unwrap();
            assert_eq!(collect(guest, pages(3, 14), Detail::Leaves), [(0, 17)]);
            guest.write(FIRST + 5);
            assert_eq!(collect(guest, pages(0, 17), Detail::Leaves), [(0, 16)]);
            assert_eq!(collect(guest, pages(0, 17), Detail::Leaves), []);
        });
    }

    #[test]
    fn with_detail_a_set_that_was_written_to_is_taken_apart() {
        with_both(|guest| {
            map_blocks(guest, pages(0, 17));
            guest.space.fold(&guest.cpu.pin(), pages(0, 1).start(), guest).unwrap();
            assert_eq!(collect(guest, pages(0, 17), Detail::Pages), [(0, 17)]);
            guest.write(FIRST + 5);
            assert_eq!(collect(guest, pages(0, 17), Detail::Pages), [(5, 6)]);
        });
    }

    #[test]
    fn many_steps_tell_of_the_same_as_one() {
        with_both(|guest| {
            map_pages(guest, pages(0, 1500));
            let (mut told, mut cursor, mut steps) = (Vec::new(), Cursor::new(pages(0, 1500)), 1);
            loop {
                let step = guest.space.collect_dirty_step(
                    &guest.cpu.pin(),
                    &mut cursor,
                    Detail::Leaves,
                    Budget::entries(1),
                    guest,
                    |found| told.extend(numbers(found).0..numbers(found).1),
                );
                if step == Ok(Step::Done) {
                    break;
                }
                steps += 1;
            }
            assert_eq!(told, (0..1500).collect::<Vec<_>>());
            assert!(steps > 1);
        });
    }
}

mod stopping {
    use super::*;

    #[test]
    fn after_the_end_of_logging_writes_cost_no_fault() {
        with_both(|guest| {
            map_pages(guest, pages(0, 8));
            collect(guest, pages(0, 8), Detail::Leaves);
            let step = guest.space.stop_logging_step(
                &guest.cpu.pin(),
                &mut Cursor::new(pages(0, 8)),
                Budget::UNLIMITED,
                guest,
            );
            assert_eq!(step, Ok(Step::Done));
            let guard = guest.cpu.pin();
            assert!(guest.space.leaves(&guard, pages(0, 8)).all(|leaf| leaf.dirty == Dirty::Dirty));
        });
    }

    #[test]
    fn it_makes_nothing_writable_that_was_not() {
        with_both(|guest| {
            map_pages(guest, pages(0, 8));
            guest.space.protect(&guest.cpu.pin(), pages(0, 4), Permissions::READ_ONLY, guest).unwrap();
            let step = guest.space.stop_logging_step(
                &guest.cpu.pin(),
                &mut Cursor::new(pages(0, 8)),
                Budget::UNLIMITED,
                guest,
            );
            assert_eq!(step, Ok(Step::Done));
            let guard = guest.cpu.pin();
            let leaf = guest.space.lookup(&guard, pages(3, 1).start()).unwrap();
            assert_eq!(leaf.attributes.permissions, Permissions::READ_ONLY);
        });
    }
}

mod harvest {
    use super::*;

    #[test]
    fn set_that_goes_is_dirty_if_the_walker_marked_any_member() {
        with_both(|guest| {
            // One set goes by itself, one with its table.
            for part in [pages(0, 16), pages(0, 512)] {
                map_blocks(guest, pages(0, 16));
                guest.space.fold(&guest.cpu.pin(), pages(0, 1).start(), guest).unwrap();
                map_pages(guest, pages(100, 1));
                collect(guest, pages(0, 512), Detail::Leaves);
                guest.write(FIRST + 5);
                let mut dirty = 0;
                let (mut cursor, budget) = (Cursor::new(part), Budget::UNLIMITED);
                let step =
                    guest.space.unmap_step_with(&guest.cpu.pin(), &mut cursor, budget, guest, |leaf| {
                        if leaf.dirty == Dirty::Dirty {
                            dirty += leaf.range.size() / PAGE;
                        }
                    });
                assert_eq!((step, dirty), (Ok(Step::Done), 16));
                guest.space.unmap(&guest.cpu.pin(), pages(0, 512), guest).unwrap();
            }
        });
    }

    #[test]
    fn set_that_is_protected_is_dirty_if_the_walker_marked_any_member() {
        with_both(|guest| {
            map_blocks(guest, pages(0, 16));
            guest.space.fold(&guest.cpu.pin(), pages(0, 1).start(), guest).unwrap();
            collect(guest, pages(0, 16), Detail::Leaves);
            guest.write(FIRST + 5);
            let (mut told, mut cursor) = (Vec::new(), Cursor::new(pages(0, 16)));
            let step = guest.space.protect_step_with(
                &guest.cpu.pin(),
                &mut cursor,
                Permissions::READ_ONLY,
                Budget::UNLIMITED,
                guest,
                |leaf| told.push(numbers(leaf.range)),
            );
            assert_eq!((step, told), (Ok(Step::Done), vec![(0, 16)]));
        });
    }

    #[test]
    fn unmap_tells_of_each_leaf_as_it_was() {
        with_both(|guest| {
            map_blocks(guest, pages(0, 512));
            map_pages(guest, pages(512, 512));
            map_pages(guest, pages(1024, 3));
            collect(guest, pages(0, 1027), Detail::Leaves);
            guest.write(FIRST + 700);
            guest.write(FIRST + 1025);
            let mut gone: Vec<Mapping> = Vec::new();
            let whole = range(0, 1 << 40);
            let step = guest.space.unmap_step_with(
                &guest.cpu.pin(),
                &mut Cursor::new(whole),
                Budget::UNLIMITED,
                guest,
                |leaf| gone.push(leaf),
            );
            assert_eq!((step, gone.len()), (Ok(Step::Done), 1 + 512 + 3));
            let dirty = gone.iter().filter(|leaf| leaf.dirty == Dirty::Dirty);
            assert_eq!(dirty.map(|leaf| numbers(leaf.range)).collect::<Vec<_>>(), [(700, 701), (1025, 1026)]);
        });
    }

    #[test]
    fn protect_tells_of_what_was_dirty_and_can_not_say_so_any_more() {
        with_both(|guest| {
            map_pages(guest, pages(0, 8));
            collect(guest, pages(0, 8), Detail::Leaves);
            guest.write(FIRST + 2);
            let protect = |permissions| {
                let (mut told, mut cursor) = (Vec::new(), Cursor::new(pages(0, 8)));
                let step = guest.space.protect_step_with(
                    &guest.cpu.pin(),
                    &mut cursor,
                    permissions,
                    Budget::UNLIMITED,
                    guest,
                    |leaf| told.push(numbers(leaf.range)),
                );
                assert_eq!(step, Ok(Step::Done));
                told
            };
            assert_eq!(protect(Permissions::READ_WRITE), []);
            assert_eq!(protect(Permissions::READ_EXECUTE), [(2, 3)]);
        });
    }
}

#[test]
fn entry_in_other_hands_is_waited_for_and_then_collected() {
    let memory = memory();
    let guest = Guest::new(&memory, DirtyState::WriteProtect);
    map_pages(&guest, pages(0, 4));
    let (space, epochs) = (&guest.space, stage2::TableMemory::epochs(&memory));
    let started = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let cpu = epochs.register().unwrap();
            let mut told = Vec::new();
            started.wait();
            let step = space.collect_dirty_step(
                &cpu.pin(),
                &mut Cursor::new(pages(0, 4)),
                Detail::Leaves,
                Budget::entries(1),
                &NoTlb,
                |found| told.push(numbers(found)),
            );
            (step, told)
        });
        while_locked(space, pages(2, 1).start(), &NoTlb, || {
            started.wait();
            std::thread::sleep(std::time::Duration::from_millis(20));
        });
        let (step, told) = collector.join().unwrap();
        assert_eq!(step, Ok(Step::Done));
        assert_eq!(told, [(0, 2), (2, 4)]);
    });
    guest.finish();
}

/// What can happen to a guest that is being copied.
#[derive(Clone, Debug)]
enum Event {
    Read(u64),
    Write(u64),
    MapBlocks(IpaRange),
    MapPages(IpaRange),
    Unmap(IpaRange),
    Protect(IpaRange, Permissions),
    Fold(u64),
    Collect(IpaRange, Detail, usize),
    Age(IpaRange),
}

/// Pages, from the first of the guest's memory: two blocks and a bit, and
/// mostly near the borders.
const MEMORY: u64 = 1100;

fn page() -> impl Strategy<Value = u64> {
    prop_oneof![0..4u64, 508..516u64, 1020..1030u64, 0..MEMORY]
}

fn stretch() -> impl Strategy<Value = IpaRange> {
    let count = prop_oneof![1..4u64, 500..520u64, Just(MEMORY)];
    (page(), count).prop_map(|(first, count)| pages(first, count.min(MEMORY - first)))
}

fn event() -> impl Strategy<Value = Event> {
    let permissions = prop_oneof![Just(Permissions::READ_EXECUTE), Just(Permissions::ALL)];
    let detail = prop_oneof![Just(Detail::Leaves), Just(Detail::Pages)];
    prop_oneof![
        2 => page().prop_map(Event::Read),
        4 => page().prop_map(Event::Write),
        1 => Just(Event::MapBlocks(pages(0, 1024))),
        1 => stretch().prop_map(Event::MapPages),
        1 => stretch().prop_map(Event::Unmap),
        1 => (stretch(), permissions).prop_map(|(of, permissions)| Event::Protect(of, permissions)),
        1 => page().prop_map(Event::Fold),
        2 => (stretch(), detail, 0..700usize).prop_map(|(of, detail, budget)| Event::Collect(of, detail, budget)),
        2 => stretch().prop_map(Event::Age),
    ]
}

/// A copy of a guest, page by page.
#[derive(Default)]
struct Copy(BTreeMap<u64, u64>);

impl Copy {
    fn take(&mut self, guest: &Guest<'_>, of: IpaRange) {
        for page in of.start().bits() / PAGE..of.end().bits() / PAGE {
            self.0.insert(page, guest.version(page));
        }
    }

    fn version(&self, page: u64) -> u64 {
        self.0.get(&page).copied().unwrap_or(0)
    }

    /// Memory that does not count as dirty is what the copy says.
    fn check(&self, guest: &Guest<'_>) -> Result<(), TestCaseError> {
        let guard = guest.cpu.pin();
        for page in FIRST..FIRST + MEMORY {
            let leaf = guest.space.lookup(&guard, Ipa::new(page * PAGE));
            if leaf.is_none_or(|leaf| leaf.dirty != Dirty::Dirty) {
                prop_assert_eq!(self.version(page), guest.version(page), "page {}", page - FIRST);
            }
        }
        Ok(())
    }
}

/// Lets it happen, and copies what it tells of.
fn happen(guest: &Guest<'_>, copy: &mut Copy, event: &Event) -> Result<(), TestCaseError> {
    let guard = guest.cpu.pin();
    match *event {
        Event::Read(page) => guest.read(FIRST + page),
        Event::Write(page) => guest.write(FIRST + page),
        Event::MapBlocks(of) | Event::MapPages(of) => {
            let shift = if matches!(event, Event::MapBlocks(_)) { 0 } else { PAGE };
            let output = PhysAddr::new(of.start().bits() + shift);
            if guest.space.map(&guard, of, output, Attributes::RAM, guest).is_ok() {
                // Other memory, and new leaves are young.
                for page in of.start().bits() / PAGE..of.end().bits() / PAGE {
                    guest.written(page);
                    guest.used.borrow_mut().insert(page);
                }
            }
        }
        Event::Unmap(of) => {
            let (mut gone, mut cursor) = (Vec::new(), Cursor::new(of));
            let step = guest.space.unmap_step_with(&guard, &mut cursor, Budget::UNLIMITED, guest, |leaf| {
                gone.push(leaf);
            });
            prop_assert_eq!(step, Ok(Step::Done));
            gone.iter()
                .filter(|leaf| leaf.dirty == Dirty::Dirty)
                .for_each(|leaf| copy.take(guest, leaf.range));
        }
        Event::Protect(of, permissions) => {
            let (mut told, mut cursor) = (Vec::new(), Cursor::new(of));
            let step = guest.space.protect_step_with(
                &guard,
                &mut cursor,
                permissions,
                Budget::UNLIMITED,
                guest,
                |leaf| told.push(leaf.range),
            );
            prop_assert_eq!(step, Ok(Step::Done));
            told.into_iter().for_each(|range| copy.take(guest, range));
        }
        Event::Fold(page) => {
            // Refused, more often than not.
            let _ = guest.space.fold(&guard, pages(page, 1).start(), guest);
        }
        Event::Collect(of, detail, budget) => {
            let (mut cursor, budget) = (Cursor::new(of), Budget::entries(budget));
            while guest.space.collect_dirty_step(&guard, &mut cursor, detail, budget, guest, |range| {
                copy.take(guest, range)
            }) == Ok(Step::More)
            {}
            prop_assert_eq!(cursor.rest(), None);
        }
        Event::Age(of) => {
            let (mut cursor, aging) = (Cursor::new(of), Aging::Clear(Tlb::Batch));
            let mut found = Vec::new();
            let step = guest.space.age_step(&guard, &mut cursor, aging, Budget::UNLIMITED, guest, |aged| {
                found.push(aged);
            });
            prop_assert_eq!(step, Ok(Step::Done));
            for aged in found {
                let used = |page: &u64| aged.range.contains(Ipa::new(page * PAGE));
                let used_before = guest.used.borrow().iter().copied().filter(used).collect::<Vec<_>>();
                if matches!(aged.age, Age::Old(_)) {
                    prop_assert_eq!(used_before, [], "in use and old");
                }
                guest.used.borrow_mut().retain(|page| !used(page));
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn no_write_and_no_use_is_ever_lost(
        events in prop::collection::vec(event(), 1..32),
        mischief in prop::collection::vec(page(), 0..8),
        hardware in any::<bool>(),
    ) {
        let memory = memory();
        let guest = Guest::new(&memory, BOTH[usize::from(hardware)]);
        guest.mischief.borrow_mut().extend(mischief.into_iter().map(|page| FIRST + page));
        let mut copy = Copy::default();
        happen(&guest, &mut copy, &Event::MapBlocks(pages(0, 1024)))?;
        for event in &events {
            happen(&guest, &mut copy, event)?;
            copy.check(&guest)?;
        }
        happen(&guest, &mut copy, &Event::Collect(pages(0, MEMORY), Detail::Pages, 0))?;
        for page in FIRST..FIRST + MEMORY {
            prop_assert_eq!(copy.version(page), guest.version(page));
        }
        guest.finish();
    }
}
