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
//! 3. [`kill`] does this to a whole subtree that is to go, whatever is in it.
//!    [`bury`] does it to an empty table only, and takes everything back if
//!    the table turns out not to be empty after all.
//!
//! # Many at once
//!
//! One TLB invalidation per entry would be slow, and making entries EMPTY with
//! the invalidation still owed would be wrong: another CPU could map something
//! there while a TLB holds the old entry. A [`Batch`] keeps all it takes
//! LOCKED, invalidates once, and only then makes them EMPTY. It works within
//! one table; a subtree that goes as a whole is one entry of it.
//!
//! # Who may wait for whom
//!
//! A CPU with a batch completes it before it waits for an entry of the same
//! or a higher table. It does wait, batch in hand, for entries *below* the one
//! it is about to take ([`kill`]). All waiting thus goes down the tree, or
//! upward in address within a table, and can't go in circles.

use crate::addr::{IpaRange, Level};
use crate::bbm::{self, Entry, Raced};
use crate::geometry::Granule;
use crate::maint::Maintenance;
use crate::pte::{self, Descriptor, Pte, TableAddr};
use crate::sync::relax;
use crate::table::TableMemory;
use crate::view::{Slot, View};

/// Proof that all entries of a table are DEAD, and by this CPU's doing.
#[must_use = "a dead table must be unlinked"]
pub(crate) struct DeadTable {
    table: TableAddr,
}

/// Makes the table that `slot` leads to, and everything below it, DEAD.
///
/// `None` if another CPU is removing it already.
pub(crate) fn kill<M: TableMemory>(slot: Slot<'_, M>, table: TableAddr) -> Option<DeadTable> {
    for entry in slot.child(table).slots() {
        kill_entry(entry)?;
    }
    Some(DeadTable { table })
}

/// Makes one entry DEAD, or returns `None` if another CPU did.
fn kill_entry<M: TableMemory>(slot: Slot<'_, M>) -> Option<()> {
    loop {
        let entry = Entry::load(slot);
        let killed = match entry.pte() {
            Pte::Dead => {
                assert!(slot.index() == 0, "a table is made dead from its first entry on");
                return None;
            }
            Pte::Empty | Pte::Annotated(_) | Pte::Leaf(_) => entry.try_kill(None),
            Pte::Table(child) => match kill(slot, child) {
                Some(DeadTable { table }) => entry.try_kill(Some(table)),
                None => Err(Raced),
            },
            Pte::Locked | Pte::Settling(_) => Err(Raced),
        };
        match killed {
            Ok(()) => return Some(()),
            Err(Raced) => relax(),
        }
    }
}

/// Makes the table that `slot` leads to DEAD if all its entries are EMPTY.
///
/// Of several CPUs that empty a table together, one succeeds: the last to
/// look finds it empty, unless it finds another at work here. That one, if it
/// has to give up, looks again.
pub(crate) fn bury<M: TableMemory>(slot: Slot<'_, M>, table: TableAddr) -> Option<DeadTable> {
    let view = slot.child(table);
    while view.slots().all(|slot| slot.read() == Descriptor::EMPTY) {
        let Some(taken) = view.slots().find(|&slot| try_kill_empty(slot).is_err()) else {
            return Some(DeadTable { table });
        };
        // Entry 0 last: it is the sign that the table is spoken for.
        for index in (0..taken.index()).rev() {
            Entry::load(view.slot(index)).revive();
        }
    }
    None
}

/// Makes one entry DEAD if it is EMPTY.
fn try_kill_empty<M: TableMemory>(slot: Slot<'_, M>) -> Result<(), Raced> {
    let entry = Entry::load(slot);
    if entry.pte() == Pte::Empty { entry.try_kill(None) } else { Err(Raced) }
}

/// What TLBs may still hold of the entries in a batch.
#[derive(Clone, Copy)]
enum Stale {
    Nothing,
    /// Exactly one leaf.
    Leaf(IpaRange, Level),
    /// Leaves and tables in this range.
    Range(IpaRange),
}

