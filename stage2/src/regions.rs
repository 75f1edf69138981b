//! Regions: what lies where in a guest's address space, and how that changes
//! while the guest runs.
//!
//! A fault asks first what its address is: RAM, a device's registers, or nothing.
//! The answer is in a small table of regions. It is read at every fault and changes
//! when a device is plugged or memory is added or moved: almost never.
//!
//! # Snapshots
//!
//! The table is at any time one *snapshot* with a number, and each change makes the
//! next one of it, as a whole. A reader gets a copy of the one region that it asked
//! for, and the number of the snapshot in which it was true ([`Lookup`]). Nobody
//! keeps a pointer into the table, so a change waits for no reader.
//!
//! The table's first word holds the number, and a bit that is set while a change is
//! being written. A reader reads the word, the table, and the word again, and starts
//! over if the word changed or the bit was set. The bit is also the writers' lock. It
//! is held for a few stores.
//!
//! The number has 63 bits and is compared for equality only.
//!
//! # Removing
//!
//! What is in the stage-2 tables on behalf of a region must go before the region
//! does, and must not come back meanwhile. So a region is removed, or moved, in two
//! phases:
//!
//! ```text
//!  R1  removal = regions.prepare_removal(range)?    published: being removed
//!  R2  unmapping = removal.begin(&buckets)          an InvalidateGuard
//!  R3  unmap the range; complete the TLB maintenance
//!  R4  unmapping.finish()                           published: gone
//!  R5  wait for a grace period, if a payload stands for something that is freed
//! ```
//!
//! Each step exists only on the result of the one before. From R1 on, whoever asks
//! for an address in the region is told to wait ([`Retry::After`]). Who asked
//! earlier, and has not installed anything yet, is found out when it checks: by R2,
//! if it shows a [`Ticket`](crate::invalidate::Ticket), or by R1, if it shows its
//! [`Lookup`]. A removal that is dropped half way is cancelled: the region is there
//! again, and faults fill in what was unmapped.
//!
//! Where R3 is long, R2 makes the range's buckets wait for long, and with them
//! whatever shares them. It may be preceded by the same work in small pieces, each
//! with a guard of its own: what is unmapped after R1 stays unmapped. R3 then finds
//! an empty range.
//!
//! An [`InvalidateGuard`] names addresses and not regions. So it begins and ends in
//! the same buckets whatever happens to the regions in between, and nobody who
//! changes regions needs to wait for the invalidations that run.
//!
//! # What may be cached
//!
//! *"A device with this tag answers here"* may be kept in the stage-2 tables, as an
//! [`Annotation`], so that the next fault there needs no region. It is kept in the
//! entries of the region's own addresses, and R3 removes it with everything else in
//! the range. So there is no generation in an annotation that could be compared,
//! truncated, or wrap. The rule for storing one:
//!
//! > Take the entry (LOCKED), then [`Lookup::check`], then make the annotation. If
//! > the check fails, give the entry back.
//!
//! It is the argument of `invalidate.rs` once more. The change of the snapshot is
//! written before R3 reads the entry, the entry is taken before the check reads the
//! snapshot's number, and there is a full barrier between on both sides. So either the
//! check fails or R3 finds what was stored.
//!
//! *"Nothing answers here"* is not kept anywhere. So adding a region needs no
//! invalidation.

use crate::addr::{Ipa, IpaRange};
use crate::epoch::Guard;
use crate::invalidate::{Buckets, Change, InvalidateGuard, Retry};
use crate::pte::Annotation;
use crate::sync::{self, AtomicU64, Ordering, array_of, const_fn, fence};
use core::fmt;
use core::mem;

mod slot;
use slot::{Slot, State};

/// In the version: a change is being written.
const WRITING: u64 = 1;

/// From one version to the next.
const NEXT: u64 = 2;

/// What a region is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Memory, with whatever the caller wants to know about it.
    Ram(u64),
    /// Registers of a device, with the tag by which faults find the device.
    Mmio(Annotation),
}

/// A range of guest addresses, and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its addresses.
    pub range: IpaRange,
    /// What answers there.
    pub kind: Kind,
}

/// Why a region was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddError {
    /// This one has some of its addresses, and be it while it is being removed.
    Overlaps(Region),
    /// There are as many regions as the table has room for.
    Full,
    /// It would end beyond the largest address.
    OutOfRange,
}

impl fmt::Display for AddError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overlaps(region) => write!(f, "there is a region at {}", region.range),
            Self::Full => f.write_str("there is no room for another region"),
            Self::OutOfRange => f.write_str("the region would end beyond the largest address"),
        }
    }
}

