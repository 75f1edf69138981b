//! What TLBs and walk caches might hold.
//!
//! A TLB may cache whatever a walk found, whenever it likes, for as long as it
//! likes. So there is nothing to simulate: what counts is what *might* be
//! cached, which is every valid descriptor from the moment a walker could read
//! it until an invalidation of it is complete. For each descriptor that is one
//! bit for each CPU, once for stage 2 entries and once for entries that
//! combine both stages.
//!
//! Stage 1 entries proper do not depend on stage 2, and stage 1 *walk caches*,
//! which hold the physical address of a guest's own table, behave like
//! combined entries: they come from a stage 2 translation and are reached by
//! VMALLE1 only. So they need no set of their own. Stage 2 table descriptors
//! have both bits as well: nothing says that a walk cache is found by
//! intermediate physical address and not by virtual address.

use std::collections::BTreeMap;

use super::shape::{CpuSet, Shape};

/// The address space of a VMID.
pub(crate) type Vmid = u64;

/// Where a descriptor stands: in the tree and in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) vmid: Vmid,
    pub(crate) level: usize,
    /// The first address that it translates.
    pub(crate) ipa: u64,
    /// The physical address of the word.
    pub(crate) word: u64,
}

/// A descriptor that is or may be cached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) place: Place,
    pub(crate) value: u64,
    /// Whose stage 2 TLBs or walk caches may hold it.
    pub(crate) stage2: CpuSet,
    /// Whose TLBs may hold it combined with a stage 1 translation.
    pub(crate) combined: CpuSet,
    /// Whose accesses may not be through with it yet, though it is gone from
    /// their TLBs: an erratum, see `Config::repeat`.
    pub(crate) draining: CpuSet,
}

impl Held {
    /// Everyone who may use it.
    pub(crate) fn users(&self) -> CpuSet {
        self.stage2 | self.combined | self.draining
    }

    /// Whether it is the same descriptor, read in the same place.
    pub(crate) fn is(&self, place: Place, value: u64) -> bool {
        self.place == place && self.value == value
    }
}

/// What the TLBs of all CPUs may hold for one VMID.
#[derive(Default)]
pub(crate) struct Tlb([BTreeMap<u64, Vec<Held>>; 4]);

impl Tlb {
    /// The entry for this descriptor, made if there is none, and whether it
    /// was made.
    pub(crate) fn entry(&mut self, place: Place, value: u64) -> (&mut Held, bool) {
        let list = self.0[place.level].entry(place.ipa).or_default();
        let found = list.iter().position(|held| held.is(place, value));
        let index = found.unwrap_or_else(|| {
            list.push(Held { place, value, stage2: 0, combined: 0, draining: 0 });
            list.len() - 1
        });
        (&mut list[index], found.is_none())
    }

    /// What may be held for an address from `start` up to `end`, from the
    /// highest level down.
    pub(crate) fn overlapping(&self, shape: &Shape, start: u64, end: u64) -> impl Iterator<Item = &Held> {
        let shape = *shape;
        self.0.iter().enumerate().flat_map(move |(level, list)| {
            let first = start & !(shape.span(level) - 1);
            list.range(first..end).flat_map(|(_, held)| held)
        })
    }

    /// All that may be held, from the highest level down.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Held> {
        self.0.iter().flat_map(|list| list.values().flatten())
    }

    /// Drops entries that nobody uses any more in this place.
    pub(crate) fn prune(&mut self, place: Place) {
        let list = &mut self.0[place.level];
        if let Some(held) = list.get_mut(&place.ipa) {
            held.retain(|held| held.users() != 0);
            if held.is_empty() {
                list.remove(&place.ipa);
            }
        }
    }

    /// Forgets all that was read from words in this range of memory.
    pub(crate) fn forget_words(&mut self, start: u64, end: u64) {
        for list in &mut self.0 {
            list.retain(|_, held| {
                held.retain(|held| held.place.word < start || end <= held.place.word);
                !held.is_empty()
            });
        }
    }
}
