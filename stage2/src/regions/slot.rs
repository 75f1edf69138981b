//! One region as words that may be read while they are written.
//!
//! What comes of that is thrown away (see `look` in `regions.rs`), but must not
//! panic on the way. So what is read is checked as if a guest had written it.

use super::{Kind, Region};
use crate::addr::{Ipa, IpaRange};
use crate::pte::Annotation;
use crate::sync::{AtomicU64, Ordering, const_fn};

/// Where a region is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Present,
    Removing,
}

/// Room for one region. All accesses are relaxed: the version of the regions
/// orders them.
pub(super) struct Slot {
    start: AtomicU64,
    /// 0 if there is no region: a range ends above 0.
    end: AtomicU64,
    /// [`MMIO`] and [`REMOVING`].
    flags: AtomicU64,
    payload: AtomicU64,
}

/// In a slot's flags: not RAM.
const MMIO: u64 = 1;

/// In a slot's flags: the region is being removed.
const REMOVING: u64 = 2;

impl Slot {
    const_fn! {
        pub(super) fn empty() -> Self {
            Self {
                start: AtomicU64::new(0),
                end: AtomicU64::new(0),
                flags: AtomicU64::new(0),
                payload: AtomicU64::new(0),
            }
        }
    }

    /// The region, if there is one.
    pub(super) fn read(&self) -> Option<(Region, State)> {
        let [start, end, flags, payload] =
            [&self.start, &self.end, &self.flags, &self.payload].map(|word| word.load(Ordering::Relaxed));
        let range = IpaRange::between(Ipa::try_new(start)?, Ipa::try_new(end)?)?;
        let kind = match flags & MMIO {
            0 => Kind::Ram(payload),
            _ => Kind::Mmio(Annotation::new(payload)?),
        };
        let state = if flags & REMOVING == 0 { State::Present } else { State::Removing };
        Some((Region { range, kind }, state))
    }

    pub(super) fn write(&self, region: Region, state: State) {
        let (mmio, payload) = match region.kind {
            Kind::Ram(payload) => (0, payload),
            Kind::Mmio(tag) => (MMIO, tag.value()),
        };
        let removing = match state {
            State::Present => 0,
            State::Removing => REMOVING,
        };
        self.start.store(region.range.start().bits(), Ordering::Relaxed);
        self.end.store(region.range.end().bits(), Ordering::Relaxed);
        self.flags.store(mmio | removing, Ordering::Relaxed);
        self.payload.store(payload, Ordering::Relaxed);
    }

    pub(super) fn clear(&self) {
        self.end.store(0, Ordering::Relaxed);
    }
}
