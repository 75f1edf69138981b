//! Changing the size of mappings that stay as they are: splitting blocks down
//! to a level, and making one block of a table of leaves.
//!
//! # How a table becomes a block
//!
//! The opposite of a split is harder than the split, because others may be
//! changing any of the entries meanwhile.
//!
//! 1. Look at all entries, and refuse if they are not what a block could say.
//!    Nothing was written until here, so a refusal costs nobody anything.
//! 2. Make the entries DEAD one by one, in ascending order, as for every table
//!    that leaves the tree (see `detach.rs`). Each is checked once more by the
//!    very exchange that takes it, which also gives its access flag and dirty
//!    state their last value. An entry that is LOCKED is waited for. One that
//!    no longer fits ends the attempt: a DEAD entry remembers in what state
//!    its leaf was, so all are put back as they were, the first one last, for
//!    it is the sign that the table is spoken for.
//! 3. Lock the entry that leads to the table, invalidate all that lies below,
//!    make the block, and retire the table.
//!
//! From step 2 on, guests fault on the range, and those who look it up wait.
//! Nobody ever finds it unmapped.
//!
//! FEAT_BBM level 2 would allow the block to be stored over the table while
//! its leaves are valid. But between the last look at a leaf and that moment
//! its state might change once more and be lost, so this goes the same way on
//! all machines.

use core::fmt;

use crate::addr::{Ipa, IpaRange, Level};
use crate::bbm::Entry;
use crate::cursor::{Budget, Cursor, Step};
use crate::epoch::Guard;
use crate::error::MapError;
use crate::maint::Maintenance;
use crate::pte::{Leaf, Pte, TableAddr};
use crate::space::Space;
use crate::table::TableMemory;
use crate::view::{Slot, View};
use crate::walk::{Mapping, Walk};

/// Why a table can't be replaced by a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CollapseError {
    /// The address is outside the space.
    OutsideSpace {
        /// The address asked for.
        ipa: Ipa,
    },
    /// There is no table for a block to replace: the last entry on the way to
    /// the address is in the root.
    InRoot,
    /// There are no blocks as large as what the table maps.
    NoSuchBlock,
    /// The memory does not start where such a block could.
    Misaligned,
    /// Not all of the table is mapped.
    NotFull {
        /// The first address that is not.
        ipa: Ipa,
    },
    /// An annotation stands there.
    Annotated {
        /// The first address that is annotated.
        ipa: Ipa,
    },
    /// Some of the table is mapped with still smaller leaves. Collapse those
    /// first.
    SmallerLeaves {
        /// The first address that is.
        ipa: Ipa,
    },
    /// The memory is not in one piece.
    NotContiguous {
        /// The first address that is mapped elsewhere.
        ipa: Ipa,
    },
    /// The memory is in one piece, but of different types, or with different
    /// permissions.
    MixedAttributes {
        /// The first address that differs.
        ipa: Ipa,
    },
}

impl fmt::Display for CollapseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutsideSpace { ipa } => write!(f, "{ipa} is outside the guest's address space"),
            Self::InRoot => write!(f, "it is mapped by the root already"),
            Self::NoSuchBlock => write!(f, "there are no larger blocks"),
            Self::Misaligned => write!(f, "the memory is not aligned as a block needs"),
            Self::NotFull { ipa } => write!(f, "{ipa} is not mapped"),
            Self::Annotated { ipa } => write!(f, "{ipa} carries an annotation"),
            Self::SmallerLeaves { ipa } => write!(f, "{ipa} is mapped by a smaller leaf"),
            Self::NotContiguous { ipa } => write!(f, "{ipa} is mapped to memory elsewhere"),
            Self::MixedAttributes { ipa } => write!(f, "{ipa} is mapped with other attributes"),
        }
    }
}

impl core::error::Error for CollapseError {}

/// Why an attempt to collapse a table ended.
enum Stop {
    /// The table can't be a block.
    Refused(CollapseError),
    /// Another CPU is removing the table.
    BeingRemoved,
}

impl<M: TableMemory> Space<M> {
    /// A step of splitting all blocks that have an address in the cursor's
    /// range, until no leaf there is larger than those at level `to`. What is
    /// mapped stays as it was, with its access flags and dirty state.
    ///
    /// # Errors
    ///
    /// See [`MapError`]. When tables run out, what was split until then stays
    /// so, and [`Cursor::done`] tells how far it came.
    pub fn split_step(
        &self,
        guard: &Guard<'_>,
        cursor: &mut Cursor,
        to: Level,
        budget: Budget,
        maintenance: &impl Maintenance,
    ) -> Result<Step, MapError> {
        self.check_range(cursor.range())?;
        let Some(rest) = cursor.rest() else { return Ok(Step::Done) };
        let granule = self.geometry().granule();
        let mut account = budget.open(granule);
        let mut walk = Walk::new(self, guard, rest);
        let mut result = Ok(());
        while let Some(entry) = walk.entry_within(&mut account) {
            match entry.pte() {
                Pte::Leaf(leaf) if leaf.level().number() < to.number() => {
                    account.spend(granule.entries());
                    result = self.split(entry, maintenance);
                    if result.is_err() {
                        break;
                    }
                }
                _ => walk.pass(),
            }
        }
        let step = cursor.reached(walk.at());
        result.map(|()| step)
    }

