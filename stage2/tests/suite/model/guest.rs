//! What guests do, and what walkers do to tables on their behalf.
//!
//! A guest's access may go through any TLB entry that its CPU may hold, or
//! through a fresh walk. [`Machine::outcomes`] says what may come of it, all of
//! it; nothing changes. [`Machine::access`] lets one of these happen, with its
//! effects: a walker that sets access flags (VTCR_EL2.HA) or notes writes (HD)
//! changes the descriptor in memory. A walker may set an access flag for no
//! visible reason as well, which is [`Machine::speculate`].

use super::Machine;
use super::shape::{ACCESS_FLAG, Access, DIRTY_MODIFIER, Meaning, WRITE, permits};
use super::state::State;
use super::tlb::Place;

/// What may come of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// It reaches this physical address.
    Reaches(u64),
    TranslationFault,
    AccessFlagFault,
    PermissionFault,
}

/// One way an access may go.
#[derive(Clone, Copy)]
struct Way {
    outcome: Outcome,
    /// The word that the hardware changes, and the bits it sets there.
    update: Option<(Place, u64)>,
}

impl Machine {
    /// All that may come of an access to `ipa` by a guest on `cpu`.
    pub(crate) fn outcomes(&self, cpu: usize, vmid: u64, ipa: u64, access: Access) -> Vec<Outcome> {
        let ways = self.state().ways(cpu, vmid, ipa, access);
        let mut outcomes: Vec<_> = ways.into_iter().map(|way| way.outcome).collect();
        outcomes.sort();
        outcomes.dedup();
        outcomes
    }

    /// An access by a guest on `cpu`, which goes the way with this number,
    /// counted modulo how many there are.
    pub(crate) fn access(&self, cpu: usize, vmid: u64, ipa: u64, access: Access, way: usize) -> Outcome {
        let mut state = self.state();
        let ways = state.ways(cpu, vmid, ipa, access);
        let way = ways[way % ways.len()];
        if let Some((place, bits)) = way.update {
            state.hardware_sets(place, bits);
        }
        way.outcome
    }

    /// A walker of `cpu` comes by `ipa`, which no guest asked for, and sets
    /// the access flag if walkers do that here.
    pub(crate) fn speculate(&self, cpu: usize, vmid: u64, ipa: u64) {
        let mut state = self.state();
        if !state.shape(vmid).sets_access_flag {
            return;
        }
        for level in 0..4 {
            for place in state.reachable_places(vmid, ipa, level, cpu) {
                if state.is_leaf(place) {
                    state.hardware_sets(place, ACCESS_FLAG);
                }
            }
        }
    }
}

impl State {
    /// Every way an access may go.
    fn ways(&self, cpu: usize, vmid: u64, ipa: u64, access: Access) -> Vec<Way> {
        let regime = &self.regimes[&vmid];
        let shape = regime.shape;
        let mut ways = Vec::new();
        for held in regime.tlb.overlapping(&shape, ipa, ipa + 1) {
            let leaf = shape.meaning(held.value, held.place.level) == Meaning::Leaf;
            if leaf && held.users() & 1 << cpu != 0 {
                ways.extend(self.way(held.place, held.value, ipa, access));
            }
        }
        for level in 0..4 {
            for place in self.reachable_places(vmid, ipa, level, cpu) {
                for value in self.memory.visible(place.word, cpu) {
                    match shape.meaning(value, level) {
                        Meaning::Table(_) => {}
                        Meaning::Leaf => ways.extend(self.way(place, value, ipa, access)),
                        Meaning::Invalid => {
                            ways.push(Way { outcome: Outcome::TranslationFault, update: None });
                        }
                    }
                }
            }
        }
        ways
    }

    /// What an access makes of a leaf; `None` if the hardware would have to
    /// change a descriptor that is no longer this one, and walks again.
    fn way(&self, place: Place, leaf: u64, ipa: u64, access: Access) -> Option<Way> {
        let shape = self.shape(place.vmid);
        let mut bits = 0;
        if leaf & ACCESS_FLAG == 0 {
            if !shape.sets_access_flag {
                return Some(Way { outcome: Outcome::AccessFlagFault, update: None });
            }
            bits |= ACCESS_FLAG;
        }
        if access == Access::Write && leaf & (WRITE | DIRTY_MODIFIER) == DIRTY_MODIFIER && shape.sets_dirty {
            bits |= WRITE;
        }
        if !permits(leaf | bits, access) {
            return Some(Way { outcome: Outcome::PermissionFault, update: None });
        }
        // An access flag may have come or gone since the leaf was cached.
        let same = (self.memory.current(place.word) ^ leaf) & !ACCESS_FLAG == 0;
        if bits != 0 && !same {
            return None;
        }
        let offset = ipa & (shape.span(place.level) - 1);
        let outcome = Outcome::Reaches(shape.output(leaf, place.level) + offset);
        Some(Way { outcome, update: (bits != 0).then_some((place, bits)) })
    }
}
