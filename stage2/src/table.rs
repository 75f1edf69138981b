//! Tables as memory: where they come from and how a physical address becomes
//! one. All `unsafe` of the crate's own logic is in this file.
//!
//! [`TableMemory`] is the second trait by which the crate meets the world
//! (the first is [`Maintenance`](crate::maint::Maintenance)). At EL2 it is a
//! page pool and a linear map; on a host it is an [arena](crate::arena).
//!
//! A table is as large as a page of the space's granule and has as many
//! entries as fit. Other CPUs and the hardware walker access them at any time.
//! That is why a table is a slice of atomics and why there is never a `&mut`
//! to one.
//!
//! The argument for safety is about ownership of addresses, and it is short:
//!
//! 1. The crate resolves only addresses that `Tables::allocate` gave it or
//!    that it read from a TABLE, LOCKED or DEAD entry of a tree, and it writes
//!    only such addresses into those. So each names memory that was allocated
//!    as a table.
//! 2. Whoever looks into a table that others can reach shows a [`Guard`] of
//!    the space's own [`Epochs`], and the reference lives no longer than that.
//!    A table that was ever linked goes back to the allocator when it was
//!    unlinked two epochs ago (`reclaim.rs`), so no guard exists under
//!    which it could have been found; or from a function that has the whole
//!    space to itself (`&mut`), hence while no such reference exists.
//! 3. A table that was never linked is an `Unlinked`, which its owner alone
//!    can reach, and which gives it back when dropped.

#![expect(unsafe_code, reason = "declares and calls `TableMemory`, as argued above")]

use core::ops::Range;

use crate::addr::{Ipa, Level, PhysAddr};
use crate::epoch::{Epochs, Guard};
use crate::format::Format;
use crate::pte::{AtomicPte, Descriptor, TableAddr};
use crate::reclaim::Retired;
use crate::sync;

/// A store into a table that is part of a space; see [`TableMemory::stored`].
#[derive(Clone, Copy, Debug)]
pub struct Store {
    /// The first address that the entry translates.
    pub ipa: Ipa,
    /// The level of the entry's table.
    pub level: Level,
    /// What was there.
    pub old: Descriptor,
    /// What is there now.
    pub new: Descriptor,
}

/// The memory that tables are made of, and the CPUs that look into it.
///
/// # Safety
///
/// Implementers promise that
///
/// 1. `allocate` hands out memory that nobody else uses until it is freed,
///    Normal inner shareable write-back in every mapping of it, and whose
///    every entry is empty (zero);
/// 2. it is aligned to its size, below the physical address limit of the
///    space and below 2^48, and not at address zero;
/// 3. until it is freed, `resolve` returns references to that very memory, the
///    same each time, also when called by several CPUs at once;
/// 4. `epochs` always returns the same.
pub unsafe trait TableMemory {
    /// Takes `bytes` of memory, a power of two and at least a page of the
    /// space's granule, all zero; `None` if there is no such memory. More
    /// than one page is asked for only when a space is created.
    fn allocate(&self, bytes: u64) -> Option<PhysAddr>;

    /// Takes back what `allocate` gave.
    ///
    /// # Safety
    ///
    /// `address` and `bytes` are those of one call of `allocate` that has not
    /// been answered by a call of `free`, and nobody refers to the memory any
    /// more: no software, no walker, no TLB.
    unsafe fn free(&self, address: PhysAddr, bytes: u64);

    /// The `entries` descriptors from `address` on.
    ///
    /// # Safety
    ///
    /// They lie within memory that was allocated here, and it is not freed
    /// while the reference lives.
    unsafe fn resolve(&self, address: PhysAddr, entries: usize) -> &[AtomicPte];

    /// The CPUs that take part: a guard of these proves that tables stay.
    fn epochs(&self) -> &Epochs;

    /// Gives way for a moment while another CPU finishes what it holds.
    ///
    /// Who holds a LOCKED entry waits for nobody, and who is making a table
    /// DEAD waits for holders of LOCKED entries at most. So waiting ends.
    #[inline]
    fn relax(&self) {
        sync::relax();
    }

    /// Told of every store into a table that is part of a space, right before
    /// it is tried: it may still fail.
    ///
    /// Does nothing unless a model lets another CPU come first.
    #[inline]
    fn storing(&self) {}

