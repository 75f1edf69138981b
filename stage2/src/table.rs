//! Tables as memory: where they come from and how a physical address becomes
//! one. All `unsafe` of the crate's own logic is in this file.
//!
//! [`TableMemory`] is the second trait by which the crate meets the world
//! (the first is [`Maintenance`](crate::maint::Maintenance)). At EL2 it is a
//! page pool and a linear map; on a host it is an [arena](crate::arena).
//!
//! The argument for safety is about ownership of addresses, and it is short:
//!
//! 1. The crate resolves only addresses that `Tables::allocate` gave it or
//!    that it read from a TABLE, LOCKED or DEAD entry of a tree, and it writes
//!    only such addresses into those. So each names memory that was allocated
//!    as a table.
//! 2. A table that was ever linked goes back to the allocator from functions
//!    that have the whole space to themselves (`&mut` or by value), hence
//!    while no reference made by `Tables::resolve` exists.
//! 3. A table that was never linked is an `Unlinked`, which its owner alone
//!    can reach, and which gives it back when dropped.

#![expect(unsafe_code, reason = "declares and calls `TableMemory`, as argued above")]

use crate::addr::{Ipa, Level, PhysAddr};
use crate::geometry::ENTRIES;
use crate::pte::{AtomicPte, Descriptor, TableAddr};
use crate::reclaim::Retired;
use crate::sync::{array_of, const_fn};

/// One translation table, the size of a page and aligned to it.
///
/// Other CPUs and the hardware walker access it at any time. That is why its
/// entries are atomics and why there is never a `&mut` to one.
#[repr(C, align(4096))]
pub struct Table([AtomicPte; ENTRIES]);

const _: () = assert!(size_of::<Table>() == 4096, "a table fills its page");

impl Table {
    const_fn! {
        /// A table of empty entries.
        #[expect(clippy::new_without_default, reason = "tables are memory to be placed, not plain values")]
        pub fn new() -> Self {
            Self(array_of![AtomicPte::new(); ENTRIES])
        }
    }

    /// The entry with this index, which counts modulo the size of the table.
    #[inline]
    pub(crate) fn entry(&self, index: usize) -> &AtomicPte {
        &self.0[index % ENTRIES]
    }

    /// Reads all entries, one after the other; for models and dumps.
    pub fn snapshot(&self) -> impl Iterator<Item = Descriptor> {
        self.0.iter().map(AtomicPte::load)
    }
}

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

/// The memory that tables are made of.
///
/// # Safety
///
/// Implementers promise that
///
/// 1. `allocate` hands out memory that nobody else uses until it is freed,
///    Normal inner shareable write-back in every mapping of it, and whose
///    every entry is empty (zero);
/// 2. it lies at `tables * size_of::<Table>()` alignment, contiguously, below
///    the physical address limit of the space, and not at address zero;
/// 3. for each such table, until it is freed, `resolve` returns a reference
///    to that very memory, the same each time, also when called by several
///    CPUs at once.
pub unsafe trait TableMemory {
    /// Takes `tables` adjacent tables (1, 2, 4, 8 or 16), all empty; `None`
    /// if there is no such memory. More than one is asked for only when a
    /// space is created.
    fn allocate(&self, tables: usize) -> Option<PhysAddr>;

    /// Takes back what `allocate` gave.
    ///
    /// # Safety
    ///
    /// `first` and `tables` are those of one call of `allocate` that has not
    /// been answered by a call of `free`, and nobody refers to the memory any
    /// more: no software, no walker, no TLB.
    unsafe fn free(&self, first: PhysAddr, tables: usize);

    /// The table at `address`.
    ///
    /// # Safety
    ///
    /// `address` is that of a table that was allocated here, and it is not
    /// freed while the reference lives.
    unsafe fn resolve(&self, address: PhysAddr) -> &Table;

    /// Told of every store into a table that is part of a space, right after
    /// it happened.
    ///
    /// Does nothing unless a model of the hardware wants to watch.
    fn stored(&self, store: Store) {
        let _ = store;
    }
}

