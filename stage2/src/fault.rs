//! What a fault of a vCPU changes: one entry, without waiting for anyone.
//!
//! A guest that touches memory faults if nothing is mapped there
//! ([`Space::install`]), if the access flag is clear and the hardware does not
//! set it ([`Space::make_young`]), or if the access is not allowed
//! ([`Space::relax`]).
//!
//! A vCPU that faulted can always be sent back to try again, and that is the
//! best thing to do when another CPU is changing the same entry: by the time
//! the guest gets there, the entry may be what it needs, and if not, it faults
//! once more. So **nothing here waits for a LOCKED entry**, and an exchange
//! that was lost is not tried again; both are a `Retry`. Spurious faults are
//! part of it, and each of the three operations may find its work done.
//!
//! # Two faults on one block
//!
//! Two vCPUs may fault on the same empty 2 MiB, and one comes with a block, the
//! other with a page. Whoever comes first decides:
//!
//! * A page that finds the block is [already mapped](Installed::AlreadyMapped).
//! * A block that finds the table of the page is installed *in part*: as the
//!   page that its vCPU asked for.
//!
//! Either way both vCPUs get on, and neither undoes what the other did.
//!
//! # No invalidation for all
//!
//! TLBs hold neither invalid descriptors nor those with a clear access flag,
//! so the first two operations cost no invalidation at all. A permission that
//! was granted may be missing in a TLB, but only this CPU's is known to have
//! used it: the others find out by a spurious fault of their own.

use core::fmt;

use crate::addr::{Ipa, IpaRange};
use crate::attr::Permissions;
use crate::bbm::Entry;
use crate::contiguous::Set;
use crate::epoch::Guard;
use crate::maint::{Maintenance, Stale};
use crate::pte::{Annotation, Leaf, Pte};
use crate::space::Space;
use crate::sync::{Ordering, fence};
use crate::table::TableMemory;
use crate::view::Slot;
use crate::walk::Mapping;

/// What became of a leaf that was to be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the guest may still have nothing mapped there"]
pub enum Installed<E> {
    /// It is in its place; this is the page or block that was mapped. It is
    /// smaller than the leaf if a table was there already.
    Done(Mapping),
    /// Another leaf is mapped there. The caller decides whether it allows what
    /// the guest tried.
    AlreadyMapped(Mapping),
    /// An annotation stands there, and not the one that was to be replaced.
    Annotated(Annotation),
    /// Another CPU was faster, or is changing the entry: enter the guest, which
    /// faults again if need be.
    Retry,
    /// The last check failed, and the entry is as it was.
    Refused(E),
}

/// Why nothing could be installed at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstallError {
    /// The address lies beyond the width of the space.
    OutsideSpace {
        /// The address asked for.
        ipa: Ipa,
    },
    /// There is no memory for a table that is needed on the way.
    OutOfTables {
        /// How many tables have left the tree and are not free yet. If there
        /// are any, it helps to drop the guard and try again a little later.
        retired: usize,
    },
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutsideSpace { ipa } => write!(f, "{ipa} is outside the guest's address space"),
            Self::OutOfTables { retired } => {
                write!(f, "no memory left for translation tables, with {retired} waiting to be free")
            }
        }
    }
}

impl core::error::Error for InstallError {}

/// What became of a fault on something that may be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the guest may have to be told that it has no such memory"]
pub enum Resolved {
    /// The guest can go on.
    Done,
    /// Another CPU was faster, or is changing the entry: enter the guest, which
    /// faults again if need be.
    Retry,
    /// Nothing is mapped there.
    NotMapped,
}

