//! A machine to run the crate on: table memory that counts, and TLBs that
//! remember everything they ever could have cached.
//!
//! [`Machine`] is told of every store and every invalidation. It holds what
//! *some* TLB *might* hold: each valid descriptor from the moment it became
//! reachable until an invalidation that surely covers it. Against that it
//! checks, at each store, that nothing valid appears beside something
//! different; at each free, that no walk cache still leads to the table; and
//! on request, that a range is forgotten and that everything new was
//! published.
//!
//! Violations are collected, not thrown: the crate may hold locks when one
//! happens. [`Machine::check`] reports them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use stage2::arena::{Arena, Frame};
use stage2::table::Store;
use stage2::{Descriptor, Ipa, IpaRange, Level, Maintenance, PhysAddr, Pte, Table, TableMemory};

const ARENA_BASE: PhysAddr = PhysAddr::new(0x1_0000_0000);

/// Descriptor bits that may differ between two valid leaves for one address:
/// S2AP, AF, DBM, XN and software bits. Written out here once more, from the
/// manual, so that the model does not trust the crate about it.
const MAY_DIFFER: u64 = 0xc0 | 1 << 10 | 1 << 51 | 0b11 << 53 | 0b1111 << 55;

/// How often each operation was asked of the hardware.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) publish: usize,
    pub(crate) leaf: usize,
    pub(crate) range: usize,
    pub(crate) all: usize,
}

/// A machine with table memory and TLBs.
pub(crate) struct Machine {
    arena: Arena<Vec<Frame>>,
    allocations_left: Cell<usize>,
    counts: Cell<Counts>,
    /// Valid leaf descriptors that a TLB might hold, by first address and
    /// level. Several, where only permissions and flags differ.
    leaves: RefCell<BTreeMap<(u64, u32), Vec<u64>>>,
    /// Table descriptors that a walk cache might hold.
    walks: RefCell<BTreeMap<(u64, u32), u64>>,
    /// Whether a valid descriptor was stored that is not published.
    unpublished: Cell<bool>,
    violations: RefCell<Vec<String>>,
}

impl Machine {
    pub(crate) fn new(tables: usize) -> Self {
        Self {
            arena: Arena::new(ARENA_BASE, (0..tables).map(|_| Frame::new()).collect()),
            allocations_left: Cell::new(usize::MAX),
            counts: Cell::default(),
            leaves: RefCell::default(),
            walks: RefCell::default(),
            unpublished: Cell::new(false),
            violations: RefCell::default(),
        }
    }

    /// Lets this many more allocations succeed.
    pub(crate) fn allow_allocations(&self, count: usize) {
        self.allocations_left.set(count);
    }

    pub(crate) fn tables_in_use(&self) -> usize {
        self.arena.in_use()
    }

    /// The operations since the last call.
    pub(crate) fn take_counts(&self) -> Counts {
        self.counts.take()
    }

    /// What went wrong since the last call.
    pub(crate) fn take_violations(&self) -> Vec<String> {
        self.violations.take()
    }

    /// Fails the test if a rule was broken, or if something new is valid in
    /// memory and the walkers were never told.
    #[track_caller]
    pub(crate) fn check(&self) {
        assert_eq!(self.take_violations(), Vec::<String>::new());
        assert!(!self.unpublished.get(), "a new descriptor was never published");
    }

    /// Fails the test if a TLB might still translate an address in `range`.
    #[track_caller]
    pub(crate) fn check_forgotten(&self, range: IpaRange) {
        for (&(ipa, level), _) in self.leaves.borrow().iter() {
            let cached = span(ipa, level);
            assert_eq!(cached.intersection(range), None, "a TLB might still hold {cached} at level {level}");
        }
    }

    /// What is in the table at `address`, as the hardware would see it.
    pub(crate) fn snapshot(&self, address: PhysAddr) -> Vec<Descriptor> {
        // SAFETY: The arena checks that there is a table, and only the test's
        // own thread could free it meanwhile.
        #[expect(unsafe_code, reason = "the model reads tables like hardware does")]
        let table = unsafe { self.arena.resolve(address) };
        table.snapshot().collect()
    }

    fn violation(&self, what: String) {
        self.violations.borrow_mut().push(what);
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }

