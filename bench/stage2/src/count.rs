//! Counting instructions: the same figures on any machine of a kind, however
//! busy it is.
//!
//! This program starts itself under Valgrind, whose Callgrind counts what
//! happens inside one function, [`measured`]. An exchange that locks a cache
//! line counts as one instruction like any other, so the figures compare the
//! length of code, not all of its cost; see `time.rs` for that.

use std::env;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::pool::Pool;
use crate::side::Contender;
use crate::work::Work;

/// What Callgrind counted in one run of a piece of work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    pub(crate) instructions: u64,
    /// Reads of memory, those of the stack included.
    pub(crate) loads: u64,
}

/// Counts; `None` if there is no Valgrind on this machine.
pub(crate) fn count(work: &Work, contender: Contender) -> Result<Option<Counts>> {
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--cache-sim=yes"])
        .args(["--collect-atstart=no", "--toggle-collect=*measured*"])
        .arg(env::current_exe()?)
        .args([ARGUMENT, work.name, contender.name()]);
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("cannot start valgrind"),
    };
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{} by {} failed under valgrind:\n{text}", work.name, contender.name());
    }
    collected(&text).map(Some).with_context(|| format!("valgrind counted nothing:\n{text}"))
}

/// The first argument of the program when it is to be counted.
pub(crate) const ARGUMENT: &str = "--counted";

/// Does a piece of work once to warm up and once to be counted.
pub(crate) fn run_counted(work: &Work, contender: Contender) {
    let pool = Pool::new(1024);
    let mut side = contender.start(&pool, work.root_level);
    (work.prepare)(&mut *side);
    (work.run)(&mut *side);
    measured(|| (work.run)(&mut *side));
}

/// What is counted.
#[inline(never)]
fn measured(work: impl FnOnce()) {
    work();
}

/// Instructions and loads, from what Callgrind says in the end: the first two
/// of the numbers in `Collected : 12345 2345 ...`.
fn collected(text: &str) -> Option<Counts> {
    let (_, numbers) = text.lines().find_map(|line| line.split_once("Collected :"))?;
    let mut numbers = numbers.split_whitespace().map(str::parse);
    let instructions = numbers.next()?.ok()?;
    let loads = numbers.next()?.ok()?;
    (instructions != 0).then_some(Counts { instructions, loads })
}

#[cfg(test)]
mod tests {
    use super::collected;

    #[test]
    fn counts_are_the_first_two_numbers() {
        let text = "==7== Events    : Ir Dr Dw\n==7== Collected : 12345 678 90\n==7==\n";
        let counts = collected(text).unwrap();
        assert_eq!((counts.instructions, counts.loads), (12345, 678));
    }

    #[test]
    fn nothing_counted_is_no_figure() {
        assert!(collected("==7== Collected : 0 0 0\n").is_none());
        assert!(collected("").is_none());
    }
}
