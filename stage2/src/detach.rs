//! Taking tables, and many leaves at once, out of the tree.
//!
//! # How a table leaves
//!
//! Other CPUs may be installing entries into a table at the very moment it
//! becomes superfluous. What they install there after it left would be lost.
//! So before a table is unlinked, every entry of it is made DEAD, in
//! ascending order; an install then fails, and whoever wanted it starts again
//! from the root. The rules that follow from this:
//!
//! 1. Whoever makes entry 0 DEAD owns the table's removal. A second CPU that
//!    meets DEAD there leaves it to the first.
//! 2. A TABLE descriptor is replaced only by the CPU that made all entries of
//!    that table DEAD. So unlinking can't lose a race.
//! 3. [`Batch::kill`] does this to a last-level table that is to go, whatever
//!    is in it. [`bury`] does it to an empty table only, and takes everything
//!    back if the table turns out not to be empty after all. A table of tables
//!    is therefore removed from below.
//!
//! # Many at once
//!
//! One TLB invalidation per entry would be slow, and making entries EMPTY with
//! the invalidation still owed would be wrong: another CPU could map something
//! there while a TLB holds the old entry. A [`Batch`] keeps all it takes
//! LOCKED, invalidates once, and only then makes them EMPTY, or the annotation
//! that is to stand there instead. It works within one table; a last-level table that goes as a whole is one entry of it.
//!
//! The entries need no list: a lock names its owner, and between the first and
//! the last that were taken, those that name this CPU are the batch's. No CPU
//! is in two batches, or between break and make, at the same time.
//!
//! # Who may wait for whom
//!
//! **Nobody waits while holding a LOCKED entry.** A batch is completed before
//! its CPU waits for anything, also in the middle of killing a table. A CPU
//! that has entries DEAD may wait for a LOCKED one. So the holder of a lock
//! always gets on, the killer of a table waits for holders of locks only, and
//! whoever waits for either is waiting for something that ends.

use crate::addr::IpaRange;
use crate::bbm::{self, Entry, Raced};
use crate::contiguous::LockedSet;
use crate::maint::{Maintenance, Stale};
use crate::pte::{self, Annotation, Descriptor, Leaf, Pte, TableAddr};
use crate::sync::{Ordering, fence};
use crate::table::TableMemory;
use crate::view::{Slot, View};

/// Proof that all entries of a table are DEAD, and by this CPU's doing.
#[must_use = "a dead table must be unlinked"]
pub(crate) struct DeadTable {
    table: TableAddr,
}

/// Makes `table`, seen as `view`, DEAD if all its entries are EMPTY.
///
/// Of several CPUs that empty a table together, one succeeds: the last to
/// look finds it empty, unless it finds another at work here. That one, if it
/// has to give up, looks again.
pub(crate) fn bury<M: TableMemory>(view: View<'_, M>, table: TableAddr) -> Option<DeadTable> {
    loop {
        // Whoever empties an entry comes here afterwards, to look at those of
        // the others. Of two that do so at once, the one whose fence is later
        // sees what both have done; without, neither might.
        fence(Ordering::SeqCst);
        if view.entries().iter().any(|entry| entry.load() != Descriptor::EMPTY) {
            return None;
        }
        let Some(taken) =
            view.slots().find(|slot| slot.exchange(Descriptor::EMPTY, pte::dead(None)).is_err())
        else {
            return Some(DeadTable { table });
        };
        // Entry 0 last: it is the sign that the table is spoken for.
        for index in (0..taken.index()).rev() {
            Entry::load(view.slot(index)).revive();
        }
    }
}

/// Entries of one table that are on their way to EMPTY, or to an annotation.
#[must_use = "entries in a batch stay locked until it is completed"]
pub(crate) struct Batch<'g, M: TableMemory> {
    view: View<'g, M>,
    /// What the entries will be.
    becomes: Descriptor,
    /// What was taken, from the first entry to the last.
    taken: Option<Taken>,
}

/// What a batch holds.
#[derive(Clone, Copy)]
struct Taken {
    first: usize,
    last: usize,
    /// What TLBs may still hold of it, and where.
    stale: Stale,
    range: IpaRange,
}

impl<'g, M: TableMemory> Batch<'g, M> {
    /// An empty batch for entries of the table that holds `slot`, which are to
    /// be EMPTY.
    pub(crate) fn new(slot: Slot<'g, M>) -> Self {
        Self { view: slot.view(), becomes: Descriptor::EMPTY, taken: None }
    }

