//! A machine to run the crate on: table memory that counts, and TLBs that
//! remember everything they ever could have cached.
//!
//! [`Machine`] is told of every store and every invalidation. It holds what
//! *some* TLB *might* hold: each valid descriptor from the moment it became
//! reachable until an invalidation that surely covers it. Against that it
//! checks, at each store, that nothing valid appears beside something
//! different; at each free, that no walk cache still leads to the table; and
//! on request, that TLBs and memory agree and that everything new was
//! published.
//!
//! Violations are collected, not thrown: the crate may hold locks when one
//! happens. [`Machine::check`] reports them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use stage2::arena::{Arena, Frame, frame};
use stage2::epoch::{Epochs, Participant};
use stage2::pte::AtomicPte;
use stage2::table::Store;

use crate::kit::{Lone, epochs};
use stage2::{
    Descriptor, Features, Format, Geometry, Granule, Ipa, IpaRange, Level, Maintenance, Mapping, PaSize,
    PhysAddr, Pte, Stale, Successor, TableMemory,
};

const ARENA_BASE: PhysAddr = PhysAddr::new(0x1_0000_0000);

/// Descriptor bits that may differ between two valid leaves for one address:
/// S2AP, AF, DBM, XN and software bits. Written out here once more, from the
/// manual, so that the model does not trust the crate about it.
const MAY_DIFFER: u64 = 0xc0 | 1 << 10 | 1 << 51 | 0b11 << 53 | 0b1111 << 55;

const MEMATTR: u64 = 0b1111 << 2;
const WRITE: u64 = 1 << 7;
const DBM: u64 = 1 << 51;
const CONTIGUOUS: u64 = 1 << 52;
const ADDRESS: u64 = ((1 << 48) - 1) & !0xfff;

/// Which words are leaves and which are tables; all spaces here agree on it.
const FORMAT: Format = match Geometry::new(Granule::Kib4, 40, PaSize::Bits48) {
    Ok(geometry) => Format::new(&geometry, Features::BASE),
    Err(_) => panic!("an ordinary geometry"),
};

const LEVELS: [Level; 4] = [Level::L0, Level::L1, Level::L2, Level::L3];

/// How often each operation was asked of the hardware.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) publish: usize,
    pub(crate) leaf: usize,
    pub(crate) range: usize,
    pub(crate) local: usize,
    pub(crate) all: usize,
}

/// Valid descriptors, leaves and tables, by level and first address.
#[derive(Default)]
struct Descriptors([BTreeMap<u64, Vec<Descriptor>>; 4]);

impl Descriptors {
    fn at(&mut self, level: Level) -> &mut BTreeMap<u64, Vec<Descriptor>> {
        &mut self.0[level.number() as usize]
    }

    fn insert(&mut self, ipa: Ipa, level: Level, descriptor: Descriptor) {
        let held = self.at(level).entry(ipa.bits()).or_default();
        if !held.contains(&descriptor) {
            held.push(descriptor);
        }
    }

    fn holds(&self, ipa: Ipa, level: Level, descriptor: Descriptor) -> bool {
        self.0[level.number() as usize].get(&ipa.bits()).is_some_and(|held| held.contains(&descriptor))
    }

    /// Everything at `level` that has an address in `range`.
    fn overlapping(&self, level: Level, range: IpaRange) -> impl Iterator<Item = (Ipa, Descriptor)> {
        let first = range.start().align_down(size(level)).bits();
        let found = self.0[level.number() as usize].range(first..range.end().bits());
        found.flat_map(|(&ipa, held)| held.iter().map(move |&held| (Ipa::new(ipa), held)))
    }

    /// Drops what is at `level` and has an address in `range`, unless `keep`.
    fn drop_unless(&mut self, level: Level, range: IpaRange, keep: impl Fn(Ipa, Descriptor) -> bool) {
        let first = range.start().align_down(size(level)).bits();
        let mut emptied = Vec::new();
        for (&ipa, held) in self.at(level).range_mut(first..range.end().bits()) {
            held.retain(|&descriptor| keep(Ipa::new(ipa), descriptor));
            if held.is_empty() {
                emptied.push(ipa);
            }
        }
        for ipa in emptied {
            self.at(level).remove(&ipa);
        }
    }

