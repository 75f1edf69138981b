//! Why an operation on a space was refused: one variant per broken rule.

use core::fmt;

use crate::addr::{Ipa, IpaRange, PhysAddr};
use crate::attr::Permissions;

/// Why an operation was refused.
///
/// A refused operation leaves every translation of the space as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// Some of the range lies beyond the width of the space.
    OutsideSpace {
        /// The range asked for.
        range: IpaRange,
    },
    /// The memory lies beyond the machine's physical addresses.
    OutsidePhysical {
        /// Where the memory starts.
        output: PhysAddr,
    },
    /// The range does not start and end on a page.
    RangeMisaligned {
        /// The range asked for.
        range: IpaRange,
    },
    /// The memory does not start on a boundary that its mapping needs.
    OutputMisaligned {
        /// Where the memory starts.
        output: PhysAddr,
    },
    /// The space can't express these permissions: without FEAT_XNX, memory is
    /// executable at both exception levels or at none.
    Permissions {
        /// The permissions asked for.
        permissions: Permissions,
    },
    /// Something is mapped there already, and `map` replaces nothing.
    AlreadyMapped {
        /// The first address, in ascending order, that is taken.
        ipa: Ipa,
    },
    /// A software annotation stands there; unmap it first.
    Annotated {
        /// The first address, in ascending order, that is annotated.
        ipa: Ipa,
    },
    /// There is no memory for another table.
    OutOfTables,
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutsideSpace { range } => write!(f, "{range} is outside the guest's address space"),
            Self::OutsidePhysical { output } => {
                write!(f, "memory at {output} is outside the machine's physical address space")
            }
            Self::RangeMisaligned { range } => write!(f, "{range} does not start and end on a page"),
            Self::OutputMisaligned { output } => {
                write!(f, "memory at {output} is not aligned as its mapping needs")
            }
            Self::Permissions { permissions } => {
                write!(f, "{permissions:?} needs a machine with FEAT_XNX")
            }
            Self::AlreadyMapped { ipa } => write!(f, "{ipa} is already mapped"),
            Self::Annotated { ipa } => write!(f, "{ipa} carries an annotation"),
            Self::OutOfTables => write!(f, "no memory left for translation tables"),
        }
    }
}

impl core::error::Error for MapError {}
