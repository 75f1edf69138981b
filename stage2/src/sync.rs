//! Atomics and waiting, taken from here by the rest of the crate: `core`'s,
//! or loom's when its models run (`interleave`).
//!
//! Loom's atomics are made at run time, so what holds an atomic can't be made
//! in a `const fn` there. [`const_fn`] and [`array_of`] hide that difference.

#[cfg(not(all(test, stage2_loom)))]
mod source {
    pub(crate) use core::hint::spin_loop;
    pub(crate) use core::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

    /// Declares a `const fn`.
    macro_rules! const_fn {
        ($(#[$attribute:meta])* $visibility:vis fn $($rest:tt)*) => {
            $(#[$attribute])* $visibility const fn $($rest)*
        };
    }

    /// An array of equal values that can't be copied.
    macro_rules! array_of {
        ($value:expr; $length:expr) => {
            [const { $value }; $length]
        };
    }

    pub(crate) use {array_of, const_fn};
}

#[cfg(all(test, stage2_loom))]
mod source {
    pub(crate) use loom::hint::spin_loop;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

    macro_rules! const_fn {
        ($(#[$attribute:meta])* $visibility:vis fn $($rest:tt)*) => {
            $(#[$attribute])* $visibility fn $($rest)*
        };
    }

    macro_rules! array_of {
        ($value:expr; $length:expr) => {
            core::array::from_fn::<_, { $length }, _>(|_| $value)
        };
    }

    pub(crate) use {array_of, const_fn};
}

pub(crate) use source::{AtomicBool, AtomicU64, Ordering, array_of, const_fn, fence};

/// Whether loom's models run. They need a small world: each atomic is an
/// object that every interleaving makes anew.
pub(crate) const IS_MODEL: bool = cfg!(all(test, stage2_loom));

/// Gives way for a moment while another CPU finishes what it holds.
pub(crate) fn relax() {
    source::spin_loop();
}
