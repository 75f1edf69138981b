//! Changing one entry: break before make, as types.
//!
//! Between two *valid* descriptors for the same address there must be a
//! moment when no TLB can hold either, wherever they differ in more than
//! permissions and flags: otherwise a CPU may hold both at once, and the
//! architecture then allows it almost anything. The rule is [`is_bbm_safe`];
//! the procedure is this:
//!
//! ```text
//!  Entry ──try_lock──► Locked ──break_with(maintenance)──► Broken ──make────────► leaf
//!    │                   │                                    ├────link────────► table
//!    │                   └──restore──► as it was              ├────annotate────► annotation
//!    └──try_update──► leaf, where no break is needed          └────leave_empty─► empty
//! ```
//!
//! Each step consumes the one before, so the order can't be got wrong:
//!
//! 1. [`Entry`] is a place *and what was read there*, once. All decisions are
//!    about that reading, and every change fails with [`Raced`] if the entry
//!    is no longer what was read.
//! 2. [`Entry::try_lock`] replaces the descriptor by LOCKED. From here until
//!    the end, guests fault on it and other CPUs wait, so nothing that can
//!    fail, take long or wait for anyone may happen: whatever is to be made
//!    is allocated and filled *before*.
//! 3. [`Locked::break_with`] waits until no TLB holds the old descriptor.
//! 4. [`Broken`] is then turned into the new one.
//!
//! A [`Locked`] or [`Broken`] that is dropped would leave its entry LOCKED for
//! ever, with CPUs waiting for it; so dropping one panics. Tables are not
//! removed this way, but by `detach.rs`.
//!
//! ```
//! # use std::iter::repeat_with;
//! # use stage2::{arena::{Arena, frame}, epoch::Epochs, Attributes, Features, Geometry, Granule, Ipa, IpaRange};
//! # use stage2::{NoTlb, PaSize, PhysAddr, Pte, Space};
//! # let maintenance = NoTlb;
//! # let epochs = Epochs::new();
//! # let cpu = epochs.register().unwrap();
//! # let memory = Arena::new(PhysAddr::new(0x1000_0000), repeat_with(frame).take(8).collect::<Vec<_>>(), &epochs);
//! # let geometry = Geometry::new(Granule::Kib4, 40, PaSize::Bits40)?;
//! # let space = Space::new(geometry, Features::BASE, &memory)?;
//! # let page = IpaRange::new(Ipa::new(0x4000_0000), 0x1000).unwrap();
//! # space.map(&cpu.pin(), page, PhysAddr::new(0x8000_0000), Attributes::RAM, &maintenance)?;
//! // Move a page elsewhere (its contents have been copied already).
//! let guard = cpu.pin();
//! let entry = space.entry(&guard, page.start()).expect("inside the space");
//! let new = space.leaf(entry.level(), PhysAddr::new(0x9000_0000), Attributes::RAM)?;
//! let locked = entry.try_lock()?;
//! locked.break_with(&maintenance).make(new, &maintenance);
//! # assert_eq!(space.lookup(&guard, page.start()).unwrap().output, PhysAddr::new(0x9000_0000));
//! # space.destroy(&maintenance);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Making without breaking does not compile, for [`Locked`] has no `make`:
//!
//! ```compile_fail,E0599
//! # use stage2::{Maintenance, TableMemory, Leaf, bbm::Locked};
//! fn skip_the_break<M: TableMemory>(locked: Locked<'_, M>, new: Leaf, m: &impl Maintenance) {
//!     locked.make(new, m);
//! }
//! ```
//!
//! Nor does breaking what was never locked:
//!
//! ```compile_fail,E0599
//! # use stage2::{Maintenance, TableMemory, bbm::Entry};
//! fn skip_the_lock<M: TableMemory>(entry: Entry<'_, M>, m: &impl Maintenance) {
//!     entry.break_with(m);
//! }
//! ```
//!
//! Nor restoring an entry after it was broken, nor making it twice:
//!
//! ```compile_fail,E0382
//! # use stage2::{Maintenance, TableMemory, bbm::Locked};
//! fn change_of_mind<M: TableMemory>(locked: Locked<'_, M>, m: &impl Maintenance) {
//!     let broken = locked.break_with(m);
//!     locked.restore(m);
//!     broken.leave_empty();
//! }
//! ```
//!
//! ```compile_fail,E0382
//! # use stage2::{Leaf, Maintenance, TableMemory, bbm::Broken};
//! fn make_twice<M: TableMemory>(broken: Broken<'_, M>, new: Leaf, m: &impl Maintenance) {
//!     broken.make(new, m);
//!     broken.make(new, m);
//! }
//! ```
//!
//! Nor using one reading of an entry for two changes:
//!
//! ```compile_fail,E0382
//! # use stage2::{Leaf, TableMemory, bbm::Entry};
//! fn lock_twice<M: TableMemory>(entry: Entry<'_, M>, new: Leaf) {
//!     let _ = entry.try_update(new);
//!     let _ = entry.try_update(new);
//! }
//! ```

