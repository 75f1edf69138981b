//! What the CPU must complete, and when: the crate's only demand on hardware.
//!
//! Editing a table is writing to memory. That the *walkers* of all CPUs act
//! on what was written, and forget what they have cached, takes barriers and
//! TLB invalidations, which [`Maintenance`] provides as **completed
//! sequences**: when a function returns, its effect holds on every CPU. The
//! crate calls one and goes on; it never composes barriers.
//!
//! An implementation knows which VMID the space has, and passes it along by
//! being a value of its own: a space is edited through a `&impl Maintenance`
//! that the caller makes for it.

use crate::addr::{Ipa, IpaRange, Level};

/// Barriers and TLB maintenance for one space, as completed sequences.
///
/// Every `invalidate_…` function
///
/// 1. makes all earlier descriptor stores visible to the walkers of all CPUs
///    (DSB ISHST or stronger),
/// 2. invalidates stage 2 entries of the space's VMID in the inner shareable
///    domain and waits (TLBI …IS; DSB ISH),
/// 3. invalidates the stage 1 and combined entries of that VMID and waits
///    (TLBI VMALLE1IS; DSB ISH; ISB), because invalidating by IPA need not
///    reach an entry that caches both stages at once. Only in this order: the
///    other way round, a combined entry could be filled again from the stage
///    2 entry that is about to go.
///
/// (Arm ARM, "TLB maintenance requirements" and "Using break-before-make when
/// updating translation table entries".) A CPU that needs a sequence repeated
/// for an erratum repeats it inside.
pub trait Maintenance {
    /// Makes descriptors that were stored over *invalid* ones visible to the
    /// walkers of all CPUs: DSB ISHST.
    ///
    /// Nothing is invalidated, for no TLB holds an invalid descriptor.
    fn publish(&self);

    /// Forgets the leaf for `ipa`, which was found at `level`.
    ///
    /// `level` is a promise: the sequence may hint it (FEAT_TTL) and then
    /// removes nothing that is cached for another level.
    fn invalidate_leaf(&self, ipa: Ipa, level: Level);

    /// Forgets every leaf in `range`, of whatever size, and every cached
    /// table descriptor by which an address in `range` was reached.
    ///
    /// No level may be hinted and no "last level only" form used. How many
    /// operations that takes, or whether the whole VMID goes, is up to the
    /// implementation.
    fn invalidate_range(&self, range: IpaRange);

    /// Forgets everything about the space (TLBI VMALLS12E1IS).
    fn invalidate_all(&self);
}

impl<T: Maintenance> Maintenance for &T {
    fn publish(&self) {
        (**self).publish();
    }

    fn invalidate_leaf(&self, ipa: Ipa, level: Level) {
        (**self).invalidate_leaf(ipa, level);
    }

    fn invalidate_range(&self, range: IpaRange) {
        (**self).invalidate_range(range);
    }

    fn invalidate_all(&self) {
        (**self).invalidate_all();
    }
}
