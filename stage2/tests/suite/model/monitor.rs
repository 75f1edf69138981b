//! The invariants, and when each is checked.
//!
//! | invariant                                                    | checked at          |
//! |--------------------------------------------------------------|---------------------|
//! | no TLB may find two different translations for an address    | every store         |
//! | nor use one leaf of a contiguous set for another that differs | every store         |
//! | what is free to be mapped is held by nobody                   | every store         |
//! | a table is not freed while a walker may come into it         | every free          |
//! | nor while a cached leaf may make the hardware write to it    | every free          |
//! | at rest, TLBs allow nothing that memory does not say         | [`State::check_rest`] |
//! | at rest, all is published and complete, registers are back   | [`State::check_rest`] |
//! | memory that goes to someone else is out of everyone's reach  | [`State::check_unreachable`] |
//! | a copied page is not written to without being reported again | [`State::check_clean`] |
//!
//! Violations are collected, not thrown: the crate may hold locks when one
//! happens.

use super::select;
use super::shape::{ACCESS_FLAG, ALL, Access, DIRTY_MODIFIER, Meaning, permits, permits_no_more};
use super::state::State;
use super::tlb::{Held, Place};

impl State {
    /// A new descriptor may be cached: does it go with all others that may?
    pub(crate) fn check_conflicts(&mut self, place: Place, value: u64) {
        let regime = &self.regimes[&place.vmid];
        let span = regime.shape.span(place.level);
        let others = regime.tlb.overlapping(&regime.shape, place.ipa, place.ipa + span);
        let conflict =
            others.filter(|held| !held.is(place, value)).find(|held| self.conflicts(held, place, value));
        if let Some(held) = conflict {
            let (level, other) = (held.place.level, held.value);
            self.violation(format!(
                "{value:#x} for {:#x} at level {} beside {other:#x} at level {level}",
                place.ipa, place.level
            ));
        }
        self.check_set(place, value);
    }

    /// A marked leaf may be used for the whole set: do the others that may be
    /// cached for addresses of it say the same?
    fn check_set(&mut self, place: Place, value: u64) {
        let regime = &self.regimes[&place.vmid];
        let (shape, level) = (regime.shape, place.level);
        let size = shape.set_entries(level) * shape.span(level);
        let set = place.ipa & !(size - 1);
        let neighbours = regime.tlb.overlapping(&shape, set, set + size);
        let other =
            neighbours.filter(|held| held.place.level == level && held.place.ipa != place.ipa).find(|held| {
                let marked = shape.is_marked(value, level) || shape.is_marked(held.value, level);
                let leaves = [value, held.value].map(|word| shape.meaning(word, level)) == [Meaning::Leaf; 2];
                let one_set = shape.are_of_one_set(level, (place.ipa, value), (held.place.ipa, held.value));
                held.users() != 0 && marked && leaves && !one_set
            });
        if let Some(held) = other {
            let (ipa, other) = (held.place.ipa, held.value);
            self.violation(format!(
                "{value:#x} for {:#x} beside {other:#x} for {ipa:#x} of its set",
                place.ipa
            ));
        }
    }

    /// Whether a TLB that holds `held` must not find `value` in `place`.
    fn conflicts(&self, held: &Held, place: Place, value: u64) -> bool {
        let shape = self.shape(place.vmid);
        let bbm2 = self.config.bbm2;
        let (old_level, new_level) = (held.place.level, place.level);
        match (shape.meaning(held.value, old_level), shape.meaning(value, new_level)) {
            (Meaning::Leaf, Meaning::Leaf) => {
                let ipa = held.place.ipa.max(place.ipa);
                !shape.leaves_agree((old_level, held.value), (new_level, value), ipa, bbm2)
            }
            // A walk that goes on from the table, below or in place of the leaf.
            (Meaning::Table(_), Meaning::Leaf) => old_level >= new_level && !bbm2,
            // A block at or above the new table. What is cached from below is
            // compared with the table's own entries.
            (Meaning::Leaf, Meaning::Table(_)) => old_level <= new_level && !bbm2,
            (Meaning::Table(old), Meaning::Table(new)) => old_level == new_level && old != new,
            _ => unreachable!("only valid descriptors are cached"),
        }
    }

