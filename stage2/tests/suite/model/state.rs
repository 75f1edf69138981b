//! The whole machine as one value, and how walks fill TLBs.
//!
//! [`State`] knows which tables are linked where. From that follows what a
//! walker may read: it comes into a table through any *visible* version of a
//! word that leads there, or through a walk cache that still holds such a
//! word. Whenever a descriptor appears, all CPUs that may read it are taken to
//! have cached it at once.

use std::collections::BTreeMap;

use super::cpu::Cpu;
use super::memory::Memory;
use super::shape::{ACCESS_FLAG, ALL, CpuSet, Meaning, Shape};
use super::tlb::{Held, Place, Tlb, Vmid};
use super::{Config, Counts};

/// What the hardware knows of one VMID.
pub(crate) struct Regime {
    pub(crate) shape: Shape,
    /// The root: the BADDR field of VTTBR_EL2.
    pub(crate) root: u64,
    /// Whose walkers may be at work for it: those that run its guest.
    pub(crate) running: CpuSet,
    pub(crate) tlb: Tlb,
}

/// Where a table is or was linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Linked {
    vmid: Vmid,
    level: usize,
    ipa: u64,
}

/// The machine.
pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) memory: Memory,
    pub(crate) regimes: BTreeMap<Vmid, Regime>,
    pub(crate) cpus: Vec<Cpu>,
    pub(crate) violations: Vec<String>,
    pub(crate) counts: Counts,
    pub(crate) allocations_left: usize,
    tables: BTreeMap<u64, Linked>,
    /// The tables by where they are linked. An unlinked table stays here until
    /// it is freed, so there may be several.
    at: BTreeMap<(Vmid, usize, u64), Vec<u64>>,
}

