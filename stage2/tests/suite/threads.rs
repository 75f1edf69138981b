//! Several CPUs at once, as threads: what one does never undoes what another
//! did. These tests find races by luck; they are short so that they can run
//! often, and under Miri.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use stage2::arena::{Arena, Frame};
use stage2::{Attributes, Features, Geometry, Granule, Ipa, IpaRange, Maintenance, MapError};
use stage2::{PaSize, Permissions, PhysAddr, Space, Stale};

const PAGE: u64 = 0x1000;
const MIB2: u64 = 0x20_0000;
const GIB1: u64 = 0x4000_0000;

const ROUNDS: usize = if cfg!(miri) { 1 } else { 8 };
const REPEATS: usize = if cfg!(miri) { 1 } else { 200 };

/// No CPU has a TLB here: the subject is the tables.
struct NoTlb;

impl Maintenance for NoTlb {
    fn publish(&self) {}
    fn invalidate(&self, _: IpaRange, _: Stale) {}
    fn invalidate_local(&self, _: IpaRange, _: Stale) {}
    fn invalidate_all(&self) {}
}

type Memory = Arena<Vec<Frame>>;

fn memory() -> Memory {
    let tables = if cfg!(miri) { 64 } else { 2048 };
    Arena::new(PhysAddr::new(0x1_0000_0000), (0..tables).map(|_| Frame::new()).collect())
}

fn space(memory: &Memory) -> Space<&Memory> {
    let geometry = Geometry::new(Granule::Kib4, 39, PaSize::Bits40).unwrap();
    Space::new(geometry, Features::BASE, memory).unwrap()
}

fn range(start: u64, size: u64) -> IpaRange {
    IpaRange::new(Ipa::new(start), size).unwrap()
}

/// Runs `work` on two threads at once, again and again, and frees between
/// rounds the tables that left the tree.
fn storm(space: &mut Space<&Memory>, work: impl Fn(&Space<&Memory>, u64) + Sync) {
    for _ in 0..ROUNDS {
        let started = AtomicUsize::new(0);
        thread::scope(|scope| {
            for thread in 0..2 {
                let (space, work, started) = (&*space, &work, &started);
                scope.spawn(move || {
                    started.fetch_add(1, Ordering::Relaxed);
                    while started.load(Ordering::Relaxed) < 2 {
                        thread::yield_now();
                    }
                    for _ in 0..REPEATS {
                        work(space, thread);
                    }
                });
            }
        });
        space.reclaim();
    }
}

#[test]
fn page_mapped_into_a_table_that_is_being_removed_is_not_lost() {
    let memory = memory();
    let mut space = space(&memory);
    // Each thread's unmap empties the table whenever the other has no page.
    storm(&mut space, |space, thread| {
        let page = range(GIB1 + thread * PAGE, PAGE);
        let output = PhysAddr::new(thread * PAGE);
        space.map(page, output, Attributes::RAM, &NoTlb).unwrap();
        assert_eq!(space.lookup(page.start()).unwrap().output, output);
        space.unmap(page, &NoTlb).unwrap();
        assert_eq!(space.lookup(page.start()), None);
    });
    assert_eq!(memory.in_use(), 1);
    space.destroy(&NoTlb);
    assert_eq!(memory.in_use(), 0);
}

#[test]
fn one_of_two_who_map_the_same_page_is_refused() {
    let memory = memory();
    let mut space = space(&memory);
    let page = range(GIB1, PAGE);
    let mapped = AtomicUsize::new(0);
    storm(&mut space, |space, _| match space.map(page, PhysAddr::new(0), Attributes::RAM, &NoTlb) {
        Ok(()) => {
            assert_eq!(mapped.fetch_add(1, Ordering::Relaxed), 0);
            mapped.fetch_sub(1, Ordering::Relaxed);
            space.unmap(page, &NoTlb).unwrap();
        }
        Err(error) => assert_eq!(error, MapError::AlreadyMapped { ipa: page.start() }),
    });
    space.destroy(&NoTlb);
    assert_eq!(memory.in_use(), 0);
}

#[test]
fn page_stays_visible_while_another_cpu_splits_its_block() {
    let memory = memory();
    let mut space = space(&memory);
    let blocks = (ROUNDS * REPEATS) as u64;
    space.map(range(0, blocks * MIB2), PhysAddr::new(MIB2), Attributes::RAM, &NoTlb).unwrap();
    let splits = AtomicUsize::new(0);
    storm(&mut space, |space, thread| {
        if thread == 0 {
            let block = splits.fetch_add(1, Ordering::Relaxed) as u64 * MIB2;
            space.protect(range(block, PAGE), Permissions::READ_ONLY, &NoTlb).unwrap();
        } else {
            let block = splits.load(Ordering::Relaxed) as u64 % blocks * MIB2;
            let ipa = Ipa::new(block + 7 * PAGE);
            let mapping = space.lookup(ipa).expect("mapped all the time");
            assert_eq!(mapping.translate(ipa), Some(PhysAddr::new(MIB2 + block + 7 * PAGE)));
        }
    });
    space.destroy(&NoTlb);
    assert_eq!(memory.in_use(), 0);
}

#[test]
fn overlapping_unmaps_both_return_with_the_range_gone() {
    let memory = memory();
    let mut space = space(&memory);
    // The blocks of both threads lie in one table, and each unmaps the
    // neighbour's half as well.
    storm(&mut space, |space, thread| {
        let own = range(GIB1 + thread * 2 * MIB2, 2 * MIB2);
        let both = range(GIB1, 4 * MIB2 - PAGE);
        // Refused when the other has unmapped only some of it so far.
        let _ = space.map(own, PhysAddr::new(0), Attributes::RAM, &NoTlb);
        space.unmap(both, &NoTlb).unwrap();
        space.unmap(range(GIB1, 4 * MIB2), &NoTlb).unwrap();
    });
    assert_eq!(space.leaves(range(0, 1 << 39)).count(), 0);
    space.destroy(&NoTlb);
    assert_eq!(memory.in_use(), 0);
}