    /// Told of every store into a table that is part of a space, right after
    /// it happened.
    ///
    /// Does nothing unless a model of the hardware wants to watch.
    #[inline]
    fn stored(&self, store: Store) {
        let _ = store;
    }
}

// SAFETY: Each function is the referent's own, and so are its promises.
unsafe impl<T: TableMemory> TableMemory for &T {
    fn allocate(&self, bytes: u64) -> Option<PhysAddr> {
        (**self).allocate(bytes)
    }

    unsafe fn free(&self, address: PhysAddr, bytes: u64) {
        // SAFETY: Passed on from our caller.
        unsafe { (**self).free(address, bytes) }
    }

    unsafe fn resolve(&self, address: PhysAddr, entries: usize) -> &[AtomicPte] {
        // SAFETY: Passed on from our caller.
        unsafe { (**self).resolve(address, entries) }
    }

    fn epochs(&self) -> &Epochs {
        (**self).epochs()
    }

    fn relax(&self) {
        (**self).relax();
    }

    fn storing(&self) {
        (**self).storing();
    }

    fn stored(&self, store: Store) {
        (**self).stored(store);
    }
}

/// A [`TableMemory`] behind an interface that can't be misused within the
/// crate, as argued at the top of this file.
pub(crate) struct Tables<M: TableMemory> {
    memory: M,
    retired: Retired,
    format: Format,
}

impl<M: TableMemory> Tables<M> {
    pub(crate) fn new(memory: M, format: Format) -> Self {
        Self { memory, retired: Retired::new(), format }
    }

    /// How their descriptors are spelt.
    #[inline]
    pub(crate) fn format(&self) -> Format {
        self.format
    }

    #[inline]
    pub(crate) fn memory(&self) -> &M {
        &self.memory
    }

    /// Takes one empty table that is not part of the tree yet. If there is no
    /// memory for it, one that waited to be reused comes back first.
    pub(crate) fn allocate<'g>(&'g self, guard: &'g Guard<'_>) -> Option<Unlinked<'g, M>> {
        let table = self.take().or_else(|| {
            self.collect(guard, 1);
            self.take()
        })?;
        Some(Unlinked { tables: self, table })
    }

    fn take(&self) -> Option<TableAddr> {
        self.memory.allocate(self.table_bytes()).map(TableAddr::allocated)
    }

    /// Takes the tables of a root; [`Self::free_root`] gives them back.
    pub(crate) fn allocate_root(&self, tables: usize) -> Option<TableAddr> {
        self.memory.allocate(tables as u64 * self.table_bytes()).map(TableAddr::allocated)
    }

    /// What a pinned CPU looks into these tables with.
    ///
    /// # Panics
    ///
    /// If `guard` is not of the epochs of this memory: it would prove nothing.
    #[inline]
    pub(crate) fn pinned<'g>(&'g self, guard: &'g Guard<'_>) -> Pinned<'g, M> {
        assert!(core::ptr::eq(guard.epochs(), self.memory.epochs()), "the guard is of other epochs");
        Pinned { tables: self, guard }
    }

    /// The table at `address`, for the only one who looks at tables.
    pub(crate) fn resolve_mut(&mut self, address: TableAddr) -> &[AtomicPte] {
        // SAFETY: Points 1 and 2 at the top of this file: `self` is borrowed
        // as long as the reference lives, so nothing is freed.
        unsafe { self.memory.resolve(address.address(), self.format.granule().entries()) }
    }

    /// Takes charge of a table that was unlinked and invalidated, and all of
    /// whose entries are DEAD.
    pub(crate) fn retire(&self, table: TableAddr, guard: &Guard<'_>) {
        self.retired.retire(guard, table, self.pinned(guard).resolve(table));
    }

    /// How many tables wait to be reused.
    pub(crate) fn retired(&self) -> usize {
        self.retired.count()
    }

    /// Frees up to `limit` of the tables that nobody can be looking at any
    /// more, and says how many.
    pub(crate) fn collect(&self, guard: &Guard<'_>, limit: usize) -> usize {
        let Some(mut ripe) = self.retired.collect(guard) else { return 0 };
        let pinned = self.pinned(guard);
        let mut freed = 0;
        while freed < limit
            && let Some(table) = ripe.pop(|table| first(pinned.resolve(table)))
        {
            // SAFETY: Point 2 at the top of this file: `pop` gives out tables
            // that were unlinked two epochs ago, each once.
            unsafe { self.memory.free(table.address(), self.table_bytes()) };
            freed += 1;
        }
        freed
    }

    /// Gives back a table that was part of the tree. Having `self` to itself
    /// proves that no reference into the table is left in software; the
    /// caller has taken care of walkers and TLBs.
    pub(crate) fn free(&mut self, table: TableAddr) {
        // SAFETY: `&mut self` outlives every reference from `resolve`.
        unsafe { self.memory.free(table.address(), self.table_bytes()) }
    }

    /// Gives back what [`Self::allocate_root`] took, under the same terms as
    /// [`Self::free`].
    pub(crate) fn free_root(&mut self, root: TableAddr, tables: usize) {
        // SAFETY: `&mut self` outlives every reference from `resolve`.
        unsafe { self.memory.free(root.address(), tables as u64 * self.table_bytes()) }
    }

    /// Frees one of the tables that wait, under the same terms as
    /// [`Self::free`]; `false` if none does.
    pub(crate) fn free_retired(&mut self) -> bool {
        let (memory, entries) = (&self.memory, self.format.granule().entries());
        // SAFETY: Points 1 and 2 at the top of this file, as for `resolve_mut`.
        let entry_0 = |table: TableAddr| first(unsafe { memory.resolve(table.address(), entries) });
        let Some(table) = self.retired.pop(entry_0) else { return false };
        self.free(table);
        true
    }

    /// Bytes in a table.
    fn table_bytes(&self) -> u64 {
        self.format.granule().page_size()
    }
}

