//! A table together with its place in the tree, and the slots in it.
//!
//! A bare table does not know which addresses it translates; a [`View`] does.
//! A [`Slot`] is one entry of a view: it knows the addresses it stands for
//! and the level it is at. Both are plain references with a few numbers,
//! copied freely, and live no longer than the guard under which they were
//! found. What was *read* from a slot is an [`Entry`](crate::bbm::Entry),
//! which lives in [`crate::bbm`] together with everything that may be done to
//! it.

use crate::addr::{Ipa, IpaRange, Level};
use crate::epoch::Guard;
use crate::format::Format;
use crate::geometry::Granule;
use crate::pte::{AtomicPte, Descriptor, TableAddr};
use crate::table::{Pinned, Store, TableMemory, Tables};

/// A table at its place in the tree.
pub(crate) struct View<'g, M: TableMemory> {
    pinned: Pinned<'g, M>,
    entries: &'g [AtomicPte],
    level: Level,
    /// Address bits below those that pick an entry.
    shift: u32,
    /// The first address that the table translates.
    base: Ipa,
}

impl<M: TableMemory> Clone for View<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: TableMemory> Copy for View<'_, M> {}

impl<'g, M: TableMemory> View<'g, M> {
    /// `table`, which translates at `level` and from `base` on.
    #[inline]
    pub(crate) fn new(pinned: Pinned<'g, M>, table: TableAddr, level: Level, base: Ipa) -> Self {
        let shift = pinned.tables().format().granule().shift(level);
        Self { pinned, entries: pinned.resolve(table), level, shift, base }
    }

    #[inline]
    pub(crate) fn granule(self) -> Granule {
        self.pinned.tables().format().granule()
    }

    /// The level of its entries.
    pub(crate) fn level(self) -> Level {
        self.level
    }

    /// All the addresses that the table translates.
    pub(crate) fn range(self) -> IpaRange {
        IpaRange::of_entry(self.base, (self.entries.len() as u64) << self.shift)
    }

    /// The entries themselves, for scans that only read.
    #[inline]
    pub(crate) fn entries(self) -> &'g [AtomicPte] {
        self.entries
    }

    /// The slot that translates `ipa`, which is one the table translates.
    #[inline]
    pub(crate) fn slot_for(self, ipa: Ipa) -> Slot<'g, M> {
        // The number of entries is a power of two.
        self.slot((ipa.bits() >> self.shift) as usize & (self.entries.len() - 1))
    }

    /// The slot with this index.
    #[inline]
    pub(crate) fn slot(self, index: usize) -> Slot<'g, M> {
        Slot { view: self, index }
    }

    /// All slots, from the first.
    pub(crate) fn slots(self) -> impl Iterator<Item = Slot<'g, M>> {
        (0..self.entries.len()).map(move |index| self.slot(index))
    }
}

/// One entry of a table, as a place.
pub(crate) struct Slot<'g, M: TableMemory> {
    view: View<'g, M>,
    index: usize,
}

impl<M: TableMemory> Clone for Slot<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: TableMemory> Copy for Slot<'_, M> {}

impl<'g, M: TableMemory> Slot<'g, M> {
    #[inline]
    pub(crate) fn level(self) -> Level {
        self.view.level
    }

    #[inline]
    pub(crate) fn format(self) -> Format {
        self.view.pinned.tables().format()
    }

    #[inline]
    pub(crate) fn granule(self) -> Granule {
        self.view.granule()
    }

    #[inline]
    pub(crate) fn index(self) -> usize {
        self.index
    }

    /// The table that holds the entry.
    #[inline]
    pub(crate) fn view(self) -> View<'g, M> {
        self.view
    }

    #[inline]
    pub(crate) fn tables(self) -> &'g Tables<M> {
        self.view.pinned.tables()
    }

    #[inline]
    pub(crate) fn guard(self) -> &'g Guard<'g> {
        self.view.pinned.guard()
    }

    /// Bytes that the entry translates.
    #[inline]
    pub(crate) fn span(self) -> u64 {
        1 << self.view.shift
    }

    /// The first address that the entry translates.
    #[inline]
    pub(crate) fn ipa(self) -> Ipa {
        self.view.base.plus((self.index as u64) << self.view.shift)
    }

    /// All the addresses that the entry translates.
    #[inline]
    pub(crate) fn range(self) -> IpaRange {
        IpaRange::of_entry(self.ipa(), self.span())
    }

    /// The following slot of the same table, if this is not the last.
    #[inline]
    pub(crate) fn next(self) -> Option<Self> {
        let index = self.index + 1;
        (index < self.view.entries.len()).then_some(Self { index, ..self })
    }

    /// The table that a TABLE descriptor read from this slot leads to.
    ///
    /// # Panics
    ///
    /// At level 3, where no TABLE descriptor can be decoded.
    #[inline]
    pub(crate) fn child(self, table: TableAddr) -> View<'g, M> {
        let (pinned, shift) = (self.view.pinned, self.view.shift - self.granule().bits_per_level());
        let level = self.view.level.next().expect("TABLE descriptors end at level 2");
        View { pinned, entries: pinned.resolve(table), level, shift, base: self.ipa() }
    }

    /// Reads the entry, once.
    #[inline]
    pub(crate) fn read(self) -> Descriptor {
        self.place().load()
    }

    /// The crate's way to write to a table that is part of a tree: replaces
    /// `old` by `new`, or returns what was there instead.
    #[inline]
    pub(crate) fn exchange(self, old: Descriptor, new: Descriptor) -> Result<(), Descriptor> {
        self.tables().memory().storing();
        self.place().exchange(old, new)?;
        let store = Store { ipa: self.ipa(), level: self.level(), old, new };
        self.tables().memory().stored(store);
        Ok(())
    }

    /// The same where nobody competes: `old` is a lock that this CPU holds, or
    /// an entry that it made DEAD. The walker leaves it alone, as it is not
    /// valid, so a store does, which takes a fraction of the time.
    ///
    /// # Panics
    ///
    /// If something else is there.
    #[inline]
    pub(crate) fn replace(self, old: Descriptor, new: Descriptor) {
        assert!(self.read() == old && !old.is_valid(), "an entry is changed by its owner only");
        self.tables().memory().storing();
        self.place().replace(new);
        let store = Store { ipa: self.ipa(), level: self.level(), old, new };
        self.tables().memory().stored(store);
    }

    #[inline]
    fn place(self) -> &'g AtomicPte {
        // Indexes come from `index`, `next` and `slots`, all within a table.
        &self.view.entries[self.index]
    }
}
