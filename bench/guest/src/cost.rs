//! Counting: two reads of CNTVCT around a piece of assembly, the least of many.

use guest_kit::println;

/// Runs before any is counted: translation caches, first-use paths.
const WARM_UP: usize = 8;
/// Runs that count.
const RUNS: usize = 32;

/// CNTVCT ticks from just before the given assembly to just after it, the
/// second read included. Operands follow the instructions as in `asm!`.
macro_rules! count {
    ([$($code:literal),*] $(, $($operands:tt)*)?) => {{
        let before: u64;
        let after: u64;
        // SAFETY: the caller's assembly accesses registers and devices whose
        // effects this program allows for; it names all that it clobbers.
        unsafe {
            core::arch::asm!(
                "mrs {before}, cntvct_el0",
                $($code,)*
                "mrs {after}, cntvct_el0",
                before = out(reg) before,
                after = out(reg) after,
                $($($operands)*)?
            )
        };
        after - before
    }};
}
pub(crate) use count;

/// The least that `sample` returns once the path is warm.
pub(crate) fn least(mut sample: impl FnMut() -> u64) -> u64 {
    for _ in 0..WARM_UP {
        sample();
    }
    (0..RUNS).map(|_| sample()).min().unwrap_or(u64::MAX)
}

/// What counting nothing costs: the second counter read.
#[expect(unsafe_code, reason = "counting is assembly")]
pub(crate) fn overhead() -> u64 {
    least(|| count!([]))
}

/// Measures `sample`, a [`count!`], and prints what remains after the overhead.
pub(crate) fn measure(name: &str, sample: impl FnMut() -> u64) {
    report(name, least(sample).saturating_sub(overhead()));
}

/// Prints one result.
pub(crate) fn report(name: &str, value: u64) {
    println!("bench {name} {value}");
}