    /// Makes one block of the last table on the way to `ipa`, and returns it.
    ///
    /// The block is young if any of the leaves was, and dirty if any was. To
    /// get still larger blocks, collapse again.
    ///
    /// # Errors
    ///
    /// [`CollapseError`], with everything as it was, if a block can't say what
    /// the table says.
    pub fn collapse(
        &self,
        guard: &Guard<'_>,
        ipa: Ipa,
        maintenance: &impl Maintenance,
    ) -> Result<Mapping, CollapseError> {
        if !IpaRange::new(ipa, 1).is_some_and(|here| self.geometry().contains(here)) {
            return Err(CollapseError::OutsideSpace { ipa });
        }
        loop {
            let (slot, table) = self.last_table(guard, ipa).ok_or(CollapseError::InRoot)?;
            match collapse(slot, table, maintenance) {
                Ok(block) => {
                    self.tables.collect(guard, 2);
                    return Ok(Mapping::new(slot.range(), block));
                }
                Err(Stop::Refused(error)) => return Err(error),
                Err(Stop::BeingRemoved) => self.memory().relax(),
            }
        }
    }

    /// The last table on the way to `ipa`, and the slot that leads to it;
    /// `None` if that is the root.
    fn last_table<'g>(&'g self, guard: &'g Guard<'_>, ipa: Ipa) -> Option<(Slot<'g, M>, TableAddr)> {
        let mut last = None;
        let mut slot = self.root_slot(guard, ipa);
        loop {
            match Entry::load(slot).pte() {
                Pte::Table(table) => {
                    last = Some((slot, table));
                    slot = slot.child(table).slot_for(ipa);
                }
                Pte::Empty | Pte::Annotated(_) | Pte::Leaf(_) => return last,
                Pte::Locked | Pte::Settling(_) => self.memory().relax(),
                Pte::Dead => {
                    self.memory().relax();
                    last = None;
                    slot = self.root_slot(guard, ipa);
                }
            }
        }
    }
}

/// Makes one block of the table that `slot` leads to.
fn collapse<M: TableMemory>(
    slot: Slot<'_, M>,
    table: TableAddr,
    maintenance: &impl Maintenance,
) -> Result<Leaf, Stop> {
    let view = slot.child(table);
    let model = survey(view)?;
    let block = suspend_all(view, model, maintenance)?;
    // All entries are DEAD by our doing, so the table is ours to unlink.
    let locked = Entry::load(slot).lock_dead_table(table);
    locked.break_with(maintenance).make(block, maintenance);
    slot.tables().retire(table, slot.guard());
    Ok(block)
}

/// Looks whether a block can say what the table says, and which.
fn survey<M: TableMemory>(view: View<'_, M>) -> Result<Leaf, Stop> {
    let first = leaf_in(view.slot(0))?.1;
    if !first.level().previous().is_some_and(|level| first.format().allows_leaf(level)) {
        return Err(Stop::Refused(CollapseError::NoSuchBlock));
    }
    let model = first.widened().ok_or(Stop::Refused(CollapseError::Misaligned))?;
    for slot in view.slots() {
        check(slot, leaf_in(slot)?.1, model)?;
    }
    Ok(model)
}

/// Makes all entries DEAD, and returns the block that can take their place.
///
/// If one of them isn't a part of `model` any more, all are put back.
fn suspend_all<M: TableMemory>(
    view: View<'_, M>,
    model: Leaf,
    maintenance: &impl Maintenance,
) -> Result<Leaf, Stop> {
    let mut block: Option<Leaf> = None;
    for slot in view.slots() {
        match suspend(slot, model) {
            Ok(leaf) => {
                let part = model.with_state(leaf.without_contiguous().state());
                block = Some(block.map_or(part, |block| block.merge_access_state(part)));
            }
            Err(stop) => {
                for index in (0..slot.index()).rev() {
                    Entry::load(view.slot(index)).resume(part_of(model, index));
                }
                maintenance.publish();
                return Err(stop);
            }
        }
    }
    Ok(block.expect("a table has entries"))
}

/// Makes an entry DEAD if it is a part of `model`, and returns what it was.
fn suspend<M: TableMemory>(slot: Slot<'_, M>, model: Leaf) -> Result<Leaf, Stop> {
    loop {
        let (entry, leaf) = leaf_in(slot)?;
        check(slot, leaf, model)?;
        if entry.try_suspend(leaf).is_ok() {
            return Ok(leaf);
        }
    }
}

