//! A table together with its place in the tree, and the slots in it.
//!
//! A bare table does not know which addresses it translates; a [`View`] does.
//! A [`Slot`] is one entry of a view: it knows the addresses it stands for
//! and the level it is at. Both are plain references with a few numbers,
//! copied freely. What was *read* from a slot is an
//! [`Entry`](crate::bbm::Entry), which lives in [`crate::bbm`] together with
//! everything that may be done to it.

use crate::addr::{Ipa, IpaRange, Level};
use crate::format::Format;
use crate::geometry::Granule;
use crate::pte::{Descriptor, TableAddr};
use crate::table::{Store, Table, TableMemory, Tables};

/// A table at its place in the tree.
pub(crate) struct View<'s, M: TableMemory> {
    tables: &'s Tables<M>,
    table: &'s Table,
    format: Format,
    level: Level,
    /// The first address that the table translates.
    base: Ipa,
}

impl<M: TableMemory> Clone for View<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: TableMemory> Copy for View<'_, M> {}

impl<'s, M: TableMemory> View<'s, M> {
    /// `table`, which translates at `level` and from `base` on.
    pub(crate) fn new(
        tables: &'s Tables<M>,
        table: &'s Table,
        format: Format,
        level: Level,
        base: Ipa,
    ) -> Self {
        Self { tables, table, format, level, base }
    }

    pub(crate) fn level(self) -> Level {
        self.level
    }

    /// The slot that translates `ipa`, which is one the table translates.
    pub(crate) fn slot_for(self, ipa: Ipa) -> Slot<'s, M> {
        self.slot(self.format.granule().index(ipa, self.level))
    }

    /// The slot with this index.
    pub(crate) fn slot(self, index: usize) -> Slot<'s, M> {
        Slot { view: self, index: index & (self.format.granule().entries() - 1) }
    }

    /// All slots, from the first.
    pub(crate) fn slots(self) -> impl Iterator<Item = Slot<'s, M>> {
        (0..self.format.granule().entries()).map(move |index| self.slot(index))
    }
}

/// One entry of a table, as a place.
pub(crate) struct Slot<'s, M: TableMemory> {
    view: View<'s, M>,
    index: usize,
}

impl<M: TableMemory> Clone for Slot<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: TableMemory> Copy for Slot<'_, M> {}

impl<'s, M: TableMemory> Slot<'s, M> {
    pub(crate) fn level(self) -> Level {
        self.view.level
    }

    pub(crate) fn format(self) -> Format {
        self.view.format
    }

    pub(crate) fn granule(self) -> Granule {
        self.view.format.granule()
    }

    pub(crate) fn index(self) -> usize {
        self.index
    }

    /// The table that holds the entry.
    pub(crate) fn view(self) -> View<'s, M> {
        self.view
    }

    /// All the addresses that the table translates.
    pub(crate) fn table_range(self) -> IpaRange {
        IpaRange::of_entry(self.view.base, self.granule().table_span(self.view.level))
    }

    pub(crate) fn tables(self) -> &'s Tables<M> {
        self.view.tables
    }

    /// Bytes that the entry translates.
    pub(crate) fn span(self) -> u64 {
        self.granule().span(self.view.level)
    }

    /// The first address that the entry translates.
    pub(crate) fn ipa(self) -> Ipa {
        self.view.base.plus(self.index as u64 * self.span())
    }

    /// All the addresses that the entry translates.
    pub(crate) fn range(self) -> IpaRange {
        IpaRange::of_entry(self.ipa(), self.span())
    }

    /// The following slot of the same table, if this is not the last.
    pub(crate) fn next(self) -> Option<Self> {
        let index = self.index + 1;
        (index < self.granule().entries()).then_some(Self { index, ..self })
    }

    /// The table that a TABLE descriptor read from this slot leads to.
    pub(crate) fn child(self, table: TableAddr) -> View<'s, M> {
        self.child_view(self.view.tables.resolve(table))
    }

    /// `table`, seen as what this slot leads to.
    ///
    /// # Panics
    ///
    /// At level 3, where no TABLE descriptor can be decoded.
    pub(crate) fn child_view(self, table: &'s Table) -> View<'s, M> {
        let level = self.view.level.next().expect("TABLE descriptors end at level 2");
        View { table, level, base: self.ipa(), ..self.view }
    }

    /// Reads the entry, once.
    pub(crate) fn read(self) -> Descriptor {
        self.view.table.entry(self.index).load()
    }

    /// The crate's only way to write to a table that is part of a tree:
    /// replaces `old` by `new`, or returns what was there instead.
    pub(crate) fn exchange(self, old: Descriptor, new: Descriptor) -> Result<(), Descriptor> {
        self.view.table.entry(self.index).exchange(old, new)?;
        let store = Store { ipa: self.ipa(), level: self.level(), old, new };
        self.view.tables.memory().stored(store);
        Ok(())
    }
}
