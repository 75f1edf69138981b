//! Tables that left the tree and may not be reused yet.
//!
//! A table leaves the tree with all its entries DEAD and after the TLBs have
//! forgotten it, so the *hardware* is done with it. But another CPU that is
//! inside this crate may have read the descriptor that led to it a moment
//! before, and may be about to look into it. It will find DEAD there and start
//! again from the root; until then the memory must stay what it is.
//!
//! So the table is *retired*: put on a list, to be *collected* when no CPU can
//! be looking into it any more, which is known from [`crate::epoch`].
//!
//! # Four lists
//!
//! There is a list for each epoch, modulo four. A table goes on the list of
//! the epoch in which it could last be found. Two epochs later it is *ripe*:
//! every CPU has been without a pin since. So a CPU that is pinned at g
//! collects the list of g - 2.
//!
//! Three lists would be too few. Under a pin at g the global epoch is g or
//! g + 1, so others are pinned at g - 1, g or g + 1. Together they add to the
//! lists of g - 1, g and g + 1, and that of g - 2 must be none of these. What
//! is collected is therefore a list that nobody adds to, and since one CPU
//! collects at a time, nobody else takes from it either.
//!
//! A list that isn't collected in its epoch, or not to its end, gets new tables
//! on top when its turn comes again. The old ones then wait with the new.
//!
//! The lists need no memory of their own: each table's first entry, DEAD like
//! all the others, remembers the next table.
//!
//! # What callers owe
//!
//! Nothing here runs by itself, and nobody waits here: a CPU that is pinned, or
//! that holds a LOCKED entry, would only make others wait for itself.
//!
//! 1. An operation that retired tables collects at least as many before it
//!    ends, if as many are ripe. That needs no pin but its own, and is enough
//!    as long as no CPU stays pinned.
//! 2. An operation that finds more tables waiting than the pool can spare
//!    ([`Retired::count`]) retires nothing. It unpins, collects under a new
//!    pin, and if that didn't help returns to its caller with what it has done
//!    so far. So what waits is never more than that limit and what each CPU
//!    retires between two looks at it, even if one CPU is stuck. Which one it
//!    is, [`Epochs::try_advance`](crate::epoch::Epochs::try_advance) tells.

use crate::addr::PhysAddr;
use crate::epoch::Guard;
use crate::pte::{self, AtomicPte, TableAddr};
use crate::sync::{AtomicBool, AtomicU64, Ordering, array_of, const_fn};

/// Tables that wait until nobody can be looking into them.
///
/// On cache lines of their own: what lies beside them in a space is read at
/// every step of every walk, and must not be drawn away by those who retire.
#[repr(align(128))]
pub(crate) struct Retired {
    lists: [List; LISTS],
    /// How many tables are on the lists.
    count: AtomicU64,
    /// Whether a CPU is collecting.
    collecting: AtomicBool,
}

/// See the top of this file.
const LISTS: usize = 4;

impl Retired {
    const_fn! {
        /// No tables.
        pub(crate) fn new() -> Self {
            Self {
                lists: array_of![List::new(); LISTS],
                count: AtomicU64::new(0),
                collecting: AtomicBool::new(false),
            }
        }
    }

    /// Takes charge of a table that is unlinked, invalidated and all DEAD.
    ///
    /// Nothing refers to the table now but CPUs that found it earlier; the
    /// caller doesn't look into it again.
    pub(crate) fn retire(&self, guard: &Guard<'_>, table: TableAddr, entries: &[AtomicPte]) {
        let link = entries.first().expect("a table has entries");
        // Relaxed: a number. Before the table is on the list, so that nobody
        // subtracts what was not added yet.
        self.count.fetch_add(1, Ordering::Relaxed);
        self.list(guard.epochs().of_unlinked()).push(table, link);
    }

