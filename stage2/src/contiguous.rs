//! Contiguous sets: neighbouring leaves that a TLB may hold as one.
//!
//! Where a run of neighbouring entries maps one piece of memory with the same
//! attributes, the *Contiguous* bit in each of them allows a TLB to keep one
//! translation for all. How long a run is, where it starts and at which levels
//! there are any is fixed by the granule
//! ([`Granule::contiguous_entries`](crate::Granule::contiguous_entries)): with
//! 4 KiB pages, 16 pages or 16 blocks.
//!
//! # What has to hold
//!
//! A walker that reads one member may use what it says for all of them. So
//!
//! * all members are marked or none, and the mark changes by a break of the
//!   whole set: all members invalid, one invalidation, all members valid;
//! * marked members map consecutive memory, with the same attributes;
//! * access flag and dirty state may differ: the hardware sets them in whatever
//!   member it happens to read. Each then speaks for the whole set: the set is
//!   young, or dirty, if any member is.
//!
//! # The lock
//!
//! An operation that changes more than access flag and dirty state has to have
//! the whole set. It locks all members, in ascending order. If one of them is
//! not to be had, because another CPU holds it or it is no longer what it was,
//! those that were taken are put back, in reverse order, and the caller looks
//! again: nobody waits with LOCKED entries in hand. With all of them taken
//! nothing can fail any more. Then
//!
//! * a part of the set is to be changed: the set is *unfolded* first. All
//!   members are invalidated and become ordinary leaves, with the access flag
//!   and dirty state of the set;
//! * the whole set is to be unmapped or annotated: the members go to a batch
//!   together, and leave together;
//! * the whole set gets other permissions: the members are stored with those.
//!   The set stays, and no break is needed, as for a single leaf.
//!
//! [`Space::map`](crate::Space::map) makes sets where they fit, from entries
//! that are all empty, which takes the same lock and no invalidation.
//!
//! A table that goes as a whole needs none of this: its entries become DEAD one
//! by one, nothing is made there until all of it was invalidated, and if it
//! stays after all, all entries come back as they were.
//!
//! FEAT_BBM level 2 would allow the mark to change without a break. That is
//! not made use of.

use crate::addr::{Ipa, IpaRange, PhysAddr};
use crate::attr::Permissions;
use crate::bbm::{self, Entry, Raced};
use crate::collapse::CollapseError;
use crate::epoch::Guard;
use crate::maint::{Maintenance, Stale};
use crate::pte::{self, Descriptor, Leaf, Pte};
use crate::space::Space;
use crate::table::TableMemory;
use crate::view::{Slot, View};
use crate::vtcr::Contiguous;

/// The most entries a set can have: pages of 16 KiB.
const LARGEST: usize = 128;

impl<M: TableMemory> Space<M> {
    /// Marks the contiguous set that `ipa` lies in, if its leaves are fit for
    /// it, and returns the addresses that it maps.
    ///
    /// For leaves that became equal neighbours only after they were mapped;
    /// [`Self::map`] marks the others itself. The set is young if any of the
    /// leaves was, and dirty if any was.
    ///
    /// # Errors
    ///
    /// [`CollapseError`], with everything as it was, if the leaves say
    /// different things or the space has no such sets.
    pub fn fold(
        &self,
        guard: &Guard<'_>,
        ipa: Ipa,
        maintenance: &impl Maintenance,
    ) -> Result<IpaRange, CollapseError> {
        if self.features().contiguous == Contiguous::Never {
            return Err(CollapseError::NoSuchBlock);
        }
        loop {
            let entry = self.entry(guard, ipa).ok_or(CollapseError::OutsideSpace { ipa })?;
            match entry.pte() {
                Pte::Leaf(leaf) if !leaf.is_contiguous() => {}
                Pte::Leaf(_) => return Ok(Set::of(entry.slot()).map_or(entry.range(), Set::range)),
                Pte::Annotated(_) => return Err(CollapseError::Annotated { ipa }),
                _ => return Err(CollapseError::NotFull { ipa }),
            }
            let set = Set::of(entry.slot()).ok_or(CollapseError::NoSuchBlock)?;
            let Some(model) = set.survey()? else {
                self.memory().relax();
                continue;
            };
            if let Ok(locked) = set.lock(maintenance, |index, pte| {
                matches!(pte, Pte::Leaf(leaf) if set.is_member(model, index, leaf) && !leaf.is_contiguous())
            }) {
                locked.break_and_mark(maintenance, Leaf::with_contiguous);
                return Ok(set.range());
            }
            self.memory().relax();
        }
    }

