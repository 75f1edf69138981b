//! Models of the epochs and of the lists of retired tables.
//!
//! The tree is as small as can be: one entry, which leads to a table or to
//! nothing. What matters is the table's memory. Readers look into it, and
//! whoever collects it writes to it, as a new owner would. Loom fails if the
//! two meet, or if nothing makes the one happen before the other; and
//! [`Frame::look`] fails if the table is gone already.

#![expect(
    clippy::arc_with_non_send_sync,
    reason = "loom's threads take what is not Sync, and check it themselves"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use loom::cell::UnsafeCell;
use loom::thread;

use super::model;
use crate::addr::PhysAddr;
use crate::epoch::{Epochs, Guard, Participant};
use crate::pte::{self, AtomicPte, Descriptor, TableAddr};
use crate::reclaim::Retired;

/// The memory of one table.
struct Frame {
    entry: AtomicPte,
    /// Stands for all the other entries.
    contents: UnsafeCell<()>,
    /// Not an atomic of loom's: it knows the truth, whatever a CPU can see.
    is_free: AtomicBool,
}

impl Frame {
    fn new() -> Self {
        Self { entry: AtomicPte::new(), contents: UnsafeCell::new(()), is_free: AtomicBool::new(false) }
    }

    /// Looks into the table, as whoever found it does.
    fn look(&self) {
        assert!(!self.is_free.load(Relaxed), "a CPU looks into a table that was freed");
        self.contents.with(|_| ());
    }

    /// Becomes something else.
    fn free(&self) {
        assert!(!self.is_free.swap(true, Relaxed), "a table is freed twice");
        self.contents.with_mut(|_| ());
    }
}

/// One entry for each table, which leads to it from the start.
struct World<const TABLES: usize> {
    epochs: Epochs,
    retired: Retired,
    entries: [AtomicPte; TABLES],
    frames: [Frame; TABLES],
}

const SIZE: u64 = 0x1000;

impl<const TABLES: usize> World<TABLES> {
    fn new(epochs: Epochs) -> Self {
        let entries = core::array::from_fn(|index| {
            let entry = AtomicPte::new();
            entry.fill(address(index).encode());
            entry
        });
        Self { epochs, retired: Retired::new(), entries, frames: core::array::from_fn(|_| Frame::new()) }
    }

    fn frame(&self, table: TableAddr) -> &Frame {
        &self.frames[(table.address().bits() / SIZE - 1) as usize]
    }

    /// Finds table `index`, if it is still there, and looks into it.
    fn read(&self, _: &Guard<'_>, index: usize) {
        if let Some(table) = pte::remembered_table(self.entries[index].load()) {
            self.frame(table).look();
        }
    }

    /// Unlinks table `index` and retires it.
    fn remove(&self, guard: &Guard<'_>, index: usize) {
        let table = address(index);
        self.entries[index].exchange(table.encode(), Descriptor::EMPTY).expect("linked from the start");
        self.retired.retire(guard, table, core::slice::from_ref(&self.frame(table).entry));
    }

    /// Frees what is ripe under one pin.
    fn collect(&self, cpu: &Participant<'_>) {
        let guard = cpu.pin();
        let Some(mut ripe) = self.retired.collect(&guard) else { return };
        while let Some(table) = ripe.pop(|table| &self.frame(table).entry) {
            self.frame(table).free();
        }
    }

    /// Everybody is done: nothing that was retired is left behind.
    fn settle(&self) {
        let cpu = self.epochs.register().expect("few CPUs");
        for _ in 0..5 {
            self.collect(&cpu);
        }
        assert_eq!(self.retired.count(), 0);
        for (entry, frame) in self.entries.iter().zip(&self.frames) {
            assert_eq!(entry.load() == Descriptor::EMPTY, frame.is_free.load(Relaxed));
        }
    }
}

fn address(index: usize) -> TableAddr {
    TableAddr::allocated(PhysAddr::new((index as u64 + 1) * SIZE))
}