impl<M: TableMemory> Space<M> {
    /// Maps `leaf` where `ipa` is: over nothing, or over exactly the annotation
    /// `over`. Makes the tables on the way, and splits an annotation that
    /// stands for more than the leaf maps.
    ///
    /// The leaf, made by [`Self::leaf`], is for the whole entry of its level,
    /// of which `ipa` is one address. If a table stands there already, the part
    /// of the leaf is installed that the smaller entry for `ipa` covers.
    ///
    /// `validate` is asked at the last moment whether the memory may still be
    /// mapped here. The entry is held then, so whoever takes the memory away
    /// *afterwards*, and comes to unmap it, waits for the leaf and finds it. A
    /// full barrier lies between taking the entry and the question: whoever
    /// announces, passes a full barrier and then unmaps can't be missed by both
    /// sides. `validate` must be short and must not panic.
    ///
    /// Tables that were made stay if nothing is installed in the end. Unmapping
    /// a range frees those that are empty.
    ///
    /// # Errors
    ///
    /// See [`InstallError`].
    ///
    /// # Panics
    ///
    /// If the leaf was made for a space of another format, or is marked as
    /// contiguous.
    pub fn install<E>(
        &self,
        guard: &Guard<'_>,
        ipa: Ipa,
        leaf: Leaf,
        over: Option<Annotation>,
        validate: impl FnOnce() -> Result<(), E>,
        maintenance: &impl Maintenance,
    ) -> Result<Installed<E>, InstallError> {
        assert!(leaf.format() == self.format() && !leaf.is_contiguous(), "{leaf:?} can't be installed here");
        let mut slot = self.slot_of(guard, ipa).ok_or(InstallError::OutsideSpace { ipa })?;
        let out_of_tables = || InstallError::OutOfTables { retired: self.retired() };
        loop {
            let entry = Entry::load(slot);
            let found = entry.pte();
            let part = part_for(leaf, slot, ipa);
            match found {
                Pte::Table(table) => slot = slot.child(table).slot_for(ipa),
                Pte::Leaf(there) => return Ok(Installed::AlreadyMapped(Mapping::new(entry.range(), there))),
                Pte::Locked | Pte::Settling(_) | Pte::Dead => return Ok(Installed::Retry),
                Pte::Empty if over.is_some() => return Ok(Installed::Retry),
                Pte::Annotated(there) if over != Some(there) => return Ok(Installed::Annotated(there)),
                Pte::Empty | Pte::Annotated(_) => match part {
                    Some(part) => return Ok(put(entry, part, validate, maintenance)),
                    None if found == Pte::Empty => {
                        // Whoever is faster has linked a table as well, and
                        // the next reading finds it.
                        let table = self.tables.allocate(guard).ok_or_else(out_of_tables)?;
                        if entry.try_link(table).is_ok() {
                            maintenance.publish();
                        }
                    }
                    None => self.split(entry, maintenance).map_err(|_| out_of_tables())?,
                },
            }
        }
    }

    /// Answers an access flag fault at `ipa`: sets the flag, in all members if
    /// the leaf is part of a contiguous set.
    pub fn make_young(&self, guard: &Guard<'_>, ipa: Ipa, maintenance: &impl Maintenance) -> Resolved {
        let Some(entry) = self.last_entry(guard, ipa) else { return Resolved::NotMapped };
        let leaf = match leaf_of(&entry) {
            Ok(leaf) => leaf,
            Err(resolved) => return resolved,
        };
        let resolved = change(entry, leaf, Leaf::young);
        maintenance.publish();
        resolved
    }

    /// Answers a permission fault at `ipa`: allows `permissions` as well, and
    /// takes none away. A write to a [clean](crate::Dirty::Clean) leaf makes it
    /// dirty, and with it the contiguous set that it may be part of. Access flag
    /// and software bits stay as they are.
    ///
    /// Whether the guest *may* have the permissions is for the caller to know.
    /// Before memory becomes executable, the caller has made its instruction
    /// caches coherent.
    ///
    /// In the end this CPU has forgotten the page or block, even if another one
    /// was faster: that one has invalidated only its own TLB.
    ///
    /// A leaf can't have other permissions than the rest of its contiguous set:
    /// such a set is taken apart, with an invalidation on all CPUs, and the guest
    /// faults again.
    ///
    /// # Panics
    ///
    /// If the space can't express the permissions, see
    /// [`Format::allows`](crate::Format::allows).
    pub fn relax(
        &self,
        guard: &Guard<'_>,
        ipa: Ipa,
        permissions: Permissions,
        maintenance: &impl Maintenance,
    ) -> Resolved {
        let Some(entry) = self.last_entry(guard, ipa) else { return Resolved::NotMapped };
        let leaf = match leaf_of(&entry) {
            Ok(leaf) => leaf,
            Err(resolved) => return resolved,
        };
        let slot = entry.slot();
        let range = if leaf.is_contiguous() { Set::of_member(slot).range() } else { slot.range() };
        let allowed = leaf.attributes().permissions;
        let wanted = allowed.union(permissions);
        if leaf.is_contiguous() && wanted != allowed {
            self.unfold_at(slot, maintenance);
            return Resolved::Retry;
        }
        let resolved = change(entry, leaf, |leaf| {
            let relaxed = leaf.with_permissions(wanted);
            if permissions.access.allows_writing() { relaxed.dirtied() } else { relaxed }
        });
        maintenance.publish();
        // What this CPU holds is an earlier state of the leaf that was read:
        // had its level been another one, all CPUs would have forgotten it.
        maintenance.invalidate_local(range, Stale::Leaves(slot.level()));
        resolved
    }

