//! Faults against invalidations: whether what a fault found out is still true
//! when it installs it.
//!
//! A fault takes two steps. It finds out which page is to answer at an address,
//! which may take long: a page is allocated, cleared, decompressed. Then it
//! installs the page. Meanwhile the owner of the pages may decide to take that
//! page away, and remove it from the tables, where it is not yet. Installed
//! afterwards, it would be used by two.
//!
//! # The protocol
//!
//! Whoever takes pages away says so first, for a range of addresses, and until
//! it is done: it holds an [`InvalidateGuard`]. Whoever handles a fault draws a
//! [`Ticket`] first, and shows it before it installs anything.
//!
//! ```text
//!  invalidation                          fault
//!  I1  buckets.begin(range)              F1  ticket = buckets.ticket(range)?
//!  I2  decide; change the backing        F2  look at the backing
//!  I3  walk the tables: unmap,           F3  take the entry: LOCKED
//!      waiting for LOCKED entries        F4  ticket.check(), or give the entry back
//!  I4  drop the guard                    F5  make the entry
//! ```
//!
//! A map that started before an invalidation of its range never survives it:
//!
//! * F1 came *after* I4: F2 sees the backing as I2 left it.
//! * F1 came *between* I1 and I4: there is no ticket. [`Retry::After`] says what
//!   to wait for.
//! * F1 came *before* I1. Then F4 sees I1 (the invalidation runs, or has run and
//!   left another sequence number) and the fault gives up. Or F4 does not see I1;
//!   but then I3 sees F3, waits for F5, and removes what was installed.
//!
//! The last "or" is the *store buffer* shape: each side writes its own word and
//! then reads the other's, and processors let both read the old value. Only a
//! full barrier on **both** sides, between the write and the read, forbids it.
//! They are in [`Buckets::begin`] and in [`Ticket::check`]. What F3 stored before,
//! such as a new table that leads to the entry, is seen along with the entry.
//!
//! So the check counts only while the entry is held. Earlier it is a hint that
//! saves work, and being handed a ticket is the first of these hints.
//!
//! # Buckets
//!
//! One sequence number for a whole guest would let each invalidation disturb all
//! its faults. One for each page would be a second page table. So there is one for
//! each 2 MiB of addresses, and as many as the caller likes; an address uses the
//! one with the number of its 2 MiB, modulo their count. Two ranges that share a
//! bucket by chance cost each other a retry and nothing else.
//!
//! A bucket is one word: how many invalidations run there (bits 15:0), and a
//! sequence number that each of them raises when it ends (bits 63:16). Both change
//! in one addition, so nobody sees an invalidation gone and the number not raised.
//! The number is 48 bits wide. For a ticket to be taken for a newer one, 2^48
//! invalidations would have to end while one fault is handled.
//!
//! A range is never empty ([`IpaRange`]), so there is no guard that matches
//! nothing, or everything, by accident.

use crate::addr::{Ipa, IpaRange};
use crate::sync::{AtomicU64, Ordering, array_of, const_fn, fence};

/// log2 of the bytes that share a sequence number.
const BUCKET_SHIFT: u32 = 21;

/// Where a bucket's word has its sequence number, above the count.
const SEQUENCE_SHIFT: u32 = 16;

/// Raises the sequence number by one. Carries out of the top are lost: the
/// number wraps, and the count below it never notices.
const SEQUENCE_ONE: u64 = 1 << SEQUENCE_SHIFT;

/// The invalidations that run.
const RUNNING: u64 = SEQUENCE_ONE - 1;

/// Why a fault must not install what it found, and what to do about it.
#[derive(Clone, Copy, Debug)]
#[must_use = "nothing may be installed"]
pub enum Retry<'a> {
    /// Things have changed meanwhile: start again at once, most simply by
    /// entering the guest.
    Now,
    /// They are changing: the guest would fault again at once. Run something
    /// else, or wait, until the change is over.
    After(Change<'a>),
}

/// A change that is under way: what [`Retry::After`] waits for.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    word: &'a AtomicU64,
    /// The bits of `word` that are different once this is over.
    seen: u64,
    mask: u64,
}

impl<'a> Change<'a> {
    /// The change during which `mask` of `word` stays what it is in `seen`.
    pub(crate) fn new(word: &'a AtomicU64, seen: u64, mask: u64) -> Self {
        Self { word, seen: seen & mask, mask }
    }

    /// Whether it is worth trying again: one look, which the caller repeats as
    /// it sees fit. Where the CPU can wait for a word to be written (LDXR, WFE),
    /// this is the look between the two.
    ///
    /// It stays true from then on. So where one invalidation follows the other
    /// without a gap, who looks now and then gets to try after the first.
    #[inline]
    pub fn is_over(&self) -> bool {
        // Relaxed: whoever tries again draws a new ticket, which acquires.
        self.word.load(Ordering::Relaxed) & self.mask != self.seen
    }
}

/// The invalidations of one space: `N` sequence numbers, a power of two.
///
/// 64 of them are 512 bytes and tell apart what lies within 128 MiB.
pub struct Buckets<const N: usize> {
    words: [AtomicU64; N],
}

impl<const N: usize> Buckets<N> {
    const_fn! {
        /// Buckets in which nothing runs.
        pub fn new() -> Self {
            const { assert!(N.is_power_of_two(), "the buckets are chosen by a mask") };
            Self { words: array_of![AtomicU64::new(0); N] }
        }
    }