    fn iter(&self) -> impl Iterator<Item = (Ipa, Level, Descriptor)> {
        let everywhere = IpaRange::between(Ipa::new(0), Ipa::new(1 << 52)).unwrap();
        LEVELS.into_iter().flat_map(move |level| {
            self.overlapping(level, everywhere).map(move |(ipa, held)| (ipa, level, held))
        })
    }
}

/// A machine with table memory and TLBs.
pub(crate) struct Machine {
    arena: Arena<'static, Vec<Frame>>,
    allocations_left: Cell<usize>,
    counts: Cell<Counts>,
    /// What a walker finds in memory now.
    reachable: RefCell<Descriptors>,
    /// What a TLB or a walk cache might hold.
    cached: RefCell<Descriptors>,
    /// Whether a valid descriptor was stored that is not published.
    unpublished: Cell<bool>,
    /// Memory that holds the same as other memory: which of the two a leaf
    /// leads to makes no difference, as long as neither can be written to.
    identical: Cell<Option<(PhysAddr, PhysAddr)>>,
    violations: RefCell<Vec<String>>,
}

impl Machine {
    /// A machine with room for this many tables.
    pub(crate) fn new(tables: usize) -> Self {
        Self {
            arena: Arena::new(ARENA_BASE, (0..tables).map(|_| frame()).collect(), epochs()),
            allocations_left: Cell::new(usize::MAX),
            counts: Cell::default(),
            reachable: RefCell::default(),
            cached: RefCell::default(),
            unpublished: Cell::new(false),
            identical: Cell::new(None),
            violations: RefCell::default(),
        }
    }

    /// Lets this many more allocations succeed.
    pub(crate) fn allow_allocations(&self, count: usize) {
        self.allocations_left.set(count);
    }

    /// From now on, both pages or blocks hold the same.
    pub(crate) fn contents_are_identical(&self, a: PhysAddr, b: PhysAddr) {
        self.identical.set(Some((a, b)));
    }

    /// Whether it makes no difference which of these leaves a TLB uses.
    fn are_interchangeable(&self, a: Pte, b: Pte) -> bool {
        let (Pte::Leaf(a), Pte::Leaf(b)) = (a, b) else { return false };
        let read_only = [a, b].iter().all(|leaf| leaf.encode().bits() & (WRITE | DBM) == 0);
        let places = (a.output(), b.output());
        read_only
            && (a.encode().bits() ^ b.encode().bits()) & MEMATTR == 0
            && self.identical.get().is_some_and(|(x, y)| places == (x, y) || places == (y, x))
    }

    /// Another CPU than that of a [`Lone`] space.
    pub(crate) fn cpu(&self) -> Participant<'_> {
        self.epochs().register().unwrap()
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

    /// Whether something new is valid in memory and the walkers were not told.
    pub(crate) fn is_unpublished(&self) -> bool {
        self.unpublished.get()
    }

    /// Fails the test if a rule was broken.
    #[track_caller]
    pub(crate) fn check(&self) {
        assert_eq!(self.take_violations(), Vec::<String>::new());
        assert!(!self.is_unpublished(), "a new descriptor was never published");
    }

    /// Fails the test if a TLB might hold anything that `space` does not say,
    /// except that something old is young: nobody relies on that.
    #[track_caller]
    pub(crate) fn check_coherent(&self, space: &Lone<'_, Self>) {
        for (ipa, level, descriptor) in self.cached.borrow().iter() {
            if is_marked(descriptor, level) {
                let offset = output(descriptor, level).wrapping_sub(ipa.bits());
                for member in members(ipa, level) {
                    let said = space.leaf_at(member).expect("a TLB may use a set of which a part is gone");
                    assert_eq!(
                        said.output().bits(),
                        member.bits().wrapping_add(offset),
                        "another member says otherwise"
                    );
                    assert!(said.is_contiguous(), "a TLB may use a set that was unfolded");
                }
            }
            let Pte::Leaf(leaf) = decode_in(descriptor, level, space.format()) else { continue };
            let cached = Mapping {
                range: IpaRange::new(ipa, size(level)).unwrap(),
                output: leaf.output(),
                attributes: leaf.attributes(),
                young: leaf.is_young(),
                dirty: leaf.dirty(),
            };
            let said =
                space.lookup(ipa).map(|said| Mapping { young: cached.young, dirty: cached.dirty, ..said });
            assert_eq!(said, Some(cached), "memory disagrees with what a TLB might hold");
        }
    }