    /// If the entry is empty now, anyone may map something there: does nobody
    /// hold what was there before?
    pub(crate) fn check_released(&mut self, place: Place) {
        let regime = &self.regimes[&place.vmid];
        let span = regime.shape.span(place.level);
        if self.memory.current(place.word) != 0 {
            return;
        }
        let others = regime.tlb.overlapping(&regime.shape, place.ipa, place.ipa + span);
        let in_use = |held: &&Held| held.place.level >= place.level && held.users() != 0;
        let held = others.filter(in_use).map(|held| held.value).next();
        if let Some(value) = held {
            self.violation(format!("{:#x} was emptied while TLBs may hold {value:#x}", place.ipa));
        }
    }

    /// Table memory is about to be used for something else.
    pub(crate) fn check_free(&mut self, address: u64, bytes: u64) {
        let block = address..address + bytes;
        let mut problems = Vec::new();
        for table in block.clone().step_by(0x1000) {
            if self.reach(table) != 0 {
                problems.push(format!("table at {table:#x} freed while walkers may come into it"));
            }
        }
        for regime in self.regimes.values() {
            for held in regime.tlb.iter().filter(|held| held.users() != 0) {
                let dirty = regime.shape.sets_dirty && held.value & DIRTY_MODIFIER != 0;
                match regime.shape.meaning(held.value, held.place.level) {
                    Meaning::Table(table) if block.contains(&table) => {
                        problems.push(format!("table at {table:#x} freed while a walk cache leads to it"));
                    }
                    Meaning::Leaf if dirty && block.contains(&held.place.word) => {
                        problems.push(format!("a write to {:#x} may change a freed table", held.place.ipa));
                    }
                    _ => {}
                }
            }
        }
        let roots = self.cpus.iter().filter_map(|cpu| cpu.registers);
        for root in roots.map(|registers| registers.vttbr & ((1 << 48) - 2)) {
            if block.contains(&root) {
                problems.push(format!("root at {root:#x} freed while it is in a VTTBR_EL2"));
            }
        }
        problems.into_iter().for_each(|what| self.violation(what));
    }

    /// No operation is under way: is everything as it should be?
    ///
    /// A TLB may still hold *less* than memory says: a permission that was
    /// added is made effective on one CPU only.
    pub(crate) fn check_rest(&mut self) {
        let mut problems = Vec::new();
        for cpu in 0..self.cpus.len() {
            if self.cpus[cpu].owes_completion() {
                problems.push(format!("CPU {cpu} issued a TLBI that is not complete"));
            }
            if self.cpus[cpu].is_between_spaces() {
                problems.push(format!("CPU {cpu} did not go back to its own space"));
            }
            for word in self.memory.unpublished(cpu) {
                // From valid to valid, an invalidation takes care of the rest.
                let anyone = (0..self.cpus.len()).flat_map(|cpu| self.memory.visible(word, cpu));
                if self.memory.current(word) & 1 != 0 && anyone.into_iter().any(|value| value & 1 == 0) {
                    problems.push(format!("CPU {cpu} did not publish what it stored at {word:#x}"));
                }
            }
        }
        for regime in self.regimes.values() {
            for held in regime.tlb.iter().filter(|held| held.users() != 0) {
                if !self.is_backed(held) {
                    let (value, ipa, level) = (held.value, held.place.ipa, held.place.level);
                    problems.push(format!("TLBs may hold {value:#x} for {ipa:#x} at level {level}"));
                }
                if let Some(ipa) = self.member_that_says_otherwise(held) {
                    let (value, member) = (held.value, held.place.ipa);
                    problems.push(format!("TLBs may use {value:#x} for {ipa:#x}, of the set of {member:#x}"));
                }
            }
        }
        problems.into_iter().for_each(|what| self.violation(what));
    }

