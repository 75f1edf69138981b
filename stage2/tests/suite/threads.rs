//! Several CPUs at once, as threads: what one does never undoes what another
//! did. These tests find races by luck; they are short so that they can run
//! often, and under Miri.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use stage2::arena::{Arena, Frame, frame};
use stage2::epoch::Participant;
use stage2::{Attributes, Features, Geometry, Granule, Ipa, IpaRange, MapError, NoTlb};
use stage2::{PaSize, Permissions, PhysAddr, Space, TableMemory};

use crate::kit::epochs;

const PAGE: u64 = 0x1000;
const MIB2: u64 = 0x20_0000;
const GIB1: u64 = 0x4000_0000;

const ROUNDS: usize = if cfg!(miri) { 1 } else { 8 };
const REPEATS: usize = if cfg!(miri) { 1 } else { 200 };

pub(crate) type Memory = Arena<'static, Vec<Frame>>;

pub(crate) fn memory() -> Memory {
    let tables = if cfg!(miri) { 64 } else { 2048 };
    Arena::new(PhysAddr::new(0x1_0000_0000), (0..tables).map(|_| frame()).collect(), epochs())
}

pub(crate) fn space(memory: &Memory) -> Space<&Memory> {
    let geometry = Geometry::new(Granule::Kib4, 39, PaSize::Bits40).unwrap();
    Space::new(geometry, Features::BASE, memory).unwrap()
}

pub(crate) fn range(start: u64, size: u64) -> IpaRange {
    IpaRange::new(Ipa::new(start), size).unwrap()
}

/// Runs `work` on two threads at once, again and again; frees in the end the
/// tables that left the tree.
pub(crate) fn storm(space: &Space<&Memory>, work: impl Fn(&Space<&Memory>, &Participant<'_>, u64) + Sync) {
    let epochs = space.memory().epochs();
    for _ in 0..ROUNDS {
        let started = AtomicUsize::new(0);
        thread::scope(|scope| {
            for thread in 0..2 {
                let (work, started) = (&work, &started);
                scope.spawn(move || {
                    let cpu = epochs.register().unwrap();
                    started.fetch_add(1, Ordering::Relaxed);
                    while started.load(Ordering::Relaxed) < 2 {
                        thread::yield_now();
                    }
                    for _ in 0..REPEATS {
                        work(space, &cpu, thread);
                    }
                });
            }
        });
    }
    let cpu = epochs.register().unwrap();
    for _ in 0..4 {
        space.collect(&cpu.pin());
    }
    assert_eq!(space.retired(), 0);
}

#[test]
fn page_mapped_into_a_table_that_is_being_removed_is_not_lost() {
    let memory = memory();
    let space = space(&memory);
    // Each thread's unmap empties the table whenever the other has no page.
    storm(&space, |space, cpu, thread| {
        let page = range(GIB1 + thread * PAGE, PAGE);
        let output = PhysAddr::new(thread * PAGE);
        space.map(&cpu.pin(), page, output, Attributes::RAM, &NoTlb).unwrap();
        assert_eq!(space.lookup(&cpu.pin(), page.start()).unwrap().output, output);
        space.unmap(&cpu.pin(), page, &NoTlb).unwrap();
        assert_eq!(space.lookup(&cpu.pin(), page.start()), None);
    });
    assert_eq!(memory.in_use(), 1);
    space.destroy(&NoTlb);
    assert_eq!(memory.in_use(), 0);
}

#[test]
fn one_of_two_who_map_the_same_page_is_refused() {
    let memory = memory();
    let space = space(&memory);
    let page = range(GIB1, PAGE);
    let mapped = AtomicUsize::new(0);
    storm(&space, |space, cpu, _| {
        match space.map(&cpu.pin(), page, PhysAddr::new(0), Attributes::RAM, &NoTlb) {
            Ok(()) => {
                assert_eq!(mapped.fetch_add(1, Ordering::Relaxed), 0);
                mapped.fetch_sub(1, Ordering::Relaxed);
                space.unmap(&cpu.pin(), page, &NoTlb).unwrap();
            }
            Err(error) => assert_eq!(error, MapError::AlreadyMapped { ipa: page.start() }),
        }
    });
    space.destroy(&NoTlb);
    assert_eq!(memory.in_use(), 0);
}

#[test]
fn page_stays_visible_while_another_cpu_splits_its_block() {
    let memory = memory();
    let space = space(&memory);
    let cpu = &memory.epochs().register().unwrap();
    let blocks = (ROUNDS * REPEATS) as u64;
    space.map(&cpu.pin(), range(0, blocks * MIB2), PhysAddr::new(MIB2), Attributes::RAM, &NoTlb).unwrap();
    let splits = AtomicUsize::new(0);
    storm(&space, |space, cpu, thread| {
        if thread == 0 {
            let block = splits.fetch_add(1, Ordering::Relaxed) as u64 * MIB2;
            space.protect(&cpu.pin(), range(block, PAGE), Permissions::READ_ONLY, &NoTlb).unwrap();
        } else {
            let block = splits.load(Ordering::Relaxed) as u64 % blocks * MIB2;
            let ipa = Ipa::new(block + 7 * PAGE);
            let mapping = space.lookup(&cpu.pin(), ipa).expect("mapped all the time");
            assert_eq!(mapping.translate(ipa), Some(PhysAddr::new(MIB2 + block + 7 * PAGE)));
        }
    });
    space.destroy(&NoTlb);
    assert_eq!(memory.in_use(), 0);
}

#[test]
fn overlapping_unmaps_both_return_with_the_range_gone() {
    let memory = memory();
    let space = space(&memory);
    let cpu = &memory.epochs().register().unwrap();
    // The blocks of both threads lie in one table, and each unmaps the
    // neighbour's half as well.
    storm(&space, |space, cpu, thread| {
        let own = range(GIB1 + thread * 2 * MIB2, 2 * MIB2);
        let both = range(GIB1, 4 * MIB2 - PAGE);
        // Refused when the other has unmapped only some of it so far.
        let _ = space.map(&cpu.pin(), own, PhysAddr::new(0), Attributes::RAM, &NoTlb);
        space.unmap(&cpu.pin(), both, &NoTlb).unwrap();
        space.unmap(&cpu.pin(), range(GIB1, 4 * MIB2), &NoTlb).unwrap();
    });
    assert_eq!(space.leaves(&cpu.pin(), range(0, 1 << 39)).count(), 0);
    space.destroy(&NoTlb);
    assert_eq!(memory.in_use(), 0);
}
