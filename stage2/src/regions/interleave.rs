//! Regions in every interleaving, tried by loom, and mutants that must fail.
//!
//! Two questions: whether a lookup ever sees half a change, and whether what a fault
//! stores on the strength of a lookup ever outlives the region.

use super::{Kind, NEXT, Region, Regions, Removal, Slot, State, WRITING};
use crate::addr::{Ipa, IpaRange};
use crate::invalidate::{Buckets, Retry};
use crate::pte::Annotation;
use crate::sync::{AtomicU64, Ordering, fence};
use loom::thread;
use std::sync::Arc;

fn model(body: impl Fn() + Sync + Send + 'static) {
    crate::interleave::model(3, body);
}

const PAGE: u64 = 0x1000;

fn page(number: u64) -> IpaRange {
    IpaRange::of_entry(Ipa::new(number * PAGE), PAGE)
}

/// The region of page `number` knows where it is.
fn ram(number: u64) -> Region {
    Region { range: page(number), kind: Kind::Ram(number) }
}

fn device() -> Region {
    Region { range: page(0), kind: Kind::Mmio(Annotation::new(7).expect("a small number")) }
}

/// One region goes from page 0 to page 1 while somebody looks with `look`.
fn look_during_a_change(look: fn(&Regions<1>) -> Option<Region>, write: fn(&Regions<1>)) {
    model(move || {
        let regions: Arc<Regions<1>> = Arc::new(Regions::new());
        regions.add(ram(0)).expect("there is room");
        let writer = thread::spawn({
            let regions = regions.clone();
            move || write(&regions)
        });
        if let Some(found) = look(&regions) {
            assert!(found == ram(0) || found == ram(1), "half a change was seen: {found:?}");
        }
        writer.join().expect("the writer");
    });
}

/// A change of the only region, as all changes are made.
fn replace(regions: &Regions<1>) {
    for slot in &regions.slots {
        regions.change(|| slot.write(ram(1), State::Present));
    }
}

fn look(regions: &Regions<1>) -> Option<Region> {
    regions.look(Ipa::new(0)).ok()?.region()
}

#[test]
fn lookup_sees_all_of_a_change_or_nothing() {
    look_during_a_change(look, replace);
}

#[test]
#[should_panic(expected = "half a change was seen")]
fn mutant_lookup_without_its_fence_is_caught() {
    look_during_a_change(
        |regions| {
            let version = regions.version.load(Ordering::Acquire);
            let found = regions.find(|region| region.range.contains(Ipa::new(0)));
            let same = regions.version.load(Ordering::Relaxed) == version && version & WRITING == 0;
            found.filter(|_| same).map(|(_, _, region)| region)
        },
        replace,
    );
}

#[test]
#[should_panic(expected = "half a change was seen")]
fn mutant_change_without_its_first_fence_is_caught() {
    look_during_a_change(look, |regions| {
        let before = regions.lock();
        regions.slots.iter().for_each(|slot| slot.write(ram(1), State::Present));
        regions.version.store(before.wrapping_add(NEXT), Ordering::Release);
    });
}

/// A change that is undone, and so puts the old number back.
#[test]
#[should_panic(expected = "half a change was seen")]
fn mutant_that_uses_a_number_twice_is_caught() {
    look_during_a_change(look, |regions| {
        let before = regions.lock();
        fence(Ordering::Release);
        for region in [ram(1), ram(0)] {
            regions.slots.iter().for_each(|slot| slot.write(region, State::Present));
        }
        regions.version.store(before, Ordering::Release);
    });
}

#[test]
fn of_two_changes_at_once_none_is_lost() {
    model(|| {
        let regions: Arc<Regions<2>> = Arc::new(Regions::new());
        let other = thread::spawn({
            let regions = regions.clone();
            move || regions.add(ram(1)).expect("there is room for two")
        });
        let mine = regions.add(ram(0)).expect("there is room for two");
        assert_ne!(mine, other.join().expect("the other"));
        for number in 0..2 {
            let lookup = regions.look(Ipa::new(number * PAGE)).expect("nothing is removed");
            assert_eq!(lookup.region(), Some(ram(number)));
        }
    });
}

const EMPTY: u64 = 0;
const LOCKED: u64 = 1;
/// What the fault stores: an annotation, or a leaf.
const STORED: u64 = 2;