impl core::error::Error for AddError {}

/// Why a region can't be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovalError {
    /// No region has exactly this range.
    NoSuchRegion,
    /// Somebody is removing it already.
    Removing,
}

impl fmt::Display for RemovalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSuchRegion => "there is no such region",
            Self::Removing => "the region is being removed already",
        })
    }
}

impl core::error::Error for RemovalError {}

/// Which snapshot: equal numbers, equal regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotId(u64);

/// Up to `N` regions of one space.
pub struct Regions<const N: usize> {
    /// The snapshot's number and [`WRITING`].
    version: AtomicU64,
    slots: [Slot; N],
}

impl<const N: usize> Regions<N> {
    const_fn! {
        /// No region.
        pub fn new() -> Self {
            Self { version: AtomicU64::new(0), slots: array_of![Slot::empty(); N] }
        }
    }

    /// What answers at an address.
    ///
    /// The guard is not needed for reading. It is what lets a remover know that
    /// nobody still uses the region's payload: that is good until the guard is gone.
    ///
    /// # Errors
    ///
    /// [`Retry::After`] while the region there is being removed.
    #[inline]
    pub fn at<'r: 'g, 'g>(&'r self, ipa: Ipa, _guard: &'g Guard<'_>) -> Result<Lookup<'g>, Retry<'r>> {
        self.look(ipa)
    }

    fn look(&self, ipa: Ipa) -> Result<Lookup<'_>, Retry<'_>> {
        loop {
            // Acquire: pairs with the end of `change`.
            let version = self.version.load(Ordering::Acquire);
            if version & WRITING == 0 {
                let found = self.find(|region| region.range.contains(ipa));
                // Acquire: pairs with the fence in `change`. If anything of what was
                // read comes from there, the version is another one by now.
                fence(Ordering::Acquire);
                if self.version.load(Ordering::Relaxed) == version {
                    return match found {
                        Some((_, State::Removing, _)) => {
                            Err(Retry::After(Change::new(&self.version, version, !WRITING)))
                        }
                        found => Ok(Lookup {
                            version: &self.version,
                            id: SnapshotId(version),
                            region: found.map(|(_, _, region)| region),
                        }),
                    };
                }
            }
            sync::relax();
        }
    }

    /// Adds a region.
    ///
    /// # Errors
    ///
    /// See [`AddError`]; the regions are what they were then.
    pub fn add(&self, region: Region) -> Result<SnapshotId, AddError> {
        let (added, id) = self.change(|| {
            self.vacancy(region.range, |_| true)?;
            let slot = self.slots.iter().find(|slot| slot.read().is_none()).ok_or(AddError::Full)?;
            slot.write(region, State::Present);
            Ok(())
        });
        added.map(|()| id)
    }

    /// Announces that the region with exactly this range is about to go. From now on
    /// nobody finds it. See the head of this file for what comes next.
    ///
    /// # Errors
    ///
    /// See [`RemovalError`]; the regions are what they were then.
    pub fn prepare_removal(&self, range: IpaRange) -> Result<Removal<'_, N>, RemovalError> {
        let (prepared, _) = self.change(|| {
            let (slot, state, region) =
                self.find(|region| region.range == range).ok_or(RemovalError::NoSuchRegion)?;
            if state == State::Removing {
                return Err(RemovalError::Removing);
            }
            slot.write(region, State::Removing);
            Ok((slot, region))
        });
        prepared.map(|(slot, region)| Removal { regions: self, slot, region })
    }

    /// The first region like this.
    fn find(&self, is_it: impl Fn(&Region) -> bool) -> Option<(&Slot, State, Region)> {
        self.slots.iter().find_map(|slot| {
            let (region, state) = slot.read()?;
            is_it(&region).then_some((slot, state, region))
        })
    }

    /// Whether none of these regions has an address of this range.
    fn vacancy(&self, range: IpaRange, of: impl Fn(&Region) -> bool) -> Result<(), AddError> {
        match self.find(|other| of(other) && other.range.intersection(range).is_some()) {
            Some((_, _, other)) => Err(AddError::Overlaps(other)),
            None => Ok(()),
        }
    }

    /// Makes the next snapshot, alone. What readers see in between they throw away;
    /// also if `write` changes its mind, and therefore the number is always a new one.
    fn change<T>(&self, write: impl FnOnce() -> T) -> (T, SnapshotId) {
        let before = self.lock();
        // Release: pairs with the fence in `look`.
        fence(Ordering::Release);
        let written = write();
        let after = before.wrapping_add(NEXT);
        // Release: pairs with the first load in `look`, and with `lock`.
        self.version.store(after, Ordering::Release);
        // Pairs with the fence in `Lookup::check`: the version is written before
        // whoever removes reads any entry.
        fence(Ordering::SeqCst);
        (written, SnapshotId(after))
    }

    /// Sets the bit: the version before.
    fn lock(&self) -> u64 {
        loop {
            let version = self.version.load(Ordering::Relaxed) & !WRITING;
            // Acquire: pairs with the end of the change before.
            let locked = self.version.compare_exchange_weak(
                version,
                version | WRITING,
                Ordering::Acquire,
                Ordering::Relaxed,
            );
            if locked.is_ok() {
                return version;
            }
            sync::relax();
        }
    }
}

