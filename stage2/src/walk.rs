//! Going through a space: what is mapped where.
//!
//! A walk reads each entry once, decodes it, and decides. It takes no lock
//! and may run beside any change: what it reports was true at the moment it
//! read the entry. An entry that another CPU is in the middle of changing is
//! waited for, so a mapping that is only being split never looks absent.
//!
//! [`Walk`] is that, once, for all operations that go along a range. Those
//! that remove whole stretches go their own way, in [`crate::unmap`].

use crate::addr::{Ipa, IpaRange, PhysAddr};
use crate::attr::{Attributes, Dirty};
use crate::bbm::Entry;
use crate::cursor::Account;
use crate::epoch::Guard;
use crate::pte::{Leaf, Pte, TableAddr};
use crate::space::Space;
use crate::table::TableMemory;
use crate::view::Slot;

/// A page or block, as found by a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The addresses it translates: one page or block, or a contiguous set.
    pub range: IpaRange,
    /// The memory that its first address translates to.
    pub output: PhysAddr,
    /// Memory type and permissions.
    pub attributes: Attributes,
    /// Whether its access flag is set.
    pub young: bool,
    /// What is known of writes.
    pub dirty: Dirty,
}

impl Mapping {
    pub(crate) fn new(range: IpaRange, leaf: Leaf) -> Self {
        Self {
            range,
            output: leaf.output(),
            attributes: leaf.attributes(),
            young: leaf.is_young(),
            dirty: leaf.dirty(),
        }
    }

    /// What `ipa` translates to, if it is in this mapping.
    pub fn translate(&self, ipa: Ipa) -> Option<PhysAddr> {
        if !self.range.contains(ipa) {
            return None;
        }
        self.output.checked_add(ipa.offset_from(self.range.start())?)
    }
}

impl<M: TableMemory> Space<M> {
    /// The page or block that translates `ipa`, if one does.
    ///
    /// `ipa` may be any address a guest came up with; beyond the width of the
    /// space nothing is mapped.
    pub fn lookup(&self, guard: &Guard<'_>, ipa: Ipa) -> Option<Mapping> {
        let entry = self.entry(guard, ipa)?;
        match entry.pte() {
            Pte::Leaf(leaf) => Some(Mapping::new(entry.range(), leaf)),
            _ => None,
        }
    }

    /// All pages and blocks that have an address in `range`, in ascending
    /// order. The first and the last may reach beyond it.
    ///
    /// Addresses beyond the width of the space are ignored. Unmapped stretches
    /// cost one read for each entry of the largest size, not for each page.
    pub fn leaves<'g>(&'g self, guard: &'g Guard<'_>, range: IpaRange) -> Leaves<'g, M> {
        let width = Ipa::new(1 << self.geometry().ipa_bits());
        let inside = IpaRange::between(range.start(), range.end().min(width));
        Leaves { walk: inside.map(|range| Walk::new(self, guard, range)) }
    }

    /// The last entry on the way to `ipa`: empty, an annotation or a leaf.
    /// `None` beyond the width of the space.
    ///
    /// This is where single-entry changes start, see [`crate::bbm`].
    pub fn entry<'g>(&'g self, guard: &'g Guard<'_>, ipa: Ipa) -> Option<Entry<'g, M>> {
        let here = IpaRange::new(ipa, 1).filter(|&here| self.geometry().contains(here))?;
        Walk::new(self, guard, here).entry()
    }
}

/// A walk along a range, entry by entry.
pub(crate) struct Walk<'g, M: TableMemory> {
    space: &'g Space<M>,
    guard: &'g Guard<'g>,
    at: Ipa,
    end: Ipa,
    /// A slot that translates `at`, if `at` is not the end.
    slot: Slot<'g, M>,
}

impl<'g, M: TableMemory> Walk<'g, M> {
    /// From the first address of `range`, which is inside the space.
    pub(crate) fn new(space: &'g Space<M>, guard: &'g Guard<'_>, range: IpaRange) -> Self {
        let at = range.start();
        Self { space, guard, at, end: range.end(), slot: space.root_slot(guard, at) }
    }

    /// How far the walk came: all below this was passed.
    pub(crate) fn at(&self) -> Ipa {
        self.at
    }

    /// Whether the whole range was passed.
    pub(crate) fn is_done(&self) -> bool {
        self.at == self.end
    }

    /// The last entry on the way to the current address: empty, an annotation
    /// or a leaf. The same again, read anew, until [`Self::pass`].
    #[inline(always)]
    pub(crate) fn entry(&mut self) -> Option<Entry<'g, M>> {
        if self.is_done() {
            return None;
        }
        let mut slot = self.slot;
        loop {
            let entry = Entry::load(slot);
            match entry.pte() {
                Pte::Empty | Pte::Annotated(_) | Pte::Leaf(_) => {
                    self.slot = slot;
                    return Some(entry);
                }
                Pte::Table(table) => slot = slot.child(table).slot_for(self.at),
                Pte::Locked | Pte::Settling(_) => self.space.memory().relax(),
                Pte::Dead => {
                    self.space.memory().relax();
                    slot = self.space.root_slot(self.guard, self.at);
                }
            }
        }
    }

    /// As [`Self::entry`], if the step's budget allows for another one.
    #[inline]
    pub(crate) fn entry_within(&mut self, account: &mut Account) -> Option<Entry<'g, M>> {
        if account.is_spent() {
            return None;
        }
        account.spend(1);
        self.entry()
    }

    /// The slot that translates the current address, as deep as the walk came.
    #[inline]
    pub(crate) fn slot(&self) -> Slot<'g, M> {
        self.slot
    }

    /// Goes on in a table that the current slot leads to.
    #[inline]
    pub(crate) fn descend(&mut self, table: TableAddr) {
        self.slot = self.slot.child(table).slot_for(self.at);
    }

    /// Goes on behind the current entry.
    #[inline]
    pub(crate) fn pass(&mut self) {
        self.at = self.slot.range().end().min(self.end);
        if self.at < self.end {
            match self.slot.next() {
                Some(slot) => self.slot = slot,
                None => self.restart(),
            }
        }
    }

    /// Goes on at `ipa`, which is above the current address and the end of an
    /// entry of the same table.
    pub(crate) fn pass_to(&mut self, ipa: Ipa) {
        while self.at < ipa.min(self.end) {
            self.pass();
        }
    }

    /// Finds the current address again, from the root.
    fn restart(&mut self) {
        self.slot = self.space.root_slot(self.guard, self.at);
    }
}

/// Iterator over the pages and blocks of a range; see [`Space::leaves`].
pub struct Leaves<'g, M: TableMemory> {
    walk: Option<Walk<'g, M>>,
}

impl<M: TableMemory> Iterator for Leaves<'_, M> {
    type Item = Mapping;

    fn next(&mut self) -> Option<Mapping> {
        let walk = self.walk.as_mut()?;
        while let Some(entry) = walk.entry() {
            walk.pass();
            if let Pte::Leaf(leaf) = entry.pte() {
                return Some(Mapping::new(entry.range(), leaf));
            }
        }
        None
    }
}
