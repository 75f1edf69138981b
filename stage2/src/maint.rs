//! placeholder head, replaced on merge
use crate::addr::{IpaRange, Level};

/// What TLBs may still hold of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// Leaves, all of them at this level.
    Leaves(Level),
    /// Leaves of whatever size.
    AnyLeaves,
    /// Leaves, and table descriptors in walk caches.
    Tables,
}

/// Barriers and TLB maintenance for one space, as completed sequences.
pub trait Maintenance {
    /// DSB ISHST
    fn publish(&self);
    /// all CPUs
    fn invalidate(&self, range: IpaRange, stale: Stale);
    /// this CPU
    fn invalidate_local(&self, range: IpaRange, stale: Stale);
    /// everything
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