use core::{fmt, mem};

use crate::addr::{IpaRange, Level};
use crate::attr::{self, Dirty};
use crate::maint::{Maintenance, Stale};
use crate::pte::{self, Annotation, Descriptor, Leaf, Pte, Successor, TableAddr};
use crate::table::{TableMemory, Unlinked};
use crate::view::Slot;

/// Leaf bits that may change in place: permissions, access flag, dirty state
/// and the software bits. Everything else (output address, memory type,
/// shareability, size, contiguity) needs a break.
const CHANGEABLE: u64 = attr::PERMISSIONS | attr::AF | attr::DBM | attr::SOFTWARE;

/// Whether `new` may be stored over `old`, both read or meant for the same
/// entry, without a break (Arm ARM, "Using break-before-make when updating
/// translation table entries").
///
/// Safe is not the same as *effective*: taking a permission away still needs
/// a TLB invalidation before it can be relied on.
pub fn is_bbm_safe(old: Pte, new: Pte) -> bool {
    match (in_hardware(old), in_hardware(new)) {
        (Pte::Leaf(old), Pte::Leaf(new)) => {
            old.level() == new.level() && (old.encode().bits() ^ new.encode().bits()) & !CHANGEABLE == 0
        }
        (Pte::Table(old), Pte::Table(new)) => old == new,
        (Pte::Leaf(_), Pte::Table(_)) | (Pte::Table(_), Pte::Leaf(_)) => false,
        // TLBs hold valid descriptors only.
        _ => true,
    }
}

/// Whether `new` may be stored over `old` without a break *if the memory of
/// both holds the same*, which only whoever copied it knows. Neither may be
/// written to, so that it stays the same.
///
/// Until an invalidation, CPUs may use either. So nobody may meanwhile make
/// the new one writable.
pub fn is_bbm_safe_for_identical_contents(old: Leaf, new: Leaf) -> bool {
    let read_only = old.dirty() == Dirty::ReadOnly && new.dirty() == Dirty::ReadOnly;
    read_only && is_bbm_safe(Pte::Leaf(old.moved_to(new.output())), Pte::Leaf(new))
}

/// What the hardware takes a descriptor for.
fn in_hardware(pte: Pte) -> Pte {
    match pte {
        Pte::Settling(Successor::Table(table)) => Pte::Table(table),
        Pte::Settling(Successor::Leaf(leaf)) => Pte::Leaf(leaf),
        _ => pte,
    }
}

/// Another CPU, or the walker, changed the entry after it was read.
///
/// Read it again and decide again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raced;

impl fmt::Display for Raced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the entry was changed by someone else first")
    }
}

impl core::error::Error for Raced {}

/// One entry of a table and what was read there.
#[must_use = "reading an entry changes nothing"]
pub struct Entry<'s, M: TableMemory> {
    slot: Slot<'s, M>,
    seen: Descriptor,
}

impl<'s, M: TableMemory> Entry<'s, M> {
    /// Reads a slot.
    #[inline]
    pub(crate) fn load(slot: Slot<'s, M>) -> Self {
        Self { slot, seen: slot.read() }
    }

    /// The level of the entry.
    #[inline]
    pub fn level(&self) -> Level {
        self.slot.level()
    }

