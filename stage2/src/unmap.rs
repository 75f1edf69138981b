//! Unmapping: exactly the range, with one TLB invalidation for each stretch.
//! Annotating a range is the same with something else left behind, and so is
//! clearing annotations; see `annotate.rs`.
//!
//! The range is taken apart from the top. In each table, the leaves and the
//! last-level tables that lie wholly inside go together in one [`Batch`]; for
//! other tables the same is done one level down, and those that end up empty
//! leave with the batch of the table above. So the number of invalidations
//! depends on the number of tables of tables and not on the number of pages.

use crate::addr::{Ipa, IpaRange, Level};
use crate::bbm::Entry;
use crate::contiguous::Set;
use crate::cursor::{Account, Budget, Cursor, Step};
use crate::detach::{self, Batch};
use crate::epoch::Guard;
use crate::error::MapError;
use crate::maint::Maintenance;
use crate::pte::{Annotation, Leaf, Pte};
use crate::space::Space;
use crate::table::TableMemory;
use crate::view::Slot;
use crate::walk::Mapping;

/// What a range is taken apart for.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    /// Nothing is left.
    Unmap,
    /// An annotation is left, and nothing else.
    Annotate(Annotation),
    /// Mappings are left.
    ClearAnnotations,
}

/// How far the removal within one table came.
enum Progress {
    /// All of the range in this table is gone.
    Done,
    /// The same; but it was all in one table below, which is still in use, so
    /// this one is not empty either.
    InUse,
    /// The table itself is being removed; go on from here, from the root.
    Restart(Ipa),
    /// The budget is spent; this is what comes next.
    Spent(Ipa),
}

impl<M: TableMemory> Space<M> {
    /// Unmaps `range`, splitting blocks that lie only partly inside, and
    /// forgets annotations in it. Addresses that are not mapped stay so.
    ///
    /// When this returns, no CPU can reach the memory through `range` any
    /// more. Without [`Fwb::On`](crate::Fwb::On), its caches may still hold
    /// what the guest wrote; cleaning them is for whoever gets the memory next.
    ///
    /// Tables that became empty leave the tree and are used again when nobody
    /// can be looking at them any more.
    ///
    /// # Errors
    ///
    /// See [`MapError`].
    pub fn unmap(
        &self,
        guard: &Guard<'_>,
        range: IpaRange,
        maintenance: &impl Maintenance,
    ) -> Result<(), MapError> {
        self.unmap_step(guard, &mut Cursor::new(range), Budget::UNLIMITED, maintenance).map(|_| ())
    }

    /// A step of [`Self::unmap`].
    ///
    /// # Errors
    ///
    /// As [`Self::unmap`]; what was done until then holds.
    pub fn unmap_step(
        &self,
        guard: &Guard<'_>,
        cursor: &mut Cursor,
        budget: Budget,
        maintenance: &impl Maintenance,
    ) -> Result<Step, MapError> {
        self.take_apart_step(guard, cursor, Purpose::Unmap, budget, maintenance, |_, _| {})
    }

    /// As [`Self::unmap_step`]; and tells `harvest` of each page or block that
    /// goes, as it was in the very moment in which it went: whether it was
    /// used, and whether it was written to.
    ///
    /// **Until the step returns, TLBs may still hold it**: the memory must not
    /// be copied or used before. `harvest` is called while entries are locked;
    /// it must be short and must not use the space.
    ///
    /// # Errors
    ///
    /// As [`Self::unmap_step`].
    pub fn unmap_step_with(
        &self,
        guard: &Guard<'_>,
        cursor: &mut Cursor,
        budget: Budget,
        maintenance: &impl Maintenance,
        mut harvest: impl FnMut(Mapping),
    ) -> Result<Step, MapError> {
        let harvest = |range, leaf| harvest(Mapping::new(range, leaf));
        self.take_apart_step(guard, cursor, Purpose::Unmap, budget, maintenance, harvest)
    }

