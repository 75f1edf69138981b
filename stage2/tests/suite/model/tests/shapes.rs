//! Changes of size and place, with another CPU that comes in between any two
//! of their steps.

use stage2::{
    Annotation, Budget, Contiguous, Cursor, Features, Geometry, Granule, Ipa, Level, MapError, PaSize,
    Permissions, PhysAddr, Step,
};

use super::operations::{Operation, at_every_step, mapped};
use crate::model::rig::{Rig, range};
use crate::model::{Config, Machine, Schedule, Task};

const PAGE: u64 = 0x1000;
const SET: u64 = 16 * PAGE;
const MIB2: u64 = 0x20_0000;
const RAM: u64 = 0x4000_0000;
const ELSEWHERE: u64 = 0x6000_0000;

/// A page in the middle of what everything here is about.
const MIDDLE: u64 = 300 * PAGE;

/// In a run of hundreds of steps that do the same to one entry after the
/// other, not all are looked at.
const STRIDE: usize = 61;

fn split(rig: &Rig<'_>, cpu: usize) -> Result<(), MapError> {
    let cpu = rig.cpu(cpu);
    let mut cursor = Cursor::new(range(0, MIB2));
    let step =
        rig.space.split_step(&cpu.pin(), &mut cursor, Level::L3, Budget::UNLIMITED, &cpu.maintenance)?;
    assert_eq!(step, Step::Done);
    Ok(())
}

/// A table of pages that could be a block.
fn pages(rig: &Rig<'_>, cpu: usize) -> Result<(), MapError> {
    rig.cpu(cpu).map(range(0, MIB2), RAM)?;
    split(rig, cpu)
}

/// Collapses the table, unless the other CPU has changed something.
fn collapse(rig: &Rig<'_>, cpu: usize) -> Result<(), MapError> {
    let cpu = rig.cpu(cpu);
    let _ = rig.space.collapse(&cpu.pin(), Ipa::new(MIDDLE), &cpu.maintenance);
    Ok(())
}

fn annotate(rig: &Rig<'_>, cpu: usize) -> Result<(), MapError> {
    let cpu = rig.cpu(cpu);
    let mut cursor = Cursor::new(range(MIDDLE, PAGE));
    let note = Annotation::new(1).unwrap();
    let step = rig.space.annotate_step(&cpu.pin(), &mut cursor, note, Budget::UNLIMITED, &cpu.maintenance)?;
    assert_eq!(step, Step::Done);
    Ok(())
}

/// Moves the page in the middle, if it is mapped.
fn migrate(rig: &Rig<'_>, cpu: usize) -> Result<(), MapError> {
    let hand = rig.cpu(cpu);
    let copy = |_| rig.machine.copy(RAM + MIDDLE, PAGE);
    let moved =
        rig.space.migrate(&hand.pin(), Ipa::new(MIDDLE), PhysAddr::new(ELSEWHERE), copy, &hand.maintenance);
    if let Ok(vacated) = moved {
        rig.machine.reuse(vacated.output().bits(), vacated.size());
    }
    Ok(())
}

fn pages_mapped(rig: &Rig<'_>) -> u64 {
    let cpu = rig.cpu(0);
    rig.space.leaves(&cpu.pin(), range(0, MIB2)).map(|mapping| mapping.range.size() / PAGE).sum()
}

#[test]
fn page_is_never_absent_while_its_table_is_collapsed() {
    at_every_step(
        STRIDE,
        pages,
        [collapse, |rig, _| {
            assert_eq!(mapped(rig, MIDDLE), Some(RAM + MIDDLE));
            Ok(())
        }],
        |rig| assert_eq!(pages_mapped(rig), 512),
    );
}

#[test]
fn page_is_unmapped_while_its_table_is_collapsed() {
    at_every_step(
        STRIDE,
        pages,
        [collapse, |rig, cpu| {
            rig.cpu(cpu).unmap(range(MIDDLE, PAGE))?;
            rig.machine.reuse(RAM + MIDDLE, PAGE);
            Ok(())
        }],
        |rig| {
            assert_eq!(mapped(rig, MIDDLE), None);
            assert_eq!(pages_mapped(rig), 511);
        },
    );
}

#[test]
fn table_is_unmapped_while_it_is_collapsed() {
    at_every_step(
        STRIDE,
        pages,
        [collapse, |rig, cpu| {
            rig.cpu(cpu).unmap(range(0, MIB2))?;
            rig.machine.reuse(RAM, MIB2);
            Ok(())
        }],
        |rig| assert_eq!(pages_mapped(rig), 0),
    );
}