    /// The addresses that the entry translates.
    #[inline]
    pub fn range(&self) -> IpaRange {
        self.slot.range()
    }

    /// What was read.
    #[inline(always)]
    pub fn pte(&self) -> Pte {
        Pte::decode(self.seen, self.slot.level(), self.slot.format())
    }

    /// Stores a leaf where that needs no break: over nothing, over an
    /// annotation, or over a leaf that differs in what may change in place.
    ///
    /// The caller still owes a [`Maintenance::publish`] in the first two
    /// cases, and an invalidation in the third before it relies on a
    /// permission being gone.
    ///
    /// # Errors
    ///
    /// [`Raced`] if the entry is no longer what was read, or was LOCKED or
    /// DEAD when it was read.
    ///
    /// # Panics
    ///
    /// If the change needs a break, see [`is_bbm_safe`], or if the leaf is
    /// for another level. If it gives other permissions to a member of a
    /// contiguous set: [`unfold`](crate::Space::unfold) the set first.
    #[inline]
    pub fn try_update(self, leaf: Leaf) -> Result<(), Raced> {
        let old = self.pte();
        if matches!(old, Pte::Locked | Pte::Dead | Pte::Settling(_)) {
            return Err(Raced);
        }
        self.check(leaf);
        assert!(is_bbm_safe(old, Pte::Leaf(leaf)), "{old:?} to {leaf:?} needs break before make");
        if let Pte::Leaf(old) = old
            && old.is_contiguous()
        {
            assert!(old.says_the_same(leaf), "{old:?} can't be changed without the rest of its set");
        }
        self.exchange(leaf.encode())
    }

    /// Stores an annotation where nothing or another annotation is. It stands
    /// for all the addresses of the entry.
    ///
    /// # Errors
    ///
    /// [`Raced`] if the entry is no longer what was read, or was LOCKED or
    /// DEAD when it was read.
    ///
    /// # Panics
    ///
    /// If something is mapped here: that takes a break, see
    /// [`Broken::annotate`].
    pub fn try_annotate(self, annotation: Annotation) -> Result<(), Raced> {
        match self.pte() {
            Pte::Empty | Pte::Annotated(_) => self.exchange(annotation.encode()),
            Pte::Locked | Pte::Dead | Pte::Settling(_) => Err(Raced),
            old @ (Pte::Leaf(_) | Pte::Table(_)) => panic!("{old:?} must be broken before it is annotated"),
        }
    }

