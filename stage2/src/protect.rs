//! Changing what a guest may do with memory that is mapped, and splitting
//! blocks so that a part of one can be changed.

use crate::addr::{Ipa, IpaRange, Level};
use crate::attr::{Dirty, Permissions};
use crate::bbm::Entry;
use crate::contiguous::{LockedSet, Set};
use crate::cursor::{Account, Budget, Cursor, Step};
use crate::epoch::Guard;
use crate::error::MapError;
use crate::maint::{Maintenance, Stale};
use crate::pte::{Leaf, Pte};
use crate::space::Space;
use crate::table::TableMemory;
use crate::view::Slot;
use crate::vtcr::Bbm;
use crate::walk::{Mapping, Walk};

impl<M: TableMemory> Space<M> {
    /// Allows exactly `permissions` in `range` from now on, splitting blocks
    /// that lie only partly inside. Addresses that are not mapped stay so.
    ///
    /// When this returns, no CPU acts on the old permissions any more. Before
    /// memory becomes executable, the caller has made its instruction caches
    /// coherent.
    ///
    /// # Errors
    ///
    /// See [`MapError`].
    pub fn protect(
        &self,
        guard: &Guard<'_>,
        range: IpaRange,
        permissions: Permissions,
        maintenance: &impl Maintenance,
    ) -> Result<(), MapError> {
        let mut cursor = Cursor::new(range);
        self.protect_step(guard, &mut cursor, permissions, Budget::UNLIMITED, maintenance).map(|_| ())
    }

    /// A step of [`Self::protect`].
    ///
    /// # Errors
    ///
    /// As [`Self::protect`]; what was done until then holds.
    pub fn protect_step(
        &self,
        guard: &Guard<'_>,
        cursor: &mut Cursor,
        permissions: Permissions,
        budget: Budget,
        maintenance: &impl Maintenance,
    ) -> Result<Step, MapError> {
        self.protect_step_with(guard, cursor, permissions, budget, maintenance, |_| {})
    }

    /// As [`Self::protect_step`]; and tells `harvest` of each page or block
    /// that was [dirty](crate::Dirty::Dirty) and may not be written to any
    /// more, as the leaf can't say so itself from then on.
    ///
    /// **Until the step returns, TLBs may still let writes pass**: the memory
    /// must not be copied before.
    ///
    /// # Errors
    ///
    /// As [`Self::protect_step`].
    pub fn protect_step_with(
        &self,
        guard: &Guard<'_>,
        cursor: &mut Cursor,
        permissions: Permissions,
        budget: Budget,
        maintenance: &impl Maintenance,
        mut harvest: impl FnMut(Mapping),
    ) -> Result<Step, MapError> {
        self.check_range(cursor.range())?;
        self.check_permissions(permissions)?;
        let Some(rest) = cursor.rest() else { return Ok(Step::Done) };
        self.split_edges(guard, rest, maintenance)?;
        let mut account = budget.open(self.geometry().granule());
        let (at, result) = self.rewrite(guard, rest, permissions, &mut account, maintenance, &mut harvest);
        // Also after an error: what was changed until then must hold.
        if let Some(changed) = IpaRange::between(rest.start(), at) {
            maintenance.invalidate(changed, Stale::AnyLeaves);
        }
        let step = cursor.reached(at);
        result.map(|()| step)
    }

    /// Rewrites the permissions of the leaves in `range`, and says how far it
    /// came.
    fn rewrite(
        &self,
        guard: &Guard<'_>,
        range: IpaRange,
        permissions: Permissions,
        account: &mut Account,
        maintenance: &impl Maintenance,
        harvest: &mut impl FnMut(Mapping),
    ) -> (Ipa, Result<(), MapError>) {
        let mut walk = Walk::new(self, guard, range);
        while let Some(entry) = walk.entry_within(account) {
            match entry.pte() {
                Pte::Leaf(_) if !range.covers(entry.range()) => {
                    if let Err(error) = self.split(entry, maintenance) {
                        return (walk.at(), Err(error));
                    }
                }
                Pte::Leaf(leaf) if leaf.is_contiguous() => {
                    if let Some(locked) = self.lock_set(entry.slot(), range, maintenance) {
                        let set = locked.set();
                        let leaf = locked.merged();
                        tell_if_lost(set.range(), leaf, leaf.with_permissions(permissions), harvest);
                        locked.protect(permissions);
                        account.spend(set.entries() - 1);
                        walk.pass_to(set.range().end());
                    }
                }
                Pte::Leaf(leaf) => {
                    let (range, after) = (entry.range(), leaf.with_permissions(permissions));
                    if entry.try_update(after).is_ok() {
                        tell_if_lost(range, leaf, after, harvest);
                        walk.pass();
                    }
                }
                _ => walk.pass(),
            }
        }
        (walk.at(), Ok(()))
    }