#[test]
fn table_is_unmapped_while_its_entries_are_put_back() {
    // A page goes while some entries are dead, so the collapse is given up; and
    // while the entries come back, all of the table goes.
    let in_the_middle = 400;
    for page_is_gone in (in_the_middle + 6..in_the_middle + 22).step_by(5) {
        for coming_back in (page_is_gone + 1..page_is_gone + 400).step_by(67) {
            let machine = Machine::new(Config::FULL);
            let rig = Rig::new(&machine);
            pages(&rig, 0).unwrap();
            let unmap = || {
                rig.cpu(1).unmap(range(MIDDLE, PAGE)).unwrap();
                rig.cpu(1).unmap(range(0, MIB2)).unwrap();
            };
            let tasks: Vec<Task<'_>> = vec![Box::new(|| collapse(&rig, 0).unwrap()), Box::new(unmap)];
            let switches = vec![in_the_middle, page_is_gone, coming_back];
            machine.run(Schedule::SwitchAt(switches.clone()), tasks);
            assert_eq!(machine.rest(), Vec::<String>::new(), "{switches:?}");
            assert_eq!(pages_mapped(&rig), 0, "{switches:?}");
            rig.finish();
            assert_eq!(machine.in_use(), 0, "{switches:?}");
        }
    }
}

#[test]
fn table_is_collapsed_while_it_is_unmapped() {
    at_every_step(
        STRIDE,
        pages,
        [|rig, cpu| rig.cpu(cpu).unmap(range(PAGE, MIB2 - PAGE)), collapse],
        |rig| {
            assert_eq!(pages_mapped(rig), 1);
        },
    );
}

#[test]
fn permission_is_taken_while_the_table_is_collapsed() {
    let protect: Operation = |rig, cpu| rig.cpu(cpu).protect(range(MIDDLE, PAGE), Permissions::READ_ONLY);
    at_every_step(STRIDE, pages, [collapse, protect], |rig| {
        let cpu = rig.cpu(0);
        let page = rig.space.lookup(&cpu.pin(), Ipa::new(MIDDLE)).unwrap();
        assert_eq!(page.attributes.permissions, Permissions::READ_ONLY);
        assert_eq!(pages_mapped(rig), 512);
    });
}

#[test]
fn table_is_collapsed_by_two_cpus() {
    at_every_step(STRIDE, pages, [collapse, collapse], |rig| {
        let cpu = rig.cpu(0);
        let block = rig.space.lookup(&cpu.pin(), Ipa::new(MIDDLE)).unwrap();
        assert_eq!(block.range.size(), MIB2);
    });
}

#[test]
fn block_is_collapsed_while_it_is_split() {
    at_every_step(
        1,
        |rig, cpu| rig.cpu(cpu).map(range(0, MIB2), RAM),
        [split, collapse],
        |rig| {
            assert_eq!(mapped(rig, MIDDLE), Some(RAM + MIDDLE));
            assert_eq!(pages_mapped(rig), 512);
        },
    );
}

#[test]
fn page_is_annotated_while_it_is_unmapped_and_the_other_way_round() {
    let unmap: Operation = |rig, cpu| rig.cpu(cpu).unmap(range(MIDDLE, PAGE));
    for pair in [[annotate as Operation, unmap], [unmap, annotate]] {
        at_every_step(
            1,
            |rig, cpu| rig.cpu(cpu).map(range(MIDDLE, 2 * PAGE), RAM),
            pair,
            |rig| {
                assert_eq!(mapped(rig, MIDDLE), None);
                assert_eq!(mapped(rig, MIDDLE + PAGE), Some(RAM + PAGE));
            },
        );
    }
}

#[test]
fn page_moves_while_it_is_protected_and_the_other_way_round() {
    let protect: Operation = |rig, cpu| rig.cpu(cpu).protect(range(MIDDLE, PAGE), Permissions::READ_ONLY);
    for pair in [[migrate as Operation, protect], [protect, migrate]] {
        at_every_step(
            1,
            |rig, cpu| rig.cpu(cpu).map(range(MIDDLE, PAGE), RAM + MIDDLE),
            pair,
            |rig| {
                assert_eq!(mapped(rig, MIDDLE), Some(ELSEWHERE));
            },
        );
    }
}

#[test]
fn page_moves_while_it_is_unmapped() {
    let unmap: Operation = |rig, cpu| rig.cpu(cpu).unmap(range(MIDDLE, PAGE));
    at_every_step(
        1,
        |rig, cpu| rig.cpu(cpu).map(range(MIDDLE, PAGE), RAM + MIDDLE),
        [migrate, unmap],
        |rig| {
            assert_eq!(mapped(rig, MIDDLE), None);
            rig.machine.reuse(ELSEWHERE, PAGE);
            rig.machine.reuse(RAM + MIDDLE, PAGE);
        },
    );
}