impl Stale {
    fn and_leaf(self, range: IpaRange, level: Level) -> Self {
        match self {
            Self::Nothing => Self::Leaf(range, level),
            Self::Leaf(..) | Self::Range(_) => self.and_range(range),
        }
    }

    fn and_range(self, range: IpaRange) -> Self {
        match self {
            Self::Nothing => Self::Range(range),
            Self::Leaf(other, _) | Self::Range(other) => Self::Range(other.hull(range)),
        }
    }
}

/// Entries of one table that are on their way to EMPTY.
#[must_use = "entries in a batch stay locked until it is completed"]
pub(crate) struct Batch<'s, M: TableMemory> {
    view: View<'s, M>,
    /// One bit for each entry: whether this batch holds it.
    taken: [u64; Granule::Kib4.entries().div_ceil(64)],
    stale: Stale,
}

impl<'s, M: TableMemory> Batch<'s, M> {
    /// An empty batch for entries of the table that holds `slot`.
    pub(crate) fn new(slot: Slot<'s, M>) -> Self {
        Self { view: slot.view(), taken: [0; _], stale: Stale::Nothing }
    }

    /// Takes a leaf.
    pub(crate) fn take_leaf(&mut self, entry: Entry<'s, M>) -> Result<(), Raced> {
        let slot = self.take(entry.try_lock()?);
        self.stale = self.stale.and_leaf(slot.range(), slot.level());
        Ok(())
    }

    /// Takes a table that was [killed](kill) with all that it mapped.
    pub(crate) fn take_subtree(&mut self, entry: Entry<'s, M>, dead: DeadTable) {
        let slot = self.take(entry.lock_dead_table(dead.table));
        self.stale = self.stale.and_range(slot.range());
    }

    /// Takes a table that was [buried](bury): the leaves it once had have been
    /// invalidated, or their entries would not be EMPTY, so one address is
    /// enough to make walk caches forget the table.
    pub(crate) fn take_empty_table(&mut self, entry: Entry<'s, M>, dead: DeadTable) {
        let slot = self.take(entry.lock_dead_table(dead.table));
        let page = IpaRange::of_entry(slot.ipa(), slot.granule().page_size());
        self.stale = self.stale.and_range(page);
    }

    /// Invalidates what the batch holds, makes it EMPTY, and retires the
    /// tables. The batch can then be used again.
    pub(crate) fn complete(&mut self, maintenance: &impl Maintenance) {
        match core::mem::replace(&mut self.stale, Stale::Nothing) {
            Stale::Nothing => return,
            Stale::Leaf(range, level) => maintenance.invalidate(range, crate::maint::Stale::Leaves(level)),
            Stale::Range(range) => maintenance.invalidate(range, crate::maint::Stale::Tables),
        }
        for (word, taken) in self.taken.iter_mut().enumerate() {
            let mut bits = core::mem::take(taken);
            while bits != 0 {
                let slot = self.view.slot(word * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
                let locked = slot.read();
                bbm::release(slot, locked, Descriptor::EMPTY);
                if let Some(table) = pte::remembered_table(locked) {
                    retire(slot, table);
                }
            }
        }
    }

    fn take(&mut self, locked: bbm::Locked<'s, M>) -> Slot<'s, M> {
        let slot = locked.into_batch();
        self.taken[slot.index() / 64] |= 1 << (slot.index() % 64);
        slot
    }
}

impl<M: TableMemory> Drop for Batch<'_, M> {
    fn drop(&mut self) {
        assert!(self.taken.iter().all(|&word| word == 0), "a batch was dropped with entries locked");
    }
}

/// Puts a dead table that `slot` led to, and the dead tables below it, on the
/// list of tables to be freed.
fn retire<M: TableMemory>(slot: Slot<'_, M>, table: TableAddr) {
    let view = slot.child(table);
    if view.level() != Level::L3 {
        for slot in view.slots() {
            if let Some(child) = pte::remembered_table(slot.read()) {
                retire(slot, child);
            }
        }
    }
    let tables = slot.tables();
    tables.retired().push(table, tables.resolve(table));
}