impl State {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            memory: Memory::new(config.table_memory, config.cpus),
            cpus: (0..config.cpus).map(|_| Cpu::default()).collect(),
            config,
            regimes: BTreeMap::new(),
            violations: Vec::new(),
            counts: Counts::default(),
            allocations_left: usize::MAX,
            tables: BTreeMap::new(),
            at: BTreeMap::new(),
        }
    }

    /// Notes that a rule was broken; the first few times will do.
    pub(crate) fn violation(&mut self, what: String) {
        if self.violations.len() < 8 {
            self.violations.push(what);
        }
    }

    pub(crate) fn shape(&self, vmid: Vmid) -> Shape {
        self.regimes[&vmid].shape
    }

    /// Learns of a root that is to be used under a VMID.
    pub(crate) fn attach(&mut self, vmid: Vmid, root: u64, shape: Shape) {
        let regime = Regime { shape, root, running: 0, tlb: Tlb::default() };
        assert!(self.regimes.insert(vmid, regime).is_none(), "VMID {vmid} is in use");
        for index in 0..shape.root_tables() {
            let ipa = index * shape.table_span(shape.start);
            self.link(root + index * shape.page_size(), Linked { vmid, level: shape.start, ipa });
        }
    }

    /// From now on, these CPUs walk for the VMID whenever they like.
    pub(crate) fn run(&mut self, vmid: Vmid, cpus: CpuSet) {
        let Regime { shape, root, .. } = self.regimes[&vmid];
        self.regimes.get_mut(&vmid).unwrap().running = cpus;
        for index in 0..shape.root_tables() {
            self.fill_from(root + index * shape.page_size());
        }
    }

    /// `cpu` stored `new` to the entry for `ipa` at `level` of a linked table.
    ///
    /// The crate does not say which table. It is the one in which a word has
    /// changed to this; or if the same was stored as before, one that has it.
    /// Tables that wait to be freed are changed by the way, so those that a
    /// walker may come into are looked at first.
    pub(crate) fn stored(&mut self, cpu: usize, ipa: u64, level: usize, new: u64) {
        let places: Vec<_> = self.places(ipa, level).collect();
        let linked = |place: &&Place| self.reach(self.table_of(**place)) != 0;
        let changed = |place: &&Place| self.memory.is_changed_to(place.word, new);
        let same = |place: &&Place| self.memory.current(place.word) == new;
        let candidates = || places.iter().filter(linked);
        let found = candidates().find(changed).or_else(|| candidates().find(same));
        if let Some(&place) = found.or_else(|| places.iter().find(changed)) {
            self.memory.stored(place.word, cpu);
            self.check_released(place);
            self.appeared(place, self.memory.current(place.word));
        }
    }

    /// All words that are or were the entry for `ipa` at `level`.
    fn places(&self, ipa: u64, level: usize) -> impl Iterator<Item = Place> {
        self.regimes.iter().flat_map(move |(&vmid, regime)| {
            let shape = regime.shape;
            let tables = self.at.get(&(vmid, level, ipa & !(shape.table_span(level) - 1)));
            tables.into_iter().flatten().map(move |table| {
                let word = table + 8 * (ipa / shape.span(level) % shape.entries());
                Place { vmid, level, ipa: ipa & !(shape.span(level) - 1), word }
            })
        })
    }

    /// The same for one VMID, as far as the walker of `cpu` may get there.
    pub(crate) fn reachable_places(&self, vmid: Vmid, ipa: u64, level: usize, cpu: usize) -> Vec<Place> {
        let places = self.places(ipa, level).filter(|place| place.vmid == vmid);
        places.filter(|place| self.reach(self.table_of(*place)) & 1 << cpu != 0).collect()
    }

    /// The table that holds a word.
    pub(crate) fn table_of(&self, place: Place) -> u64 {
        place.word & !(self.shape(place.vmid).page_size() - 1)
    }

    /// A value is in a word of a linked table.
    fn appeared(&mut self, place: Place, value: u64) {
        let shape = self.shape(place.vmid);
        match shape.meaning(value, place.level) {
            Meaning::Invalid if value & 1 == 0 => {}
            Meaning::Invalid => {
                self.violation(format!("{value:#x} at level {} is a reserved encoding", place.level));
            }
            Meaning::Leaf => {
                let cpus = self.reach(self.table_of(place));
                self.fill(place, value, cpus);
            }
            Meaning::Table(table) => {
                self.link(table, Linked { vmid: place.vmid, level: place.level + 1, ipa: place.ipa });
                let cpus = self.reach(self.table_of(place));
                self.fill(place, value, cpus);
                self.fill_from(table);
            }
        }
    }

    /// Takes a table and all below it into the tree.
    fn link(&mut self, table: u64, linked: Linked) {
        let shape = self.shape(linked.vmid);
        if !self.memory.is_allocated(table, shape.page_size()) {
            self.violation(format!("a table at {table:#x} was linked, which is not allocated"));
            return;
        }
        match self.tables.insert(table, linked) {
            Some(before) if before == linked => return,
            Some(before) => self.violation(format!("the table at {table:#x} is linked twice: {before:?}")),
            None => {}
        }
        self.at.entry((linked.vmid, linked.level, linked.ipa)).or_default().push(table);
        for index in 0..shape.entries() {
            let value = self.memory.accept(table + 8 * index);
            if let Meaning::Table(child) = shape.meaning(value, linked.level) {
                let ipa = linked.ipa + index * shape.span(linked.level);
                self.link(child, Linked { level: linked.level + 1, ipa, ..linked });
            }
        }
    }

    /// Fills TLBs with all that is in and below a linked table.
    fn fill_from(&mut self, table: u64) {
        let Some(&Linked { vmid, level, ipa }) = self.tables.get(&table) else { return };
        let shape = self.shape(vmid);
        let cpus = self.reach(table);
        for index in (0..shape.entries()).take_while(|_| cpus != 0) {
            let place = Place { vmid, level, ipa: ipa + index * shape.span(level), word: table + 8 * index };
            let value = self.memory.current(place.word);
            match shape.meaning(value, level) {
                Meaning::Invalid => {}
                Meaning::Leaf => self.fill(place, value, cpus),
                Meaning::Table(child) => {
                    self.fill(place, value, cpus);
                    self.fill_from(child);
                }
            }
        }
    }

    /// These CPUs may hold `value` from now on.
    pub(crate) fn fill(&mut self, place: Place, value: u64, cpus: CpuSet) {
        let shape = self.shape(place.vmid);
        let leaf = shape.meaning(value, place.level) == Meaning::Leaf;
        // What would give an access flag fault is never cached.
        if cpus == 0 || leaf && value & ACCESS_FLAG == 0 {
            return;
        }
        let regime = self.regimes.get_mut(&place.vmid).unwrap();
        let (held, made) = regime.tlb.entry(place, value);
        held.stage2 |= cpus;
        held.combined |= cpus;
        // An invalidation that is under way does not reach what comes after.
        for cpu in &mut self.cpus {
            cpu.spare(place, value, cpus);
        }
        if made {
            self.check_conflicts(place, value);
        }
    }

    /// Whose walkers may find this held descriptor again.
    pub(crate) fn refill(&self, held: &Held, reach: CpuSet) -> CpuSet {
        let found = |cpu| self.memory.visible(held.place.word, cpu).any(|value| value == held.value);
        set(self.cpus_in(reach).filter(|&cpu| found(cpu)))
    }

    /// Whose walkers may come into a table.
    pub(crate) fn reach(&self, table: u64) -> CpuSet {
        let Some(&Linked { vmid, level, ipa }) = self.tables.get(&table) else { return 0 };
        let Regime { shape, running, tlb, .. } = &self.regimes[&vmid];
        if level == shape.start {
            return *running;
        }
        let leads_here = |value| shape.meaning(value, level - 1) == Meaning::Table(table);
        let mut cpus = 0;
        for place in self.places(ipa, level - 1).filter(|place| place.vmid == vmid) {
            let above = self.reach(self.table_of(place));
            let sees = |&cpu: &usize| self.memory.visible(place.word, cpu).any(leads_here);
            cpus |= set(self.cpus_in(above & !cpus).filter(sees));
        }
        let span = shape.span(level - 1);
        for held in tlb.overlapping(shape, ipa, ipa + span).take_while(|held| held.place.level < level) {
            if held.place.level == level - 1 && leads_here(held.value) {
                cpus |= (held.stage2 | held.combined) & running;
            }
        }
        cpus
    }

    /// The numbers of the CPUs in a set.
    pub(crate) fn cpus_in(&self, cpus: CpuSet) -> impl Iterator<Item = usize> + use<> {
        (0..self.cpus.len()).filter(move |cpu| cpus & 1 << cpu != 0)
    }

    /// A block of memory is no longer tables.
    pub(crate) fn freed(&mut self, address: u64, bytes: u64) {
        self.check_free(address, bytes);
        self.memory.free(address, bytes);
        let gone: Vec<_> = self.tables.range(address..address + bytes).map(|(&table, _)| table).collect();
        for table in gone {
            let linked = self.tables.remove(&table).unwrap();
            self.at.get_mut(&(linked.vmid, linked.level, linked.ipa)).unwrap().retain(|&at| at != table);
        }
        for regime in self.regimes.values_mut() {
            regime.tlb.forget_words(address, address + bytes);
        }
    }
}

/// The set of these CPUs.
fn set(cpus: impl Iterator<Item = usize>) -> CpuSet {
    cpus.fold(0, |set, cpu| set | 1 << cpu) & ALL
}
