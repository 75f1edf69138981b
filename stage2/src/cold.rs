//! Memory that was not used for long: finding it, and taking it away.

use crate::addr::{Ipa, IpaRange};
use crate::age::Generation;
use crate::bbm::Entry;
use crate::contiguous::Set;
use crate::cursor::{Budget, Cursor, Step};
use crate::detach::Batch;
use crate::epoch::Guard;
use crate::error::MapError;
use crate::maint::Maintenance;
use crate::pte::{Descriptor, Leaf, Pte};
use crate::scan::{Look, Next, Scan, Seen};
use crate::space::Space;
use crate::table::TableMemory;
use crate::view::Slot;
use crate::walk::{Mapping, Walk};

impl<M: TableMemory> Space<M> {
    /// The pages and blocks in `range` that were old for at least as many
    /// [passes](Self::age_step) as `generation` says, and have not been used
    /// since, in ascending order: what [`Self::reclaim_step`] would take.
    ///
    /// A contiguous set is one of them, if all its members are cold. Waits for
    /// nobody; leaves out what other CPUs are changing, and what reaches beyond
    /// the range.
    pub fn cold<'g>(&'g self, guard: &'g Guard<'_>, range: IpaRange, generation: Generation) -> Cold<'g, M> {
        let width = Ipa::new(1 << self.geometry().ipa_bits());
        let inside = IpaRange::between(range.start(), range.end().min(width));
        Cold { walk: inside.map(|range| Walk::new(self, guard, range)), range, generation }
    }

    /// Takes away pages and blocks that are [cold](Self::cold), or does a step
    /// of it. Their entries are empty then, and the guest faults when it comes
    /// back to them.
    ///
    /// Each leaf is taken by an exchange of the very descriptor that was found
    /// to be cold, so what the guest used in the last moment is not taken, and
    /// of what is taken the dirty state is known exactly. `leaving` is told of
    /// each. **Until the step returns, TLBs may still hold it**: the memory
    /// must not be copied or used before. `leaving` is called while entries are
    /// locked; it must be short and must not use the space.
    ///
    /// There is one invalidation for each table that something was taken from.
    /// Tables that become empty stay, as the guest may come back.
    ///
    /// # Errors
    ///
    /// [`MapError::OutsideSpace`] or [`MapError::RangeMisaligned`].
    pub fn reclaim_step(
        &self,
        guard: &Guard<'_>,
        cursor: &mut Cursor,
        generation: Generation,
        budget: Budget,
        maintenance: &impl Maintenance,
        leaving: impl FnMut(Mapping),
    ) -> Result<Step, MapError> {
        self.check_range(cursor.range())?;
        let Some(rest) = cursor.rest() else { return Ok(Step::Done) };
        let mut account = budget.open(self.geometry().granule());
        let mut scan = Scan::new(self, guard, rest);
        let mut removal = Removal { range: rest, generation, batch: None, maintenance, leaving };
        while !scan.is_over(&account) {
            scan.run(&mut account, &mut removal);
            if let Some(mut batch) = removal.batch.take() {
                batch.complete(maintenance);
            }
        }
        Ok(cursor.reached(scan.at()))
    }
}

/// What takes cold leaves from one table.
struct Removal<'g, M: TableMemory, T, F> {
    range: IpaRange,
    generation: Generation,
    batch: Option<Batch<'g, M>>,
    maintenance: &'g T,
    leaving: F,
}

impl<'g, M: TableMemory + 'g, T: Maintenance, F: FnMut(Mapping)> Look<'g, M> for Removal<'g, M, T, F> {
    #[inline]
    fn glance(&mut self, slot: Slot<'g, M>, _: Ipa, seen: Descriptor) -> Seen {
        match Leaf::at_a_glance(seen, slot.level(), slot.format()) {
            Some(leaf) if !is_cold(leaf, self.generation) => Seen::Pass,
            _ => Seen::Entry,
        }
    }

    fn visit(&mut self, entry: Entry<'g, M>) -> Next<'g, M> {
        match entry.pte() {
            Pte::Leaf(leaf) if leaf.is_contiguous() => {
                let set = Set::of_member(entry.slot());
                // Looks first, as locking a set in use would hinder its users.
                if self.range.covers(set.range())
                    && cold_set(set, self.generation).is_some()
                    && let Ok(locked) =
                        set.lock_members_if(self.maintenance, |leaf| is_cold(leaf, self.generation))
                {
                    (self.leaving)(Mapping::new(set.range(), locked.merged()));
                    self.batch.get_or_insert_with(|| Batch::new(entry.slot())).take_set(locked);
                }
                Next::PassTo(set.next())
            }
            Pte::Leaf(leaf) if is_cold(leaf, self.generation) && self.range.covers(entry.range()) => {
                let mapping = Mapping::new(entry.range(), leaf);
                let batch = self.batch.get_or_insert_with(|| Batch::new(entry.slot()));
                if batch.take_leaf(entry).is_ok() {
                    (self.leaving)(mapping);
                }
                Next::Pass
            }
            Pte::Dead => Next::PassTo(None),
            _ => Next::Pass,
        }
    }
}

fn is_cold(leaf: Leaf, generation: Generation) -> bool {
    !leaf.is_young() && leaf.generation() >= generation
}

/// What a contiguous set maps, if all its members are cold.
fn cold_set<M: TableMemory>(set: Set<'_, M>, generation: Generation) -> Option<Mapping> {
    let mut all: Option<Leaf> = None;
    for slot in set.slots() {
        match Entry::load(slot).pte() {
            Pte::Leaf(leaf) if is_cold(leaf, generation) => {
                all = Some(all.map_or(leaf, |all| all.merge_access_state(leaf)));
            }
            _ => return None,
        }
    }
    all.map(|all| Mapping::new(set.range(), all))
}

/// Iterator over cold pages and blocks; see [`Space::cold`].
pub struct Cold<'g, M: TableMemory> {
    walk: Option<Walk<'g, M>>,
    range: IpaRange,
    generation: Generation,
}

impl<M: TableMemory> Iterator for Cold<'_, M> {
    type Item = Mapping;

    fn next(&mut self) -> Option<Mapping> {
        let walk = self.walk.as_mut()?;
        while !walk.is_done() {
            let entry = Entry::load(walk.slot());
            match entry.pte() {
                Pte::Table(table) => {
                    walk.descend(table);
                    continue;
                }
                Pte::Leaf(leaf) if leaf.is_contiguous() => {
                    let set = Set::of_member(walk.slot());
                    walk.pass_to(set.range().end());
                    if let Some(cold) = cold_set(set, self.generation)
                        && self.range.covers(cold.range)
                    {
                        return Some(cold);
                    }
                }
                Pte::Leaf(leaf) if is_cold(leaf, self.generation) && self.range.covers(entry.range()) => {
                    walk.pass();
                    return Some(Mapping::new(entry.range(), leaf));
                }
                _ => walk.pass(),
            }
        }
        None
    }
}