/// A device in page 0, and that page's entry.
struct World {
    regions: Regions<1>,
    buckets: Buckets<1>,
    entry: AtomicU64,
}

impl World {
    fn new() -> Arc<Self> {
        let world = Self { regions: Regions::new(), buckets: Buckets::new(), entry: AtomicU64::new(EMPTY) };
        world.regions.add(device()).expect("there is room");
        Arc::new(world)
    }

    fn lock(&self) -> bool {
        self.entry.compare_exchange(EMPTY, LOCKED, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Takes the entry, checks, and stores.
    fn store_if<'a>(&self, check: impl FnOnce() -> Result<(), Retry<'a>>) {
        if self.lock() {
            let stored = if check().is_ok() { STORED } else { EMPTY };
            self.entry.store(stored, Ordering::Release);
        }
    }

    /// A fault that stores the device's tag, by the rule.
    fn annotate(&self) {
        if let Ok(lookup) = self.regions.look(Ipa::new(0))
            && lookup.region().is_some()
        {
            self.store_if(|| lookup.check());
        }
    }

    /// A fault that shows its ticket, as faults in RAM do.
    fn map(&self) {
        if let Ok(ticket) = self.buckets.ticket(page(0))
            && let Ok(lookup) = self.regions.look(Ipa::new(0))
            && lookup.region().is_some()
        {
            self.store_if(|| ticket.check());
        }
    }

    fn unmap(&self) {
        loop {
            match self.entry.load(Ordering::Relaxed) {
                EMPTY => return,
                LOCKED => thread::yield_now(),
                stored => {
                    let removed =
                        self.entry.compare_exchange(stored, EMPTY, Ordering::AcqRel, Ordering::Relaxed);
                    if removed.is_ok() {
                        return;
                    }
                }
            }
        }
    }

    fn prepare(&self) -> Removal<'_, 1> {
        self.regions.prepare_removal(page(0)).expect("it is there")
    }

    fn remove(&self) {
        let unmapping = self.prepare().begin(&self.buckets);
        self.unmap();
        unmapping.finish();
    }
}

fn race(remove: fn(&World), fault: fn(&World)) {
    model(move || {
        let world = World::new();
        let remover = thread::spawn({
            let world = world.clone();
            move || remove(&world)
        });
        fault(&world);
        remover.join().expect("the remover");
        assert_eq!(world.entry.load(Ordering::Relaxed), EMPTY, "a removed region lives on in an entry");
    });
}

#[test]
fn annotation_never_outlives_its_region() {
    race(World::remove, World::annotate);
}

#[test]
fn mapping_never_outlives_its_region() {
    race(World::remove, World::map);
}

#[test]
fn what_is_unmapped_in_pieces_beforehand_stays_unmapped() {
    race(
        |world| {
            let removal = world.prepare();
            {
                let _guard = world.buckets.begin(page(0));
                world.unmap();
            }
            removal.begin(&world.buckets).finish();
        },
        |world| {
            world.annotate();
            world.map();
        },
    );
}

#[test]
#[should_panic(expected = "a removed region lives on")]
fn mutant_check_before_the_lock_is_caught() {
    race(World::remove, |world| {
        if let Ok(lookup) = world.regions.look(Ipa::new(0))
            && lookup.region().is_some()
            && lookup.check().is_ok()
        {
            world.store_if(|| Ok(()));
        }
    });
}

#[test]
#[should_panic(expected = "a removed region lives on")]
fn mutant_check_without_its_fence_is_caught() {
    race(World::remove, |world| {
        if let Ok(lookup) = world.regions.look(Ipa::new(0))
            && lookup.region().is_some()
        {
            world.store_if(|| lookup.compare());
        }
    });
}

/// The bucket's fence would stand in for the missing one: this remover has no bucket.
#[test]
#[should_panic(expected = "a removed region lives on")]
fn mutant_change_without_its_last_fence_is_caught() {
    race(
        |world| {
            let before = world.regions.lock();
            fence(Ordering::Release);
            world.regions.slots.iter().for_each(Slot::clear);
            world.regions.version.store(before.wrapping_add(NEXT), Ordering::Release);
            world.unmap();
        },
        World::annotate,
    );
}

#[test]
#[should_panic(expected = "a removed region lives on")]
fn mutant_that_unmaps_before_it_announces_is_caught() {
    race(
        |world| {
            world.unmap();
            world.prepare().begin(&world.buckets).finish();
        },
        World::annotate,
    );
}