    /// Begins to collect the tables that are ripe, unless another CPU does
    /// already.
    ///
    /// Also moves the epoch on, if it can, so that there will be something to
    /// collect next time.
    pub(crate) fn collect<'r>(&'r self, guard: &'r Guard<'_>) -> Option<Ripe<'r>> {
        if self.count() == 0 {
            return None;
        }
        // Whoever holds it back is of no interest unless it lasts, and then
        // the callers' rule 2 looks at it.
        let _ = guard.epochs().try_advance();
        // Acquire: pairs with the Release at the end of a collection, so that
        // we see the list as it was left.
        self.collecting.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).ok()?;
        Some(Ripe { retired: self, guard })
    }

    /// How many tables wait, ripe or not. Other CPUs may be changing it.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed) as usize
    }

    /// Takes any table, ripe or not: for whoever has the tables to itself.
    ///
    /// `entry_0` says where the first entry of a table is.
    pub(crate) fn pop<'t>(&mut self, entry_0: impl Fn(TableAddr) -> &'t AtomicPte) -> Option<TableAddr> {
        let table = self.lists.iter().find_map(|list| list.pop(&entry_0))?;
        self.count.fetch_sub(1, Ordering::Relaxed);
        Some(table)
    }

    fn list(&self, epoch: u64) -> &List {
        &self.lists[(epoch % LISTS as u64) as usize]
    }
}

/// The tables that are ripe; one CPU at a time has this.
#[must_use = "nothing is collected until `pop` is called"]
pub(crate) struct Ripe<'r> {
    retired: &'r Retired,
    /// While it lives, nobody adds to the list.
    guard: &'r Guard<'r>,
}

impl Ripe<'_> {
    /// Takes a table, which is then the caller's alone.
    ///
    /// `entry_0` says where the first entry of a table is. The tables that
    /// were not taken when this is dropped stay where they are.
    pub(crate) fn pop<'t>(&mut self, entry_0: impl Fn(TableAddr) -> &'t AtomicPte) -> Option<TableAddr> {
        // Two epochs before: the same list as two epochs after.
        let table = self.retired.list(self.guard.epoch().wrapping_sub(2)).pop(entry_0)?;
        self.retired.count.fetch_sub(1, Ordering::Relaxed);
        Some(table)
    }
}

impl Drop for Ripe<'_> {
    fn drop(&mut self) {
        self.retired.collecting.store(false, Ordering::Release);
    }
}

/// Tables linked through their first entries.
///
/// Any number of CPUs may push. Popping is for one CPU at a time, while nobody
/// pushes: see the top of this file for how that comes about.
struct List {
    /// Physical address of the first, or [`NONE`].
    first: AtomicU64,
}

/// No table lies at address zero: that is refused when it is allocated.
const NONE: u64 = 0;

impl List {
    const_fn! {
        fn new() -> Self {
            Self { first: AtomicU64::new(NONE) }
        }
    }

    fn push(&self, table: TableAddr, entry_0: &AtomicPte) {
        let mut first = self.first.load(Ordering::Relaxed);
        loop {
            entry_0
                .exchange(entry_0.load(), pte::dead(at(first)))
                .expect("a retired table is written by whoever retires it");
            // Relaxed: whoever pops the table knows all that was done under
            // this pin, or has the tables to itself.
            let new = table.address().bits();
            match self.first.compare_exchange_weak(first, new, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(found) => first = found,
            }
        }
    }

    fn pop<'t>(&self, entry_0: impl Fn(TableAddr) -> &'t AtomicPte) -> Option<TableAddr> {
        let table = at(self.first.load(Ordering::Relaxed))?;
        let next = pte::remembered_table(entry_0(table).load());
        // Relaxed: whoever pushes later is pinned so much later, and whoever
        // pops later has seen `collecting` set and cleared.
        self.first.store(next.map_or(NONE, |next| next.address().bits()), Ordering::Relaxed);
        Some(table)
    }
}

