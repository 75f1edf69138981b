//! A guest that uses its memory on one CPU with a TLB: for tests of what the
//! tables know about use.
//!
//! What it knows of the hardware is little, and is all that matters here: a
//! translation in the TLB is used without a look at the table; a leaf with a
//! clear access flag is not cached; and a write needs a translation that was
//! made from a dirty leaf. Flags are set by the walker, or else by the faults.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use stage2::arena::{Arena, Frame, frame};
use stage2::epoch::Participant;
use stage2::{
    AccessFlag, Contiguous, Dirty, DirtyState, Features, Geometry, Granule, Ipa, IpaRange, Level,
    Maintenance, PaSize, Permissions, PhysAddr, Pte, Resolved, Space, Stale, TableMemory,
};

use crate::kit::epochs;

pub(crate) const PAGE: u64 = 0x1000;

pub(crate) type Memory = Arena<'static, Vec<Frame>>;

pub(crate) fn memory() -> Memory {
    Arena::new(PhysAddr::new(0x1_0000_0000), (0..64).map(|_| frame()).collect(), epochs())
}

/// What the TLB holds of a page.
#[derive(Clone, Copy)]
struct Cached {
    level: Level,
    writable: bool,
}

/// A guest, with its space and its CPU.
pub(crate) struct Guest<'m> {
    pub(crate) space: Space<&'m Memory>,
    pub(crate) cpu: Participant<'m>,
    tlb: RefCell<BTreeMap<u64, Cached>>,
    /// How often each page was written to.
    versions: RefCell<BTreeMap<u64, u64>>,
    /// Pages that were used since the pass before.
    pub(crate) used: RefCell<BTreeSet<u64>>,
    /// Pages to write to right before each invalidation.
    pub(crate) mischief: RefCell<Vec<u64>>,
    pub(crate) invalidations: Cell<usize>,
}

impl<'m> Guest<'m> {
    /// A guest without memory, on a machine that sets flags itself or not.
    pub(crate) fn new(memory: &'m Memory, dirty: DirtyState) -> Self {
        let access_flag = match dirty {
            DirtyState::WriteProtect => AccessFlag::Software,
            DirtyState::Hardware => AccessFlag::Hardware,
        };
        let features = Features { dirty, access_flag, contiguous: Contiguous::Allowed, ..Features::BASE };
        let geometry = Geometry::new(Granule::Kib4, 40, PaSize::Bits40).unwrap();
        Self {
            space: Space::new(geometry, features, memory).unwrap(),
            cpu: memory.epochs().register().unwrap(),
            tlb: RefCell::default(),
            versions: RefCell::default(),
            used: RefCell::default(),
            mischief: RefCell::default(),
            invalidations: Cell::new(0),
        }
    }

    /// How often a page was written to.
    pub(crate) fn version(&self, page: u64) -> u64 {
        self.versions.borrow().get(&page).copied().unwrap_or(0)
    }

    /// Loads from a page.
    pub(crate) fn read(&self, page: u64) {
        if self.translate(page, Permissions::READ_ONLY) {
            self.used.borrow_mut().insert(page);
        }
    }

    /// Stores to a page, if that is allowed.
    pub(crate) fn write(&self, page: u64) {
        if self.translate(page, Permissions::READ_WRITE) {
            self.used.borrow_mut().insert(page);
            self.written(page);
        }
    }

    /// Something is in a page that was not there before.
    pub(crate) fn written(&self, page: u64) {
        *self.versions.borrow_mut().entry(page).or_insert(0) += 1;
    }

    /// Gets a translation for an access into the TLB; `false` if there is none.
    fn translate(&self, page: u64, access: Permissions) -> bool {
        let writes = access.access.allows_writing();
        let hardware = self.space.features().dirty == DirtyState::Hardware;
        loop {
            if self.tlb.borrow().get(&page).is_some_and(|cached| cached.writable || !writes) {
                return true;
            }
            let (guard, ipa) = (self.cpu.pin(), Ipa::new(page * PAGE));
            let entry = self.space.entry(&guard, ipa).unwrap();
            let Pte::Leaf(leaf) = entry.pte() else { return false };
            match (leaf.is_young(), leaf.dirty()) {
                (_, Dirty::ReadOnly) if writes => return false,
                (false, _) if hardware => entry.try_update(leaf.young()).unwrap(),
                (false, _) => assert_eq!(self.space.make_young(&guard, ipa, self), Resolved::Done),
                (true, Dirty::Clean) if writes && hardware => entry.try_update(leaf.dirtied()).unwrap(),
                (true, Dirty::Clean) if writes => {
                    assert_eq!(self.space.relax(&guard, ipa, access, self), Resolved::Done);
                }
                (true, dirty) => {
                    let cached = Cached { level: leaf.level(), writable: dirty == Dirty::Dirty };
                    self.tlb.borrow_mut().insert(page, cached);
                }
            }
        }
    }

    fn forget(&self, range: IpaRange, stale: Stale) {
        self.tlb.borrow_mut().retain(|&page, cached| {
            let level_is_right = match stale {
                Stale::Leaves(level) => cached.level == level,
                Stale::AnyLeaves | Stale::Tables => true,
            };
            !(level_is_right && range.contains(Ipa::new(page * PAGE)))
        });
    }

    /// Ends a test: all tables come back.
    pub(crate) fn finish(self) {
        let memory = *self.space.memory();
        self.space.destroy(&stage2::NoTlb);
        assert_eq!(memory.in_use(), 0);
    }
}

impl Maintenance for Guest<'_> {
    fn publish(&self) {}

    fn invalidate(&self, range: IpaRange, stale: Stale) {
        // The last moment in which writes can pass unnoticed, and so they do.
        for page in self.mischief.borrow().iter() {
            if self.tlb.borrow().get(page).is_some_and(|cached| cached.writable) {
                self.written(*page);
                self.used.borrow_mut().insert(*page);
            }
        }
        self.forget(range, stale);
        self.invalidations.set(self.invalidations.get() + 1);
    }

    fn invalidate_local(&self, range: IpaRange, stale: Stale) {
        self.forget(range, stale);
    }

    fn invalidate_all(&self) {
        self.tlb.borrow_mut().clear();
    }
}