/// As [`at_every_step`], in a space that marks contiguous sets, in which two of
/// them are mapped, but for what lies below `start`.
fn at_every_step_of_sets(start: u64, pair: [Operation; 2], then: impl Fn(&Rig<'_>)) {
    Schedule::at_every_step(1, |schedule| {
        let machine = Machine::new(Config::FULL);
        let geometry = Geometry::new(Granule::Kib4, 40, PaSize::Bits40).unwrap();
        let features = Features { contiguous: Contiguous::Allowed, ..Features::BASE };
        let rig = Rig::with_shape(&machine, geometry, features, 1);
        rig.cpu(0).map(range(start, 2 * SET - start), RAM + start).unwrap();
        let task = |cpu, operation: Operation| {
            let rig = &rig;
            Box::new(move || operation(rig, cpu).unwrap()) as Task<'_>
        };
        let steps = machine.run(schedule.clone(), vec![task(0, pair[0]), task(1, pair[1])]);
        assert_eq!(machine.rest(), Vec::<String>::new(), "{schedule:?}");
        assert_sets_are_whole(&rig);
        then(&rig);
        rig.finish();
        assert_eq!(machine.in_use(), 0, "{schedule:?}");
        steps
    });
}

/// Of every sixteen entries, all are marked or none, and those that are marked
/// say the same.
fn assert_sets_are_whole(rig: &Rig<'_>) {
    let cpu = rig.cpu(0);
    for set in [0, SET] {
        let guard = cpu.pin();
        let leaf = |page| match rig.space.entry(&guard, Ipa::new(set + page * PAGE)).unwrap().pte() {
            stage2::Pte::Leaf(leaf) => Some(leaf),
            _ => None,
        };
        let marked = (0..16).filter_map(leaf).filter(|leaf| leaf.is_contiguous()).collect::<Vec<_>>();
        assert!(marked.is_empty() || marked.len() == 16, "{marked:?}");
        for (page, member) in marked.iter().enumerate() {
            assert_eq!(member.output().bits(), marked[0].output().bits() + page as u64 * PAGE);
            assert_eq!(member.attributes(), marked[0].attributes());
        }
    }
}

#[test]
fn part_of_a_set_is_unmapped_while_the_set_is_protected_and_the_other_way_round() {
    let unmap: Operation = |rig, cpu| rig.cpu(cpu).unmap(range(3 * PAGE, 2 * PAGE));
    let protect: Operation = |rig, cpu| rig.cpu(cpu).protect(range(0, 2 * SET), Permissions::READ_ONLY);
    for pair in [[unmap, protect], [protect, unmap]] {
        at_every_step_of_sets(0, pair, |rig| {
            assert_eq!(mapped(rig, 3 * PAGE), None);
            let cpu = rig.cpu(0);
            for leaf in rig.space.leaves(&cpu.pin(), range(0, 2 * SET)) {
                assert_eq!(leaf.attributes.permissions, Permissions::READ_ONLY);
            }
        });
    }
}

#[test]
fn sets_are_protected_by_two_cpus() {
    let read_only: Operation = |rig, cpu| rig.cpu(cpu).protect(range(0, 2 * SET), Permissions::READ_ONLY);
    let writable: Operation = |rig, cpu| rig.cpu(cpu).protect(range(0, 2 * SET), Permissions::READ_WRITE);
    at_every_step_of_sets(0, [read_only, writable], |rig| {
        let cpu = rig.cpu(0);
        assert_eq!(rig.space.leaves(&cpu.pin(), range(0, 2 * SET)).count(), 32);
    });
}

#[test]
fn sets_are_unmapped_by_two_cpus() {
    let unmap: Operation = |rig, cpu| rig.cpu(cpu).unmap(range(0, 2 * SET));
    let part: Operation = |rig, cpu| rig.cpu(cpu).unmap(range(15 * PAGE, 2 * PAGE));
    for pair in [[unmap, unmap], [unmap, part], [part, unmap]] {
        at_every_step_of_sets(0, pair, |rig| {
            assert_eq!(mapped(rig, 0), None);
            rig.machine.reuse(RAM, 2 * SET);
        });
    }
}

#[test]
fn page_is_mapped_where_a_set_is_being_made() {
    let set: Operation = |rig, cpu| match rig.cpu(cpu).map(range(0, SET), RAM) {
        Ok(()) | Err(MapError::AlreadyMapped { .. }) => Ok(()),
        Err(error) => Err(error),
    };
    let page: Operation = |rig, cpu| match rig.cpu(cpu).map(range(9 * PAGE, PAGE), ELSEWHERE) {
        Ok(()) | Err(MapError::AlreadyMapped { .. }) => Ok(()),
        Err(error) => Err(error),
    };
    for pair in [[set, page], [page, set]] {
        at_every_step_of_sets(SET, pair, |rig| {
            // One of the two was first, and the other undid what it had done.
            let found = [0, 9 * PAGE].map(|ipa| mapped(rig, ipa));
            let either = [[Some(RAM), Some(RAM + 9 * PAGE)], [None, Some(ELSEWHERE)]];
            assert!(either.contains(&found), "{found:?}");
        });
    }
}
