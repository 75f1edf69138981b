//! Running jobs, some at once, and counting what they found.
//!
//! Main types: [`Job`], one command or one run of QEMU with any number of tests in it, and [`Tally`], what came of it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::Result;

use super::Ring;

/// More at once would make the deadlines of a small machine a matter of luck.
pub(super) const QEMU_AT_ONCE: usize = 2;

/// Some tests that run together.
pub(super) struct Job<'a> {
    /// Where they belong.
    pub(super) ring: Ring,
    /// What they are called.
    pub(super) name: String,
    /// Runs them. An error is one more failure.
    pub(super) work: Box<dyn Fn() -> Result<Tally> + Send + Sync + 'a>,
}

/// How many tests passed and what the others complain about.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) passed: usize,
    /// One text per failed test; it begins with the test's name.
    pub(super) failures: Vec<String>,
}

impl Tally {
    /// One test passed.
    pub(super) fn success() -> Self {
        Self { passed: 1, failures: Vec::new() }
    }

    /// One test failed.
    pub(super) fn failure(text: String) -> Self {
        Self { passed: 0, failures: vec![text] }
    }

    /// Both together.
    pub(super) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failures.extend(other.failures);
    }
}

/// Runs `jobs`, `at_once` of them at the same time, and says how each of them went as it ends.
pub(super) fn run(jobs: &[Job<'_>], at_once: usize) -> Tally {
    let next = AtomicUsize::new(0);
    let total = Mutex::new(Tally::default());
    thread::scope(|scope| {
        for _ in 0..at_once.min(jobs.len()) {
            scope.spawn(|| {
                // Relaxed: the counter only hands out numbers; the jobs were there before the threads.
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let tally = one(job);
                    total.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).add(tally);
                }
            });
        }
    });
    total.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn one(job: &Job<'_>) -> Tally {
    let started = Instant::now();
    if matches!(job.ring, Ring::Lint | Ring::Host | Ring::Proof) {
        eprintln!("test {} ...", job.name);
    }
    let tally = (job.work)().unwrap_or_else(|error| Tally::failure(format!("{}: {error:#}", job.name)));
    let verdict = match (tally.passed, tally.failures.len()) {
        (1, 0) => "ok".to_owned(),
        (passed, 0) => format!("ok, {passed} passed"),
        (passed, failed) => format!("FAILED, {passed} passed, {failed} failed"),
    };
    eprintln!("test {} ... {verdict} ({:.1} s)", job.name, started.elapsed().as_secs_f32());
    tally
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::{Job, Tally, run};
    use crate::test::Ring;

    fn job(name: &str, work: fn() -> anyhow::Result<Tally>) -> Job<'static> {
        Job { ring: Ring::System, name: name.to_owned(), work: Box::new(work) }
    }

    #[test]
    fn every_job_counts_once_however_many_run_at_once() {
        let jobs: Vec<Job<'_>> = (0..20).map(|_| job("one", || Ok(Tally::success()))).collect();
        assert_eq!(run(&jobs, 3), Tally { passed: 20, failures: Vec::new() });
    }

    #[test]
    fn job_that_cannot_run_is_a_failure() {
        let tally = run(&[job("broken", || Err(anyhow!("no QEMU")))], 1);
        assert_eq!(tally.failures, ["broken: no QEMU"]);
    }
}