impl<const N: usize> Default for Regions<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// What answered at an address, and when.
#[derive(Clone, Copy, Debug)]
pub struct Lookup<'g> {
    version: &'g AtomicU64,
    id: SnapshotId,
    region: Option<Region>,
}

impl<'g> Lookup<'g> {
    /// The region, if there is one.
    pub fn region(&self) -> Option<Region> {
        self.region
    }

    /// The snapshot in which that was so.
    pub fn id(&self) -> SnapshotId {
        self.id
    }

    /// Whether what follows from it may be stored in an entry that the caller has
    /// made LOCKED. See the head of this file for the rule.
    ///
    /// # Errors
    ///
    /// [`Retry::Now`] if any region has changed since: look again.
    #[inline]
    pub fn check(&self) -> Result<(), Retry<'g>> {
        // Pairs with the last fence in `Regions::change`: the entry is LOCKED before
        // the version is read.
        fence(Ordering::SeqCst);
        self.compare()
    }

    fn compare(&self) -> Result<(), Retry<'g>> {
        if self.version.load(Ordering::Relaxed) == self.id.0 { Ok(()) } else { Err(Retry::Now) }
    }
}

/// A region that is about to go. Dropped, it stays.
#[must_use = "dropped, the region is there again"]
pub struct Removal<'r, const N: usize> {
    regions: &'r Regions<N>,
    slot: &'r Slot,
    region: Region,
}

impl<'r, const N: usize> Removal<'r, N> {
    /// The region.
    pub fn region(&self) -> Region {
        self.region
    }

    /// Keeps faults away from the range, whatever they know already, for unmapping it.
    /// `buckets` are those of the same space.
    pub fn begin<const B: usize>(self, buckets: &'r Buckets<B>) -> Unmapping<'r, N> {
        let guard = buckets.begin(self.region.range);
        Unmapping { removal: self, guard }
    }
}

impl<const N: usize> Drop for Removal<'_, N> {
    fn drop(&mut self) {
        self.regions.change(|| self.slot.write(self.region, State::Present));
    }
}

/// A region whose addresses are being unmapped. Dropped, it stays.
///
/// The region comes first: it is there again before the guard ends.
#[must_use = "dropped, the region is there again"]
pub struct Unmapping<'r, const N: usize> {
    removal: Removal<'r, N>,
    guard: InvalidateGuard<'r>,
}

impl<const N: usize> Unmapping<'_, N> {
    /// What is to be unmapped, and where faults are kept away.
    pub fn range(&self) -> IpaRange {
        self.guard.range()
    }

    /// The region is gone. The caller has unmapped the range, and TLBs have
    /// forgotten it.
    pub fn finish(self) -> SnapshotId {
        let Self { removal, guard: _guard } = self;
        let ((), id) = removal.regions.change(|| removal.slot.clear());
        // There is nothing left to cancel.
        mem::forget(removal);
        id
    }

    /// The region begins at `start` instead, from one snapshot to the next. The caller
    /// has unmapped the old range, and TLBs have forgotten it.
    ///
    /// # Errors
    ///
    /// See [`AddError`]; the region is where it was then, and faults fill it again.
    pub fn move_to(self, start: Ipa) -> Result<SnapshotId, AddError> {
        let Self { removal, guard: _guard } = self;
        let Region { range, kind } = removal.region;
        let range = IpaRange::new(start, range.size()).ok_or(AddError::OutOfRange)?;
        let (moved, id) = removal.regions.change(|| {
            // It may overlap where it was.
            removal.regions.vacancy(range, |other| *other != removal.region)?;
            removal.slot.write(Region { range, kind }, State::Present);
            Ok(())
        });
        moved?;
        // There is nothing left to cancel.
        mem::forget(removal);
        Ok(id)
    }
}

#[cfg(all(test, stage2_loom))]
mod interleave;
#[cfg(all(test, not(stage2_loom)))]
#[allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
mod tests;
