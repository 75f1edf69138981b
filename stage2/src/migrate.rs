//! Moving what is mapped to other memory, while the guest runs.
//!
//! # Memory that a guest may write to
//!
//! The leaf is broken before the copy is made: a guest's write must reach
//! either the old memory before it is copied, or the new. So the order is
//! break, invalidate, copy, make, and the guest stalls on this one leaf for as
//! long as that takes. Whoever can't afford it for a block splits it first.
//!
//! # Memory that holds the same
//!
//! If a leaf can't be written through and the new memory already holds the same
//! as the old, it makes no difference which of the two a CPU reads. Then the
//! architecture asks for no break (Arm ARM, "Using break-before-make when
//! updating translation table entries"), and no guest stalls. But until the
//! old leaf is out of all TLBs,
//!
//! * nobody may make the new one writable: a CPU could write to the new memory
//!   and read from the old. So the new leaf is SETTLING until then, which the
//!   hardware doesn't see and other CPUs in this crate wait for.
//! * the old memory may not be used for anything else. Both ways of moving
//!   return it as a [`Vacated`], which nobody else can make: it is the proof
//!   that no CPU reaches the memory through this space's leaf any more.

use core::fmt;

use crate::addr::{Ipa, PhysAddr};
use crate::attr::Dirty;
use crate::bbm::Entry;
use crate::epoch::Guard;
use crate::error::MapError;
use crate::maint::Maintenance;
use crate::pte::{Leaf, Pte};
use crate::space::Space;
use crate::table::TableMemory;
use crate::walk::Mapping;

/// Memory that a leaf mapped until its contents were moved, and that no TLB
/// leads to any more by that leaf.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the memory is free to be used for something else"]
pub struct Vacated {
    output: PhysAddr,
    size: u64,
}

impl Vacated {
    /// Where it starts.
    pub fn output(&self) -> PhysAddr {
        self.output
    }

    /// How many bytes it has.
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// Why memory was not moved. Everything is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrateError {
    /// Nothing is mapped there.
    NotMapped {
        /// The address asked for.
        ipa: Ipa,
    },
    /// A guest may write there, so the contents could not stay the same.
    Writable {
        /// The address asked for.
        ipa: Ipa,
    },
    /// The new memory can't be mapped by such a leaf.
    Output(MapError),
}

impl fmt::Display for MigrateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMapped { ipa } => write!(f, "{ipa} is not mapped"),
            Self::Writable { ipa } => write!(f, "{ipa} may be written to"),
            Self::Output(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for MigrateError {}

impl<M: TableMemory> Space<M> {
    /// Moves the page or block at `ipa` to the memory from `output` on.
    ///
    /// `copy` is told what is mapped, and copies all of it, while no CPU can
    /// write to the old memory or see the new. It also does what the caches
    /// need. It must not use this space, whose other users may be waiting for
    /// it. Access flag and dirty state are kept.
    ///
    /// # Errors
    ///
    /// [`MigrateError`], without a call of `copy`.
    pub fn migrate(
        &self,
        guard: &Guard<'_>,
        ipa: Ipa,
        output: PhysAddr,
        copy: impl FnOnce(Mapping),
        maintenance: &impl Maintenance,
    ) -> Result<Vacated, MigrateError> {
        loop {
            let (entry, leaf) = self.leaf_to_move(guard, ipa, output)?;
            if leaf.is_contiguous() {
                self.unfold_at(entry.slot(), maintenance);
                continue;
            }
            let range = entry.range();
            let Ok(locked) = entry.try_lock() else { continue };
            // What the lock replaced, and not what was read before: with the
            // last access flag and dirty state.
            let Pte::Leaf(old) = locked.old() else { unreachable!("a leaf was locked") };
            let broken = locked.break_with(maintenance);
            copy(Mapping::new(range, old));
            broken.make(old.moved_to(output), maintenance);
            return Ok(Vacated { output: old.output(), size: range.size() });
        }
    }

    /// Moves the page or block at `ipa` to the memory from `output` on, which
    /// holds the same already, and goes on doing so. No guest stalls.
    ///
    /// # Errors
    ///
    /// [`MigrateError`]; in particular [`MigrateError::Writable`], if a guest
    /// may write there.
    pub fn migrate_identical(
        &self,
        guard: &Guard<'_>,
        ipa: Ipa,
        output: PhysAddr,
        maintenance: &impl Maintenance,
    ) -> Result<Vacated, MigrateError> {
        loop {
            let (entry, old) = self.leaf_to_move(guard, ipa, output)?;
            let range = entry.range();
            if old.dirty() != Dirty::ReadOnly {
                return Err(MigrateError::Writable { ipa });
            } else if old.is_contiguous() {
                self.unfold_at(entry.slot(), maintenance);
                continue;
            }
            let Ok(settling) = entry.try_settle_identical(old.moved_to(output)) else { continue };
            settling.settle(maintenance);
            return Ok(Vacated { output: old.output(), size: range.size() });
        }
    }

    /// The leaf at `ipa`, if it could map the memory from `output` on.
    fn leaf_to_move<'g>(
        &'g self,
        guard: &'g Guard<'_>,
        ipa: Ipa,
        output: PhysAddr,
    ) -> Result<(Entry<'g, M>, Leaf), MigrateError> {
        let entry = self.entry(guard, ipa).ok_or(MigrateError::NotMapped { ipa })?;
        let Pte::Leaf(leaf) = entry.pte() else { return Err(MigrateError::NotMapped { ipa }) };
        let size = entry.range().size();
        if !output.is_aligned(size) {
            return Err(MigrateError::Output(MapError::OutputMisaligned { output }));
        }
        self.check_output(output, size).map_err(MigrateError::Output)?;
        Ok((entry, leaf))
    }
}