    /// An address of the contiguous set of a held leaf for which memory does
    /// not say what the leaf says.
    fn member_that_says_otherwise(&self, held: &Held) -> Option<u64> {
        let (Place { level, ipa, word, .. }, shape) = (held.place, self.shape(held.place.vmid));
        let entries = shape.set_entries(level);
        let index = ipa / shape.span(level) % entries;
        let members = (0..entries).filter(|_| shape.is_marked(held.value, level)).map(|member| {
            let first = (ipa - index * shape.span(level), word - index * 8);
            (first.0 + member * shape.span(level), first.1 + member * 8)
        });
        let mut others = members.map(|(member, word)| (member, self.memory.current(word)));
        others.find(|&other| !shape.are_of_one_set(level, (ipa, held.value), other)).map(|(member, _)| member)
    }

    /// Whether memory says all that a held descriptor says.
    fn is_backed(&self, held: &Held) -> bool {
        let Place { vmid, level, word, .. } = held.place;
        let shape = self.shape(vmid);
        let current = self.memory.current(word);
        let linked = self.regimes[&vmid].running == 0 || self.reach(self.table_of(held.place)) != 0;
        linked
            && match (shape.meaning(held.value, level), shape.meaning(current, level)) {
                (Meaning::Table(old), Meaning::Table(new)) => old == new,
                (Meaning::Leaf, Meaning::Leaf) => {
                    shape.leaves_agree((level, held.value), (level, current), held.place.ipa, false)
                        && permits_no_more(held.value, current)
                }
                _ => false,
            }
    }

    /// Physical memory is about to be used for something else.
    pub(crate) fn check_unreachable(&mut self, start: u64, end: u64) {
        let mut problems = Vec::new();
        for regime in self.regimes.values() {
            for held in regime.tlb.iter().filter(|held| held.users() != 0) {
                let (level, shape) = (held.place.level, &regime.shape);
                let output = shape.output(held.value, level);
                let leaf = shape.meaning(held.value, level) == Meaning::Leaf;
                if leaf && output < end && start < output + shape.span(level) {
                    problems.push(format!("{start:#x} is reused while {:#x} leads there", held.place.ipa));
                }
            }
        }
        problems.into_iter().for_each(|what| self.violation(what));
    }

    /// The memory from `start` to `end` is about to be copied: will every
    /// write from now on be reported? A TLB that allows one without asking
    /// does no harm if memory calls the page dirty again already.
    pub(crate) fn check_clean(&mut self, start: u64, end: u64) {
        let mut problems = Vec::new();
        for regime in self.regimes.values() {
            for held in regime.tlb.iter().filter(|held| held.users() != 0) {
                let (level, shape) = (held.place.level, &regime.shape);
                let output = shape.output(held.value, level);
                let leaf = shape.meaning(held.value, level) == Meaning::Leaf;
                let silent = leaf && permits(held.value, Access::Write);
                let reported = permits(self.memory.current(held.place.word), Access::Write);
                if silent && !reported && output < end && start < output + shape.span(level) {
                    problems.push(format!("a write to {:#x} may get lost", held.place.ipa));
                }
            }
        }
        problems.into_iter().for_each(|what| self.violation(what));
    }

    /// Whether the leaf in this word is one that the hardware may mark as used.
    pub(crate) fn is_leaf(&self, place: Place) -> bool {
        let current = self.memory.current(place.word);
        self.shape(place.vmid).meaning(current, place.level) == Meaning::Leaf
    }

    /// The hardware sets bits of a leaf, and may cache it.
    pub(crate) fn hardware_sets(&mut self, place: Place, bits: u64) {
        self.memory.hardware_sets(place.word, bits | ACCESS_FLAG);
        let cpus = self.reach(self.table_of(place));
        self.fill(place, self.memory.current(place.word), cpus & ALL);
    }

    /// The VMID that is current on a CPU.
    pub(crate) fn current(&self, cpu: usize) -> Option<u64> {
        self.cpus[cpu].registers.map(select::vmid)
    }
}
