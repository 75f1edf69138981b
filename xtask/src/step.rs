//! What a person sees of a long step: that it began, that it goes on, how long it took.
//!
//! On a terminal a spinner with the time; elsewhere one line when it begins and one when it ended.

use std::io::{IsTerminal as _, stderr};
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

/// Says `what` is being done, does it, and says that it is done.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    let spinner = stderr().is_terminal().then(|| spinner(what));
    if spinner.is_none() {
        eprintln!("entresol: {what} ...");
    }
    let result = work();
    if let Some(spinner) = spinner {
        spinner.finish_and_clear();
    }
    let outcome = if result.is_ok() { "done" } else { "FAILED" };
    eprintln!("entresol: {what}: {outcome} ({:.1} s)", started.elapsed().as_secs_f32());
    result
}

/// One line about what was decided or found.
pub(crate) fn note(what: &str) {
    eprintln!("entresol: {what}");
}

fn spinner(what: &str) -> ProgressBar {
    let spinner = ProgressBar::new_spinner().with_message(what.to_owned());
    if let Ok(style) = ProgressStyle::with_template("{spinner} entresol: {msg} ({elapsed})") {
        spinner.set_style(style);
    }
    spinner.enable_steady_tick(Duration::from_millis(120));
    spinner
}
