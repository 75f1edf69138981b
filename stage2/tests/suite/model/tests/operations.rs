//! The crate's operations on the machine: nothing to complain about, also if
//! another CPU comes in between any two steps.

use stage2::{MapError, Permissions};

use crate::model::rig::{Rig, range};
use crate::model::{Config, Counts, Machine, Schedule, Task};

const PAGE: u64 = 0x1000;
const MIB2: u64 = 0x20_0000;
const RAM: u64 = 0x4000_0000;

/// What a CPU does, and what it may come back with.
pub(super) type Operation = fn(&Rig<'_>, usize) -> Result<(), MapError>;

/// Lets CPU 1 do `second` between any two steps of CPU 0's `first`, and looks
/// whether everything is in order and `then` agrees. Where operations go
/// through a whole table, a `stride` passes over steps.
pub(super) fn at_every_step(
    stride: usize,
    setup: Operation,
    [first, second]: [Operation; 2],
    then: impl Fn(&Rig<'_>),
) {
    Schedule::at_every_step(stride, |schedule| {
        let machine = Machine::new(Config::FULL);
        let rig = Rig::new(&machine);
        setup(&rig, 0).unwrap();
        let task = |cpu, operation: Operation| {
            let rig = &rig;
            Box::new(move || operation(rig, cpu).unwrap()) as Task<'_>
        };
        let steps = machine.run(schedule.clone(), vec![task(0, first), task(1, second)]);
        assert_eq!(machine.rest(), Vec::<String>::new(), "{schedule:?}");
        then(&rig);
        rig.finish();
        assert_eq!(machine.in_use(), 0, "{schedule:?}");
        steps
    });
}

pub(super) fn mapped(rig: &Rig<'_>, ipa: u64) -> Option<u64> {
    let cpu = rig.cpu(0);
    let ipa = stage2::Ipa::new(ipa);
    let mapping = rig.space.lookup(&cpu.pin(), ipa)?;
    mapping.translate(ipa).map(stage2::PhysAddr::bits)
}

#[test]
fn every_operation_leaves_the_machine_in_order() {
    let machine = Machine::new(Config::FULL);
    let rig = Rig::new(&machine);
    let cpu = rig.cpu(0);
    cpu.map(range(0, 3 * MIB2), RAM).unwrap();
    machine.check();
    cpu.unmap(range(PAGE, MIB2)).unwrap();
    machine.check();
    cpu.protect(range(0, PAGE), Permissions::READ_ONLY).unwrap();
    machine.check();
    cpu.unmap(range(0, 3 * MIB2)).unwrap();
    machine.check();
    machine.reuse(RAM, 3 * MIB2);
    cpu.reclaim();
    drop(cpu);
    rig.finish();
    assert_eq!(machine.in_use(), 0);
}

#[test]
fn pages_of_one_table_are_mapped_by_two_cpus() {
    at_every_step(
        1,
        |_, _| Ok(()),
        [
            |rig, cpu| rig.cpu(cpu).map(range(0, 2 * PAGE), RAM),
            |rig, cpu| rig.cpu(cpu).map(range(2 * PAGE, 2 * PAGE), RAM + MIB2),
        ],
        |rig| {
            assert_eq!(mapped(rig, PAGE), Some(RAM + PAGE));
            assert_eq!(mapped(rig, 3 * PAGE), Some(RAM + MIB2 + PAGE));
        },
    );
}

#[test]
fn page_is_unmapped_beside_one_that_is_mapped() {
    at_every_step(
        5,
        |rig, cpu| rig.cpu(cpu).map(range(0, PAGE), RAM),
        [
            |rig, cpu| rig.cpu(cpu).unmap(range(0, PAGE)),
            |rig, cpu| rig.cpu(cpu).map(range(PAGE, PAGE), RAM + PAGE),
        ],
        |rig| {
            assert_eq!(mapped(rig, 0), None);
            assert_eq!(mapped(rig, PAGE), Some(RAM + PAGE));
        },
    );
}

#[test]
fn page_is_mapped_beside_one_that_is_unmapped() {
    at_every_step(
        1,
        |rig, cpu| rig.cpu(cpu).map(range(0, PAGE), RAM),
        [
            |rig, cpu| rig.cpu(cpu).map(range(PAGE, PAGE), RAM + PAGE),
            |rig, cpu| rig.cpu(cpu).unmap(range(0, PAGE)),
        ],
        |rig| {
            assert_eq!(mapped(rig, 0), None);
            assert_eq!(mapped(rig, PAGE), Some(RAM + PAGE));
        },
    );
}

#[test]
fn block_is_split_by_two_cpus() {
    at_every_step(
        1,
        |rig, cpu| rig.cpu(cpu).map(range(0, MIB2), RAM),
        [
            |rig, cpu| rig.cpu(cpu).protect(range(0, PAGE), Permissions::READ_ONLY),
            |rig, cpu| rig.cpu(cpu).unmap(range(MIB2 - PAGE, PAGE)),
        ],
        |rig| {
            assert_eq!(mapped(rig, 0), Some(RAM));
            assert_eq!(mapped(rig, MIB2 - PAGE), None);
        },
    );
}

#[test]
fn overlapping_ranges_are_unmapped_by_two_cpus() {
    at_every_step(
        41,
        |rig, cpu| rig.cpu(cpu).map(range(0, MIB2 + 3 * PAGE), RAM),
        [
            |rig, cpu| rig.cpu(cpu).unmap(range(PAGE, MIB2)),
            |rig, cpu| rig.cpu(cpu).unmap(range(MIB2, 3 * PAGE)),
        ],
        |rig| {
            assert_eq!(mapped(rig, 0), Some(RAM));
            assert_eq!(rig.space.leaves(&rig.cpu(0).pin(), range(0, 2 * MIB2)).count(), 1);
        },
    );
}

/// What `operation` costs in instructions.
fn cost(config: Config, setup: Operation, operation: Operation) -> Counts {
    let machine = Machine::new(config);
    let rig = Rig::new(&machine);
    setup(&rig, 0).unwrap();
    machine.take_counts();
    operation(&rig, 0).unwrap();
    machine.check();
    machine.take_counts()
}

#[test]
fn map_costs_one_barrier() {
    let counts = cost(Config::FULL, |_, _| Ok(()), |rig, cpu| rig.cpu(cpu).map(range(0, 3 * MIB2), RAM));
    assert_eq!(counts, Counts { dsb_ishst: 1, ..Counts::default() });
}

#[test]
fn unmap_of_two_thousand_pages_costs_two_sequences() {
    // Not aligned to blocks, so all of it is pages.
    let setup: Operation = |rig, cpu| rig.cpu(cpu).map(range(0, 4 * MIB2), RAM + PAGE);
    let counts = cost(Config::FULL, setup, |rig, cpu| rig.cpu(cpu).unmap(range(0, 4 * MIB2)));
    // One for the pages together with their tables, one for the table above.
    assert_eq!((counts.range, counts.single, counts.stage1), (1, 1, 2));
}

#[test]
fn every_allocation_may_fail() {
    for allocations in 0.. {
        let machine = Machine::new(Config::FULL);
        let rig = Rig::new(&machine);
        rig.cpu(0).map(range(0, 2 * MIB2), RAM).unwrap();
        machine.allow_allocations(allocations);
        let unmapped = rig.cpu(0).unmap(range(PAGE, 2 * MIB2 - 2 * PAGE));
        machine.check();
        let enough = unmapped.is_ok();
        assert!(enough || unmapped == Err(MapError::OutOfTables));
        rig.finish();
        assert_eq!(machine.in_use(), 0, "with {allocations} allocations");
        if enough {
            assert_eq!(allocations, 2);
            break;
        }
    }
}
