//! The atomics and the lock of this module: the real ones, or loom's when its
//! models run (`interleave.rs`).

#[cfg(not(all(test, hyp_loom)))]
mod source {
    #[cfg(test)]
    pub(crate) use core::sync::atomic::fence;
    pub(crate) use core::sync::atomic::{AtomicU64, Ordering};
    pub(crate) use spin::Mutex;
}

#[cfg(all(test, hyp_loom))]
mod source {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};

    /// Loom's lock, with the interface of the real one.
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().expect("a model that panics ends")
        }
    }
}

#[cfg(test)]
pub(super) use source::fence;
pub(super) use source::{AtomicU64, Mutex, Ordering};
