//! What a guest has written to since somebody last asked.
//!
//! Copying a guest while it runs, to another machine or to a file, takes many
//! rounds: copy everything, then what was written to meanwhile, and so on,
//! until little enough is left to stop the guest for. What was written to is
//! in the leaves, as [`Dirty`] state. A leaf that may be written to is dirty
//! until it is cleaned, and becomes dirty again by the next write: with
//! [`DirtyState::Hardware`](crate::DirtyState::Hardware) the walker sees to it,
//! otherwise the write faults and [`Space::relax`] does. Nothing here depends
//! on which.
//!
//! [`Space::collect_dirty_step`] does a round: it cleans what is dirty and says
//! what that was. There is no call to begin with. Before the first round
//! everything that may be written to is dirty, so the first round says what
//! there is to copy at all. [`Space::stop_logging_step`] ends it.
//!
//! # Clean, invalidate, copy
//!
//! The order is all that matters. While a TLB holds a translation that was made
//! from a dirty leaf, writes pass without a look at the table. So memory that is
//! copied between the cleaning and the invalidation may change afterwards, and
//! nobody would know. Here the order is in the types: what was cleaned in one
//! table is in a `Cleaned`, which can't say what it has; completing the
//! invalidation turns it into a `Collected`, which can.
//!
//! # As large as a leaf
//!
//! One bit per leaf means that a write to a block makes all of it dirty, which
//! is true but expensive: hence [`Detail::Pages`], with which a block that was
//! written to is split before it is cleaned. Blocks that were not stay whole. A
//! contiguous set is dirty if one of its members is; it is taken apart like a
//! block.
//!
//! # Who else must tell
//!
//! A leaf that is removed or may not be written to any more takes its dirty
//! state along. Whoever copies a guest while its memory is being unmapped or
//! protected uses [`Space::unmap_step_with`] and [`Space::protect_step_with`],
//! which tell.

use crate::addr::{Ipa, IpaRange};
use crate::attr::Dirty;
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
use crate::view::{Slot, View};

/// How finely writes are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// By leaf, however large.
    Leaves,
    /// By page: blocks that were written to are split.
    Pages,
}

impl<M: TableMemory> Space<M> {
    /// A round, or a step of it: cleans what is dirty in the cursor's range,
    /// and when no TLB lets writes to it pass unnoticed any more, tells `visit`
    /// of it in ascending order. What `visit` copies then is what the guest has
    /// written, or a later write makes the leaf dirty again.
    ///
    /// Leaves that reach beyond the range are dealt with as a whole. Entries
    /// that another CPU is changing are waited for. `visit` runs under the
    /// guard, with nothing locked.
    ///
    /// There is one invalidation for each table with something dirty in it,
    /// and one for each block that is split.
    ///
    /// # Errors
    ///
    /// [`MapError::OutsideSpace`] or [`MapError::RangeMisaligned`];
    /// [`MapError::OutOfTables`] if a block can't be split. `visit` has been
    /// told of all that was cleaned until then, and the cursor is behind it.
    pub fn collect_dirty_step(
        &self,
        guard: &Guard<'_>,
        cursor: &mut Cursor,
        detail: Detail,
        budget: Budget,
        maintenance: &impl Maintenance,
        mut visit: impl FnMut(IpaRange),
    ) -> Result<Step, MapError> {
        self.check_range(cursor.range())?;
        let Some(rest) = cursor.rest() else { return Ok(Step::Done) };
        let mut account = budget.open(self.geometry().granule());
        let mut scan = Scan::new(self, guard, rest);
        let mut round =
            Round { space: self, maintenance, detail, cleaned: Cleaned::default(), result: Ok(()) };
        while !scan.is_over(&account) && round.result.is_ok() {
            scan.run(&mut account, &mut round);
            round.cleaned.complete(maintenance).tell(&mut visit);
        }
        let step = cursor.reached(scan.at());
        round.result.map(|()| step)
    }