/// The leaf in a slot, when no other CPU is changing it.
fn leaf_in<'g, M: TableMemory>(slot: Slot<'g, M>) -> Result<(Entry<'g, M>, Leaf), Stop> {
    let ipa = slot.ipa();
    loop {
        let entry = Entry::load(slot);
        return Err(match entry.pte() {
            Pte::Leaf(leaf) => return Ok((entry, leaf)),
            Pte::Locked | Pte::Settling(_) => {
                slot.tables().memory().relax();
                continue;
            }
            Pte::Dead => Stop::BeingRemoved,
            Pte::Empty => Stop::Refused(CollapseError::NotFull { ipa }),
            Pte::Annotated(_) => Stop::Refused(CollapseError::Annotated { ipa }),
            Pte::Table(_) => Stop::Refused(CollapseError::SmallerLeaves { ipa }),
        });
    }
}

/// Whether the leaf in a slot is the part of `model` that belongs there.
fn check<M: TableMemory>(slot: Slot<'_, M>, leaf: Leaf, model: Leaf) -> Result<(), Stop> {
    let ipa = slot.ipa();
    let part = part_of(model, slot.index());
    if leaf.output() != part.output() {
        Err(Stop::Refused(CollapseError::NotContiguous { ipa }))
    } else if !leaf.says_the_same(part) {
        Err(Stop::Refused(CollapseError::MixedAttributes { ipa }))
    } else {
        Ok(())
    }
}

/// What entry `index` of a table says that says the same as `block`.
fn part_of(block: Leaf, index: usize) -> Leaf {
    block.child(index).expect("a block has parts")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
mod tests {
    use core::cell::Cell;
    use core::iter::repeat_with;
    use std::vec::Vec;

    use super::{CollapseError, Stop, suspend_all};
    use crate::addr::{Ipa, IpaRange, Level, PhysAddr};
    use crate::arena::{Arena, frame};
    use crate::attr::{Attributes, Permissions};
    use crate::bbm::Entry;
    use crate::cursor::{Budget, Cursor};
    use crate::epoch::Epochs;
    use crate::geometry::{Geometry, Granule, PaSize};
    use crate::maint::{Maintenance, NoTlb, Stale};
    use crate::pte::{AtomicPte, Pte};
    use crate::space::Space;
    use crate::vtcr::Features;

    /// Counts what is published.
    #[derive(Default)]
    struct Published(Cell<usize>);

    impl Maintenance for Published {
        fn publish(&self) {
            self.0.set(self.0.get() + 1);
        }
        fn invalidate(&self, _: IpaRange, _: Stale) {}
        fn invalidate_local(&self, _: IpaRange, _: Stale) {}
        fn invalidate_all(&self) {}
    }

    #[test]
    fn entries_come_back_in_their_own_state_when_one_does_not_fit() {
        let epochs = Epochs::new();
        let cpu = epochs.register().unwrap();
        let frames = repeat_with(frame).take(4).collect::<Vec<_>>();
        let memory = Arena::new(PhysAddr::new(0x1000_0000), frames, &epochs);
        let geometry = Geometry::new(Granule::Kib4, 39, PaSize::Bits40).unwrap();
        let space = Space::new(geometry, Features::BASE, &memory).unwrap();
        let guard = cpu.pin();
        let whole = IpaRange::new(Ipa::new(0), 0x20_0000).unwrap();
        space.map(&guard, whole, PhysAddr::new(0), Attributes::RAM, &NoTlb).unwrap();
        let Some(Pte::Leaf(block)) = space.entry(&guard, Ipa::new(0)).map(|entry| entry.pte()) else {
            panic!("a block was mapped")
        };
        let mut cursor = Cursor::new(whole);
        let _ = space.split_step(&guard, &mut cursor, Level::L3, Budget::UNLIMITED, &NoTlb).unwrap();
        let (slot, table) = space.last_table(&guard, Ipa::new(0)).unwrap();
        let view = slot.child(table);
        // Every state there is, again and again; and the last does not fit.
        for slot in view.slots() {
            let Pte::Leaf(leaf) = Entry::load(slot).pte() else { panic!("a page was mapped") };
            let leaf = match slot.index() % 4 {
                0 => leaf.aged(),
                1 => leaf.cleaned(),
                2 => leaf.cleaned().dirtied().aged(),
                _ => leaf,
            };
            let last = slot.next().is_none();
            let leaf = if last { leaf.with_permissions(Permissions::READ_ONLY) } else { leaf };
            Entry::load(slot).try_update(leaf).unwrap();
        }
        let descriptors = || view.entries().iter().map(AtomicPte::load).collect::<Vec<_>>();
        let before = descriptors();
        let published = Published::default();

        let stop = suspend_all(view, block, &published);

        let last = Ipa::new(511 * 0x1000);
        assert!(matches!(stop, Err(Stop::Refused(CollapseError::MixedAttributes { ipa })) if ipa == last));
        assert_eq!(descriptors(), before);
        assert_eq!(published.0.get(), 1);
        drop(guard);
        space.destroy(&NoTlb);
    }
}