/// What one CPU does. It remains registered afterwards.
type Program<const TABLES: usize> = fn(&World<TABLES>, &Participant<'_>);

/// Runs these programs at once, each on a CPU of its own, and then settles.
fn run<const TABLES: usize, const CPUS: usize>(world: World<TABLES>, programs: [Program<TABLES>; CPUS]) {
    let world = Arc::new(world);
    let cpus = programs.map(|program| start(&world, program));
    for cpu in cpus {
        cpu.join().expect("a CPU");
    }
    world.settle();
}

fn start<const TABLES: usize>(
    world: &Arc<World<TABLES>>,
    program: Program<TABLES>,
) -> thread::JoinHandle<()> {
    let world = world.clone();
    thread::spawn(move || {
        let cpu = world.epochs.register().expect("few CPUs");
        program(&world, &cpu);
        // Leaving would tell others that we are done, and that is not what
        // the models are to rely on.
        core::mem::forget(cpu);
    })
}

/// Tables that are linked, in epoch zero.
fn world<const TABLES: usize>() -> World<TABLES> {
    World::new(Epochs::new())
}

#[test]
fn global_epoch_is_at_most_one_beyond_a_pin() {
    model(4, || {
        run(
            world::<0>(),
            [
                |world, cpu| {
                    let guard = cpu.pin();
                    let now = world.epochs.of_unlinked();
                    assert!(now == guard.epoch() || now == guard.epoch() + 1, "{now} is too far");
                },
                |world, _| {
                    for _ in 0..3 {
                        let _ = world.epochs.try_advance();
                    }
                },
            ],
        );
    });
}

#[test]
fn slow_advance_does_not_turn_back_the_epoch() {
    model(2, || {
        run(
            world::<0>(),
            [
                |world, _| {
                    let _ = world.epochs.try_advance();
                },
                |world, cpu| {
                    for _ in 0..2 {
                        let _ = world.epochs.try_advance();
                    }
                    let guard = cpu.pin();
                    assert!(world.epochs.of_unlinked() >= guard.epoch());
                },
            ],
        );
    });
}

#[test]
fn table_is_not_freed_under_a_reader() {
    model(4, || {
        run(
            world::<1>(),
            [
                |world, cpu| world.read(&cpu.pin(), 0),
                |world, cpu| {
                    world.remove(&cpu.pin(), 0);
                    for _ in 0..3 {
                        world.collect(cpu);
                    }
                },
            ],
        );
    });
}

#[test]
fn table_is_not_freed_under_either_of_two_readers() {
    model(2, || {
        run(
            world::<1>(),
            [
                |world, cpu| world.read(&cpu.pin(), 0),
                |world, cpu| world.read(&cpu.pin(), 0),
                |world, cpu| {
                    world.remove(&cpu.pin(), 0);
                    for _ in 0..3 {
                        world.collect(cpu);
                    }
                },
            ],
        );
    });
}

#[test]
fn reader_that_is_ahead_of_the_remover_is_waited_for() {
    // The remover is pinned before all this, and need not see that the reader
    // moves the epoch on before it finds the table.
    model(2, || {
        let world = Arc::new(world::<1>());
        let remover = world.epochs.register().expect("few CPUs");
        let guard = remover.pin();
        let cpus: [Program<1>; 2] = [
            |world, cpu| {
                let _ = world.epochs.try_advance();
                world.read(&cpu.pin(), 0);
            },
            |world, cpu| {
                for _ in 0..3 {
                    world.collect(cpu);
                }
            },
        ];
        let cpus = cpus.map(|program| start(&world, program));
        world.remove(&guard, 0);
        drop(guard);
        for cpu in cpus {
            cpu.join().expect("a CPU");
        }
        drop(remover);
        world.settle();
    });
}

/// The reader found the table in epoch zero, in which it was then removed. Now
/// it is epoch one, and the reader looks into the table, unpins and does what
/// `next` says, while the programs run.
fn run_beside_a_late_reader<const CPUS: usize>(next: fn(&Participant<'_>), programs: [Program<1>; CPUS]) {
    let world = Arc::new(world());
    let reader = world.epochs.register().expect("few CPUs");
    let guard = reader.pin();
    let remover = world.epochs.register().expect("few CPUs");
    world.remove(&remover.pin(), 0);
    drop(remover);
    world.epochs.try_advance().expect("everybody is here");
    let cpus = programs.map(|program| start(&world, program));
    world.frames[0].look();
    drop(guard);
    next(&reader);
    for cpu in cpus {
        cpu.join().expect("a CPU");
    }
    drop(reader);
    world.settle();
}

#[test]
fn advance_passes_on_what_the_reader_did() {
    model(3, || {
        run_beside_a_late_reader(
            |_| {},
            [
                |world, _| {
                    let _ = world.epochs.try_advance();
                },
                |world, cpu| world.collect(cpu),
            ],
        );
    });
}

#[test]
fn later_pin_passes_on_what_was_done_under_the_one_before() {
    model(3, || {
        run_beside_a_late_reader(
            |reader| drop(reader.pin()),
            [|world, cpu| {
                world.collect(cpu);
                world.collect(cpu);
            }],
        );
    });
}

#[test]
fn reader_that_pins_again_and_again_is_waited_for_each_time() {
    model(3, || {
        run(
            world::<2>(),
            [
                |world, cpu| {
                    world.read(&cpu.pin(), 0);
                    world.read(&cpu.pin(), 1);
                    drop(cpu.pin());
                },
                |world, cpu| {
                    for index in 0..2 {
                        world.remove(&cpu.pin(), index);
                        world.collect(cpu);
                    }
                    world.collect(cpu);
                    world.collect(cpu);
                },
            ],
        );
    });
}

#[test]
fn inner_guard_does_not_end_the_pin() {
    model(3, || {
        run(
            world::<1>(),
            [
                |world, cpu| {
                    let guard = cpu.pin();
                    if let Some(table) = pte::remembered_table(world.entries[0].load()) {
                        drop(cpu.pin());
                        world.frame(table).look();
                    }
                    drop(guard);
                },
                |world, cpu| {
                    world.remove(&cpu.pin(), 0);
                    for _ in 0..3 {
                        world.collect(cpu);
                    }
                },
            ],
        );
    });
}

#[test]
fn cpu_that_leaves_and_comes_back_is_seen() {
    model(2, || {
        run(
            world::<2>(),
            [
                |world, _| {
                    for index in 0..2 {
                        let cpu = world.epochs.register().expect("few CPUs");
                        world.read(&cpu.pin(), index);
                    }
                },
                |world, cpu| {
                    let guard = cpu.pin();
                    world.remove(&guard, 0);
                    world.remove(&guard, 1);
                    drop(guard);
                    for _ in 0..3 {
                        world.collect(cpu);
                    }
                },
            ],
        );
    });
}

#[test]
fn two_collectors_free_each_table_once() {
    model(2, || {
        let world = world::<3>();
        let cpu = world.epochs.register().expect("few CPUs");
        world.remove(&cpu.pin(), 0);
        world.remove(&cpu.pin(), 1);
        world.epochs.try_advance().expect("nobody is pinned");
        world.remove(&cpu.pin(), 2);
        world.epochs.try_advance().expect("nobody is pinned");
        drop(cpu);
        let collect_twice: Program<3> = |world, cpu| {
            world.collect(cpu);
            world.collect(cpu);
        };
        run(world, [collect_twice; 2]);
    });
}

#[test]
fn collector_and_remover_do_not_share_a_list() {
    // The collector's pin is at 2 or 3, the removal at 2, 3 or 4.
    model(2, || {
        let world = world::<2>();
        let cpu = world.epochs.register().expect("few CPUs");
        world.remove(&cpu.pin(), 0);
        world.epochs.try_advance().expect("nobody is pinned");
        world.epochs.try_advance().expect("nobody is pinned");
        drop(cpu);
        run(
            world,
            [
                |world, cpu| {
                    let guard = cpu.pin();
                    let _ = world.epochs.try_advance();
                    world.remove(&guard, 1);
                },
                |world, cpu| world.read(&cpu.pin(), 1),
                |world, cpu| world.collect(cpu),
            ],
        );
    });
}

#[test]
fn slots_run_over_without_harm() {
    for start in [(1 << 63) - 2, u64::MAX - 1] {
        model(2, move || {
            run(
                World::<1>::new(Epochs::starting_at(start)),
                [
                    |world, cpu| world.read(&cpu.pin(), 0),
                    |world, cpu| {
                        world.remove(&cpu.pin(), 0);
                        for _ in 0..3 {
                            world.collect(cpu);
                        }
                    },
                ],
            );
        });
    }
}
