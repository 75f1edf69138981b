//! Table memory and TLB maintenance for models of whole operations.
//!
//! Tables have two entries ([`Granule::Tiny`]), and there are a few of them.
//! Beside them, a [`Watch`] keeps the books: which frames are free, and which
//! descriptors a TLB could still hold. It is told of every store and every
//! invalidation, in the order in which they really happen, and fails the model
//! as soon as one comes too early.

use std::sync::{Arc, Mutex, MutexGuard};
use std::vec::Vec;

use crate::addr::{IpaRange, Level, PhysAddr};
use crate::bbm::is_bbm_safe;
use crate::epoch::Epochs;
use crate::format::Format;
use crate::geometry::Granule;
use crate::maint::{Maintenance, Stale};
use crate::pte::{AtomicPte, Descriptor, Pte};
use crate::table::{Store, TableMemory};

const FRAMES: usize = 6;
const BASE: u64 = 0x10_0000;
const SIZE: u64 = Granule::Tiny.page_size();

/// What every table of a freed frame holds: no state of a descriptor, so that
/// whoever still looks there panics.
const POISON: Descriptor = Descriptor(1 << 4);

/// A few frames, each of which is used once.
pub(super) struct Memory {
    epochs: Epochs,
    frames: [[AtomicPte; 2]; FRAMES],
    watch: Arc<Watch>,
}

impl Memory {
    pub(super) fn new(watch: &Arc<Watch>) -> Self {
        let frame = |_| [AtomicPte::new(), AtomicPte::new()];
        Self { epochs: Epochs::new(), frames: core::array::from_fn(frame), watch: watch.clone() }
    }

    fn frame(&self, address: PhysAddr) -> &[AtomicPte; 2] {
        &self.frames[((address.bits() - BASE) / SIZE) as usize]
    }
}

// SAFETY: 1. Each frame is handed out once. 2. The only size that is asked for
// is that of a frame, and frames follow on each other from `BASE`. 3. Frames
// stay where they are while `self` lives. 4. `epochs` never changes.
#[expect(unsafe_code, reason = "the promises of `TableMemory`, kept without an unsafe operation")]
unsafe impl TableMemory for Memory {
    fn allocate(&self, bytes: u64) -> Option<PhysAddr> {
        assert_eq!(bytes, SIZE, "models have roots of one table");
        let frame = self.watch.allocate();
        assert!(frame < FRAMES, "the model needs more frames");
        Some(PhysAddr::new(BASE + frame as u64 * SIZE))
    }

    unsafe fn free(&self, address: PhysAddr, _: u64) {
        self.watch.free(address);
        for entry in self.frame(address) {
            entry.fill(POISON);
        }
    }

    unsafe fn resolve(&self, address: PhysAddr, entries: usize) -> &[AtomicPte] {
        &self.frame(address)[..entries]
    }

    fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    fn stored(&self, store: Store) {
        self.watch.stored(store);
        let [old, new] = [store.old, store.new].map(|descriptor| self.watch.decode(descriptor, store.level));
        if let (Pte::Table(table), Pte::Locked) = (old, new) {
            let is_dead = |entry: &AtomicPte| self.watch.decode(entry.load(), Level::L3) == Pte::Dead;
            assert!(self.frame(table.address()).iter().all(is_dead), "{table:?} is unlinked alive");
        }
    }
}

/// What is true at each moment, whatever a CPU can see of it.
pub(super) struct Watch {
    format: Format,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    allocated: usize,
    freed: Vec<PhysAddr>,
    /// What TLBs and walk caches may hold.
    cached: Vec<Cached>,
}

/// A valid descriptor, and the entry that it was in.
struct Cached {
    range: IpaRange,
    level: Level,
    pte: Pte,
}

impl Watch {
    pub(super) fn new(format: Format) -> Arc<Self> {
        Arc::new(Self { format, books: Mutex::default() })
    }

    /// How many frames are allocated.
    pub(super) fn in_use(&self) -> usize {
        let books = self.books();
        books.allocated - books.freed.len()
    }

    /// Fails if a TLB may hold something that translates an address in `range`.
    pub(super) fn check_forgotten(&self, range: IpaRange) {
        let books = self.books();
        let held = books.cached.iter().find(|cached| cached.is_leaf() && cached.overlaps(range));
        assert!(held.is_none(), "a TLB may hold what was unmapped");
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().expect("the model has failed already")
    }

    fn allocate(&self) -> usize {
        let mut books = self.books();
        books.allocated += 1;
        books.allocated - 1
    }

    fn free(&self, address: PhysAddr) {
        let mut books = self.books();
        assert!(!books.freed.contains(&address), "{address} is freed twice");
        let leads_there =
            |cached: &Cached| matches!(cached.pte, Pte::Table(table) if table.address() == address);
        assert!(!books.cached.iter().any(leads_there), "a walk cache still leads to {address}");
        books.freed.push(address);
    }

    fn stored(&self, store: Store) {
        let range = IpaRange::of_entry(store.ipa, Granule::Tiny.span(store.level));
        let cached = |descriptor: Descriptor| Cached {
            range,
            level: store.level,
            pte: self.decode(descriptor, store.level),
        };
        let mut books = self.books();
        if store.old.is_valid() {
            books.cached.push(cached(store.old));
        }
        if store.new.is_valid() {
            let new = cached(store.new);
            for old in books.cached.iter().filter(|old| old.overlaps(range)) {
                if old.level == new.level {
                    assert!(
                        is_bbm_safe(old.pte, new.pte),
                        "{:?} over {:?}, which a TLB may hold",
                        new.pte,
                        old.pte
                    );
                } else {
                    assert!(
                        !(old.is_leaf() && new.is_leaf()),
                        "a TLB may hold {:?} beside {:?}",
                        old.pte,
                        new.pte
                    );
                }
            }
            books.cached.push(new);
        }
    }

    fn decode(&self, descriptor: Descriptor, level: Level) -> Pte {
        Pte::decode(descriptor, level, self.format)
    }

    fn invalidate(&self, range: IpaRange, stale: Stale) {
        self.books().cached.retain(|cached| {
            let forgets = match stale {
                Stale::Leaves(level) => cached.is_leaf() && cached.level == level,
                Stale::AnyLeaves => cached.is_leaf(),
                Stale::Tables => true,
            };
            !(forgets && cached.overlaps(range))
        });
    }
}

impl Cached {
    fn is_leaf(&self) -> bool {
        matches!(self.pte, Pte::Leaf(_))
    }

    fn overlaps(&self, range: IpaRange) -> bool {
        self.range.intersection(range).is_some()
    }
}

/// Maintenance that takes no time.
impl Maintenance for &Watch {
    fn publish(&self) {}

    fn invalidate(&self, range: IpaRange, stale: Stale) {
        (**self).invalidate(range, stale);
    }

    fn invalidate_local(&self, _: IpaRange, _: Stale) {}

    fn invalidate_all(&self) {
        self.books().cached.clear();
    }
}