    /// What is in the table at `address`, as the hardware would see it.
    pub(crate) fn snapshot(&self, address: PhysAddr) -> Vec<Descriptor> {
        // SAFETY: The arena checks that there is a table, and only the test's
        // own thread could free it meanwhile.
        #[expect(unsafe_code, reason = "the model reads tables like hardware does")]
        let table = unsafe { self.arena.resolve(address, 512) };
        table.iter().map(AtomicPte::load).collect()
    }

    /// A valid descriptor became reachable: TLBs may hold it from now on.
    fn appeared(&self, ipa: Ipa, level: Level, new: Descriptor) {
        let range = IpaRange::new(ipa, size(level)).unwrap();
        for held_level in LEVELS {
            for (_, held) in self.cached.borrow().overlapping(held_level, range) {
                let interchangeable =
                    || self.are_interchangeable(decode(held, held_level), decode(new, level));
                if conflicts((held_level, held), (level, new)) && !interchangeable() {
                    let number = held_level.number();
                    self.violation(format!("{new:?} for {range} made beside {held:?} at level {number}"));
                }
            }
        }
        for member in members(ipa, level) {
            let page = IpaRange::new(member, 1).unwrap();
            for (held_ipa, held) in self.cached.borrow().overlapping(level, page) {
                // Either may be taken for the translation of all members.
                let marked = is_marked(new, level) || is_marked(held, level);
                if marked && held_ipa != ipa && !are_of_one_set((held_ipa, held), (ipa, new), level) {
                    self.violation(format!("{new:?} for {range} made beside {held:?} for {held_ipa}"));
                }
            }
        }
        self.reachable.borrow_mut().insert(ipa, level, new);
        // A leaf whose access flag is clear is not cached.
        if !matches!(decode(new, level), Pte::Leaf(leaf) if !leaf.is_young()) {
            self.cached.borrow_mut().insert(ipa, level, new);
        }
        if let Pte::Table(table) = decode(new, level) {
            let next = level.next().unwrap();
            for (index, child) in self.snapshot(table.address()).into_iter().enumerate() {
                if child.is_valid() {
                    self.appeared(ipa.checked_add(index as u64 * size(next)).unwrap(), next, child);
                }
            }
        }
    }

    /// TLBs drop what is at `level` in `range` and satisfies `which`; but
    /// what a walker still finds in memory may be back at once.
    fn forget(&self, level: Level, range: IpaRange, which: impl Fn(Pte) -> bool) {
        let reachable = self.reachable.borrow();
        self.cached.borrow_mut().drop_unless(level, range, |ipa, held| {
            reachable.holds(ipa, level, held) || !which(decode(held, level))
        });
    }

    fn violation(&self, what: String) {
        self.violations.borrow_mut().push(what);
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }
}

/// Whether a TLB that holds `held` must not find `new`, both for addresses
/// that they have in common.
fn conflicts((held_level, held): (Level, Descriptor), (level, new): (Level, Descriptor)) -> bool {
    let deeper = held_level.number() > level.number();
    match (decode(held, held_level), decode(new, level)) {
        (Pte::Leaf(_), Pte::Leaf(_)) => held_level != level || (held.bits() ^ new.bits()) & !MAY_DIFFER != 0,
        // A walk that goes on from the table, below or in place of the leaf.
        (Pte::Table(_), Pte::Leaf(_)) => deeper || held_level == level,
        // A block at or above the new table. What is cached from below it is
        // compared with the table's own entries.
        (Pte::Leaf(_), Pte::Table(_)) => !deeper,
        (Pte::Table(_), Pte::Table(_)) => held_level == level && held != new,
        _ => unreachable!("only valid descriptors are cached"),
    }
}

/// Whether a descriptor is a leaf that says it is part of a contiguous set.
fn is_marked(descriptor: Descriptor, level: Level) -> bool {
    matches!(decode(descriptor, level), Pte::Leaf(_)) && descriptor.bits() & CONTIGUOUS != 0
}

/// Where the 16 entries start that an entry would form a set with.
fn members(ipa: Ipa, level: Level) -> impl Iterator<Item = Ipa> {
    let first = ipa.align_down(16 * size(level));
    let entries = if level == Level::L0 { 0 } else { 16 };
    (0..entries).map(move |index| first.checked_add(index * size(level)).unwrap())
}