    /// Makes ordinary leaves of the contiguous set that `ipa` lies in, if it
    /// lies in one: before a single entry is changed with the functions of
    /// [`crate::bbm`]. The operations of this crate do it themselves.
    pub fn unfold(&self, guard: &Guard<'_>, ipa: Ipa, maintenance: &impl Maintenance) {
        while let Some(entry) = self.entry(guard, ipa)
            && matches!(entry.pte(), Pte::Leaf(leaf) if leaf.is_contiguous())
        {
            self.unfold_at(entry.slot(), maintenance);
        }
    }

    /// Makes ordinary leaves of the contiguous set that `slot` is part of, so
    /// that one can be changed without the others. The caller looks again in
    /// any case.
    pub(crate) fn unfold_at(&self, slot: Slot<'_, M>, maintenance: &impl Maintenance) {
        match Set::of(slot).map(|set| set.lock_members(maintenance)) {
            Some(Ok(locked)) => locked.break_and_mark(maintenance, Leaf::without_contiguous),
            Some(Err(Raced)) => self.memory().relax(),
            None => unreachable!("a leaf is marked at a level that has no sets"),
        }
    }
}

/// The place of a contiguous set: entries of one table.
pub(crate) struct Set<'g, M: TableMemory> {
    view: View<'g, M>,
    first: usize,
    entries: usize,
}

impl<M: TableMemory> Clone for Set<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: TableMemory> Copy for Set<'_, M> {}

impl<'g, M: TableMemory> Set<'g, M> {
    /// The set that a leaf in this slot would be part of; `None` if its level
    /// has no sets.
    pub(crate) fn of(slot: Slot<'g, M>) -> Option<Self> {
        let entries = slot.granule().contiguous_entries(slot.level())?;
        Some(Self { view: slot.view(), first: slot.index() & !(entries - 1), entries })
    }

    /// The set of a leaf that was read from this slot and is marked.
    pub(crate) fn of_member(slot: Slot<'g, M>) -> Self {
        Self::of(slot).expect("a leaf is marked only where there are sets")
    }

    /// All the addresses that its entries translate.
    pub(crate) fn range(self) -> IpaRange {
        let first = self.slot(0);
        IpaRange::of_entry(first.ipa(), first.span() * self.entries as u64)
    }

    /// The slot behind it, if it is not the last of its table.
    pub(crate) fn next(self) -> Option<Slot<'g, M>> {
        self.slot(self.entries - 1).next()
    }

    /// How many entries it has.
    pub(crate) fn entries(self) -> usize {
        self.entries
    }

    /// The slots of its entries.
    pub(crate) fn slots(self) -> impl Iterator<Item = Slot<'g, M>> {
        (0..self.entries).map(move |index| self.slot(index))
    }

    fn slot(self, index: usize) -> Slot<'g, M> {
        self.view.slot(self.first + index)
    }

    /// Locks a set of marked leaves.
    pub(crate) fn lock_members(self, maintenance: &impl Maintenance) -> Result<LockedSet<'g, M>, Raced> {
        self.lock_members_if(maintenance, |_| true)
    }

    /// Locks a set of marked leaves, if each is acceptable.
    pub(crate) fn lock_members_if(
        self,
        maintenance: &impl Maintenance,
        accept: impl Fn(Leaf) -> bool,
    ) -> Result<LockedSet<'g, M>, Raced> {
        self.lock(
            maintenance,
            |_, pte| matches!(pte, Pte::Leaf(leaf) if leaf.is_contiguous() && accept(leaf)),
        )
    }

    /// Stores marked leaves that map the memory from that of `first` on, if
    /// all entries are empty. The caller publishes them.
    pub(crate) fn try_make(self, first: Leaf, maintenance: &impl Maintenance) -> Result<(), Raced> {
        let locked = self.lock(maintenance, |_, pte| pte == Pte::Empty)?;
        locked.store(|index, _| self.member(first, index).with_contiguous().encode());
        Ok(())
    }

    /// The leaf that has to be at `index` for a set that starts with `first`.
    fn member(self, first: Leaf, index: usize) -> Leaf {
        first.moved_to(first.output().plus(index as u64 * self.slot(0).span()))
    }

    fn is_member(self, first: Leaf, index: usize, leaf: Leaf) -> bool {
        leaf.says_the_same(self.member(first, index))
    }

    /// Whether memory from `output` on could be mapped by a set.
    pub(crate) fn is_aligned(self, output: PhysAddr) -> bool {
        output.is_aligned(self.range().size())
    }

    /// Looks whether the leaves could be a set, and returns the first; `None`
    /// if another CPU is changing one of them.
    fn survey(self) -> Result<Option<Leaf>, CollapseError> {
        let mut model = None;
        for index in 0..self.entries {
            let slot = self.slot(index);
            let ipa = slot.ipa();
            let leaf = match Entry::load(slot).pte() {
                Pte::Leaf(leaf) => leaf,
                Pte::Empty => return Err(CollapseError::NotFull { ipa }),
                Pte::Annotated(_) => return Err(CollapseError::Annotated { ipa }),
                Pte::Table(_) => return Err(CollapseError::SmallerLeaves { ipa }),
                Pte::Locked | Pte::Dead | Pte::Settling(_) => return Ok(None),
            };
            let first = *model.get_or_insert(leaf);
            if !self.is_aligned(first.output()) {
                return Err(CollapseError::Misaligned);
            } else if leaf.output() != self.member(first, index).output() {
                return Err(CollapseError::NotContiguous { ipa });
            } else if !self.is_member(first, index, leaf) {
                return Err(CollapseError::MixedAttributes { ipa });
            }
        }
        Ok(model)
    }

    /// Locks all entries, in ascending order, if each is acceptable.
    fn lock(
        self,
        maintenance: &impl Maintenance,
        accept: impl Fn(usize, Pte) -> bool,
    ) -> Result<LockedSet<'g, M>, Raced> {
        let mut locked = LockedSet { set: self, taken: 0, old: [Descriptor::EMPTY; LARGEST] };
        while locked.taken < self.entries {
            let entry = Entry::load(self.slot(locked.taken));
            if !accept(locked.taken, entry.pte()) {
                locked.restore(maintenance);
                return Err(Raced);
            }
            // If this fails, it may just be the walker that set a flag.
            if let Ok(lock) = entry.try_lock_member() {
                locked.old[locked.taken] = lock.into_set();
                locked.taken += 1;
            }
        }
        Ok(locked)
    }
}

