//! A guest's address space: the tree of tables and what the hardware has to
//! be told about it.
//!
//! This file creates a space, and ends it. Reading is in [`crate::walk`],
//! changing in [`crate::map`], [`crate::protect`] and [`crate::unmap`].

use crate::addr::{Ipa, IpaRange, Level, PhysAddr};
use crate::attr::{Attributes, Permissions};
use crate::cursor::{Account, Budget};
use crate::epoch::Guard;
use crate::error::MapError;
use crate::format::Format;
use crate::geometry::Geometry;
use crate::maint::Maintenance;
use crate::pte::{Descriptor, Leaf, Pte, TableAddr};
use crate::table::{TableMemory, Tables};
use crate::view::{Slot, View};
use crate::vtcr::{Features, vtcr};

/// An address space of a guest.
///
/// All CPUs may read and change it at once through `&self`. It must be
/// [destroyed](Self::destroy) in the end; merely dropped, it keeps its tables
/// for ever, since a guest might still be running on them.
#[must_use = "a space that is dropped leaks its tables; use `destroy`"]
pub struct Space<M: TableMemory> {
    pub(crate) tables: Tables<M>,
    root: TableAddr,
    geometry: Geometry,
    features: Features,
}

impl<M: TableMemory> Space<M> {
    /// An empty space, whose tables come from `memory`.
    ///
    /// # Errors
    ///
    /// [`MapError::OutOfTables`] if there is no room for the root.
    pub fn new(geometry: Geometry, features: Features, memory: M) -> Result<Self, MapError> {
        let tables = Tables::new(memory, Format::new(&geometry, features));
        let root = tables.allocate_root(geometry.root_tables()).ok_or(MapError::OutOfTables)?;
        Ok(Self { tables, root, geometry, features })
    }

    /// Where the root lies: the BADDR field of VTTBR_EL2, in its place.
    ///
    /// Before a CPU loads it for the first time, the walkers must have been
    /// told of the tables by a [`Maintenance::publish`]; mapping something
    /// includes one.
    pub fn root(&self) -> PhysAddr {
        self.root.address()
    }

    /// The value of VTCR_EL2 for this space.
    pub fn vtcr(&self) -> u64 {
        vtcr(&self.geometry, self.features)
    }

    /// Where its tables come from.
    pub fn memory(&self) -> &M {
        self.tables.memory()
    }

    /// The shape of the space.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The features it was built for.
    pub fn features(&self) -> Features {
        self.features
    }

    /// How its descriptors are spelt.
    pub fn format(&self) -> Format {
        self.tables.format()
    }

    /// A leaf for an entry at `level`, to be stored with the functions of
    /// [`crate::bbm`].
    ///
    /// # Errors
    ///
    /// [`MapError::OutputMisaligned`] if `output` is not aligned to the size
    /// of such a leaf, or if there are no leaves at `level`.
    /// [`MapError::OutsidePhysical`] if it ends beyond physical memory.
    /// [`MapError::Permissions`] if the space can't express them.
    pub fn leaf(&self, level: Level, output: PhysAddr, attributes: Attributes) -> Result<Leaf, MapError> {
        self.check_output(output, self.format().granule().span(level))?;
        self.check_permissions(attributes.permissions)?;
        self.format().leaf(level, output, attributes).ok_or(MapError::OutputMisaligned { output })
    }

    /// How many tables have left the tree and are not free yet, because a CPU
    /// might still be looking at them.
    ///
    /// Operations that retire tables free older ones, so this stays small
    /// unless a CPU remains pinned. Then
    /// [`Epochs::try_advance`](crate::epoch::Epochs::try_advance) says which,
    /// and whoever is about to retire more should unpin and let others go
    /// first.
    pub fn retired(&self) -> usize {
        self.tables.retired()
    }

    /// Frees the retired tables that nobody can be looking at any more, and
    /// says how many. After four calls under four guards in a row, with nobody
    /// else pinned, all are free.
    pub fn collect(&self, guard: &Guard<'_>) -> usize {
        self.tables.collect(guard, usize::MAX)
    }

    /// Ends the space and frees all its tables.
    ///
    /// Before this, the caller has stopped every vCPU of the guest and made
    /// sure that no CPU has [`Self::root`] in its VTTBR_EL2.
    pub fn destroy(self, maintenance: &impl Maintenance) {
        let mut rest = Some(self.teardown(maintenance));
        while let Some(teardown) = rest {
            rest = teardown.step(Budget::UNLIMITED);
        }
    }