/// Whether two leaves, both marked, can be members of one set.
fn are_of_one_set(a: (Ipa, Descriptor), b: (Ipa, Descriptor), level: Level) -> bool {
    let mapped = |(ipa, descriptor): (Ipa, Descriptor)| output(descriptor, level).wrapping_sub(ipa.bits());
    let differing = (a.1.bits() ^ b.1.bits()) & !ADDRESS & !MAY_DIFFER;
    is_marked(a.1, level) && is_marked(b.1, level) && mapped(a) == mapped(b) && differing == 0
}

/// The memory that a leaf maps.
fn output(leaf: Descriptor, level: Level) -> u64 {
    leaf.bits() & ADDRESS & !(size(level) - 1)
}

/// What the hardware takes a descriptor for: bit 55 is nothing to it.
fn decode(descriptor: Descriptor, level: Level) -> Pte {
    decode_in(descriptor, level, FORMAT)
}

fn decode_in(descriptor: Descriptor, level: Level, format: Format) -> Pte {
    match Pte::decode(descriptor, level, format) {
        Pte::Settling(Successor::Leaf(leaf)) => Pte::Leaf(leaf),
        Pte::Settling(Successor::Table(table)) => Pte::Table(table),
        pte => pte,
    }
}

/// Bytes that an entry translates.
fn size(level: Level) -> u64 {
    1 << (12 + 9 * (3 - level.number()))
}

// SAFETY: Everything is the arena's, including the promises.
#[expect(unsafe_code, reason = "passes on the arena's promises")]
unsafe impl TableMemory for Machine {
    fn allocate(&self, bytes: u64) -> Option<PhysAddr> {
        let left = self.allocations_left.get().checked_sub(1)?;
        self.allocations_left.set(left);
        self.arena.allocate(bytes)
    }

    unsafe fn free(&self, first: PhysAddr, bytes: u64) {
        for (ipa, level, held) in self.cached.borrow().iter() {
            if let Pte::Table(table) = decode(held, level)
                && table.address() == first
            {
                self.violation(format!("table at {first} freed while a walk of {ipa} might lead to it"));
            }
        }
        // SAFETY: Passed on from our caller.
        unsafe { self.arena.free(first, bytes) }
    }

    unsafe fn resolve(&self, address: PhysAddr, entries: usize) -> &[AtomicPte] {
        // SAFETY: Passed on from our caller.
        unsafe { self.arena.resolve(address, entries) }
    }

    fn epochs(&self) -> &Epochs {
        self.arena.epochs()
    }

    fn stored(&self, Store { ipa, level, old, new }: Store) {
        if old.is_valid() {
            let range = IpaRange::new(ipa, 1).unwrap();
            self.reachable.borrow_mut().drop_unless(level, range, |_, _| false);
        }
        if new.is_valid() {
            // Over a valid descriptor, an invalidation takes care of the rest.
            if !old.is_valid() {
                self.unpublished.set(true);
            }
            self.appeared(ipa, level, new);
        }
    }
}

impl Maintenance for Machine {
    fn publish(&self) {
        self.count(|counts| counts.publish += 1);
        self.unpublished.set(false);
    }

    fn invalidate(&self, range: IpaRange, stale: Stale) {
        // Its first instruction makes what was stored visible.
        self.unpublished.set(false);
        match stale {
            Stale::Leaves(level) => {
                self.count(|counts| counts.leaf += 1);
                // A level hint removes that level only, and no walk cache entry.
                self.forget(level, range, |held| matches!(held, Pte::Leaf(_)));
            }
            Stale::AnyLeaves | Stale::Tables => {
                self.count(|counts| counts.range += 1);
                for level in LEVELS {
                    self.forget(level, range, |held| stale == Stale::Tables || matches!(held, Pte::Leaf(_)));
                }
            }
        }
    }

    /// The TLBs are those of one CPU.
    fn invalidate_local(&self, range: IpaRange, stale: Stale) {
        let counts = self.counts.get();
        self.invalidate(range, stale);
        self.counts.set(Counts { local: counts.local + 1, ..counts });
    }

    fn invalidate_all(&self) {
        self.count(|counts| counts.all += 1);
        // The space is not in use any more, so nothing comes back.
        *self.cached.borrow_mut() = Descriptors::default();
    }
}
