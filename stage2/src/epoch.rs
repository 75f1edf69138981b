//! Who may still be looking: epochs, by which unlinked memory is known to be
//! forgotten.
//!
//! A CPU that looks into tables holds no lock, so another CPU can unlink a
//! table that the first is just reading. The table's memory must stay a table
//! until the first CPU is done. Asking every CPU would be slow; this is the
//! cheap way to know.
//!
//! There is a global *epoch*, a number that grows. A CPU that is about to look
//! into tables is [pinned](Participant::pin): it announces the epoch it saw in
//! a slot of its own, and clears the slot when it is done. The global epoch
//! [advances](Epochs::try_advance) only if every CPU that is pinned has
//! announced the current one. So when it has advanced twice since a table was
//! unlinked, every CPU has been without a pin in between, and whoever was
//! pinned later found the table unlinked already.
//!
//! A CPU without a pin is *quiescent* and holds back nobody. Guests run, CPUs
//! sleep and CPUs are switched off without a pin; nothing else needs to be
//! done at those places. In return, no CPU may wait for the epoch to advance
//! while it is pinned itself: it would wait for itself.
//!
//! # What a pin promises
//!
//! **While a guard pinned at epoch g exists, the global epoch is g or g + 1.**
//! `reclaim.rs` keeps one list of tables per epoch, modulo four, and
//! relies on this to tell the lists apart.
//!
//! It is not below g, as it only grows. It is not above g + 1 because the step
//! from g + 1 to g + 2 would have been refused:
//!
//! ```text
//!  pin                              try_advance
//!  ───                              ───────────
//!  slot := g                        global is g + 1?
//!  ── fence ──                      ── fence ──
//!  global is still g?               slot is empty, or g + 1?
//! ```
//!
//! The two fences are sequentially consistent, so one of them is first. If it
//! is the one on the left, then the right side sees g in the slot, and stops.
//! If it is the one on the right, then the left side sees at least g + 1 in
//! the global epoch, and begins again. Without the second look on the left,
//! a CPU could announce an epoch long past. That would still hold back the
//! *next* step, but the steps in between would have gone unseen.
//!
//! The same argument covers a CPU that was not registered when the other one
//! looked: it registered before it filled its slot, hence before its fence.
//!
//! # What an advance passes on
//!
//! All that a CPU did under a pin happens before the first advance that finds
//! the pin gone, because the slot is cleared, and also filled again, with
//! Release, and read before an Acquire fence. The advance publishes that by
//! its own Release, and the next one picks it up with its fence. So a CPU that
//! is pinned at g + 2 knows all that was done under pins at g or before; and
//! one that reads a table's memory then can hand it to a new owner.

use core::cell::Cell;

use crate::sync::{self, AtomicU64, Ordering, array_of, const_fn, fence};

/// How many CPUs can take part at once.
pub const MAX_CPUS: usize = if sync::IS_MODEL { 4 } else { 64 };

/// What one CPU announces.
///
/// [`UNPINNED`], or twice the epoch plus one. Twice an epoch leaves out its
/// highest bit, which nobody lives to see set; even then, slots are only ever
/// compared with an epoch that is close by.
///
/// Two cache lines to each, as CPUs that prefetch in pairs would otherwise
/// drag the neighbour's along.
#[repr(align(128))]
struct Slot(AtomicU64);

const UNPINNED: u64 = 0;

const fn pinned_at(epoch: u64) -> u64 {
    epoch << 1 | 1
}