    /// Ends the logging of writes in the cursor's range, or does a step of it:
    /// everything that may be written to is dirty again, and writes cost no
    /// faults any more. What was dirty and not collected is not told.
    ///
    /// A CPU that still remembers a clean leaf may fault on it once more.
    ///
    /// # Errors
    ///
    /// [`MapError::OutsideSpace`] or [`MapError::RangeMisaligned`].
    pub fn stop_logging_step(
        &self,
        guard: &Guard<'_>,
        cursor: &mut Cursor,
        budget: Budget,
        maintenance: &impl Maintenance,
    ) -> Result<Step, MapError> {
        self.check_range(cursor.range())?;
        let Some(rest) = cursor.rest() else { return Ok(Step::Done) };
        let mut account = budget.open(self.geometry().granule());
        let mut scan = Scan::new(self, guard, rest);
        while !scan.is_over(&account) {
            scan.run(&mut account, &mut End);
        }
        maintenance.publish();
        Ok(cursor.reached(scan.at()))
    }
}

/// A step of a round.
struct Round<'g, M: TableMemory, T> {
    space: &'g Space<M>,
    maintenance: &'g T,
    detail: Detail,
    cleaned: Cleaned<'g, M>,
    result: Result<(), MapError>,
}

impl<'g, M: TableMemory + 'g, T: Maintenance> Look<'g, M> for Round<'g, M, T> {
    #[inline]
    fn glance(&mut self, slot: Slot<'g, M>, _: Ipa, seen: Descriptor) -> Seen {
        pass_unless(Dirty::Dirty, slot, seen)
    }

    fn visit(&mut self, entry: Entry<'g, M>) -> Next<'g, M> {
        let slot = entry.slot();
        match entry.pte() {
            Pte::Leaf(leaf) if leaf.is_contiguous() => self.clean_set(Set::of_member(slot)),
            Pte::Leaf(leaf) if leaf.dirty() != Dirty::Dirty => Next::Pass,
            Pte::Leaf(_) if self.detail == Detail::Pages && entry.level().next().is_some() => {
                self.result = self.space.split(entry, self.maintenance);
                Next::Again
            }
            Pte::Leaf(leaf) => match entry.try_update(leaf.cleaned()) {
                Ok(()) => {
                    self.cleaned.add(slot);
                    Next::Pass
                }
                Err(_) => Next::Again,
            },
            Pte::Locked | Pte::Settling(_) | Pte::Dead => Next::Again,
            Pte::Empty | Pte::Annotated(_) | Pte::Table(_) => Next::Pass,
        }
    }
}

impl<'g, M: TableMemory, T: Maintenance> Round<'g, M, T> {
    /// Cleans all members of a contiguous set. If one was dirty, all count as
    /// cleaned: the walker may have marked any for a write to any other.
    fn clean_set(&mut self, set: Set<'g, M>) -> Next<'g, M> {
        for member in set.slots() {
            let entry = Entry::load(member);
            let Pte::Leaf(leaf) = entry.pte() else { return Next::Again };
            if leaf.dirty() == Dirty::Dirty {
                if self.detail == Detail::Pages {
                    self.space.unfold_at(member, self.maintenance);
                    return Next::Again;
                }
                if entry.try_update(leaf.cleaned()).is_err() {
                    return Next::Again;
                }
                set.slots().for_each(|member| self.cleaned.add(member));
            }
        }
        Next::PassTo(set.next())
    }
}

/// Lets pass what is empty, and leaves that stand for themselves and are not
/// in this state.
#[inline]
fn pass_unless<M: TableMemory>(state: Dirty, slot: Slot<'_, M>, seen: Descriptor) -> Seen {
    match Leaf::at_a_glance(seen, slot.level(), slot.format()) {
        Some(leaf) if leaf.dirty() != state => Seen::Pass,
        None if seen == Descriptor::EMPTY => Seen::Pass,
        _ => Seen::Entry,
    }
}

/// The end of logging.
struct End;

impl<'g, M: TableMemory + 'g> Look<'g, M> for End {
    #[inline]
    fn glance(&mut self, slot: Slot<'g, M>, _: Ipa, seen: Descriptor) -> Seen {
        pass_unless(Dirty::Clean, slot, seen)
    }