    /// Announces that what answers in `range` is about to change, until the guard
    /// is dropped. Faults that have drawn their ticket before will not install
    /// anything any more, except in entries that a walk from now on finds LOCKED
    /// or mapped.
    ///
    /// Any number of guards may overlap. The cost is one atomic addition for each
    /// 2 MiB, `N` at most, here and at the end.
    ///
    /// # Panics
    ///
    /// If 2^16 invalidations run in one bucket.
    pub fn begin(&self, range: IpaRange) -> InvalidateGuard<'_> {
        let guard = InvalidateGuard::count(&self.words, range);
        // Pairs with the fence in `Ticket::check`: the count is written before
        // the walk reads any entry.
        fence(Ordering::SeqCst);
        guard
    }

    /// Draws a ticket for a fault that will map `range` or a part of it; before
    /// looking at what is to be mapped.
    ///
    /// # Errors
    ///
    /// [`Retry::After`] if an invalidation runs in the range.
    #[inline]
    pub fn ticket(&self, range: IpaRange) -> Result<Ticket<'_>, Retry<'_>> {
        Ticket::draw(&self.words, range)
    }
}

impl<const N: usize> Default for Buckets<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// The right to take away what answers in a range. Ends when dropped, after the
/// pages are gone from tables and TLBs.
#[derive(Debug)]
#[must_use = "dropped at once, it protects nothing"]
pub struct InvalidateGuard<'a> {
    words: &'a [AtomicU64],
    range: IpaRange,
}

impl<'a> InvalidateGuard<'a> {
    /// The count alone, without the barrier that makes it mean something.
    fn count(words: &'a [AtomicU64], range: IpaRange) -> Self {
        for word in buckets_of(words, range) {
            // Relaxed: ordered by the fence in `Buckets::begin`.
            let before = word.fetch_add(1, Ordering::Relaxed);
            assert!(before & RUNNING != RUNNING, "too many invalidations at once");
        }
        Self { words, range }
    }

    /// The range that it was begun for.
    pub fn range(&self) -> IpaRange {
        self.range
    }
}

impl Drop for InvalidateGuard<'_> {
    fn drop(&mut self) {
        for word in buckets_of(self.words, self.range) {
            // Release: pairs with the load in `Ticket::read`. A fault that finds
            // nothing running sees the backing as it was left here.
            word.fetch_add(SEQUENCE_ONE - 1, Ordering::Release);
        }
    }
}

/// What a fault shows before it installs something: when it began to look.
#[derive(Clone, Copy, Debug)]
#[must_use = "nothing may be installed without a check"]
pub struct Ticket<'a> {
    words: &'a [AtomicU64],
    range: IpaRange,
    /// The sequence numbers of the range's buckets, added up. None of them ever
    /// falls, so the sum is the same only if each of them is.
    seen: u64,
}

impl<'a> Ticket<'a> {
    fn draw(words: &'a [AtomicU64], range: IpaRange) -> Result<Self, Retry<'a>> {
        let seen = Self::read(words, range).map_err(Retry::After)?;
        Ok(Self { words, range, seen })
    }

    /// The sum of the sequence numbers, if nothing runs. Each word is read once.
    fn read(words: &'a [AtomicU64], range: IpaRange) -> Result<u64, Change<'a>> {
        let mut sum = 0_u64;
        for word in buckets_of(words, range) {
            // Acquire: pairs with the end of an invalidation, `InvalidateGuard::drop`,
            // and keeps the look at the backing behind it.
            let now = word.load(Ordering::Acquire);
            if now & RUNNING != 0 {
                return Err(Change::new(word, now, !RUNNING));
            }
            sum = sum.wrapping_add(now);
        }
        Ok(sum)
    }

    /// The range that it was drawn for. Nothing beyond may be mapped with it.
    pub fn range(&self) -> IpaRange {
        self.range
    }

    /// Whether what was looked up since the ticket was drawn may be installed.
    ///
    /// The answer is final if the caller holds the entry: if it made it LOCKED
    /// before, and makes it a leaf after. At any other time `Ok` is a guess; `Err`
    /// never is, and saves the rest of the work.
    ///
    /// # Errors
    ///
    /// [`Retry::After`] if an invalidation runs in the range, and [`Retry::Now`]
    /// if one has run.
    #[inline]
    pub fn check(&self) -> Result<(), Retry<'a>> {
        // Pairs with the fence in `Buckets::begin`: the entry is LOCKED before
        // the counts are read.
        fence(Ordering::SeqCst);
        self.compare()
    }

    fn compare(&self) -> Result<(), Retry<'a>> {
        match Self::read(self.words, self.range) {
            Ok(now) if now == self.seen => Ok(()),
            Ok(_) => Err(Retry::Now),
            Err(change) => Err(Retry::After(change)),
        }
    }
}

/// The buckets of a range, each once. `words` has a power of two of them.
fn buckets_of(words: &[AtomicU64], range: IpaRange) -> impl Iterator<Item = &AtomicU64> {
    let number = |ipa: Ipa| ipa.bits() >> BUCKET_SHIFT;
    let first = number(range.start());
    // The end of a range is beyond its start, so there is a last byte.
    let last = (range.end().bits() - 1) >> BUCKET_SHIFT;
    let count = (last - first + 1).min(words.len() as u64);
    let mask = words.len() - 1;
    (first..first + count).filter_map(move |number| words.get(number as usize & mask))
}

#[cfg(all(test, stage2_loom))]
mod interleave;

#[cfg(all(test, not(stage2_loom)))]
#[allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
mod tests;