/// The global epoch, and what every CPU has announced.
///
/// One of these serves any number of spaces; usually it is a `static`.
///
/// ```
/// use stage2::epoch::{Epochs, Participant};
///
/// static EPOCHS: Epochs = Epochs::new();
///
/// // Each CPU registers when it comes up, and keeps this in its own data.
/// let participant: Participant<'static> = EPOCHS.register().expect("room for this CPU");
///
/// // A CPU that is pinned can be overtaken once ...
/// let guard = participant.pin();
/// assert_eq!(EPOCHS.try_advance(), Ok(()));
/// // ... and then everybody waits for it.
/// let laggard = EPOCHS.try_advance().unwrap_err();
/// assert_eq!(laggard.cpu, participant.cpu());
///
/// drop(guard);
/// assert_eq!(EPOCHS.try_advance(), Ok(()));
/// ```
pub struct Epochs {
    global: AtomicU64,
    /// One bit for each slot that belongs to somebody.
    registered: AtomicU64,
    slots: [Slot; MAX_CPUS],
}

const _: () = assert!(MAX_CPUS <= u64::BITS as usize, "one bit of `registered` for each CPU");

impl Epochs {
    const_fn! {
        /// Epochs of which nobody is part yet.
        #[expect(clippy::new_without_default, reason = "there is one of these, and it is a static")]
        pub fn new() -> Self {
            Self::starting_at(0)
        }
    }

    const_fn! {
        /// The same, as if `epoch` advances had been made already; for tests
        /// of what happens near the end of the range.
        pub(crate) fn starting_at(epoch: u64) -> Self {
            Self {
                global: AtomicU64::new(epoch),
                registered: AtomicU64::new(0),
                slots: array_of![Slot(AtomicU64::new(UNPINNED)); MAX_CPUS],
            }
        }
    }

    /// Lets a CPU take part, until it drops the [`Participant`].
    ///
    /// `None` if [`MAX_CPUS`] do already.
    pub fn register(&self) -> Option<Participant<'_>> {
        let mut registered = self.registered.load(Ordering::Relaxed);
        loop {
            let cpu = registered.trailing_ones();
            if cpu as usize >= MAX_CPUS {
                return None;
            }
            // Acquire: pairs with the Release of whoever had the slot before,
            // so that our stores to it come after theirs.
            let claimed = registered | 1 << cpu;
            match self.registered.compare_exchange_weak(
                registered,
                claimed,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    return Some(Participant {
                        epochs: self,
                        cpu: cpu as u8,
                        guards: Cell::new(0),
                        epoch: Cell::new(0),
                    });
                }
                Err(found) => registered = found,
            }
        }
    }

    /// Moves the global epoch one step on, unless a pinned CPU has not caught
    /// up with it.
    ///
    /// Reads the slot of every CPU that takes part; so this is for those who
    /// have something to reclaim, not for every pin.
    ///
    /// # Errors
    ///
    /// [`Laggard`] names such a CPU. If it stays the same for long, that CPU is
    /// stuck, and so is all reclaim.
    pub fn try_advance(&self) -> Result<(), Laggard> {
        let global = self.global.load(Ordering::Relaxed);
        // Pairs with the fence of `announce`: see the top of this file. It is
        // also what makes the acquisition of the advance before this one.
        fence(Ordering::SeqCst);
        let mut registered = self.registered.load(Ordering::Relaxed);
        while registered != 0 {
            let cpu = registered.trailing_zeros();
            registered &= registered - 1;
            let slot = self.slots[cpu as usize].0.load(Ordering::Relaxed);
            if slot != UNPINNED && slot != pinned_at(global) {
                return Err(Laggard { cpu: cpu as u8 });
            }
        }
        // Acquire what the pins that are gone have done; the Release below
        // passes it on.
        fence(Ordering::Acquire);
        // If it fails, somebody else has made the same step.
        let next = global.wrapping_add(1);
        let _ = self.global.compare_exchange(global, next, Ordering::Release, Ordering::Relaxed);
        Ok(())
    }

    /// The epoch in which what this CPU has just unlinked was last to be found.
    ///
    /// Whoever found it is pinned at this epoch or an earlier one.
    pub(crate) fn of_unlinked(&self) -> u64 {
        // Pairs with the fence of `announce`. If ours is first, then that CPU,
        // which looked after its fence, has not found what we had unlinked. If
        // theirs is first, we see at least the epoch that they saw.
        fence(Ordering::SeqCst);
        self.global.load(Ordering::Relaxed)
    }

    /// Fills a slot with the current epoch, and returns that.
    fn announce(&self, slot: &Slot) -> u64 {
        let mut global = self.global.load(Ordering::Relaxed);
        loop {
            // Release: who sees this pin knows what was done under the one
            // before it, even if it never saw the slot empty.
            slot.0.store(pinned_at(global), Ordering::Release);
            // Pairs with the fence of `try_advance`. It also acquires, by the
            // load before it, what the advance to this epoch knew.
            fence(Ordering::SeqCst);
            let now = self.global.load(Ordering::Relaxed);
            if now == global {
                return global;
            }
            global = now;
        }
    }
}