    /// Takes the entry for a change that needs a break.
    ///
    /// # Errors
    ///
    /// [`Raced`] if the entry is no longer what was read, or was LOCKED or
    /// DEAD when it was read: then it is someone else's.
    ///
    /// # Panics
    ///
    /// If a table was read: tables leave by another way, see `detach.rs`. If a
    /// member of a contiguous set was read: [`unfold`] the set first.
    ///
    /// [`unfold`]: crate::Space::unfold
    #[inline(always)]
    pub fn try_lock(self) -> Result<Locked<'s, M>, Raced> {
        if let Pte::Leaf(leaf) = self.pte() {
            assert!(!leaf.is_contiguous(), "{leaf:?} can't be changed without the rest of its set");
        }
        self.try_lock_member()
    }

    /// As [`Self::try_lock`], also for a member of a contiguous set, all of
    /// which is to be locked.
    #[inline(always)]
    pub(crate) fn try_lock_member(self) -> Result<Locked<'s, M>, Raced> {
        match self.pte() {
            // LOCKED to LOCKED would succeed for two CPUs at once.
            Pte::Locked | Pte::Dead | Pte::Settling(_) => Err(Raced),
            Pte::Table(table) => panic!("{table:?} must be dead before it is detached"),
            Pte::Empty | Pte::Annotated(_) | Pte::Leaf(_) => {
                let locked = pte::locked(self.slot.guard().cpu(), None);
                self.slot.exchange(self.seen, locked).map_err(|_| Raced)?;
                Ok(Locked { slot: self.slot, old: self.seen, locked })
            }
        }
    }

    /// Takes the entry of a table all of whose entries the caller has made
    /// DEAD. Nobody else can have changed it since: only the owner of the
    /// dead entries may.
    pub(crate) fn lock_dead_table(self, table: TableAddr) -> Locked<'s, M> {
        let locked = pte::locked(self.slot.guard().cpu(), Some(table));
        self.slot.exchange(table.encode(), locked).expect("a table is unlinked by whoever made it dead");
        Locked { slot: self.slot, old: self.seen, locked }
    }

    /// Links a table where nothing is.
    pub(crate) fn try_link(self, table: Unlinked<'s, M>) -> Result<TableAddr, Raced> {
        match self.pte() {
            Pte::Empty => self.exchange(table.address().encode())?,
            _ => return Err(Raced),
        }
        Ok(table.into_linked())
    }

    /// Stores a table over the block that was read, without a break, where
    /// FEAT_BBM level 2 allows it. The table's entries say what the block says.
    pub(crate) fn try_settle(self, table: Unlinked<'s, M>) -> Result<Settling<'s, M>, Raced> {
        let slot = self.slot;
        self.exchange(table.address().encode_settling())?;
        table.into_linked();
        // Blocks and their parts.
        Ok(Settling { slot, stale: Stale::AnyLeaves })
    }

    /// Stores a read-only leaf over the one that was read, without a break.
    /// The memory of both holds the same.
    pub(crate) fn try_settle_identical(self, leaf: Leaf) -> Result<Settling<'s, M>, Raced> {
        self.check(leaf);
        let old = self.pte();
        assert!(
            matches!(old, Pte::Leaf(old) if is_bbm_safe_for_identical_contents(old, leaf)),
            "{old:?} to {leaf:?} needs break before make",
        );
        let slot = self.slot;
        self.exchange(leaf.encode().settling())?;
        Ok(Settling { slot, stale: Stale::Leaves(leaf.level()) })
    }

    /// Makes an entry DEAD; part of removing the table that holds it.
    pub(crate) fn try_kill(self) -> Result<(), Raced> {
        self.exchange(pte::dead(None))
    }

    /// Makes the entry of a leaf DEAD in such a way that the leaf can come
    /// back; part of trying to remove the table that holds it.
    pub(crate) fn try_suspend(self, leaf: Leaf) -> Result<(), Raced> {
        self.exchange(pte::dead_leaf(leaf.state()))
    }

    /// Undoes [`Self::try_suspend`]. `leaf` says the same as the one that was
    /// there.
    pub(crate) fn resume(self, leaf: Leaf) {
        let leaf = leaf.with_state(pte::remembered_state(self.seen));
        self.exchange(leaf.encode()).expect("a dead entry belongs to whoever made it so");
    }

    /// Makes an entry of the caller's that is DEAD empty again.
    pub(crate) fn revive(self) {
        self.slot.replace(self.seen, Descriptor::EMPTY);
    }

    /// Forgets an annotation.
    pub(crate) fn try_clear(self) -> Result<(), Raced> {
        self.exchange(Descriptor::EMPTY)
    }

    #[inline]
    pub(crate) fn slot(&self) -> Slot<'s, M> {
        self.slot
    }

    #[inline]
    fn check(&self, leaf: Leaf) {
        assert!(leaf.level() == self.level(), "{leaf:?} is not for level {}", self.level().number());
    }

    #[inline]
    fn exchange(self, new: Descriptor) -> Result<(), Raced> {
        self.slot.exchange(self.seen, new).map_err(|_| Raced)
    }
}

impl<M: TableMemory> fmt::Debug for Entry<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry({:?} at {})", self.pte(), self.range())
    }
}

/// An entry that this CPU has taken; TLBs may still hold what it was.
#[must_use = "an entry stays locked until it is restored or broken"]
pub struct Locked<'s, M: TableMemory> {
    slot: Slot<'s, M>,
    old: Descriptor,
    locked: Descriptor,
}

impl<'s, M: TableMemory> Locked<'s, M> {
    /// What the entry was when it was taken, including what the walker had
    /// set until that moment.
    pub fn old(&self) -> Pte {
        Pte::decode(self.old, self.slot.level(), self.slot.format())
    }

