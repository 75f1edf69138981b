//! Running cases: names, verdicts, the summary.

use alloc::string::String;
use core::panic::PanicInfo;
use hyp::boot::Hardware;
use hyp::terminal::say_line;
use spin::Mutex;

/// One case: the name of its file in `cases/`, which is its claim, and what checks it.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Hardware) -> Verdict,
}

/// Whether a claim holds, or why it does not.
pub(crate) type Verdict = Result<(), String>;

/// Fails the case unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($argument:tt)+) => {
        if !$condition {
            return Err(alloc::format!($($argument)+));
        }
    };
}
pub(crate) use ensure;

/// Fails the case unless the two are equal, and shows both.
macro_rules! ensure_eq {
    ($found:expr, $expected:expr, $($argument:tt)+) => {{
        let (found, expected) = ($found, $expected);
        $crate::kit::ensure!(
            found == expected,
            "{}: {found:x?}, expected {expected:x?} (hexadecimal)",
            format_args!($($argument)+)
        );
    }};
}
pub(crate) use ensure_eq;

/// The case that is running, for the panic handler.
static RUNNING: Mutex<Option<&'static str>> = Mutex::new(None);

/// Runs all cases and prints the summary.
pub(crate) fn run_all(cases: &'static [Case], hardware: &Hardware) {
    let (mut passed, mut failed) = (0, 0);
    for case in cases {
        *RUNNING.lock() = Some(case.name);
        defmt::info!("begins: {=str}", case.name);
        match (case.run)(hardware) {
            Ok(()) => {
                passed += 1;
                say_line(format_args!("test {} ... ok", case.name));
            }
            Err(why) => {
                failed += 1;
                say_line(format_args!("test {} ... FAILED: {why}", case.name));
            }
        }
        *RUNNING.lock() = None;
    }
    say_line(format_args!("{passed} passed, {failed} failed"));
}

/// A panic is the running case's verdict, and the end: nobody knows what state
/// the machine is in. No summary follows, which is a failure of its own.
pub(crate) fn report_panic(info: &PanicInfo<'_>) {
    if let Some(name) = RUNNING.try_lock().and_then(|running| *running) {
        say_line(format_args!("test {name} ... FAILED: panicked: {}", info.message()));
    }
}