// SAFETY: Each function is the referent's own, and so are its promises.
unsafe impl<T: TableMemory> TableMemory for &T {
    fn allocate(&self, tables: usize) -> Option<PhysAddr> {
        (**self).allocate(tables)
    }

    unsafe fn free(&self, first: PhysAddr, tables: usize) {
        // SAFETY: Passed on from our caller.
        unsafe { (**self).free(first, tables) }
    }

    unsafe fn resolve(&self, address: PhysAddr) -> &Table {
        // SAFETY: Passed on from our caller.
        unsafe { (**self).resolve(address) }
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
}

impl<M: TableMemory> Tables<M> {
    pub(crate) fn new(memory: M) -> Self {
        Self { memory, retired: Retired::new() }
    }

    /// Takes one empty table that is not part of the tree yet.
    pub(crate) fn allocate(&self) -> Option<Unlinked<'_, M>> {
        let table = self.allocate_root(1)?;
        Some(Unlinked { tables: self, table })
    }

    /// Takes the tables of a root; [`Self::free_root`] gives them back.
    pub(crate) fn allocate_root(&self, tables: usize) -> Option<TableAddr> {
        let address = self.memory.allocate(tables)?;
        assert!(address.bits() != 0, "table memory must not contain address zero");
        Some(TableAddr::allocated(address))
    }

    /// The table at `address`.
    pub(crate) fn resolve(&self, address: TableAddr) -> &Table {
        // SAFETY: Points 1 and 2 at the top of this file.
        unsafe { self.memory.resolve(address.address()) }
    }

    /// Gives back a table that was part of the tree. Having `self` to itself
    /// proves that no reference into the table is left in software; the
    /// caller has taken care of walkers and TLBs.
    pub(crate) fn free(&mut self, table: TableAddr) {
        // SAFETY: `&mut self` outlives every reference from `resolve`.
        unsafe { self.memory.free(table.address(), 1) }
    }

    /// Gives back what [`Self::allocate_root`] took, under the same terms as
    /// [`Self::free`].
    pub(crate) fn free_root(&mut self, root: TableAddr, tables: usize) {
        // SAFETY: `&mut self` outlives every reference from `resolve`.
        unsafe { self.memory.free(root.address(), tables) }
    }

    pub(crate) fn memory(&self) -> &M {
        &self.memory
    }

    /// Tables that left the tree and wait for [`Self::free`].
    pub(crate) fn retired(&self) -> &Retired {
        &self.retired
    }

    /// Frees all tables that left the tree, and says how many.
    pub(crate) fn reclaim(&mut self) -> usize {
        let mut freed = 0;
        let Self { memory, retired } = self;
        // SAFETY: Points 1 and 2 at the top of this file.
        while let Some(table) = retired.pop(|table| unsafe { memory.resolve(table.address()) }.entry(0)) {
            // SAFETY: `&mut self` outlives every reference from `resolve`.
            unsafe { memory.free(table.address(), 1) }
            freed += 1;
        }
        freed
    }
}

/// A table that only its owner can reach, to be filled and then linked.
///
/// Dropped instead, it goes straight back to the allocator: nobody else has
/// ever seen it.
pub(crate) struct Unlinked<'s, M: TableMemory> {
    tables: &'s Tables<M>,
    table: TableAddr,
}

impl<'s, M: TableMemory> Unlinked<'s, M> {
    /// Writes an entry.
    pub(crate) fn fill(&self, index: usize, descriptor: Descriptor) {
        self.tables.resolve(self.table).entry(index).fill(descriptor);
    }

    /// Where the table lies, for the descriptor that is to link it.
    pub(crate) fn address(&self) -> TableAddr {
        self.table
    }

    /// Ends the private life of the table: it has been linked.
    pub(crate) fn into_linked(self) -> &'s Table {
        let table = self.tables.resolve(self.table);
        core::mem::forget(self);
        table
    }
}

impl<M: TableMemory> Drop for Unlinked<'_, M> {
    fn drop(&mut self) {
        // SAFETY: Point 3 at the top of this file: never linked, so reached by
        // nobody else, and `fill` keeps no reference.
        unsafe { self.tables.memory.free(self.table.address(), 1) }
    }
}
