//! Mapping memory, and changing what a guest may do with it.
//!
//! [`Space::map`] goes along the range from one end to the other and puts the
//! largest leaf that fits into each empty entry it comes to, linking tables
//! where the entry is too large. [`Space::protect`] goes the same way and
//! rewrites the permissions of the leaves it meets. Neither waits for anything
//! but an entry that another CPU is changing.

use crate::addr::{Ipa, IpaRange, PhysAddr};
use crate::attr::{Attributes, Permissions};
use crate::bbm::Entry;
use crate::error::MapError;
use crate::maint::Maintenance;
use crate::pte::{Leaf, Pte};
use crate::space::Space;
use crate::sync::relax;
use crate::table::TableMemory;
use crate::view::Slot;

impl<M: TableMemory> Space<M> {
    /// Maps `range` to the memory from `output` on.
    ///
    /// Uses the largest blocks that both addresses' alignment and the size of
    /// the range allow. The access flag is set. Caches are the caller's
    /// business: without [`Fwb::On`](crate::Fwb::On), the memory must have been
    /// cleaned to the point of coherency before a guest may see it.
    ///
    /// # Errors
    ///
    /// Refuses to map what is mapped already, if only in part, and undoes what
    /// it did until then; see [`MapError`] for the rest.
    pub fn map(
        &self,
        range: IpaRange,
        output: PhysAddr,
        attributes: Attributes,
        maintenance: &impl Maintenance,
    ) -> Result<(), MapError> {
        self.check_range(range)?;
        self.check_output(output, range.size())?;
        let (mapped_to, result) = self.fill(range, output, attributes);
        maintenance.publish();
        if result.is_err() {
            if let Some(mapped) = IpaRange::between(range.start(), mapped_to) {
                self.remove(mapped, maintenance)?;
            }
            self.prune(mapped_to, maintenance);
        }
        result
    }

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
        range: IpaRange,
        permissions: Permissions,
        maintenance: &impl Maintenance,
    ) -> Result<(), MapError> {
        self.check_range(range)?;
        self.split_edges(range, maintenance)?;
        let result = self.rewrite(range, permissions, maintenance);
        // Also after an error: what was changed until then must hold.
        maintenance.invalidate(range, crate::maint::Stale::AnyLeaves);
        result
    }

    /// Puts leaves into the empty entries of `range`. Also says how far it
    /// came: everything below that address was mapped by this call.
    fn fill(&self, range: IpaRange, output: PhysAddr, attributes: Attributes) -> (Ipa, Result<(), MapError>) {
        let format = self.format();
        let mut at = range.start();
        let mut output = output;
        let mut slot = self.root_slot(at);
        loop {
            let entry = Entry::load(slot);
            match entry.pte() {
                Pte::Empty if fits(slot, at, output, range.end()) => {
                    let leaf = Leaf::new(slot.level(), output, attributes, format);
                    if entry.try_update(leaf).is_err() {
                        continue;
                    }
                    at = at.plus(slot.span());
                    if at == range.end() {
                        return (at, Ok(()));
                    }
                    output = output.plus(slot.span());
                    slot = slot.next().unwrap_or_else(|| self.root_slot(at));
                }
                Pte::Empty => {
                    let Some(table) = self.tables.allocate() else {
                        return (at, Err(MapError::OutOfTables));
                    };
                    if let Ok(view) = entry.try_link(table) {
                        slot = view.slot_for(at);
                    }
                }
                Pte::Table(table) => slot = slot.child(table).slot_for(at),
                Pte::Leaf(_) => return (at, Err(MapError::AlreadyMapped { ipa: at })),
                Pte::Annotated(_) => return (at, Err(MapError::Annotated { ipa: at })),
                Pte::Locked | Pte::Settling(_) => relax(),
                Pte::Dead => {
                    relax();
                    slot = self.root_slot(at);
                }
            }
        }
    }

    /// Rewrites the permissions of all leaves in `range`.
    fn rewrite(
        &self,
        range: IpaRange,
        permissions: Permissions,
        maintenance: &impl Maintenance,
    ) -> Result<(), MapError> {
        let mut at = range.start();
        let mut slot = self.root_slot(at);
        while at < range.end() {
            let entry = Entry::load(slot);
            match entry.pte() {
                Pte::Leaf(_) if !range.covers(slot.range()) => {
                    self.split(entry, maintenance)?;
                    continue;
                }
                Pte::Leaf(leaf) => {
                    if entry.try_update(leaf.with_permissions(permissions)).is_err() {
                        continue;
                    }
                }
                Pte::Empty | Pte::Annotated(_) => {}
                Pte::Table(table) => {
                    slot = slot.child(table).slot_for(at);
                    continue;
                }
                Pte::Locked | Pte::Settling(_) => {
                    relax();
                    continue;
                }
                Pte::Dead => {
                    relax();
                    slot = self.root_slot(at);
                    continue;
                }
            }
            at = slot.range().end();
            if at < range.end() {
                slot = slot.next().unwrap_or_else(|| self.root_slot(at));
            }
        }
        Ok(())
    }

    /// Makes sure that no leaf reaches across either end of `range`.
    ///
    /// Done before a range is changed, so that running out of tables is
    /// noticed while nothing has changed yet.
    pub(crate) fn split_edges(
        &self,
        range: IpaRange,
        maintenance: &impl Maintenance,
    ) -> Result<(), MapError> {
        for edge in [range.start(), range.end()] {
            while let Some(entry) = self.entry(edge) {
                match entry.pte() {
                    Pte::Leaf(_) | Pte::Annotated(_) if entry.range().start() < edge => {
                        self.split(entry, maintenance)?;
                    }
                    _ => break,
                }
            }
        }
        Ok(())
    }

    /// Replaces a block by a table of smaller leaves that say the same.
    ///
    /// Does nothing if the entry has changed since it was read; the caller
    /// looks again in any case.
    pub(crate) fn split(&self, entry: Entry<'_, M>, maintenance: &impl Maintenance) -> Result<(), MapError> {
        if entry.level().next().is_none() {
            return Ok(());
        }
        // Everything that can fail or take time comes before the lock.
        let table = self.tables.allocate().ok_or(MapError::OutOfTables)?;
        for index in 0..self.geometry().granule().entries() {
            match entry.pte() {
                Pte::Leaf(block) => {
                    if let Some(child) = block.child(index) {
                        table.fill(index, child.encode());
                    }
                }
                Pte::Annotated(annotation) => table.fill(index, annotation.encode()),
                Pte::Empty | Pte::Locked | Pte::Dead | Pte::Table(_) | Pte::Settling(_) => return Ok(()),
            }
        }
        if let Ok(locked) = entry.try_lock() {
            locked.break_with(maintenance).link(table, maintenance);
        }
        Ok(())
    }
}

/// Whether a leaf in this slot can map `at` to `output` without reaching
/// beyond `end`.
fn fits<M: TableMemory>(slot: Slot<'_, M>, at: Ipa, output: PhysAddr, end: Ipa) -> bool {
    let span = slot.span();
    slot.format().allows_leaf(slot.level())
        && at.is_aligned(span)
        && output.is_aligned(span)
        && slot.range().end() <= end
}
