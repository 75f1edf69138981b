//! Going through a range by whole stretches of tables, for passes that look at
//! every entry: ageing, and collecting what was written to.
//!
//! A [`Walk`](crate::walk::Walk) hands out one entry at a time and waits for
//! those that other CPUs hold. A pass over millions of leaves wants to stay in
//! one table for as long as it can, and to decide for itself what to do about
//! an entry that is held. A [`Scan`] finds the table, calls back for each entry
//! in it, and comes up again only behind its last one. It takes no lock, and
//! what it says was true when it read the entry.

use crate::addr::{Ipa, IpaRange};
use crate::bbm::Entry;
use crate::cursor::Account;
use crate::epoch::Guard;
use crate::pte::{Descriptor, Pte};
use crate::space::Space;
use crate::table::TableMemory;
use crate::view::Slot;

/// How a scan goes on from an entry.
pub(crate) enum Next<'g, M: TableMemory> {
    /// Behind it.
    Pass,
    /// To another slot of the table, or behind the last.
    PassTo(Option<Slot<'g, M>>),
    /// With the same address again, from the root: the entry must be dealt
    /// with, and is being changed.
    Again,
}

/// What a glance at a descriptor says about its entry.
pub(crate) enum Seen {
    /// That was all.
    Pass,
    /// Look again, properly.
    Entry,
}

/// What is done with the entries of a scan.
pub(crate) trait Look<'g, M: TableMemory + 'g> {
    /// Deals with an entry by its descriptor alone, where that is enough.
    /// `ipa` is the first address that the slot translates.
    ///
    /// In a pass over millions of leaves nearly all the time is spent here.
    #[inline]
    fn glance(&mut self, slot: Slot<'g, M>, ipa: Ipa, seen: Descriptor) -> Seen {
        let _ = (slot, ipa, seen);
        Seen::Entry
    }

    /// Deals with an entry that is not a table.
    fn visit(&mut self, entry: Entry<'g, M>) -> Next<'g, M>;
}

/// A scan along a range.
pub(crate) struct Scan<'g, M: TableMemory> {
    space: &'g Space<M>,
    guard: &'g Guard<'g>,
    at: Ipa,
    end: Ipa,
}

impl<'g, M: TableMemory> Scan<'g, M> {
    /// From the first address of `range`, which is inside the space.
    pub(crate) fn new(space: &'g Space<M>, guard: &'g Guard<'_>, range: IpaRange) -> Self {
        Self { space, guard, at: range.start(), end: range.end() }
    }

    /// How far the scan came: all below this was passed. Beyond the end of the
    /// range, if the last leaf reaches there.
    pub(crate) fn at(&self) -> Ipa {
        self.at
    }

    /// Whether the range ends here, or the step's budget.
    pub(crate) fn is_over(&self, account: &Account) -> bool {
        self.at >= self.end || account.is_spent()
    }

    /// Goes through what comes next within one table: shows `look` each entry
    /// that is not a table, up to the first that is one, the end of the table,
    /// or the end of the scan.
    #[inline]
    pub(crate) fn run(&mut self, account: &mut Account, look: &mut impl Look<'g, M>) {
        let first = self.last_slot();
        let (view, span) = (first.view(), first.span());
        let stop = {
            let to_end = self.end.bits().saturating_sub(first.ipa().bits()).div_ceil(span);
            let in_table = view.entries().len() - first.index();
            first.index() + account.at_most(in_table.min(to_end as usize))
        };
        let mut index = first.index();
        while index < stop {
            // Most of the time is spent in this loop.
            let mut ipa = view.slot(index).ipa();
            for place in &view.entries()[index..stop] {
                match look.glance(view.slot(index), ipa, place.load()) {
                    Seen::Pass => {}
                    Seen::Entry => break,
                }
                index += 1;
                ipa = ipa.plus(span);
            }
            if index == stop {
                break;
            }
            let entry = Entry::load(view.slot(index));
            if matches!(entry.pte(), Pte::Table(_)) {
                break;
            }
            match look.visit(entry) {
                Next::Pass => index += 1,
                Next::PassTo(slot) => index = slot.map_or(view.entries().len(), Slot::index),
                Next::Again => {
                    self.space.memory().relax();
                    break;
                }
            }
        }
        account.spend(index - first.index());
        self.at = view.slot(index).ipa().max(self.at);
    }

    /// The slot of the last table on the way to where the scan is.
    #[inline]
    fn last_slot(&self) -> Slot<'g, M> {
        let mut slot = self.space.root_slot(self.guard, self.at);
        while let Pte::Table(table) = Entry::load(slot).pte() {
            slot = slot.child(table).slot_for(self.at);
        }
        slot
    }
}
