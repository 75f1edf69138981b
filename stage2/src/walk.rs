//! Reading a space: what is mapped where.
//!
//! A walk reads each entry once, decodes it, and decides. It takes no lock,
//! writes nothing, and may run beside any change: what it reports was true at
//! the moment it read the entry. An entry that another CPU is in the middle of
//! changing is waited for, so a mapping that is only being split never looks
//! absent.

use crate::addr::{Ipa, IpaRange, PhysAddr};
use crate::attr::Attributes;
use crate::bbm::Entry;
use crate::pte::{Leaf, Pte};
use crate::space::Space;
use crate::sync::relax;
use crate::table::TableMemory;
use crate::view::Slot;

/// A page or block, as found by a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The addresses it translates: one page or block.
    pub range: IpaRange,
    /// The memory that its first address translates to.
    pub output: PhysAddr,
    /// Memory type and permissions.
    pub attributes: Attributes,
    /// Whether its access flag is set.
    pub young: bool,
}

impl Mapping {
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
    pub fn lookup(&self, ipa: Ipa) -> Option<Mapping> {
        let entry = self.entry(ipa)?;
        match entry.pte() {
            Pte::Leaf(leaf) => Some(self.mapping(entry.range(), leaf)),
            _ => None,
        }
    }

    /// All pages and blocks that have an address in `range`, in ascending
    /// order. The first and the last may reach beyond it.
    ///
    /// Addresses beyond the width of the space are ignored. Unmapped stretches
    /// cost one read for each entry of the largest size, not for each page.
    pub fn leaves(&self, range: IpaRange) -> Leaves<'_, M> {
        let width = Ipa::new(1 << self.geometry().ipa_bits());
        Leaves { space: self, at: range.start(), end: range.end().min(width), here: None }
    }

    /// The last entry on the way to `ipa`: empty, an annotation or a leaf.
    /// `None` beyond the width of the space.
    ///
    /// This is where single-entry changes start, see [`crate::bbm`].
    pub fn entry(&self, ipa: Ipa) -> Option<Entry<'_, M>> {
        let inside = IpaRange::new(ipa, 1).is_some_and(|range| self.geometry().contains(range));
        inside.then(|| self.descend(self.root_slot(ipa), ipa))
    }

    /// Goes down from `slot`, which translates `ipa`, to the last entry.
    fn descend<'s>(&'s self, mut slot: Slot<'s, M>, ipa: Ipa) -> Entry<'s, M> {
        loop {
            let entry = Entry::load(slot);
            match entry.pte() {
                Pte::Table(table) => slot = slot.child(table).slot_for(ipa),
                Pte::Locked | Pte::Settling(_) => relax(),
                Pte::Dead => {
                    relax();
                    slot = self.root_slot(ipa);
                }
                Pte::Empty | Pte::Annotated(_) | Pte::Leaf(_) => return entry,
            }
        }
    }

    fn mapping(&self, range: IpaRange, leaf: Leaf) -> Mapping {
        Mapping { range, output: leaf.output(), attributes: leaf.attributes(), young: leaf.is_young() }
    }
}

/// Iterator over the pages and blocks of a range; see [`Space::leaves`].
pub struct Leaves<'s, M: TableMemory> {
    space: &'s Space<M>,
    at: Ipa,
    end: Ipa,
    /// The slot that translates `at`, when it is known without going through
    /// the root again.
    here: Option<Slot<'s, M>>,
}

impl<M: TableMemory> Iterator for Leaves<'_, M> {
    type Item = Mapping;

    fn next(&mut self) -> Option<Mapping> {
        while self.at < self.end {
            let slot = self.here.take().unwrap_or_else(|| self.space.root_slot(self.at));
            let entry = self.space.descend(slot, self.at);
            let range = entry.range();
            self.at = range.end();
            self.here = entry.slot().next();
            if let Pte::Leaf(leaf) = entry.pte() {
                return Some(self.space.mapping(range, leaf));
            }
        }
        None
    }
}
