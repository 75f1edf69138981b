//! Running the tests that should catch a mutant, and no longer than until one does.
//!
//! Main type: [`Fate`]; main functions: [`one`] and [`healthy`].

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::copy::CHOICE;
use super::table::{Expected, Mutant};

/// Longer than any of the tests takes on a busy machine. Without a barrier or a break, CPUs may wait for each other.
const LIMIT: Duration = Duration::from_secs(90);

/// What became of a mutant.
pub(super) enum Fate {
    /// A test failed.
    Caught { test: String },
    /// The tests did not end.
    Hung,
    /// All tests passed.
    Survived,
}

/// One run of a program.
enum Ended {
    /// All tests that were chosen passed: so many.
    Passed(usize),
    Failed(String),
    Hung,
}

/// Runs the tests that should catch `mutant`. Also says when that began.
pub(super) fn one(programs: &[PathBuf], mutant: &Mutant) -> Result<(Fate, Instant)> {
    let started = Instant::now();
    let number = mutant.number.to_string();
    let mut passed = 0;
    for program in programs {
        match run(program, tests_for(mutant), Some(&number))? {
            Ended::Passed(tests) => passed += tests,
            Ended::Failed(test) => return Ok((Fate::Caught { test }, started)),
            Ended::Hung => return Ok((Fate::Hung, started)),
        }
    }
    ensure!(passed > 0, "mutant `{}`: there are no tests like {:?}", mutant.name, tests_for(mutant));
    Ok((Fate::Survived, started))
}

/// Runs the tests of all these mutants, with none of them chosen, and returns their number.
pub(super) fn healthy(programs: &[PathBuf], mutants: &[&Mutant]) -> Result<usize> {
    let mut tests: Vec<String> = mutants.iter().flat_map(|mutant| tests_for(mutant)).cloned().collect();
    tests.sort();
    tests.dedup();
    let mut passed = 0;
    for program in programs {
        match run(program, &tests, None)? {
            Ended::Passed(tests) => passed += tests,
            Ended::Failed(test) => bail!("{test} fails"),
            Ended::Hung => bail!("{} does not end", program.display()),
        }
    }
    Ok(passed)
}

fn tests_for(mutant: &Mutant) -> &[String] {
    match &mutant.expected {
        Expected::Host(tests) | Expected::Loom(tests) => tests,
        Expected::Harmless(_) => &[],
    }
}

/// Runs the tests with these in their names, until one fails.
fn run(program: &Path, tests: &[String], chosen: Option<&str>) -> Result<Ended> {
    let mut command = Command::new(program);
    command.args(tests).args(["--test-threads", "2"]).env("RUST_BACKTRACE", "0");
    // An example that fails is of no interest, and the smallest neither.
    command.env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1").env("PROPTEST_MAX_SHRINK_ITERS", "0");
    command.current_dir(program.parent().context("a program lies in a directory")?);
    if let Some(chosen) = chosen {
        command.env(CHOICE, chosen);
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let output = child.stdout.take().context("it was piped")?;
    let child = Arc::new(Mutex::new(child));
    let hung = watch(&child);
    let (mut passed, mut failed) = (0, None);
    for line in BufReader::new(output).lines() {
        let line = line?;
        let Some(line) = line.strip_prefix("test ") else { continue };
        if line.ends_with(" ... ok") || line.ends_with(" - should panic ... ok") {
            passed += 1;
        } else if let Some(name) = line.strip_suffix(" ... FAILED") {
            failed = Some(name.to_owned());
            break;
        }
    }
    let status = end(&child)?;
    Ok(match (failed, hung.join()) {
        (Some(test), _) => Ended::Failed(test),
        (None, Ok(true)) => Ended::Hung,
        (None, _) if status.success() => Ended::Passed(passed),
        // A panic while another one unwinds ends the whole program.
        (None, _) => Ended::Failed(format!("the tests end with {status}")),
    })
}

/// Ends the child when its time is over. The answer is whether that was necessary.
fn watch(child: &Arc<Mutex<Child>>) -> thread::JoinHandle<bool> {
    let child = child.clone();
    thread::spawn(move || {
        let started = Instant::now();
        loop {
            let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
            if !matches!(child.try_wait(), Ok(None)) {
                return false;
            }
            if started.elapsed() > LIMIT {
                let _ = child.kill();
                return true;
            }
            drop(child);
            thread::sleep(Duration::from_millis(20));
        }
    })
}

/// Ends the child, if it has not ended by itself, as one does that has closed its output.
fn end(child: &Mutex<Child>) -> Result<ExitStatus> {
    let started = Instant::now();
    loop {
        let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if started.elapsed() > Duration::from_secs(1) {
            child.kill()?;
        }
        drop(child);
        thread::sleep(Duration::from_millis(5));
    }
}