    /// A step of taking a range apart; `harvest` is told of each leaf that goes
    /// and its addresses.
    pub(crate) fn take_apart_step(
        &self,
        guard: &Guard<'_>,
        cursor: &mut Cursor,
        purpose: Purpose,
        budget: Budget,
        maintenance: &impl Maintenance,
        harvest: impl FnMut(IpaRange, Leaf),
    ) -> Result<Step, MapError> {
        self.check_range(cursor.range())?;
        let Some(rest) = cursor.rest() else { return Ok(Step::Done) };
        let account = budget.open(self.geometry().granule());
        let mut removal = Removal { space: self, purpose, maintenance, harvest, account, retired: 0 };
        if removal.kills() {
            self.split_edges(guard, rest, maintenance)?;
        }
        let at = removal.run(guard, rest);
        if removal.retired != 0 {
            // Twice as many as were added: so their number stays bounded.
            self.tables.collect(guard, 2 * removal.retired);
        }
        at.map(|at| cursor.reached(at))
    }

    /// Removes the empty tables on the way to `ipa`.
    pub(crate) fn prune(&self, guard: &Guard<'_>, ipa: Ipa, maintenance: &impl Maintenance) {
        let retired = prune_from(self.root_slot(guard, ipa), ipa, maintenance);
        self.tables.collect(guard, 2 * retired);
    }
}

/// Removes the empty tables on the way from `slot` to `ipa`, and says how many.
fn prune_from<M: TableMemory>(slot: Slot<'_, M>, ipa: Ipa, maintenance: &impl Maintenance) -> usize {
    let entry = Entry::load(slot);
    let Pte::Table(table) = entry.pte() else { return 0 };
    let view = slot.child(table);
    let below = prune_from(view.slot_for(ipa), ipa, maintenance);
    let Some(dead) = detach::bury(view, table) else { return below };
    let mut batch = Batch::new(slot);
    batch.take_empty_table(entry, dead);
    batch.complete(maintenance);
    below + 1
}

/// One step of taking a range apart.
struct Removal<'a, M: TableMemory, T, H> {
    space: &'a Space<M>,
    purpose: Purpose,
    maintenance: &'a T,
    /// Is told of the leaves.
    harvest: H,
    account: Account,
    /// How many tables left the tree.
    retired: usize,
}