fn at(bits: u64) -> Option<TableAddr> {
    (bits != NONE).then(|| TableAddr::allocated(PhysAddr::new(bits)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
mod tests {
    use std::vec::Vec;

    use super::Retired;
    use crate::addr::PhysAddr;
    use crate::epoch::{Epochs, Participant};
    use crate::pte::{AtomicPte, TableAddr};

    const SIZE: u64 = 0x1000;

    /// Tables at one page, two pages and so on, of two entries each.
    struct Memory(Vec<[AtomicPte; 2]>);

    impl Memory {
        fn new(tables: usize) -> Self {
            Self((0..tables).map(|_| [AtomicPte::new(), AtomicPte::new()]).collect())
        }

        fn entries(&self, table: TableAddr) -> &[AtomicPte; 2] {
            &self.0[(table.address().bits() / SIZE - 1) as usize]
        }
    }

    fn table(number: u64) -> TableAddr {
        TableAddr::allocated(PhysAddr::new(number * SIZE))
    }

    fn retire(retired: &Retired, memory: &Memory, cpu: &Participant<'_>, number: u64) {
        retired.retire(&cpu.pin(), table(number), memory.entries(table(number)));
    }

    /// What one collection finds, which is followed by an advance.
    fn collect(retired: &Retired, memory: &Memory, cpu: &Participant<'_>) -> Vec<u64> {
        let guard = cpu.pin();
        let Some(mut ripe) = retired.collect(&guard) else { return Vec::new() };
        let next = || ripe.pop(|table| &memory.entries(table)[0]);
        core::iter::from_fn(next).map(|table| table.address().bits() / SIZE).collect()
    }

    #[test]
    fn table_is_ripe_two_epochs_later() {
        let (epochs, retired, memory) = (Epochs::new(), Retired::new(), Memory::new(1));
        let cpu = epochs.register().unwrap();
        retire(&retired, &memory, &cpu, 1);
        assert_eq!(collect(&retired, &memory, &cpu), []);
        assert_eq!(collect(&retired, &memory, &cpu), []);
        assert_eq!(collect(&retired, &memory, &cpu), [1]);
        assert_eq!(retired.count(), 0);
    }

    #[test]
    fn epochs_are_collected_apart() {
        let (epochs, retired, memory) = (Epochs::new(), Retired::new(), Memory::new(3));
        let cpu = epochs.register().unwrap();
        for number in 1..=3 {
            retire(&retired, &memory, &cpu, number);
            epochs.try_advance().unwrap();
        }
        assert_eq!(collect(&retired, &memory, &cpu), [2]);
        assert_eq!(collect(&retired, &memory, &cpu), [3]);
        assert_eq!(collect(&retired, &memory, &cpu), []);
        assert_eq!(collect(&retired, &memory, &cpu), [1], "it missed its turn, and this is the next");
    }

    #[test]
    fn nothing_ripens_while_a_cpu_stays_pinned() {
        let (epochs, retired, memory) = (Epochs::new(), Retired::new(), Memory::new(1));
        let [cpu, stuck] = [epochs.register().unwrap(), epochs.register().unwrap()];
        let pin = stuck.pin();
        retire(&retired, &memory, &cpu, 1);
        for _ in 0..10 {
            assert_eq!(collect(&retired, &memory, &cpu), []);
        }
        drop(pin);
        assert!((0..3).any(|_| collect(&retired, &memory, &cpu) == [1]));
    }

    #[test]
    fn what_was_not_popped_comes_with_the_next_round() {
        let (epochs, retired, memory) = (Epochs::new(), Retired::new(), Memory::new(3));
        let cpu = epochs.register().unwrap();
        retire(&retired, &memory, &cpu, 1);
        retire(&retired, &memory, &cpu, 2);
        epochs.try_advance().unwrap();
        epochs.try_advance().unwrap();
        let first = retired.collect(&cpu.pin()).unwrap().pop(|table| &memory.entries(table)[0]);
        assert_eq!(first, Some(table(2)));
        assert_eq!(retired.count(), 1);
        assert!((0..4).any(|_| collect(&retired, &memory, &cpu) == [1]));
    }

    #[test]
    fn one_cpu_collects_at_a_time() {
        let (epochs, retired, memory) = (Epochs::new(), Retired::new(), Memory::new(1));
        let [cpu, other] = [epochs.register().unwrap(), epochs.register().unwrap()];
        retire(&retired, &memory, &cpu, 1);
        let (guard, other_guard) = (cpu.pin(), other.pin());
        let ripe = retired.collect(&guard);
        assert!(ripe.is_some());
        assert!(retired.collect(&other_guard).is_none());
        drop(ripe);
        assert!(retired.collect(&other_guard).is_some());
    }

    #[test]
    fn owner_pops_unripe_tables_too() {
        let (epochs, mut retired, memory) = (Epochs::new(), Retired::new(), Memory::new(2));
        let cpu = epochs.register().unwrap();
        retire(&retired, &memory, &cpu, 1);
        epochs.try_advance().unwrap();
        retire(&retired, &memory, &cpu, 2);
        let popped = core::array::from_fn(|_| retired.pop(|table| &memory.entries(table)[0]));
        assert_eq!(popped, [Some(table(1)), Some(table(2)), None]);
        assert_eq!(retired.count(), 0);
    }
}