    /// The same batch, for entries that are to be an annotation.
    pub(crate) fn annotating(self, annotation: Annotation) -> Self {
        Self { view: self.view, becomes: annotation.encode(), taken: None }
    }

    /// Takes a leaf.
    #[inline(always)]
    pub(crate) fn take_leaf(&mut self, entry: Entry<'g, M>) -> Result<(), Raced> {
        let slot = entry.try_lock()?.into_batch();
        self.took(slot, slot.range(), Stale::Leaves(slot.level()));
        Ok(())
    }

    /// Takes the members of a contiguous set, all of which are locked.
    pub(crate) fn take_set(&mut self, set: LockedSet<'g, M>) {
        for slot in set.into_batch() {
            self.took(slot, slot.range(), Stale::Leaves(slot.level()));
        }
    }

    /// Takes a table that was [killed](Self::kill) with all that it mapped.
    pub(crate) fn take_table(&mut self, entry: Entry<'g, M>, dead: DeadTable) {
        let slot = entry.lock_dead_table(dead.table).into_batch();
        self.took(slot, slot.range(), Stale::Tables);
    }

    /// Takes a table that was [buried](bury): the leaves it once had have been
    /// invalidated, or their entries would not be EMPTY, so one address is
    /// enough to make walk caches forget the table.
    pub(crate) fn take_empty_table(&mut self, entry: Entry<'g, M>, dead: DeadTable) {
        let slot = entry.lock_dead_table(dead.table).into_batch();
        let page = IpaRange::of_entry(slot.ipa(), slot.granule().page_size());
        self.took(slot, page, Stale::Tables);
    }

    /// Makes the last-level table that `slot` leads to DEAD with all that is
    /// in it, and tells `harvest` of each leaf. Completes the batch if it has to
    /// wait for an entry.
    ///
    /// `None` if another CPU is removing the table already.
    pub(crate) fn kill(
        &mut self,
        slot: Slot<'g, M>,
        table: TableAddr,
        maintenance: &impl Maintenance,
        harvest: &mut impl FnMut(IpaRange, Leaf),
    ) -> Option<DeadTable> {
        for slot in slot.child(table).slots() {
            loop {
                let entry = Entry::load(slot);
                match entry.pte() {
                    Pte::Dead => {
                        assert!(slot.index() == 0, "a table is made dead from its first entry on");
                        return None;
                    }
                    Pte::Locked | Pte::Settling(_) => {
                        self.complete(maintenance);
                        slot.tables().memory().relax();
                    }
                    pte @ (Pte::Empty | Pte::Annotated(_) | Pte::Leaf(_)) => {
                        if entry.try_kill().is_ok() {
                            match pte {
                                // The walker may have marked another member.
                                Pte::Leaf(leaf) if leaf.is_contiguous() => {
                                    harvest(slot.range(), leaf.young().dirtied());
                                }
                                Pte::Leaf(leaf) => harvest(slot.range(), leaf),
                                _ => {}
                            }
                            break;
                        }
                    }
                    Pte::Table(table) => unreachable!("{table:?} in a last-level table"),
                }
            }
        }
        Some(DeadTable { table })
    }

    /// Invalidates what the batch holds, makes it what it is to be, and retires
    /// the tables. The batch can then be used again.
    #[inline]
    pub(crate) fn complete(&mut self, maintenance: &impl Maintenance) {
        if let Some(taken) = self.taken.take() {
            self.let_go(taken, maintenance);
        }
    }

    fn let_go(&self, taken: Taken, maintenance: &impl Maintenance) {
        maintenance.invalidate(taken.range, taken.stale);
        for index in taken.first..=taken.last {
            let slot = self.view.slot(index);
            let descriptor = slot.read();
            if pte::lock_owner(descriptor) == Some(slot.guard().cpu()) {
                bbm::release(slot, descriptor, self.becomes);
                if let Some(table) = pte::remembered_table(descriptor) {
                    slot.tables().retire(table, slot.guard());
                }
            }
        }
    }

    #[inline]
    fn took(&mut self, slot: Slot<'g, M>, range: IpaRange, stale: Stale) {
        let index = slot.index();
        self.taken = Some(match self.taken {
            None => Taken { first: index, last: index, stale, range },
            Some(taken) => Taken {
                first: taken.first.min(index),
                last: taken.last.max(index),
                stale: if taken.stale == stale { stale } else { Stale::Tables },
                range: taken.range.hull(range),
            },
        });
    }
}

impl<M: TableMemory> Drop for Batch<'_, M> {
    fn drop(&mut self) {
        assert!(self.taken.is_none(), "a batch was dropped with entries locked");
    }
}