impl<M: TableMemory, T: Maintenance, H: FnMut(IpaRange, Leaf)> Removal<'_, M, T, H> {
    /// Takes `range` apart from the first address on, and says how far it came.
    fn run(&mut self, guard: &Guard<'_>, range: IpaRange) -> Result<Ipa, MapError> {
        let mut rest = Some(range);
        while let Some(range) = rest {
            let slot = self.space.root_slot(guard, range.start());
            let next = match self.remove(slot, range)? {
                Progress::Done | Progress::InUse => slot.view().range().end(),
                Progress::Restart(ipa) => ipa,
                Progress::Spent(ipa) => return Ok(ipa),
            };
            rest = IpaRange::between(next, range.end());
        }
        Ok(range.end())
    }

    /// Whether mappings go, and with them the tables that hold them.
    fn kills(&self) -> bool {
        match self.purpose {
            Purpose::Unmap | Purpose::Annotate(_) => true,
            Purpose::ClearAnnotations => false,
        }
    }

    /// Takes apart as much of `range` as lies in the table of `first`, the slot
    /// of its first address.
    fn remove(&mut self, first: Slot<'_, M>, range: IpaRange) -> Result<Progress, MapError> {
        let maintenance = self.maintenance;
        let mut batch = match self.purpose {
            Purpose::Annotate(annotation) => Batch::new(first).annotating(annotation),
            Purpose::Unmap | Purpose::ClearAnnotations => Batch::new(first),
        };
        let mut next = Some(first);
        while let Some(slot) = next
            && slot.ipa() < range.end()
        {
            let here = range.start().max(slot.ipa());
            if self.account.is_spent() {
                batch.complete(maintenance);
                return Ok(Progress::Spent(here));
            }
            self.account.spend(1);
            let entry = Entry::load(slot);
            let whole = range.covers(slot.range());
            match entry.pte() {
                Pte::Empty if !matches!(self.purpose, Purpose::Annotate(_)) => next = slot.next(),
                Pte::Empty | Pte::Annotated(_) if whole => {
                    let done = match self.purpose {
                        Purpose::Annotate(annotation) => entry.try_annotate(annotation),
                        Purpose::Unmap | Purpose::ClearAnnotations => entry.try_clear(),
                    };
                    if done.is_ok() {
                        next = slot.next();
                    }
                }
                Pte::Empty => {
                    batch.complete(maintenance);
                    let table = self.space.tables.allocate(slot.guard()).ok_or(MapError::OutOfTables)?;
                    if entry.try_link(table).is_ok() {
                        maintenance.publish();
                    }
                }
                Pte::Leaf(_) if !self.kills() => next = slot.next(),
                Pte::Leaf(leaf) if leaf.is_contiguous() => {
                    next = self.remove_set(slot, range, &mut batch).map_or(next, Set::next);
                }
                Pte::Leaf(leaf) if whole => {
                    if batch.take_leaf(entry).is_ok() {
                        (self.harvest)(slot.range(), leaf);
                        next = slot.next();
                    }
                }
                Pte::Leaf(_) | Pte::Annotated(_) => {
                    batch.complete(maintenance);
                    self.space.split(entry, maintenance)?;
                }
                Pte::Table(table) if whole && self.kills() && slot.level() == Level::L2 => {
                    let entries = slot.granule().entries();
                    if !self.account.allows(entries) {
                        // Not the rest of this budget, but all of the next.
                        self.account.spend(entries);
                        continue;
                    }
                    self.account.spend(entries);
                    match batch.kill(slot, table, maintenance, &mut self.harvest) {
                        Some(dead) => {
                            batch.take_table(entry, dead);
                            self.retired += 1;
                            next = slot.next();
                        }
                        None => {
                            batch.complete(maintenance);
                            self.space.memory().relax();
                        }
                    }
                }
                Pte::Table(table) => {
                    batch.complete(maintenance);
                    let view = slot.child(table);
                    let buried = match self.remove(view.slot_for(here), range)? {
                        Progress::Done => detach::bury(view, table),
                        Progress::InUse => None,
                        unfinished => return Ok(unfinished),
                    };
                    match buried {
                        Some(dead) => {
                            batch.take_empty_table(entry, dead);
                            self.retired += 1;
                        }
                        None if slot.range().covers(range) => return Ok(Progress::InUse),
                        None => {}
                    }
                    next = slot.next();
                }
                Pte::Locked | Pte::Settling(_) => {
                    batch.complete(maintenance);
                    self.space.memory().relax();
                }
                Pte::Dead => {
                    batch.complete(maintenance);
                    self.space.memory().relax();
                    return Ok(Progress::Restart(here));
                }
            }
        }
        batch.complete(maintenance);
        Ok(Progress::Done)
    }

    /// Takes all of the contiguous set that `slot` is part of, and returns it;
    /// or makes ordinary leaves of it, if only a part is inside `range`.
    fn remove_set<'g>(
        &mut self,
        slot: Slot<'g, M>,
        range: IpaRange,
        batch: &mut Batch<'g, M>,
    ) -> Option<Set<'g, M>> {
        let Some(set) = Set::of(slot).filter(|set| range.covers(set.range())) else {
            batch.complete(self.maintenance);
            self.space.unfold_at(slot, self.maintenance);
            return None;
        };
        let Ok(locked) = set.lock_members(self.maintenance) else {
            batch.complete(self.maintenance);
            self.space.memory().relax();
            return None;
        };
        (self.harvest)(set.range(), locked.merged());
        batch.take_set(locked);
        self.account.spend(set.entries() - 1);
        Some(set)
    }
}
