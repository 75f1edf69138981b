//! Table memory, and what walkers see of it.
//!
//! Software on all CPUs sees the current value of every word. The *walkers*
//! may go on seeing what was there before, until the CPU that stored the new
//! value has executed a DSB. So a word has versions: the current one, and
//! older ones that nobody can rule out yet. A DSB ISHST or ISH rules out, for
//! all walkers, what its CPU has overwritten; a DSB NSH does so for the walker
//! of its own CPU only.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::shape::{ALL, CpuSet};

/// The physical address of the first word.
pub(crate) const BASE: u64 = 0x1_0000_0000;

/// Words as the crate and the model share them.
pub(crate) type Words = Arc<Vec<AtomicU64>>;

/// One value of a word.
#[derive(Clone, Copy, Debug)]
struct Version {
    value: u64,
    /// Who stored it.
    cpu: usize,
    /// Whose walkers can't see older ones any more.
    published: CpuSet,
}

/// Table memory.
pub(crate) struct Memory {
    words: Words,
    /// What the model knows each word to be. It differs from the word itself
    /// in tables that are being filled and not linked yet, and in those that
    /// are unlinked and wait to be freed.
    known: Vec<u64>,
    /// Words with more than one version, oldest first, the current one last.
    versions: HashMap<usize, Vec<Version>>,
    /// Per CPU, the words it stored to since its last DSB for all walkers.
    unpublished: Vec<Vec<usize>>,
    /// Allocated blocks: address and size in bytes.
    blocks: BTreeMap<u64, u64>,
    /// Where blocks were freed last, to be used again first.
    recent: Vec<u64>,
}

impl Memory {
    pub(crate) fn new(bytes: u64, cpus: usize) -> Self {
        let words = (0..bytes / 8).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
        Self {
            known: vec![0; words.len()],
            words: Arc::new(words),
            versions: HashMap::new(),
            unpublished: vec![Vec::new(); cpus],
            blocks: BTreeMap::new(),
            recent: Vec::new(),
        }
    }

    pub(crate) fn words(&self) -> Words {
        self.words.clone()
    }

    /// Takes a block that is aligned to its size, preferably one that was
    /// freed just now: whoever still looks there shall notice.
    pub(crate) fn allocate(&mut self, bytes: u64) -> Option<u64> {
        let all = (BASE..BASE + 8 * self.words.len() as u64).step_by(bytes as usize);
        let recent = self.recent.iter().rev().copied().filter(|address| address.is_multiple_of(bytes));
        let address = recent.chain(all).find(|&address| self.is_free(address, bytes))?;
        self.recent.retain(|&freed| freed != address);
        self.blocks.insert(address, bytes);
        Some(address)
    }

    fn is_free(&self, address: u64, bytes: u64) -> bool {
        let below = self.blocks.range(..address + bytes).next_back();
        let inside = address + bytes <= BASE + 8 * self.words.len() as u64;
        inside && below.is_none_or(|(&start, &size)| start + size <= address)
    }

    pub(crate) fn free(&mut self, address: u64, bytes: u64) {
        assert_eq!(self.blocks.remove(&address), Some(bytes), "{address:#x} is not a block of {bytes} bytes");
        self.recent.push(address);
        for index in index(address)..index(address) + (bytes / 8) as usize {
            self.words[index].store(0, Ordering::Release);
            self.known[index] = 0;
            self.versions.remove(&index);
        }
    }

    /// Bytes that are allocated.
    pub(crate) fn in_use(&self) -> u64 {
        self.blocks.values().sum()
    }

    /// Whether all these bytes are allocated, in one block.
    pub(crate) fn is_allocated(&self, address: u64, bytes: u64) -> bool {
        let block = self.blocks.range(..=address).next_back();
        block.is_some_and(|(&start, &size)| address + bytes <= start + size)
    }

    /// The current value of the word at `address`, as the model knows it.
    pub(crate) fn current(&self, address: u64) -> u64 {
        self.known[index(address)]
    }

    /// Whether `value` was stored to the word and the model not told yet.
    pub(crate) fn is_changed_to(&self, address: u64, value: u64) -> bool {
        let word = self.words[index(address)].load(Ordering::Acquire);
        word == value && word != self.known[index(address)]
    }

    /// Takes over a word that was filled before its table was linked. Release
    /// and the walker's address dependency see to it that nobody sees less.
    pub(crate) fn accept(&mut self, address: u64) -> u64 {
        let index = index(address);
        self.known[index] = self.words[index].load(Ordering::Acquire);
        self.known[index]
    }

    /// Notes that `cpu` stored to the word.
    pub(crate) fn stored(&mut self, address: u64, cpu: usize) {
        let index = index(address);
        let (old, new) = (self.known[index], self.words[index].load(Ordering::Acquire));
        let oldest = Version { value: old, cpu, published: ALL };
        let versions = self.versions.entry(index).or_insert_with(|| vec![oldest]);
        versions.push(Version { value: new, cpu, published: 0 });
        self.known[index] = new;
        self.unpublished[cpu].push(index);
    }

    /// Sets bits of the word as a walker does: at once, and for everyone who
    /// sees the word as it is.
    pub(crate) fn hardware_sets(&mut self, address: u64, bits: u64) {
        let index = index(address);
        let new = self.known[index] | bits;
        let swap =
            self.words[index].compare_exchange(self.known[index], new, Ordering::AcqRel, Ordering::Acquire);
        assert!(swap.is_ok(), "the model was not told of a store");
        self.known[index] = new;
        if let Some(versions) = self.versions.get_mut(&index) {
            let last = *versions.last().unwrap();
            versions.push(Version { value: new, ..last });
        }
    }

    /// What the walker of `cpu` may find in the word.
    pub(crate) fn visible(&self, address: u64, cpu: usize) -> impl Iterator<Item = u64> {
        let index = index(address);
        let versions = self.versions.get(&index).map_or(&[][..], |versions| versions);
        let first = versions.iter().rposition(|version| version.published & 1 << cpu != 0).unwrap_or(0);
        let current = versions.is_empty().then_some(self.known[index]);
        current.into_iter().chain(versions[first..].iter().map(|version| version.value))
    }

    /// The stores of `cpu` so far are visible to the walkers of `to`.
    pub(crate) fn publish(&mut self, cpu: usize, to: CpuSet) {
        for &index in &self.unpublished[cpu] {
            let Some(versions) = self.versions.get_mut(&index) else { continue };
            for version in versions.iter_mut().filter(|version| version.cpu == cpu) {
                version.published |= to;
            }
            let first = versions.iter().rposition(|version| version.published == ALL).unwrap_or(0);
            versions.drain(..first);
            if versions.len() == 1 {
                self.versions.remove(&index);
            }
        }
        if to == ALL {
            self.unpublished[cpu].clear();
        }
    }

    /// The addresses of words that `cpu` stored to without a DSB since.
    pub(crate) fn unpublished(&self, cpu: usize) -> impl Iterator<Item = u64> {
        let pending = self.unpublished[cpu].iter().filter(|index| self.versions.contains_key(index));
        pending.map(|&index| BASE + 8 * index as u64)
    }
}

/// The place of a word in the list of all.
pub(crate) fn index(address: u64) -> usize {
    let offset = address.checked_sub(BASE).filter(|offset| offset.is_multiple_of(8));
    (offset.unwrap_or_else(|| panic!("there is no table memory at {address:#x}")) / 8) as usize
}