    /// Locks the contiguous set that `slot` is part of; or makes ordinary
    /// leaves of it, if only a part is inside `range`.
    fn lock_set<'g>(
        &self,
        slot: Slot<'g, M>,
        range: IpaRange,
        maintenance: &impl Maintenance,
    ) -> Option<LockedSet<'g, M>> {
        let Some(set) = Set::of(slot).filter(|set| range.covers(set.range())) else {
            self.unfold_at(slot, maintenance);
            return None;
        };
        let locked = set.lock_members(maintenance).ok();
        if locked.is_none() {
            self.memory().relax();
        }
        locked
    }

    /// Makes sure that no leaf and no annotation reaches across either end of
    /// `range`.
    ///
    /// Done before a range is changed, so that running out of tables is
    /// noticed while nothing has changed yet.
    pub(crate) fn split_edges(
        &self,
        guard: &Guard<'_>,
        range: IpaRange,
        maintenance: &impl Maintenance,
    ) -> Result<(), MapError> {
        // A range within one last-level table needs no look ahead: what has
        // to be split is split on the way down to the first change.
        let granule = self.geometry().granule();
        let table = |address: u64| address >> granule.shift(Level::L2);
        if table(range.start().bits()) == table(range.end().bits() - 1) {
            return Ok(());
        }
        for edge in [range.start(), range.end()] {
            // Nothing reaches across from one entry of the root to the next.
            if !edge.is_aligned(granule.span(self.geometry().start_level())) {
                self.split_at(guard, edge, maintenance)?;
            }
        }
        Ok(())
    }

    /// Makes sure that no leaf and no annotation reaches across `edge`.
    fn split_at(&self, guard: &Guard<'_>, edge: Ipa, maintenance: &impl Maintenance) -> Result<(), MapError> {
        while let Some(entry) = self.entry(guard, edge) {
            match entry.pte() {
                Pte::Leaf(_) | Pte::Annotated(_) if entry.range().start() < edge => {
                    self.split(entry, maintenance)?;
                }
                _ => break,
            }
        }
        Ok(())
    }

    /// Replaces a block by a table of smaller leaves that say the same, or an
    /// annotation by a table of annotations.
    ///
    /// Does nothing if the entry has changed since it was read, and only
    /// unfolds the set if it is part of one; the caller looks again in any case.
    ///
    /// With FEAT_BBM level 2 the table is stored over the block: no moment
    /// passes in which a guest would fault. But until the block is invalidated
    /// a TLB may hold it beside one of the table's leaves, and would go on
    /// using it after the leaf was changed. So the table is SETTLING until
    /// then, which makes everybody wait who wants to change something in it.
    pub(crate) fn split(&self, entry: Entry<'_, M>, maintenance: &impl Maintenance) -> Result<(), MapError> {
        if entry.level().next().is_none() {
            return Ok(());
        }
        if matches!(entry.pte(), Pte::Leaf(block) if block.is_contiguous()) {
            self.unfold_at(entry.slot(), maintenance);
            return Ok(());
        }
        // Everything that can fail or take time comes before the lock.
        let table = self.tables.allocate(entry.slot().guard()).ok_or(MapError::OutOfTables)?;
        match entry.pte() {
            Pte::Leaf(block) => {
                table.fill(|index| block.child(index).expect("there is a level below").encode());
                if self.features().bbm == Bbm::Level2 {
                    if let Ok(settling) = entry.try_settle(table) {
                        settling.settle(maintenance);
                    }
                    return Ok(());
                }
            }
            Pte::Annotated(annotation) => table.fill(|_| annotation.encode()),
            _ => return Ok(()),
        }
        if let Ok(locked) = entry.try_lock() {
            locked.break_with(maintenance).link(table, maintenance);
        }
        Ok(())
    }
}

/// Tells of a leaf that was dirty and can't say so any more.
fn tell_if_lost(range: IpaRange, before: Leaf, after: Leaf, harvest: &mut impl FnMut(Mapping)) {
    if before.dirty() == Dirty::Dirty && after.dirty() == Dirty::ReadOnly {
        harvest(Mapping::new(range, before));
    }
}