    /// Ends the space, in steps; under the same terms as [`Self::destroy`].
    pub fn teardown(self, maintenance: &impl Maintenance) -> Teardown<M> {
        maintenance.invalidate_all();
        Teardown { space: self }
    }

    /// The slot of the root that translates `ipa`, which is inside the space.
    pub(crate) fn root_slot<'g>(&'g self, guard: &'g Guard<'_>, ipa: Ipa) -> Slot<'g, M> {
        let (granule, level) = (self.geometry.granule(), self.geometry.start_level());
        let base = ipa.align_down(granule.table_span(level));
        let table = self.root.in_root(granule.root_index(ipa, level), granule);
        View::new(self.tables.pinned(guard), table, level, base).slot_for(ipa)
    }

    /// Whether `range` is something that can be mapped, unmapped, protected.
    pub(crate) fn check_range(&self, range: IpaRange) -> Result<(), MapError> {
        let page_size = self.geometry.granule().page_size();
        if !self.geometry.contains(range) {
            return Err(MapError::OutsideSpace { range });
        }
        if !range.start().is_aligned(page_size) || !range.end().is_aligned(page_size) {
            return Err(MapError::RangeMisaligned { range });
        }
        Ok(())
    }

    /// Whether a leaf can name all of the `size` bytes from `output`.
    pub(crate) fn check_output(&self, output: PhysAddr, size: u64) -> Result<(), MapError> {
        if !output.is_aligned(self.geometry.granule().page_size()) {
            return Err(MapError::OutputMisaligned { output });
        }
        match output.checked_add(size) {
            Some(end) if end.bits() <= 1 << self.geometry.pa_size().bits() => Ok(()),
            _ => Err(MapError::OutsidePhysical { output }),
        }
    }

    /// Whether a leaf can express these.
    pub(crate) fn check_permissions(&self, permissions: Permissions) -> Result<(), MapError> {
        if self.format().allows(permissions) { Ok(()) } else { Err(MapError::Permissions { permissions }) }
    }
}

/// A space that is being taken apart.
///
/// Nobody can look into it any more, for it owns the space; so tables are
/// freed as they are met.
#[must_use = "a teardown that is dropped leaks the tables that are left"]
pub struct Teardown<M: TableMemory> {
    space: Space<M>,
}

impl<M: TableMemory> Teardown<M> {
    /// Frees tables, and looks at about as many entries as `budget` says.
    /// Gives back what is left to do; `None` at the end.
    pub fn step(mut self, budget: Budget) -> Option<Self> {
        let geometry = self.space.geometry;
        let tables = &mut self.space.tables;
        let entries = tables.format().granule().entries();
        let mut account = budget.open(geometry.granule());
        while tables.free_retired() {
            account.spend(entries);
            if !account.allows(entries) {
                return Some(self);
            }
        }
        for index in 0..geometry.root_tables() {
            let root = self.space.root.in_root(index, geometry.granule());
            if !free_below(tables, root, geometry.start_level(), &mut account) {
                return Some(self);
            }
        }
        tables.free_root(self.space.root, geometry.root_tables());
        None
    }
}

/// Frees all tables below `table`, which is at `level`; `false` if the budget
/// was spent before.
///
/// Freeing a table costs as much as looking at all its entries: it is cleared.
fn free_below<M: TableMemory>(
    tables: &mut Tables<M>,
    table: TableAddr,
    level: Level,
    account: &mut Account,
) -> bool {
    let (format, Some(next)) = (tables.format(), level.next()) else { return true };
    let entries = format.granule().entries();
    for index in 0..entries {
        match Pte::decode(tables.resolve_mut(table)[index].load(), level, format) {
            Pte::Table(child) => {
                if !account.allows(entries) || !free_below(tables, child, next, account) {
                    return false;
                }
                account.spend(entries);
                tables.resolve_mut(table)[index].fill(Descriptor::EMPTY);
                tables.free(child);
            }
            Pte::Empty | Pte::Annotated(_) | Pte::Leaf(_) => {}
            held @ (Pte::Settling(_) | Pte::Locked | Pte::Dead) => {
                panic!("{held:?} entry in a space that nobody uses")
            }
        }
    }
    true
}
