//! The inner ring: format, lints and unit tests, as anybody would call them by hand.

use std::env;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::Ring;
use super::job::{Job, Tally};
use crate::image::{EL2_TESTS, GUESTS};
use crate::layout::Layout;
use crate::process;
use crate::setup::rust::Toolchain;
use crate::setup::{self, Part};
use crate::step::note;

/// All of it.
pub(super) fn jobs(layout: &Layout) -> Vec<Job<'_>> {
    let job = |ring, name: &str, work: Box<dyn Fn() -> Result<Tally> + Send + Sync>| Job {
        ring,
        name: name.to_owned(),
        work,
    };
    let root = layout.clone();
    let (format, host, target, documentation, units) =
        (root.clone(), root.clone(), root.clone(), root.clone(), root);
    vec![
        job(Ring::Lint, "format", Box::new(move || format_is_kept(&format))),
        job(
            Ring::Lint,
            "lints of the host",
            Box::new(move || lint(&host, cargo("clippy"), &["--all-targets"])),
        ),
        job(Ring::Lint, "lints of the target", Box::new(move || lint_for_target(&target))),
        job(Ring::Lint, "documentation of stage2", Box::new(move || document(&documentation))),
        job(Ring::Host, "unit tests", Box::new(move || unit_tests(&units))),
    ]
}

fn format_is_kept(layout: &Layout) -> Result<Tally> {
    if is_missing("rustfmt") {
        return Ok(Tally::default());
    }
    process::quietly(cargo("fmt").args(["--all", "--check"]).current_dir(layout.root()))?;
    Ok(Tally::success())
}

fn lint_for_target(layout: &Layout) -> Result<Tally> {
    let toolchain = Toolchain::find()?.context("no Rust target: run `make setup`")?;
    let guests = GUESTS.iter().flat_map(|name| ["--package", name]);
    let packages: Vec<&str> =
        ["--package", "hyp", "--package", EL2_TESTS].into_iter().chain(guests).collect();
    lint(layout, toolchain.cargo("clippy"), &packages)
}

fn lint(layout: &Layout, mut clippy: Command, what: &[&str]) -> Result<Tally> {
    if is_missing("cargo-clippy") {
        return Ok(Tally::default());
    }
    clippy.current_dir(layout.root()).arg("--target-dir").arg(layout.target());
    process::quietly(clippy.arg("--quiet").args(what).args(["--", "-D", "warnings"]))?;
    Ok(Tally::success())
}

/// The one crate that others might use by itself: no link in what it says of itself leads nowhere.
fn document(layout: &Layout) -> Result<Tally> {
    let mut command = cargo("doc");
    command.args(["--quiet", "--no-deps", "--package", "stage2", "--target-dir"]).arg(layout.target());
    process::quietly(command.env("RUSTDOCFLAGS", "-D warnings").current_dir(layout.root()))?;
    Ok(Tally::success())
}

/// Debian's compiler comes without these; a person with it still gets all tests.
fn is_missing(program: &str) -> bool {
    let missing = process::find(program).is_none();
    if missing {
        note(&format!("{program} is not installed: skipped"));
    }
    missing
}

/// All packages that run on this machine.
fn unit_tests(layout: &Layout) -> Result<Tally> {
    let mut command = cargo("test");
    match setup::ensure(layout, &[Part::Debian]) {
        Ok(()) => {
            command.env("ENTRESOL_DEVICE_TREES", "required");
        }
        // Said here as well: what the tests print, cargo's last words drown.
        Err(error) => note(&format!("SKIPPED: the tests with the device trees of real boards: {error:#}")),
    }
    tests_of(layout, command.arg("--target-dir").arg(layout.target()).arg("--no-fail-fast"))
}

/// Runs cargo's tests, and counts them. What is no test's fault is a failure of its own.
pub(super) fn tests_of(layout: &Layout, command: &mut Command) -> Result<Tally> {
    let output = process::output(command.current_dir(layout.root()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let tally = count(&text);
    if tally.passed + tally.failures.len() == 0 {
        bail!("cargo ran no test at all\n{}", process::last_words(&output));
    }
    if !output.status.success() {
        eprintln!("{text}");
        if tally.failures.is_empty() {
            bail!("not all tests could be run\n{}", process::last_words(&output));
        }
    }
    Ok(tally)
}

/// Adds up `test result: ok. 53 passed; 0 failed; ...` and collects `test NAME ... FAILED`.
fn count(output: &str) -> Tally {
    let failed = |line: &str| Some(line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?.to_owned());
    Tally {
        passed: output.lines().filter_map(passed_in).sum(),
        failures: output.lines().filter_map(failed).map(|name| format!("unit test {name}")).collect(),
    }
}

fn passed_in(line: &str) -> Option<usize> {
    let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    counts.split_once(" passed")?.0.parse().ok()
}

pub(crate) fn cargo(task: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.arg(task);
    command
}

#[cfg(test)]
mod tests {
    use super::count;
    use crate::test::job::Tally;

    #[test]
    fn summaries_are_added_up_and_failures_named() {
        let output = "test a::b ... ok\n\
                      test result: ok. 53 passed; 0 failed; 0 ignored\n\
                      test c::d ... FAILED\n\
                      test result: FAILED. 4 passed; 1 failed; 0 ignored\n";
        assert_eq!(count(output), Tally { passed: 57, failures: vec!["unit test c::d".to_owned()] });
    }

    #[test]
    fn output_without_tests_counts_nothing() {
        assert_eq!(count("error: could not compile"), Tally::default());
    }
}
