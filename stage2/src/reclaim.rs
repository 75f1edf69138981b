//! Tables that left the tree and may not be reused yet.
//!
//! A table leaves the tree with all its entries DEAD and after the TLBs have
//! forgotten it, so the *hardware* is done with it. But another CPU that is
//! inside this crate may have read the descriptor that led to it a moment
//! before, and may be about to look into it. It will find DEAD there and start
//! again from the root; until then the memory must stay what it is.
//!
//! So the table is put on a list, and the list is emptied when it is certain
//! that no such CPU exists. Today the certainty is the type system's:
//! [`Space::reclaim`](crate::Space::reclaim) takes `&mut self`, and all that
//! look into tables hold `&self`.
//!
//! The list needs no memory of its own: each table's first entry, DEAD like
//! all the others, remembers the next table.

use crate::addr::PhysAddr;
use crate::pte::{self, TableAddr};
use crate::sync::{AtomicU64, Ordering};
use crate::table::Table;

/// The list of retired tables.
pub(crate) struct Retired {
    /// Physical address of the first, or [`NONE`].
    head: AtomicU64,
}

/// No table lies at address zero, see [`crate::table::Tables::allocate_root`].
const NONE: u64 = 0;

impl Retired {
    pub(crate) const fn new() -> Self {
        Self { head: AtomicU64::new(NONE) }
    }

    /// Adds a table that is unlinked, invalidated and all DEAD.
    pub(crate) fn push(&self, address: TableAddr, table: &Table) {
        // Relaxed: nothing is read through the list before the owner has the
        // whole space to itself, and whatever gave it that orders the rest.
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            let link = table.entry(0);
            link.exchange(link.load(), pte::dead(table_at(head)))
                .expect("a retired table is written by whoever retires it");
            let new = address.address().bits();
            match self.head.compare_exchange_weak(head, new, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(current) => head = current,
            }
        }
    }

    /// The first table of the list.
    pub(crate) fn first(&self) -> Option<TableAddr> {
        table_at(self.head.load(Ordering::Relaxed))
    }

    /// Makes `first` the first table, dropping those before it from the list.
    pub(crate) fn set_first(&mut self, first: Option<TableAddr>) {
        self.head.store(first.map_or(NONE, |first| first.address().bits()), Ordering::Relaxed);
    }
}

fn table_at(bits: u64) -> Option<TableAddr> {
    (bits != NONE).then(|| TableAddr::allocated(PhysAddr::new(bits)))
}
