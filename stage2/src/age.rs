//! How long memory has not been used: the access flag, and what becomes of it.
//!
//! Memory that a guest has not touched for long can be put to better use. What
//! is known about touching is one bit, the access flag: it is set on the first
//! use of a leaf, by the walker or by software that answers a fault
//! ([`Space::make_young`]). Nothing here cares which of the two. From time to
//! time a *pass* ([`Space::age_step`]) goes over a guest's memory, takes notice
//! of the flags, and clears them.
//!
//! # Generations
//!
//! One bit that one pass clears tells whether memory was used since the pass
//! before. To tell memory that is not used at all from memory that is used now
//! and then, each leaf counts the passes that have found it old, its
//! [`Generation`]. A leaf that was used starts again from zero. The count is in
//! two bits of the leaf that the hardware ignores, so it takes no memory, is
//! inherited when a block is split, and is changed by the very exchange that
//! clears the flag. It costs a store for every old leaf in a pass; but not for
//! ever, for a leaf that has reached the last generation stays as it is.
//!
//! [`Space::cold`] finds the leaves that were old for long enough, and
//! [`Space::reclaim_step`] takes them away.
//!
//! # Beside everything else
//!
//! A pass takes no lock and waits for nobody. It makes one exchange for each
//! leaf and does not repeat it: if the entry has changed since it was read,
//! someone is busy with it or the guest has just used it, and either means
//! young. LOCKED entries are [busy](Age::Busy), and of a table that is being
//! removed the rest is left out.
//!
//! A leaf is *one* answer, whatever its size: a block has one flag. So has a
//! contiguous set in effect, as the walker may set the flag of any member: the
//! set is young if one of them is, and a pass clears them all. What is reported
//! says which addresses it is about, and there is nothing to be miscounted.
//!
//! # What a TLB hides
//!
//! A translation that is in a TLB is used without a look at the table. After a
//! pass that invalidates nothing, memory that is in constant use may look old
//! for as long as its translation stays there. [`Tlb`] is the choice between
//! that error and the price of an invalidation. Two generations or more, and
//! the check that [`Space::reclaim_step`] makes in the end, keep the error from
//! doing harm: memory that is reclaimed in error costs a fault, and no data.
//!
//! Some memory must not be aged at all, because who uses it can't fault:
//! devices that do DMA through a shared table, and the hypervisor itself. That
//! is for the caller to leave out.

use crate::addr::{Ipa, IpaRange};
use crate::bbm::Entry;
use crate::contiguous::Set;
use crate::cursor::{Budget, Cursor, Step};
use crate::epoch::Guard;
use crate::error::MapError;
use crate::maint::{Maintenance, Stale};
use crate::pte::{Descriptor, Leaf, Pte};
use crate::scan::{Look, Next, Scan, Seen};
use crate::space::Space;
use crate::table::TableMemory;
use crate::view::Slot;

/// For how many passes in a row something was found old.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u8);

impl Generation {
    /// Used before the last pass, or since.
    pub const YOUNGEST: Self = Self(0);
    /// Not used for this many passes or more.
    pub const OLDEST: Self = Self(3);

    /// Not used for this many passes; `None` if nobody counts that far.
    #[inline]
    pub const fn new(passes: u8) -> Option<Self> {
        if passes <= Self::OLDEST.0 { Some(Self(passes)) } else { None }
    }

    /// How many passes that is.
    #[inline]
    pub const fn passes(self) -> u8 {
        self.0
    }

    /// One pass later.
    #[inline]
    pub(crate) const fn next(self) -> Self {
        if self.0 == Self::OLDEST.0 { self } else { Self(self.0 + 1) }
    }

    /// The younger of the two.
    #[inline]
    pub(crate) const fn younger(self, other: Self) -> Self {
        if self.0 < other.0 { self } else { other }
    }

    /// What the lowest two bits say.
    #[inline]
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits as u8 & Self::OLDEST.0)
    }
}

/// What a pass does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aging {
    /// It looks, and changes nothing.
    Test,
    /// It makes everything old, and what was old a generation older.
    Clear(Tlb),
}

/// What a pass does about translations that TLBs keep using.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tlb {
    /// Nothing: memory whose translation stays in a TLB looks unused.
    None,
    /// One invalidation at the end of each step, if the step has made anything
    /// old.
    Batch,
}

/// What a pass found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aged {
    /// The addresses it is about: a page, a block or a contiguous set.
    pub range: IpaRange,
    /// When they were used.
    pub age: Age,
}

/// When memory was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// Since the pass before, or just now.
    Young,
    /// Not since the pass before. The generation is that after this pass.
    Old(Generation),
    /// Another CPU is changing the mapping: it counts as young.
    Busy,
}

