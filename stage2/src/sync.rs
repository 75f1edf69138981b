//! Atomics and waiting, taken from here by the rest of the crate so that one
//! file decides where they come from.

pub(crate) use core::sync::atomic::{AtomicU64, Ordering};

/// Gives way for a moment while another CPU finishes what it holds.
///
/// Whoever holds a LOCKED or DEAD entry is a CPU inside this crate that waits
/// for nobody but, at most, holders further down the tree. So waiting ends.
pub(crate) fn relax() {
    core::hint::spin_loop();
}