    /// The last entry on the way to `ipa`, whatever state it is in; `None`
    /// beyond the width of the space.
    fn last_entry<'g>(&'g self, guard: &'g Guard<'_>, ipa: Ipa) -> Option<Entry<'g, M>> {
        let mut slot = self.slot_of(guard, ipa)?;
        loop {
            let entry = Entry::load(slot);
            let Pte::Table(table) = entry.pte() else { return Some(entry) };
            slot = slot.child(table).slot_for(ipa);
        }
    }

    /// The slot of the root for an address that a guest may have made up.
    fn slot_of<'g>(&'g self, guard: &'g Guard<'_>, ipa: Ipa) -> Option<Slot<'g, M>> {
        let here = IpaRange::new(ipa, 1)?;
        self.geometry().contains(here).then(|| self.root_slot(guard, ipa))
    }
}

/// The part of `leaf` that belongs into `slot`, which translates `ipa`; `None`
/// if the leaf is too small for it.
fn part_for<M: TableMemory>(leaf: Leaf, slot: Slot<'_, M>, ipa: Ipa) -> Option<Leaf> {
    let mut part = leaf;
    while part.level().number() < slot.level().number() {
        let next = part.level().next()?;
        part = part.child(slot.granule().index(ipa, next))?;
    }
    (part.level() == slot.level()).then_some(part)
}

/// Takes the entry, asks whether its leaf may be made, and makes it or gives
/// the entry back.
fn put<M: TableMemory, E>(
    entry: Entry<'_, M>,
    leaf: Leaf,
    validate: impl FnOnce() -> Result<(), E>,
    maintenance: &impl Maintenance,
) -> Installed<E> {
    let range = entry.range();
    let Ok(locked) = entry.try_lock() else { return Installed::Retry };
    // The other side announces a change, passes such a fence, and then looks
    // for leaves to remove: so it finds the lock, or `validate` the change.
    fence(Ordering::SeqCst);
    match validate() {
        Ok(()) => {
            // Nothing was valid here, so this invalidates nothing.
            locked.break_with(maintenance).make(leaf, maintenance);
            Installed::Done(Mapping::new(range, leaf))
        }
        Err(refusal) => {
            locked.restore(maintenance);
            Installed::Refused(refusal)
        }
    }
}

/// Changes the leaf that was read, and with it the other members of its
/// contiguous set: the CPU may have used any of them.
fn change<M: TableMemory>(entry: Entry<'_, M>, leaf: Leaf, change: impl Fn(Leaf) -> Leaf) -> Resolved {
    let slot = entry.slot();
    let changed = change(leaf);
    if changed != leaf && entry.try_update(changed).is_err() {
        return Resolved::Retry;
    }
    if leaf.is_contiguous() {
        for member in Set::of_member(slot).slots() {
            let entry = Entry::load(member);
            if let Pte::Leaf(leaf) = entry.pte()
                && leaf.is_contiguous()
                && leaf != change(leaf)
            {
                // Lost, it costs one more fault.
                let _ = entry.try_update(change(leaf));
            }
        }
    }
    Resolved::Done
}

/// The leaf in an entry, or what its absence means for a fault.
fn leaf_of<M: TableMemory>(entry: &Entry<'_, M>) -> Result<Leaf, Resolved> {
    match entry.pte() {
        Pte::Leaf(leaf) => Ok(leaf),
        Pte::Empty | Pte::Annotated(_) => Err(Resolved::NotMapped),
        Pte::Locked | Pte::Settling(_) | Pte::Dead => Err(Resolved::Retry),
        Pte::Table(_) => unreachable!("a table is descended into"),
    }
}
