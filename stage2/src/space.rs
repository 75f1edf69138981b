//! A guest's address space: the tree of tables and what the hardware has to
//! be told about it.
//!
//! This file creates and destroys one. Reading is in [`crate::walk`], changing
//! in [`crate::map`] and [`crate::unmap`].

use crate::addr::{Ipa, IpaRange, Level, PhysAddr};
use crate::attr::Attributes;
use crate::error::MapError;
use crate::format::Format;
use crate::geometry::Geometry;
use crate::maint::Maintenance;
use crate::pte::{Leaf, Pte, TableAddr};
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
        let tables = Tables::new(memory);
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
        Format::new(&self.geometry, self.features)
    }

    /// A leaf for an entry at `level`, to be stored with the functions of
    /// [`crate::bbm`].
    ///
    /// # Errors
    ///
    /// [`MapError::OutputMisaligned`] if `output` is not aligned to the size
    /// of such a leaf, or if there are no leaves at `level`.
    /// [`MapError::OutsidePhysical`] if it ends beyond physical memory.
    pub fn leaf(&self, level: Level, output: PhysAddr, attributes: Attributes) -> Result<Leaf, MapError> {
        let granule = self.geometry.granule();
        if !self.format().allows_leaf(level) || !output.is_aligned(granule.span(level)) {
            return Err(MapError::OutputMisaligned { output });
        }
        self.check_output(output, granule.span(level))?;
        Ok(Leaf::new(level, output, attributes, self.format()))
    }

    /// Frees the tables that left the tree, and says how many there were.
    ///
    /// Having the space to oneself is what makes this correct: no other CPU
    /// can be looking into one of them.
    pub fn reclaim(&mut self) -> usize {
        self.tables.reclaim()
    }

    /// Ends the space and frees all its tables.
    ///
    /// Before this, the caller has stopped every vCPU of the guest and made
    /// sure that no CPU has [`Self::root`] in its VTTBR_EL2.
    pub fn destroy(mut self, maintenance: &impl Maintenance) {
        maintenance.invalidate_all();
        self.tables.reclaim();
        let format = self.format();
        for index in 0..self.geometry.root_tables() {
            free_children(
                &mut self.tables,
                self.root.in_root(index, format.granule()),
                self.geometry.start_level(),
                format,
            );
        }
        self.tables.free_root(self.root, self.geometry.root_tables());
    }

    /// The slot of the root that translates `ipa`, which is inside the space.
    pub(crate) fn root_slot(&self, ipa: Ipa) -> Slot<'_, M> {
        let (granule, level) = (self.geometry.granule(), self.geometry.start_level());
        let base = ipa.align_down(granule.table_span(level));
        let table = self.root.in_root(granule.root_index(ipa, level), granule);
        View::new(&self.tables, self.tables.resolve(table), self.format(), level, base).slot_for(ipa)
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
}

/// Frees all tables below `table`, which is at `level`.
fn free_children<M: TableMemory>(tables: &mut Tables<M>, table: TableAddr, level: Level, format: Format) {
    let Some(next) = level.next() else { return };
    for index in 0..format.granule().entries() {
        let descriptor = tables.resolve(table).entry(index).load();
        match Pte::decode(descriptor, level, format) {
            Pte::Table(child) => {
                free_children(tables, child, next, format);
                tables.free(child);
            }
            Pte::Empty | Pte::Annotated(_) | Pte::Leaf(_) => {}
            held @ (Pte::Locked | Pte::Dead | Pte::Settling(_)) => {
                panic!("{held:?} entry in a space that nobody uses")
            }
        }
    }
}