    /// Puts back what was there, and tells the walkers.
    pub fn restore(self, maintenance: &impl Maintenance) {
        let (slot, locked, old) = (self.slot, self.locked, self.old);
        mem::forget(self);
        release(slot, locked, old);
        maintenance.publish();
    }

    /// Waits until no TLB holds what the entry was.
    pub fn break_with(self, maintenance: &impl Maintenance) -> Broken<'s, M> {
        match self.old() {
            Pte::Leaf(leaf) => maintenance.invalidate(self.slot.range(), Stale::Leaves(leaf.level())),
            Pte::Table(_) => maintenance.invalidate(self.slot.range(), Stale::Tables),
            // TLBs hold valid descriptors only.
            Pte::Empty | Pte::Annotated(_) | Pte::Locked | Pte::Dead | Pte::Settling(_) => {}
        }
        let (slot, locked) = (self.slot, self.locked);
        mem::forget(self);
        Broken { slot, locked }
    }

    /// Hands the entry to a set that is being locked, with what it was.
    pub(crate) fn into_set(self) -> Descriptor {
        let old = self.old;
        mem::forget(self);
        old
    }

    /// Hands the entry to a batch, which breaks many at once.
    pub(crate) fn into_batch(self) -> Slot<'s, M> {
        let slot = self.slot;
        mem::forget(self);
        slot
    }
}

impl<M: TableMemory> Drop for Locked<'_, M> {
    fn drop(&mut self) {
        panic!("the locked entry at {} was dropped", self.slot.range());
    }
}

/// An entry that this CPU has taken and that no TLB remembers.
#[must_use = "an entry stays locked until something is made of it"]
pub struct Broken<'s, M: TableMemory> {
    slot: Slot<'s, M>,
    locked: Descriptor,
}

impl<'s, M: TableMemory> Broken<'s, M> {
    /// Makes it a leaf, and tells the walkers.
    ///
    /// # Panics
    ///
    /// If the leaf is for another level.
    pub fn make(self, leaf: Leaf, maintenance: &impl Maintenance) {
        assert!(leaf.level() == self.slot.level(), "{leaf:?} is not for this level");
        self.become_entry(leaf.encode());
        maintenance.publish();
    }

    /// Makes it an annotation.
    pub fn annotate(self, annotation: Annotation) {
        self.become_entry(annotation.encode());
    }

    /// Makes it empty.
    pub fn leave_empty(self) {
        self.become_entry(Descriptor::EMPTY);
    }

    /// Makes it a table, and tells the walkers.
    pub(crate) fn link(self, table: Unlinked<'s, M>, maintenance: &impl Maintenance) {
        self.become_entry(table.address().encode());
        table.into_linked();
        maintenance.publish();
    }

    fn become_entry(self, new: Descriptor) {
        let (slot, locked) = (self.slot, self.locked);
        mem::forget(self);
        release(slot, locked, new);
    }
}

impl<M: TableMemory> Drop for Broken<'_, M> {
    fn drop(&mut self) {
        panic!("the broken entry at {} was dropped", self.slot.range());
    }
}

/// A table or leaf stored over another valid descriptor, which TLBs may still
/// hold. Others wait for it as for a lock; walkers use it.
#[must_use = "an entry stays settling until it is settled"]
pub(crate) struct Settling<'s, M: TableMemory> {
    slot: Slot<'s, M>,
    /// What there was.
    stale: Stale,
}

impl<M: TableMemory> Settling<'_, M> {
    /// Waits until no TLB holds what was there before.
    pub(crate) fn settle(self, maintenance: &impl Maintenance) {
        maintenance.invalidate(self.slot.range(), self.stale);
        loop {
            let descriptor = self.slot.read();
            // Fails at most once: when a walker has just set the access flag.
            if self.slot.exchange(descriptor, descriptor.settled()).is_ok() {
                return;
            }
        }
    }
}

/// Ends a lock that this CPU holds.
pub(crate) fn release<M: TableMemory>(slot: Slot<'_, M>, locked: Descriptor, new: Descriptor) {
    slot.replace(locked, new);
}
