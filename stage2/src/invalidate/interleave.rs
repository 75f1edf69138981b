//! The protocol of `invalidate.rs` in every interleaving, tried by loom.
//!
//! The world of these models is small: one entry of a table, one bucket or two,
//! and one page that answers at the entry's address, until its owner takes it
//! back. The owner has taken it safely if the entry does not hold it then.
//!
//! Each rule of the protocol has a *mutant*, the same model with the rule broken,
//! which must fail. A mutant that passes would mean that the model shows nothing.

use super::{Buckets, InvalidateGuard, Retry, SEQUENCE_ONE, buckets_of};
use crate::addr::{Ipa, IpaRange};
use crate::sync::{AtomicU64, Ordering};
use loom::thread;
use std::sync::Arc;

const EMPTY: u64 = 0;
const LOCKED: u64 = 1;
/// The page that is taken away; the entry holds it when it is mapped.
const OLD: u64 = 2;
/// The page that answers afterwards.
const NEW: u64 = 4;

/// One entry, and what is to be found there.
struct World {
    buckets: Buckets<2>,
    entry: AtomicU64,
    backing: AtomicU64,
}

impl World {
    fn new() -> Arc<Self> {
        let (entry, backing) = (AtomicU64::new(EMPTY), AtomicU64::new(OLD));
        Arc::new(Self { buckets: Buckets::new(), entry, backing })
    }

    /// F3: takes the entry, if it is empty.
    fn lock(&self) -> bool {
        self.entry.compare_exchange(EMPTY, LOCKED, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// F5, or giving the entry back.
    fn unlock(&self, entry: u64) {
        self.entry.store(entry, Ordering::Release);
    }

    /// F2: which page is it? Relaxed: the protocol must do without help.
    fn look(&self) -> u64 {
        self.backing.load(Ordering::Relaxed)
    }

    /// I2.
    fn take_page(&self) {
        self.backing.store(NEW, Ordering::Relaxed);
    }

    /// I3: unmaps the entry, waiting while it is LOCKED.
    fn unmap(&self) {
        loop {
            // Relaxed: as the walk of an unmap reads.
            match self.entry.load(Ordering::Relaxed) {
                EMPTY => return,
                LOCKED => thread::yield_now(),
                leaf => {
                    let freed = self.entry.compare_exchange(leaf, EMPTY, Ordering::AcqRel, Ordering::Relaxed);
                    if freed.is_ok() {
                        return;
                    }
                }
            }
        }
    }

    /// The fault by the book. Whether it installed something.
    fn fault(&self) -> Result<bool, Retry<'_>> {
        let ticket = self.buckets.ticket(here())?;
        let page = self.look();
        self.install(page, || ticket.check())
    }

    /// F3 to F5 with this check.
    fn install<'a>(
        &self,
        page: u64,
        check: impl FnOnce() -> Result<(), Retry<'a>>,
    ) -> Result<bool, Retry<'a>> {
        if !self.lock() {
            return Ok(false);
        }
        let checked = check();
        self.unlock(if checked.is_ok() { page } else { EMPTY });
        checked.map(|()| true)
    }

    /// The invalidation by the book.
    fn invalidate(&self) {
        let _guard = self.buckets.begin(here());
        self.take_page();
        self.unmap();
    }

    /// What must never be: the page is somebody else's and mapped all the same.
    fn assert_old_page_is_gone(&self) {
        assert_ne!(self.entry.load(Ordering::Relaxed), OLD, "the page that was taken is mapped");
    }
}

/// The entry's page.
fn here() -> IpaRange {
    IpaRange::of_entry(Ipa::new(0), 0x1000)
}

/// The entry's bucket and the next.
fn wide() -> IpaRange {
    IpaRange::of_entry(Ipa::new(0), 1 << 22)
}

/// Every pair of pre-emptions and a third: more races than the protocol has steps
/// at which it could be disturbed.
fn model(body: impl Fn() + Sync + Send + 'static) {
    crate::interleave::model(3, body);
}

/// One invalidation against one fault, in these versions.
fn race(invalidate: fn(&World), fault: fn(&World)) {
    model(move || {
        let world = World::new();
        let owner = thread::spawn({
            let world = world.clone();
            move || invalidate(&world)
        });
        fault(&world);
        owner.join().expect("the page's owner");
        world.assert_old_page_is_gone();
    });
}

fn fault(world: &World) {
    let _ = world.fault();
}

#[test]
fn map_that_started_before_an_invalidation_never_survives_it() {
    race(World::invalidate, fault);
}

#[test]
fn two_invalidations_of_one_bucket_leave_no_gap() {
    model(|| {
        let world = World::new();
        let neighbour = thread::spawn({
            let world = world.clone();
            move || drop(world.buckets.begin(here()))
        });
        let owner = thread::spawn({
            let world = world.clone();
            move || world.invalidate()
        });
        fault(&world);
        neighbour.join().expect("another invalidation");
        owner.join().expect("the page's owner");
        world.assert_old_page_is_gone();
    });
}

