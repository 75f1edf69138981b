//! Finding the memory whose caches have to be cleaned.
//!
//! A guest that turns its caches off expects memory to hold what it wrote with
//! caches on, and the other way round. Without FEAT_S2FWB its accesses then
//! bypass the caches, so someone has to clean them to the point of coherency
//! first. Cleaning is for the caller, who has the instructions and the linear
//! map; which memory it is, stage 2 knows.

use crate::addr::PhysAddr;
use crate::attr::{Fwb, MemoryType};
use crate::cursor::{Budget, Cursor, Step};
use crate::epoch::Guard;
use crate::error::MapError;
use crate::pte::Pte;
use crate::space::Space;
use crate::table::TableMemory;
use crate::walk::Walk;

impl<M: TableMemory> Space<M> {
    /// A step of going through the cacheable memory that is mapped in the
    /// cursor's range: `visit` gets the address and the bytes of each piece, to
    /// clean and invalidate it to the point of coherency. Pieces are cut off at
    /// the ends of the range.
    ///
    /// With [`Fwb::On`] guests can't bypass the caches, so nothing is visited.
    ///
    /// The budget counts entries, whatever their size. To bound the time that
    /// cleaning takes, go through ranges of bounded size.
    ///
    /// # Errors
    ///
    /// See [`MapError`]; only if the range is wrong.
    pub fn flush_step(
        &self,
        guard: &Guard<'_>,
        cursor: &mut Cursor,
        budget: Budget,
        mut visit: impl FnMut(PhysAddr, u64),
    ) -> Result<Step, MapError> {
        self.check_range(cursor.range())?;
        let Some(rest) = cursor.rest() else { return Ok(Step::Done) };
        if self.features().fwb == Fwb::On {
            return Ok(cursor.reached(rest.end()));
        }
        let mut account = budget.open(self.geometry().granule());
        let mut walk = Walk::new(self, guard, rest);
        while let Some(entry) = walk.entry_within(&mut account) {
            if let Pte::Leaf(leaf) = entry.pte()
                && leaf.attributes().memory == MemoryType::NormalWriteBack
                && let Some(piece) = entry.range().intersection(rest)
                && let Some(offset) = piece.start().offset_from(entry.range().start())
            {
                visit(leaf.output().plus(offset), piece.size());
            }
            walk.pass();
        }
        Ok(cursor.reached(walk.at()))
    }
}
