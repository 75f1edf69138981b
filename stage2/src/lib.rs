//! Stage-2 translation tables: create, change and read them while guests run.

#![no_std]

#[cfg(test)]
extern crate std;

pub mod addr;
pub mod arena;
pub mod attr;
pub mod bbm;
mod detach;
pub mod error;
pub mod geometry;
pub mod maint;
mod map;
pub mod pte;
mod reclaim;
mod space;
mod sync;
pub mod table;
mod unmap;
mod view;
pub mod vtcr;
mod walk;

pub use addr::{Ipa, IpaRange, Level, PhysAddr};
pub use attr::{Access, Attributes, Execute, Fwb, MemoryType, Permissions};
pub use error::MapError;
pub use geometry::{Geometry, GeometryError, Granule, PaSize};
pub use maint::Maintenance;
pub use pte::{Annotation, Descriptor, Leaf, Pte};
pub use space::Space;
pub use table::{Table, TableMemory};
pub use vtcr::{AccessFlag, Features, VmidSize};
pub use walk::{Leaves, Mapping};