#[test]
fn two_faults_do_not_make_each_other_pass() {
    model(|| {
        let world = World::new();
        let owner = thread::spawn({
            let world = world.clone();
            move || world.invalidate()
        });
        let other = thread::spawn({
            let world = world.clone();
            move || fault(&world)
        });
        fault(&world);
        other.join().expect("the other fault");
        owner.join().expect("the page's owner");
        world.assert_old_page_is_gone();
    });
}

#[test]
fn ticket_for_two_buckets_notices_each() {
    race(World::invalidate, |world| {
        let Ok(ticket) = world.buckets.ticket(wide()) else { return };
        let page = world.look();
        let _ = world.install(page, || ticket.check());
    });
}

#[test]
fn invalidation_of_two_buckets_is_noticed_in_each() {
    race(
        |world| {
            let _guard = world.buckets.begin(wide());
            world.take_page();
            world.unmap();
        },
        fault,
    );
}

/// Liveness: whoever waits for the change to be over gets to install, and what
/// it installs is what the invalidation left.
#[test]
fn who_waits_gets_through() {
    model(|| {
        let world = World::new();
        let owner = thread::spawn({
            let world = world.clone();
            move || world.invalidate()
        });
        loop {
            match world.fault() {
                Ok(true) => break,
                // Somebody else has the entry; here only the invalidation's walk.
                Ok(false) | Err(Retry::Now) => thread::yield_now(),
                Err(Retry::After(change)) => {
                    while !change.is_over() {
                        thread::yield_now();
                    }
                }
            }
        }
        owner.join().expect("the page's owner");
        world.assert_old_page_is_gone();
    });
}

/// A page that was installed after the invalidation is the new one.
#[test]
fn ticket_drawn_after_the_end_sees_the_new_backing() {
    model(|| {
        let world = World::new();
        let owner = thread::spawn({
            let world = world.clone();
            move || {
                let _guard = world.buckets.begin(here());
                world.take_page();
            }
        });
        let seen = world.buckets.ticket(here()).map(|ticket| (ticket.seen, world.look()));
        if let Ok((sequence, page)) = seen {
            assert!(sequence == 0 || page == NEW, "the old page was found with a new ticket");
        }
        owner.join().expect("the page's owner");
    });
}

// The mutants.

#[test]
#[should_panic(expected = "the page that was taken is mapped")]
fn mutant_begin_without_its_fence_is_caught() {
    race(
        |world| {
            let _guard = InvalidateGuard::count(&world.buckets.words, here());
            world.take_page();
            world.unmap();
        },
        fault,
    );
}

#[test]
#[should_panic(expected = "the page that was taken is mapped")]
fn mutant_check_without_its_fence_is_caught() {
    race(World::invalidate, |world| {
        let Ok(ticket) = world.buckets.ticket(here()) else { return };
        let page = world.look();
        let _ = world.install(page, || ticket.compare());
    });
}

#[test]
#[should_panic(expected = "the page that was taken is mapped")]
fn mutant_end_before_the_walk_is_caught() {
    race(
        |world| {
            drop(world.buckets.begin(here()));
            world.take_page();
            world.unmap();
        },
        fault,
    );
}

#[test]
#[should_panic(expected = "the page that was taken is mapped")]
fn mutant_walk_before_the_beginning_is_caught() {
    race(
        |world| {
            world.unmap();
            let _guard = world.buckets.begin(here());
            world.take_page();
        },
        fault,
    );
}

#[test]
#[should_panic(expected = "the page that was taken is mapped")]
fn mutant_check_before_the_lock_is_caught() {
    race(World::invalidate, |world| {
        let Ok(ticket) = world.buckets.ticket(here()) else { return };
        let page = world.look();
        if ticket.check().is_ok() {
            let _ = world.install(page, || Ok(()));
        }
    });
}

#[test]
#[should_panic(expected = "the page that was taken is mapped")]
fn mutant_ticket_drawn_after_the_look_is_caught() {
    race(World::invalidate, |world| {
        let page = world.look();
        let Ok(ticket) = world.buckets.ticket(here()) else { return };
        let _ = world.install(page, || ticket.check());
    });
}

#[test]
#[should_panic(expected = "the page that was taken is mapped")]
fn mutant_end_that_counts_down_before_it_raises_the_number_is_caught() {
    race(
        |world| {
            let guard = world.buckets.begin(here());
            world.take_page();
            world.unmap();
            core::mem::forget(guard);
            for word in buckets_of(&world.buckets.words, here()) {
                word.fetch_sub(1, Ordering::Release);
                word.fetch_add(SEQUENCE_ONE, Ordering::Release);
            }
        },
        fault,
    );
}
