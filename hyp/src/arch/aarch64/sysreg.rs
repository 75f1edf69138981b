//! System registers by name, for those that `aarch64-cpu` does not type.
//!
//! Two macros: `read!(NAME)` and `write!(NAME, value)`. They carry no ordering
//! of their own; sequences with barriers are functions in the neighbouring
//! modules, and nothing outside `arch` uses these.

/// Reads a system register.
macro_rules! read {
    ($($name:tt)+) => {{
        let value: u64;
        // SAFETY: reading a system register has no effect on memory; callers
        // in `arch` name only registers that the CPU they run on has.
        unsafe {
            core::arch::asm!(concat!("mrs {}, ", $($name)+), out(reg) value, options(nomem, nostack, preserves_flags))
        };
        value
    }};
}

/// Writes a system register.
macro_rules! write {
    ($name:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: the function around this says why this value is right here.
        unsafe { core::arch::asm!(concat!("msr ", $name, ", {}"), in(reg) value, options(nostack, preserves_flags)) };
    }};
}

pub(super) use {read, write};
