//! Unmapping: exactly the range, with one TLB invalidation for each stretch.
//!
//! The range is taken apart from the top. In each table, the entries that lie
//! wholly inside go together in one [`Batch`], be they leaves or subtrees; at
//! most the two entries at the ends lie only partly inside, and there the same
//! is done one level down. So the number of invalidations depends on the depth
//! of the tree and not on the number of pages. Tables that end up empty leave
//! with the batch of the table above.

use crate::addr::{Ipa, IpaRange};
use crate::bbm::Entry;
use crate::detach::{self, Batch};
use crate::error::MapError;
use crate::maint::Maintenance;
use crate::pte::Pte;
use crate::space::Space;
use crate::sync::relax;
use crate::table::TableMemory;
use crate::view::Slot;

/// How far the removal within one table came.
enum Progress {
    /// All of the range in this table is gone.
    Done,
    /// The table itself is being removed; go on from here, from the root.
    Restart(Ipa),
}

impl<M: TableMemory> Space<M> {
    /// Unmaps `range`, splitting blocks that lie only partly inside, and
    /// forgets annotations in it. Addresses that are not mapped stay so.
    ///
    /// When this returns, no CPU can reach the memory through `range` any
    /// more. Without [`Fwb::On`](crate::Fwb::On), its caches may still hold
    /// what the guest wrote; cleaning them is for whoever gets the memory next.
    ///
    /// Tables that became empty leave the tree; [`Self::reclaim`] frees them.
    ///
    /// # Errors
    ///
    /// See [`MapError`].
    pub fn unmap(&self, range: IpaRange, maintenance: &impl Maintenance) -> Result<(), MapError> {
        self.check_range(range)?;
        self.split_edges(range, maintenance)?;
        self.remove(range, maintenance)
    }

    /// Unmaps `range`, which has been checked.
    pub(crate) fn remove(&self, range: IpaRange, maintenance: &impl Maintenance) -> Result<(), MapError> {
        let mut rest = Some(range);
        while let Some(range) = rest {
            let slot = self.root_slot(range.start());
            let next = match self.remove_from(slot, range, maintenance)? {
                Progress::Done => slot.table_range().end(),
                Progress::Restart(ipa) => ipa,
            };
            rest = IpaRange::between(next, range.end());
        }
        Ok(())
    }

    /// Unmaps as much of `range` as lies in the table of `first`, the slot of
    /// its first address.
    fn remove_from(
        &self,
        first: Slot<'_, M>,
        range: IpaRange,
        maintenance: &impl Maintenance,
    ) -> Result<Progress, MapError> {
        let mut batch = Batch::new(first);
        let mut next = Some(first);
        while let Some(slot) = next
            && slot.ipa() < range.end()
        {
            let entry = Entry::load(slot);
            let whole = range.covers(slot.range());
            match entry.pte() {
                Pte::Empty => next = slot.next(),
                Pte::Leaf(_) if whole => {
                    if batch.take_leaf(entry).is_ok() {
                        next = slot.next();
                    }
                }
                Pte::Annotated(_) if whole => {
                    if entry.try_clear().is_ok() {
                        next = slot.next();
                    }
                }
                Pte::Leaf(_) | Pte::Annotated(_) => {
                    batch.complete(maintenance);
                    self.split(entry, maintenance)?;
                }
                Pte::Table(table) if whole => match detach::kill(slot, table) {
                    Some(dead) => {
                        batch.take_subtree(entry, dead);
                        next = slot.next();
                    }
                    None => {
                        batch.complete(maintenance);
                        relax();
                    }
                },
                Pte::Table(table) => {
                    batch.complete(maintenance);
                    let start = range.start().max(slot.ipa());
                    let below = slot.child(table).slot_for(start);
                    if let Progress::Restart(ipa) = self.remove_from(below, range, maintenance)? {
                        return Ok(Progress::Restart(ipa));
                    }
                    if let Some(dead) = detach::bury(slot, table) {
                        batch.take_empty_table(entry, dead);
                    }
                    next = slot.next();
                }
                Pte::Locked | Pte::Settling(_) => {
                    batch.complete(maintenance);
                    relax();
                }
                Pte::Dead => {
                    batch.complete(maintenance);
                    relax();
                    return Ok(Progress::Restart(range.start().max(slot.ipa())));
                }
            }
        }
        batch.complete(maintenance);
        Ok(Progress::Done)
    }

    /// Removes the empty tables on the way to `ipa`.
    pub(crate) fn prune(&self, ipa: Ipa, maintenance: &impl Maintenance) {
        self.prune_from(self.root_slot(ipa), ipa, maintenance);
    }

    fn prune_from(&self, slot: Slot<'_, M>, ipa: Ipa, maintenance: &impl Maintenance) {
        let entry = Entry::load(slot);
        let Pte::Table(table) = entry.pte() else { return };
        self.prune_from(slot.child(table).slot_for(ipa), ipa, maintenance);
        if let Some(dead) = detach::bury(slot, table) {
            let mut batch = Batch::new(slot);
            batch.take_empty_table(entry, dead);
            batch.complete(maintenance);
        }
    }
}