/// A pinned CPU that holds the epoch back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Laggard {
    /// Its number, see [`Participant::cpu`].
    pub cpu: u8,
}

/// One CPU's part in the epochs.
///
/// It can be moved to its CPU, but not be shared with another. A CPU that is
/// switched off drops it; it can't be pinned then:
///
/// ```compile_fail,E0505
/// # let epochs = stage2::epoch::Epochs::new();
/// let participant = epochs.register().unwrap();
/// let guard = participant.pin();
/// drop(participant);
/// drop(guard);
/// ```
///
/// For the same reason a function that takes `&mut Participant`, such as one
/// that enters a guest, is certain not to be called under a pin.
pub struct Participant<'e> {
    epochs: &'e Epochs,
    cpu: u8,
    /// How many guards exist.
    guards: Cell<usize>,
    /// The epoch that they are pinned at, if any exist.
    epoch: Cell<u64>,
}

impl<'e> Participant<'e> {
    /// Pins this CPU: what it finds in tables from now on stays there as long
    /// as the guard does.
    ///
    /// Keep it short. Guards may nest; an inner one is only counted, and is
    /// pinned at the epoch of the outermost.
    #[inline]
    pub fn pin(&self) -> Guard<'_> {
        let guards = self.guards.get();
        if guards == 0 {
            self.epoch.set(self.epochs.announce(self.slot()));
        }
        self.guards.set(guards.checked_add(1).expect("guards are forgotten without end"));
        Guard { participant: self }
    }

    /// The number of this CPU, below [`MAX_CPUS`]: the lowest that was free
    /// when it registered.
    #[inline]
    pub fn cpu(&self) -> u8 {
        self.cpu
    }

    fn slot(&self) -> &'e Slot {
        &self.epochs.slots[usize::from(self.cpu)]
    }
}

impl Drop for Participant<'_> {
    fn drop(&mut self) {
        assert!(self.guards.get() == 0, "CPU {} leaves with a guard forgotten", self.cpu);
        // Release: pairs with the Acquire of the next owner of the slot, and
        // with the fence of an advance that no longer looks at the slot.
        self.epochs.registered.fetch_and(!(1 << self.cpu), Ordering::Release);
    }
}

/// Proof that this CPU is pinned.
///
/// It stays on its CPU:
///
/// ```compile_fail,E0277
/// # let epochs = stage2::epoch::Epochs::new();
/// # let participant = epochs.register().unwrap();
/// let guard = participant.pin();
/// std::thread::scope(|scope| {
///     scope.spawn(move || drop(guard));
/// });
/// ```
#[must_use = "a CPU is pinned only as long as the guard lives"]
pub struct Guard<'p> {
    participant: &'p Participant<'p>,
}

impl Guard<'_> {
    /// The epochs that this CPU takes part in.
    #[inline]
    pub fn epochs(&self) -> &Epochs {
        self.participant.epochs
    }

    /// The number of the CPU, see [`Participant::cpu`].
    #[inline]
    pub fn cpu(&self) -> u8 {
        self.participant.cpu
    }

    /// The epoch that the CPU is pinned at: the global one, or one before.
    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        self.participant.epoch.get()
    }
}