/// A guard together with the tables that it keeps in place: proof that it is
/// the right one, found out once for each walk and not at each step.
pub(crate) struct Pinned<'g, M: TableMemory> {
    tables: &'g Tables<M>,
    guard: &'g Guard<'g>,
}

impl<M: TableMemory> Clone for Pinned<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: TableMemory> Copy for Pinned<'_, M> {}

impl<'g, M: TableMemory> Pinned<'g, M> {
    #[inline]
    pub(crate) fn tables(self) -> &'g Tables<M> {
        self.tables
    }

    #[inline]
    pub(crate) fn guard(self) -> &'g Guard<'g> {
        self.guard
    }

    /// The table at `address`.
    #[inline]
    pub(crate) fn resolve(self, address: TableAddr) -> &'g [AtomicPte] {
        // SAFETY: Points 1 and 2 at the top of this file; `Tables::pinned` has
        // checked the guard.
        unsafe { self.tables.memory.resolve(address.address(), self.tables.format.granule().entries()) }
    }
}

fn first(table: &[AtomicPte]) -> &AtomicPte {
    table.first().expect("a table has entries")
}

/// A table that only its owner can reach, to be filled and then linked.
///
/// Dropped instead, it goes straight back to the allocator: nobody else has
/// ever seen it.
pub(crate) struct Unlinked<'s, M: TableMemory> {
    tables: &'s Tables<M>,
    table: TableAddr,
}

impl<M: TableMemory> Unlinked<'_, M> {
    /// Writes the entries: each becomes what `descriptor` says about its index.
    pub(crate) fn fill(&self, descriptor: impl Fn(usize) -> Descriptor) {
        self.fill_part(0..self.tables.format().granule().entries(), descriptor);
    }

    /// Writes some of the entries; the others stay empty.
    pub(crate) fn fill_part(&self, indexes: Range<usize>, descriptor: impl Fn(usize) -> Descriptor) {
        let entries = self.tables.format().granule().entries();
        // SAFETY: Point 3 at the top of this file; the reference ends here.
        let table = unsafe { self.tables.memory.resolve(self.table.address(), entries) };
        for (entry, index) in table[indexes.clone()].iter().zip(indexes) {
            entry.fill(descriptor(index));
        }
    }

    /// Where the table lies, for the descriptor that is to link it.
    pub(crate) fn address(&self) -> TableAddr {
        self.table
    }

    /// Ends the private life of the table: it has been linked.
    pub(crate) fn into_linked(self) -> TableAddr {
        let table = self.table;
        core::mem::forget(self);
        table
    }
}

impl<M: TableMemory> Drop for Unlinked<'_, M> {
    fn drop(&mut self) {
        // SAFETY: Point 3 at the top of this file: never linked, so reached by
        // nobody else, and `fill` keeps no reference.
        unsafe { self.tables.memory.free(self.table.address(), self.tables.table_bytes()) }
    }
}
