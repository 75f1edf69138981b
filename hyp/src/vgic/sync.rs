//! The atomics of this module: `core`'s, or loom's when its models run
//! (`tests/interleave.rs`). The rest of the module takes them from here.

#[cfg(not(all(test, hyp_loom)))]
pub(super) use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

/// Whether loom's models run. They need a small world: each atomic is an
/// object, and they live on a small stack.
pub(super) const IS_MODEL: bool = cfg!(all(test, hyp_loom));

#[cfg(all(test, hyp_loom))]
pub(super) use loom::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence};
