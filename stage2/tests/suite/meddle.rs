//! A machine on which another CPU, or the walker, comes first: it changes an
//! entry between the moment at which the crate read it and the exchange.

use std::cell::RefCell;

use stage2::arena::{Arena, Frame, frame};
use stage2::epoch::{Epochs, Participant};
use stage2::pte::AtomicPte;
use stage2::{Features, Geometry, Granule, Leaf, PaSize, PhysAddr, Pte, Space, TableMemory};
use stage2::{Ipa, Maintenance};

use crate::kit::epochs;

/// Table memory that lets others come first.
pub(crate) struct Meddler {
    arena: Arena<'static, Vec<Frame>>,
    first: RefCell<Option<Box<dyn FnOnce()>>>,
}

pub(crate) type MeddledSpace = &'static Space<&'static Meddler>;

/// A space of 40 bits with such memory, which lives as long as the tests.
pub(crate) fn meddled_space(features: Features) -> (MeddledSpace, Participant<'static>) {
    let arena = Arena::new(PhysAddr::new(0x1_0000_0000), (0..16).map(|_| frame()).collect(), epochs());
    let memory: &'static Meddler = Box::leak(Box::new(Meddler { arena, first: RefCell::new(None) }));
    let geometry = Geometry::new(Granule::Kib4, 40, PaSize::Bits40).unwrap();
    let space = Box::leak(Box::new(Space::new(geometry, features, memory).unwrap()));
    (space, memory.epochs().register().unwrap())
}

impl Meddler {
    /// How many tables are not free.
    pub(crate) fn in_use(&self) -> usize {
        self.arena.in_use()
    }

    /// Does `this` right before the next exchange that the crate tries.
    pub(crate) fn before_next_store(&self, this: impl FnOnce() + 'static) {
        *self.first.borrow_mut() = Some(Box::new(this));
    }
}

/// Changes the leaf at `ipa` as the walker or another CPU would.
pub(crate) fn change_leaf<M: TableMemory>(space: &Space<M>, ipa: Ipa, change: impl Fn(Leaf) -> Leaf) {
    let cpu = space.memory().epochs().register().unwrap();
    let guard = cpu.pin();
    let entry = space.entry(&guard, ipa).unwrap();
    let Pte::Leaf(leaf) = entry.pte() else { panic!("nothing is mapped at {ipa}") };
    entry.try_update(change(leaf)).unwrap();
}

/// Does something while another CPU holds the entry of `ipa`.
pub(crate) fn while_locked<M: TableMemory>(
    space: &Space<M>,
    ipa: Ipa,
    maintenance: &impl Maintenance,
    meanwhile: impl FnOnce(),
) {
    let cpu = space.memory().epochs().register().unwrap();
    let guard = cpu.pin();
    let locked = space.entry(&guard, ipa).unwrap().try_lock().unwrap();
    meanwhile();
    locked.restore(maintenance);
}

// SAFETY: Everything is the arena's, including the promises.
#[expect(unsafe_code, reason = "passes on the arena's promises")]
unsafe impl TableMemory for Meddler {
    fn allocate(&self, bytes: u64) -> Option<PhysAddr> {
        self.arena.allocate(bytes)
    }

    unsafe fn free(&self, address: PhysAddr, bytes: u64) {
        // SAFETY: Passed on from our caller.
        unsafe { self.arena.free(address, bytes) }
    }

    unsafe fn resolve(&self, address: PhysAddr, entries: usize) -> &[AtomicPte] {
        // SAFETY: Passed on from our caller.
        unsafe { self.arena.resolve(address, entries) }
    }

    fn epochs(&self) -> &Epochs {
        self.arena.epochs()
    }

    fn storing(&self) {
        let first = self.first.borrow_mut().take();
        if let Some(first) = first {
            first();
        }
    }
}