    /// A valid descriptor became reachable: TLBs may hold it from now on.
    fn cache(&self, ipa: Ipa, level: Level, descriptor: Descriptor) {
        let key = (ipa.bits(), level.number());
        let new = span(ipa.bits(), level.number());
        let bits = descriptor.bits();
        match Pte::decode(descriptor, level) {
            Pte::Leaf(_) => {
                for (&(ipa, level), held) in self.leaves.borrow().iter() {
                    let other_size = level != key.1 && span(ipa, level).intersection(new).is_some();
                    let other_bits =
                        (ipa, level) == key && held.iter().any(|held| (held ^ bits) & !MAY_DIFFER != 0);
                    if other_size || other_bits {
                        self.violation(format!(
                            "{descriptor:?} for {new} made while a TLB might hold {held:x?} at level {level}"
                        ));
                    }
                }
                if let Some(held) = self.walks.borrow().get(&key) {
                    self.violation(format!(
                        "{descriptor:?} for {new} made while a walk cache might hold table {held:#x}"
                    ));
                }
                self.leaves.borrow_mut().entry(key).or_default().push(bits);
            }
            Pte::Table(table) => {
                if let Some(held) = self.leaves.borrow().get(&key) {
                    self.violation(format!("table for {new} made while a TLB might hold {held:x?}"));
                }
                if let Some(held) = self.walks.borrow_mut().insert(key, bits)
                    && held != bits
                {
                    self.violation(format!("table for {new} made while a walk cache might hold {held:#x}"));
                }
                let next = level.next().expect("tables lead somewhere");
                for (index, descriptor) in self.snapshot(table.address()).into_iter().enumerate() {
                    let offset = index as u64 * span(0, next.number()).size();
                    self.cache(Ipa::new(ipa.bits() + offset), next, descriptor);
                }
            }
            Pte::Empty | Pte::Annotated(_) | Pte::Locked | Pte::Dead => {}
        }
    }
}

/// The addresses of an entry.
fn span(ipa: u64, level: u32) -> IpaRange {
    IpaRange::new(Ipa::new(ipa), 1 << (12 + 9 * (3 - level))).unwrap()
}

// SAFETY: Everything is the arena's, including the promises.
#[expect(unsafe_code, reason = "passes on the arena's promises")]
unsafe impl TableMemory for Machine {
    fn allocate(&self, tables: usize) -> Option<PhysAddr> {
        let left = self.allocations_left.get().checked_sub(1)?;
        self.allocations_left.set(left);
        self.arena.allocate(tables)
    }

    unsafe fn free(&self, first: PhysAddr, tables: usize) {
        for held in self.walks.borrow().values() {
            if held & 0xffff_ffff_f000 == first.bits() {
                self.violation(format!("table at {first} freed while a walk cache might lead to it"));
            }
        }
        // SAFETY: Passed on from our caller.
        unsafe { self.arena.free(first, tables) }
    }

    unsafe fn resolve(&self, address: PhysAddr) -> &Table {
        // SAFETY: Passed on from our caller.
        unsafe { self.arena.resolve(address) }
    }

    fn stored(&self, Store { ipa, level, old, new }: Store) {
        if new.is_valid() {
            // Over a valid descriptor, an invalidation takes care of the rest.
            if !old.is_valid() {
                self.unpublished.set(true);
            }
            self.cache(ipa, level, new);
        }
    }
}

impl Maintenance for Machine {
    fn publish(&self) {
        self.count(|counts| counts.publish += 1);
        self.unpublished.set(false);
    }

    fn invalidate_leaf(&self, ipa: Ipa, level: Level) {
        self.count(|counts| counts.leaf += 1);
        // A level hint: removes that level only, and no walk cache entry.
        self.leaves
            .borrow_mut()
            .retain(|&(start, found), _| found != level.number() || !span(start, found).contains(ipa));
    }

    fn invalidate_range(&self, range: IpaRange) {
        self.count(|counts| counts.range += 1);
        let outside = |&(start, level): &(u64, u32)| span(start, level).intersection(range).is_none();
        self.leaves.borrow_mut().retain(|key, _| outside(key));
        self.walks.borrow_mut().retain(|key, _| outside(key));
    }

    fn invalidate_all(&self) {
        self.count(|counts| counts.all += 1);
        self.leaves.borrow_mut().clear();
        self.walks.borrow_mut().clear();
    }
}