impl Drop for Guard<'_> {
    #[inline]
    fn drop(&mut self) {
        let guards = self.participant.guards.get() - 1;
        self.participant.guards.set(guards);
        if guards == 0 {
            // Release: all that was done under the pin is over, see the top
            // of this file.
            self.participant.slot().0.store(UNPINNED, Ordering::Release);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
mod tests {
    use std::vec::Vec;

    use super::{Epochs, Laggard, MAX_CPUS};

    #[test]
    fn nobody_holds_back_an_epoch_without_a_pin() {
        let epochs = Epochs::new();
        let participant = epochs.register().unwrap();
        for epoch in 0..5 {
            assert_eq!(participant.pin().epoch(), epoch);
            assert_eq!(epochs.try_advance(), Ok(()));
        }
    }

    #[test]
    fn pin_is_overtaken_by_one_epoch_at_most() {
        let epochs = Epochs::new();
        let [_early, late] = [epochs.register().unwrap(), epochs.register().unwrap()];
        let guard = late.pin();
        assert_eq!(epochs.try_advance(), Ok(()));
        assert_eq!(epochs.try_advance(), Err(Laggard { cpu: 1 }));
        assert_eq!(epochs.of_unlinked(), guard.epoch() + 1);
    }

    #[test]
    fn inner_guard_keeps_the_epoch_of_the_outer() {
        let epochs = Epochs::new();
        let participant = epochs.register().unwrap();
        let outer = participant.pin();
        epochs.try_advance().unwrap();
        let inner = participant.pin();
        assert_eq!(inner.epoch(), outer.epoch());
    }

    #[test]
    fn pin_lasts_until_the_last_guard_is_gone() {
        let epochs = Epochs::new();
        let participant = epochs.register().unwrap();
        let outer = participant.pin();
        epochs.try_advance().unwrap();
        drop(participant.pin());
        assert_eq!(epochs.try_advance(), Err(Laggard { cpu: 0 }));
        drop(outer);
        assert_eq!(epochs.try_advance(), Ok(()));
    }

    #[test]
    fn cpus_are_numbered_from_zero_and_numbers_are_used_again() {
        let epochs = Epochs::new();
        let mut participants: Vec<_> = (0..3).map(|_| epochs.register().unwrap()).collect();
        assert!(participants.iter().map(|participant| participant.cpu()).eq(0..3));
        participants.remove(1);
        assert_eq!(epochs.register().unwrap().cpu(), 1);
    }

    #[test]
    fn cpu_beyond_the_last_slot_is_refused() {
        let epochs = Epochs::new();
        let mut participants: Vec<_> = (0..MAX_CPUS).map(|_| epochs.register().unwrap()).collect();
        assert!(epochs.register().is_none());
        assert_eq!(participants.pop().unwrap().cpu() as usize, MAX_CPUS - 1);
        assert!(epochs.register().is_some());
    }

    #[test]
    #[should_panic(expected = "a guard forgotten")]
    fn cpu_that_forgot_a_guard_can_not_leave() {
        let epochs = Epochs::new();
        let participant = epochs.register().unwrap();
        core::mem::forget(participant.pin());
        drop(participant);
    }

    #[test]
    fn epochs_go_on_beyond_what_a_slot_holds() {
        for start in [(1 << 63) - 2, u64::MAX - 1] {
            let epochs = Epochs::starting_at(start);
            let participant = epochs.register().unwrap();
            for steps in 0..5 {
                let guard = participant.pin();
                assert_eq!(guard.epoch(), start.wrapping_add(steps));
                assert_eq!(epochs.try_advance(), Ok(()));
                assert_eq!(epochs.try_advance(), Err(Laggard { cpu: 0 }));
            }
        }
    }
}