    fn visit(&mut self, entry: Entry<'g, M>) -> Next<'g, M> {
        match entry.pte() {
            Pte::Leaf(leaf) if leaf.dirty() == Dirty::Clean => match entry.try_update(leaf.dirtied()) {
                Ok(()) => Next::Pass,
                Err(_) => Next::Again,
            },
            Pte::Locked | Pte::Settling(_) | Pte::Dead => Next::Again,
            Pte::Leaf(_) | Pte::Empty | Pte::Annotated(_) | Pte::Table(_) => Next::Pass,
        }
    }
}

/// The most entries a table has, with 64 KiB pages.
const MOST_ENTRIES: usize = 8192;

/// Leaves of one table that were cleaned, while TLBs may still let writes to
/// them pass.
///
/// Which ones is not to be had from here: see [`Self::complete`].
struct Cleaned<'g, M: TableMemory> {
    /// The table, if there is anything.
    view: Option<View<'g, M>>,
    /// One bit for each entry.
    entries: [u64; MOST_ENTRIES / 64],
}

impl<M: TableMemory> Default for Cleaned<'_, M> {
    fn default() -> Self {
        Self { view: None, entries: [0; MOST_ENTRIES / 64] }
    }
}

impl<'g, M: TableMemory> Cleaned<'g, M> {
    fn add(&mut self, slot: Slot<'g, M>) {
        self.view = Some(slot.view());
        self.entries[slot.index() / 64] |= 1 << (slot.index() % 64);
    }

    /// Waits until no TLB lets a write to them pass unnoticed.
    fn complete(&mut self, maintenance: &impl Maintenance) -> Collected<'_, 'g, M> {
        if let Some(range) = self.hull() {
            let level = self.view.expect("there is something").level();
            maintenance.invalidate(range, Stale::Leaves(level));
        }
        Collected { cleaned: self }
    }

    /// From the first to the last of them.
    fn hull(&self) -> Option<IpaRange> {
        let view = self.view?;
        let first = self.entries.iter().position(|&word| word != 0)?;
        let last = self.entries.iter().rposition(|&word| word != 0)?;
        let first = first * 64 + self.entries[first].trailing_zeros() as usize;
        let last = last * 64 + 63 - self.entries[last].leading_zeros() as usize;
        Some(view.slot(first).range().hull(view.slot(last).range()))
    }

    /// Takes the first run of neighbours out.
    fn take_run(&mut self) -> Option<IpaRange> {
        let (view, mut run) = (self.view?, None);
        let word = self.entries.iter().position(|&word| word != 0)?;
        for index in word * 64..view.entries().len() {
            let (word, bit) = (&mut self.entries[index / 64], 1 << (index % 64));
            if *word & bit != 0 {
                *word &= !bit;
                let range = view.slot(index).range();
                run = Some(run.map_or(range, |run: IpaRange| run.hull(range)));
            } else if run.is_some() {
                break;
            }
        }
        run
    }
}

/// What was cleaned and invalidated: from here on, the next write to it makes
/// it dirty again.
struct Collected<'c, 'g, M: TableMemory> {
    cleaned: &'c mut Cleaned<'g, M>,
}

impl<M: TableMemory> Collected<'_, '_, M> {
    /// Tells of it, neighbours together.
    fn tell(self, visit: &mut impl FnMut(IpaRange)) {
        while let Some(run) = self.cleaned.take_run() {
            visit(run);
        }
        self.cleaned.view = None;
    }
}
