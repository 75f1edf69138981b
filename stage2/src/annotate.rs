//! Annotations over ranges: what software has to say about addresses that are
//! not mapped.
//!
//! A guest's page may be absent for many reasons: it belongs to someone else,
//! its contents were moved out, a device answers there. An
//! [`Annotation`] in the page's place tells whoever handles the fault,
//! in the one word that is read anyway.
//!
//! An annotation takes the largest entries that lie inside the range, as a
//! mapping does, whatever the memory would have been aligned to. So a
//! terabyte that belongs to a device costs a few entries. If a part of what
//! one entry stands for is changed later, it is split as a block would be.
//!
//! What was mapped is broken as in an unmap, with one invalidation for each
//! stretch, and is never seen unmapped in between: its entry goes from LOCKED
//! straight to the annotation. So a fault that finds nothing there knows that
//! the annotation was not made yet, or is gone again.

use crate::addr::{Ipa, IpaRange};
use crate::cursor::{Budget, Cursor, Step};
use crate::epoch::Guard;
use crate::error::MapError;
use crate::maint::Maintenance;
use crate::pte::{Annotation, Pte};
use crate::space::Space;
use crate::table::TableMemory;
use crate::unmap::Purpose;
use crate::walk::Walk;

/// An annotation, as found by [`Space::annotations`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Annotated {
    /// The addresses that its entry stands for.
    pub range: IpaRange,
    /// What is said of them.
    pub annotation: Annotation,
}

impl<M: TableMemory> Space<M> {
    /// A step of leaving `annotation` in the cursor's range, and nothing else:
    /// what is mapped there is unmapped, and other annotations are replaced.
    ///
    /// When the last step returns, no CPU can reach memory through the range
    /// any more, as after [`Self::unmap`].
    ///
    /// # Errors
    ///
    /// See [`MapError`]. What was done until then holds, and the same step may
    /// be tried again.
    pub fn annotate_step(
        &self,
        guard: &Guard<'_>,
        cursor: &mut Cursor,
        annotation: Annotation,
        budget: Budget,
        maintenance: &impl Maintenance,
    ) -> Result<Step, MapError> {
        let range = cursor.range();
        let step = self.take_apart_step(
            guard,
            cursor,
            Purpose::Annotate(annotation),
            budget,
            maintenance,
            |_, _| {},
        );
        if step == Err(MapError::OutOfTables) {
            // Tables are linked on the way to the ends of the range only, and
            // those that got no entry are not needed.
            let last = range.start().plus(range.size() - self.geometry().granule().page_size());
            for edge in [range.start(), last] {
                self.prune(guard, edge, maintenance);
            }
        }
        step
    }

    /// A step of forgetting the annotations in the cursor's range. What is
    /// mapped there stays so.
    ///
    /// # Errors
    ///
    /// See [`MapError`]. What was done until then holds, and the same step may
    /// be tried again.
    pub fn clear_annotations_step(
        &self,
        guard: &Guard<'_>,
        cursor: &mut Cursor,
        budget: Budget,
        maintenance: &impl Maintenance,
    ) -> Result<Step, MapError> {
        self.take_apart_step(guard, cursor, Purpose::ClearAnnotations, budget, maintenance, |_, _| {})
    }

    /// All annotations that stand for an address in `range`, in ascending
    /// order, entry by entry. The first and the last may reach beyond it.
    ///
    /// Addresses beyond the width of the space are ignored.
    pub fn annotations<'g>(&'g self, guard: &'g Guard<'_>, range: IpaRange) -> Annotations<'g, M> {
        let width = Ipa::new(1 << self.geometry().ipa_bits());
        let inside = IpaRange::between(range.start(), range.end().min(width));
        Annotations { walk: inside.map(|range| Walk::new(self, guard, range)) }
    }
}

/// Iterator over the annotations of a range; see [`Space::annotations`].
pub struct Annotations<'g, M: TableMemory> {
    walk: Option<Walk<'g, M>>,
}

impl<M: TableMemory> Iterator for Annotations<'_, M> {
    type Item = Annotated;

    fn next(&mut self) -> Option<Annotated> {
        let walk = self.walk.as_mut()?;
        while let Some(entry) = walk.entry() {
            walk.pass();
            if let Pte::Annotated(annotation) = entry.pte() {
                return Some(Annotated { range: entry.range(), annotation });
            }
        }
        None
    }
}