/// A set all of whose entries this CPU has locked.
#[must_use = "a set stays locked until something is made of it"]
pub(crate) struct LockedSet<'g, M: TableMemory> {
    set: Set<'g, M>,
    /// How many entries are locked: all, but while they are being taken.
    taken: usize,
    /// What they were.
    old: [Descriptor; LARGEST],
}

impl<'g, M: TableMemory> LockedSet<'g, M> {
    /// The set.
    pub(crate) fn set(&self) -> Set<'g, M> {
        self.set
    }

    /// Stores the members with other permissions. They stay a set. The caller
    /// invalidates them.
    pub(crate) fn protect(self, permissions: Permissions) {
        let leaves = self.leaves();
        self.store(|index, _| leaves(index).with_permissions(permissions).encode());
    }

    /// Hands the members to a batch.
    pub(crate) fn into_batch(mut self) -> [Slot<'g, M>; 2] {
        self.taken = 0;
        [self.set.slot(0), self.set.slot(self.set.entries - 1)]
    }

    /// Waits until no TLB holds the members, and stores them with or without
    /// the mark, with the access flag and dirty state of the set.
    fn break_and_mark(self, maintenance: &impl Maintenance, mark: impl Fn(Leaf) -> Leaf) {
        let set = self.set;
        maintenance.invalidate(set.range(), Stale::Leaves(set.slot(0).level()));
        let all = self.merged();
        self.store(|index, _| mark(set.member(all, index)).encode());
        maintenance.publish();
    }

    /// The first member, with the access flag and dirty state of the set.
    pub(crate) fn merged(&self) -> Leaf {
        let leaves = self.leaves();
        (1..self.set.entries).fold(leaves(0), |all, index| all.merge_access_state(leaves(index)))
    }

    /// The members as leaves.
    fn leaves(&self) -> impl Fn(usize) -> Leaf + use<M> {
        let slot = self.set.slot(0);
        let (old, level, format) = (self.old, slot.level(), slot.format());
        move |index| match Pte::decode(old[index], level, format) {
            Pte::Leaf(leaf) => leaf,
            other => unreachable!("{other:?} in a set of leaves"),
        }
    }

    /// Puts back what was there, the last first, and tells the walkers.
    fn restore(self, maintenance: &impl Maintenance) {
        let valid = self.old.iter().any(|old| old.is_valid());
        self.store(|_, old| old);
        if valid {
            maintenance.publish();
        }
    }

    /// Makes each entry what `new` says about its index and what it was, the
    /// last first.
    fn store(mut self, new: impl Fn(usize, Descriptor) -> Descriptor) {
        while let Some(index) = self.taken.checked_sub(1) {
            let slot = self.set.slot(index);
            let locked = pte::locked(slot.guard().cpu(), None);
            bbm::release(slot, locked, new(index, self.old[index]));
            self.taken = index;
        }
    }
}

impl<M: TableMemory> Drop for LockedSet<'_, M> {
    fn drop(&mut self) {
        assert!(self.taken == 0, "the locked set at {} was dropped", self.set.range());
    }
}
