//! How descriptors are spelt in one space.
//!
//! The same word means different things in different spaces: the granule
//! decides which levels hold leaves and where addresses lie, HCR_EL2.FWB what
//! a memory type is. A [`Format`] is all of that together, and small enough
//! to be carried along by everything that was decoded with it: a
//! [`Leaf`](crate::Leaf) knows its own format and needs no further argument
//! to say what it maps.

use crate::attr::Fwb;
use crate::geometry::{Geometry, Granule};
use crate::vtcr::Features;

/// How descriptors are spelt in one space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Format {
    granule: Granule,
    fwb: Fwb,
}

impl Format {
    /// The format of a space of this shape on a machine with these features.
    #[inline]
    pub const fn new(geometry: &Geometry, features: Features) -> Self {
        Self { granule: geometry.granule(), fwb: features.fwb }
    }

    /// The page size.
    #[inline]
    pub const fn granule(self) -> Granule {
        self.granule
    }

    /// Whether stage 2 decides memory types alone.
    #[inline]
    pub const fn fwb(self) -> Fwb {
        self.fwb
    }
}