impl<M: TableMemory> Space<M> {
    /// A pass, or a step of it: goes over the leaves that have an address in
    /// the cursor's range, and tells `visit` of each. The first and the last
    /// may reach beyond the range.
    ///
    /// # Errors
    ///
    /// [`MapError::OutsideSpace`] or [`MapError::RangeMisaligned`].
    pub fn age_step(
        &self,
        guard: &Guard<'_>,
        cursor: &mut Cursor,
        aging: Aging,
        budget: Budget,
        maintenance: &impl Maintenance,
        visit: impl FnMut(Aged),
    ) -> Result<Step, MapError> {
        self.check_range(cursor.range())?;
        let Some(rest) = cursor.rest() else { return Ok(Step::Done) };
        let mut account = budget.open(self.geometry().granule());
        let mut scan = Scan::new(self, guard, rest);
        let mut pass = Pass { aging, cleared: None, visit };
        while !scan.is_over(&account) {
            scan.run(&mut account, &mut pass);
        }
        match (aging, pass.cleared) {
            (Aging::Test, _) => {}
            (Aging::Clear(_), Some(cleared)) => maintenance.invalidate(cleared, Stale::AnyLeaves),
            // Walkers that see the flags late would not set them again.
            (Aging::Clear(_), None) => maintenance.publish(),
        }
        Ok(cursor.reached(scan.at()))
    }
}

/// A step of a pass.
struct Pass<F> {
    aging: Aging,
    /// From where to where leaves were made old.
    cleared: Option<IpaRange>,
    visit: F,
}

impl<'g, M: TableMemory + 'g, F: FnMut(Aged)> Look<'g, M> for Pass<F> {
    #[inline]
    fn glance(&mut self, slot: Slot<'g, M>, ipa: Ipa, seen: Descriptor) -> Seen {
        let Some(leaf) = Leaf::at_a_glance(seen, slot.level(), slot.format()) else { return Seen::Entry };
        let range = IpaRange::of_entry(ipa, slot.span());
        let age = self.age(slot, range, leaf);
        (self.visit)(Aged { range, age });
        Seen::Pass
    }

    fn visit(&mut self, entry: Entry<'g, M>) -> Next<'g, M> {
        match entry.pte() {
            Pte::Leaf(leaf) if leaf.is_contiguous() => {
                let set = Set::of_member(entry.slot());
                let age = self.age_set(set);
                (self.visit)(Aged { range: set.range(), age });
                Next::PassTo(set.next())
            }
            Pte::Leaf(leaf) => {
                let age = self.age(entry.slot(), entry.range(), leaf);
                (self.visit)(Aged { range: entry.range(), age });
                Next::Pass
            }
            Pte::Locked | Pte::Settling(_) => {
                (self.visit)(Aged { range: entry.range(), age: Age::Busy });
                Next::Pass
            }
            Pte::Dead => Next::PassTo(None),
            Pte::Empty | Pte::Annotated(_) | Pte::Table(_) => Next::Pass,
        }
    }
}

impl<F> Pass<F> {
    /// What the pass does to one leaf, which was read from `slot`.
    #[inline]
    fn age<M: TableMemory>(&mut self, slot: Slot<'_, M>, range: IpaRange, leaf: Leaf) -> Age {
        let after = match self.aging {
            Aging::Test => leaf,
            Aging::Clear(_) => leaf.after_pass(),
        };
        // Only flag and count differ, so no break is needed.
        if after.encode() != leaf.encode() && slot.exchange(leaf.encode(), after.encode()).is_err() {
            return Age::Young;
        }
        if !leaf.is_young() {
            return Age::Old(after.generation());
        }
        if self.aging == Aging::Clear(Tlb::Batch) {
            self.cleared = Some(self.cleared.map_or(range, |cleared| cleared.hull(range)));
        }
        Age::Young
    }

    /// What the pass does to the members of a contiguous set.
    fn age_set<M: TableMemory>(&mut self, members: Set<'_, M>) -> Age {
        let mut set = Age::Old(Generation::OLDEST);
        for member in members.slots() {
            let entry = Entry::load(member);
            let age = match entry.pte() {
                Pte::Leaf(leaf) => self.age(member, member.range(), leaf),
                _ => Age::Busy,
            };
            set = match (set, age) {
                (Age::Old(one), Age::Old(other)) => Age::Old(one.younger(other)),
                (Age::Busy, _) | (_, Age::Busy) => Age::Busy,
                (Age::Young, _) | (_, Age::Young) => Age::Young,
            };
        }
        set
    }
}
