//! A space with the one CPU that changes it, for tests in which nobody else
//! does: every operation under a guard of its own.

use std::ops::Deref;

use stage2::epoch::{Epochs, Guard, Participant};
use stage2::{
    Attributes, Features, Geometry, Ipa, IpaRange, Leaf, Maintenance, MapError, Mapping, Permissions,
    PhysAddr, Pte, Space, TableMemory,
};

/// Epochs that live as long as the tests.
pub(crate) fn epochs() -> &'static Epochs {
    Box::leak(Box::new(Epochs::new()))
}

/// A space and a CPU.
pub(crate) struct Lone<'m, M: TableMemory> {
    space: Space<&'m M>,
    cpu: Participant<'m>,
}

impl<'m, M: TableMemory> Lone<'m, M> {
    /// An empty space; see [`Space::new`].
    pub(crate) fn new(geometry: Geometry, features: Features, memory: &'m M) -> Result<Self, MapError> {
        let cpu = memory.epochs().register().unwrap();
        Ok(Self { space: Space::new(geometry, features, memory)?, cpu })
    }

    pub(crate) fn map(
        &self,
        range: IpaRange,
        output: PhysAddr,
        attributes: Attributes,
        maintenance: &impl Maintenance,
    ) -> Result<(), MapError> {
        self.space.map(&self.cpu.pin(), range, output, attributes, maintenance)
    }

    pub(crate) fn unmap(&self, range: IpaRange, maintenance: &impl Maintenance) -> Result<(), MapError> {
        self.space.unmap(&self.cpu.pin(), range, maintenance)
    }

    pub(crate) fn protect(
        &self,
        range: IpaRange,
        permissions: Permissions,
        maintenance: &impl Maintenance,
    ) -> Result<(), MapError> {
        self.space.protect(&self.cpu.pin(), range, permissions, maintenance)
    }

    pub(crate) fn lookup(&self, ipa: Ipa) -> Option<Mapping> {
        self.space.lookup(&self.cpu.pin(), ipa)
    }

    pub(crate) fn leaves(&self, range: IpaRange) -> impl Iterator<Item = Mapping> {
        self.space.leaves(&self.cpu.pin(), range).collect::<Vec<_>>().into_iter()
    }

    /// A guard of the CPU, for operations that have no shorthand here.
    pub(crate) fn pin(&self) -> Guard<'_> {
        self.cpu.pin()
    }

    /// The leaf that translates `ipa`.
    pub(crate) fn leaf_at(&self, ipa: Ipa) -> Option<Leaf> {
        match self.space.entry(&self.pin(), ipa)?.pte() {
            Pte::Leaf(leaf) => Some(leaf),
            _ => None,
        }
    }

    /// Changes the leaf that translates `ipa` in place.
    pub(crate) fn update(&self, ipa: Ipa, change: impl FnOnce(Leaf) -> Leaf) {
        let guard = self.pin();
        let entry = self.space.entry(&guard, ipa).unwrap();
        let Pte::Leaf(leaf) = entry.pte() else { panic!("{ipa} is not mapped") };
        entry.try_update(change(leaf)).unwrap();
    }

    /// Frees all tables that left the tree, and says how many.
    pub(crate) fn reclaim(&self) -> usize {
        (0..4).map(|_| self.space.collect(&self.cpu.pin())).sum()
    }

    pub(crate) fn destroy(self, maintenance: &impl Maintenance) {
        self.space.destroy(maintenance);
    }
}

impl<'m, M: TableMemory> Deref for Lone<'m, M> {
    type Target = Space<&'m M>;

    fn deref(&self) -> &Space<&'m M> {
        &self.space
    }
}
