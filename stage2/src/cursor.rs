//! Long operations in short steps.
//!
//! An operation on a large range may take long, and a CPU at EL2 can't be
//! interrupted. So every such operation exists as a *step*: it does as much of
//! the range as its [`Budget`] allows and returns, with everything done that
//! the part needs, TLB invalidation included. Between steps the caller drops
//! its guard, looks after whatever else is waiting, and goes on when it likes,
//! or not at all.
//!
//! What is left to do is the part of the range that was not reached: a
//! [`Cursor`] is nothing but that. It refers to no table and holds no lock, so
//! other operations may change the range between two steps.
//!
//! ```
//! # use std::iter::repeat_with;
//! # use stage2::{arena::{Arena, frame}, epoch::Epochs, Attributes, Budget, Cursor, Features, Geometry, Granule};
//! # use stage2::{Ipa, IpaRange, NoTlb, PaSize, PhysAddr, Space, Step};
//! # let epochs = Epochs::new();
//! # let cpu = epochs.register().unwrap();
//! # let memory = Arena::new(PhysAddr::new(0x1000_0000), repeat_with(frame).take(64).collect::<Vec<_>>(), &epochs);
//! # let geometry = Geometry::new(Granule::Kib4, 40, PaSize::Bits40)?;
//! # let space = Space::new(geometry, Features::BASE, &memory)?;
//! # let ram = IpaRange::new(Ipa::new(0x4000_0000), 0x100_0000).unwrap();
//! # space.map(&cpu.pin(), ram, PhysAddr::new(0x8000_1000), Attributes::RAM, &NoTlb)?;
//! let mut cursor = Cursor::new(ram);
//! while space.unmap_step(&cpu.pin(), &mut cursor, Budget::entries(512), &NoTlb)? == Step::More {
//!     // Time for something else: nothing is locked, nobody is pinned.
//! }
//! # space.destroy(&NoTlb);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::addr::{Ipa, IpaRange, Level};
use crate::granule::Granule;

/// What is left of a range that an operation goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a cursor does nothing by itself"]
pub struct Cursor {
    range: IpaRange,
    /// The first address that is left; the end of the range when none is.
    at: Ipa,
}

impl Cursor {
    /// All of `range` is to be done.
    pub fn new(range: IpaRange) -> Self {
        Self { range, at: range.start() }
    }

    /// The whole range.
    pub fn range(&self) -> IpaRange {
        self.range
    }

    /// What was done so far.
    pub fn done(&self) -> Option<IpaRange> {
        IpaRange::between(self.range.start(), self.at)
    }

    /// What is left to do.
    pub fn rest(&self) -> Option<IpaRange> {
        IpaRange::between(self.at, self.range.end())
    }

    /// Everything below `at` is done.
    pub(crate) fn reached(&mut self, at: Ipa) -> Step {
        self.at = at.min(self.range.end());
        if self.at == self.range.end() { Step::Done } else { Step::More }
    }
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "there may be more to do"]
pub enum Step {
    /// The whole range is done.
    Done,
    /// The budget is spent; there is more to do.
    More,
}

/// How many entries a step may look at.
///
/// A step looks at no fewer than one table has, so that it always gets on. On
/// top of its budget it may have to look through tables that it has emptied,
/// one at each level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget(usize);

impl Budget {
    /// The whole range in one step, however long it takes.
    pub const UNLIMITED: Self = Self(usize::MAX);

    /// About this many entries.
    pub const fn entries(entries: usize) -> Self {
        Self(entries)
    }

    /// The account of one step in a space with this granule.
    pub(crate) fn open(self, granule: Granule) -> Account {
        // One table, and an entry at each level on the way to it.
        Account { left: self.0.max(granule.entries() + Level::COUNT) }
    }
}

/// What is left of a step's budget.
#[derive(Debug)]
pub(crate) struct Account {
    left: usize,
}

impl Account {
    /// Whether the step should end.
    pub(crate) fn is_spent(&self) -> bool {
        self.left == 0
    }

    /// Whether there is enough left for this many entries.
    pub(crate) fn allows(&self, entries: usize) -> bool {
        self.left >= entries
    }

    /// This many entries, or what there is left for.
    pub(crate) fn at_most(&self, entries: usize) -> usize {
        self.left.min(entries)
    }

    /// Pays for entries that were looked at.
    pub(crate) fn spend(&mut self, entries: usize) {
        self.left = self.left.saturating_sub(entries);
    }
}
