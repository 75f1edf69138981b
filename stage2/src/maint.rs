//! What the CPU must complete, and when: the crate's only demand on hardware.
//!
//! Editing a table is writing to memory. That the *walkers* of all CPUs act
//! on what was written, and forget what they have cached, takes barriers and
//! TLB invalidations, which [`Maintenance`] provides as **completed
//! sequences**: when a function returns, its effect holds on every CPU. The
//! crate calls one and goes on; it never composes barriers.
//!
//! The sequences themselves are in [`crate::tlbi`], which needs nothing but
//! the single instructions. An implementation knows which VMID the space has,
//! and passes it along by being a value of its own: a space is edited through
//! a `&impl Maintenance` that the caller makes for it.

use crate::addr::{IpaRange, Level};

/// What TLBs may still hold of a range of addresses, and so have to forget.
///
/// This is a promise by whoever changed the tables. The less it says is stale,
/// the less is invalidated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// Every stale entry is a leaf that was found at this level.
    ///
    /// The level may be hinted to the hardware (FEAT_TTL), which then removes
    /// nothing that is cached for another one.
    Leaves(Level),
    /// Every stale entry is a leaf; their levels are not known.
    AnyLeaves,
    /// Leaves of any level, and table descriptors, which walk caches hold.
    ///
    /// For a table whose every leaf was invalidated before, the range of one
    /// page that it translated is enough: the table descriptor was used for
    /// that address like for all others.
    Tables,
}

/// Barriers and TLB maintenance for one space, as completed sequences.
///
/// Every `invalidate` function first makes all earlier descriptor stores
/// visible to the walkers it is about, and returns when no translation that
/// was made from what is stale is used or held any more: not in a stage 2
/// entry, and not in an entry that combines both stages.
pub trait Maintenance {
    /// Makes descriptors that were stored over *invalid* ones visible to the
    /// walkers of all CPUs.
    ///
    /// Nothing is invalidated, for no TLB holds an invalid descriptor.
    fn publish(&self);

    /// Makes all CPUs forget what is `stale` in `range`.
    fn invalidate(&self, range: IpaRange, stale: Stale);

    /// Makes this CPU forget what is `stale` in `range`.
    ///
    /// For permissions that were *added*: a CPU that still holds the tighter
    /// entry takes a fault, looks, and does the same.
    fn invalidate_local(&self, range: IpaRange, stale: Stale);

    /// Makes all CPUs forget everything about the space.
    fn invalidate_all(&self);
}

impl<T: Maintenance> Maintenance for &T {
    fn publish(&self) {
        (**self).publish();
    }

    fn invalidate(&self, range: IpaRange, stale: Stale) {
        (**self).invalidate(range, stale);
    }

    fn invalidate_local(&self, range: IpaRange, stale: Stale) {
        (**self).invalidate_local(range, stale);
    }

    fn invalidate_all(&self) {
        (**self).invalidate_all();
    }
}

/// No maintenance, for a space that no CPU has ever had in its VTTBR_EL2, as
/// on a host: there is no TLB that could remember anything.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTlb;

impl Maintenance for NoTlb {
    fn publish(&self) {}
    fn invalidate(&self, _: IpaRange, _: Stale) {}
    fn invalidate_local(&self, _: IpaRange, _: Stale) {}
    fn invalidate_all(&self) {}
}
