//! The inner ring: format, lints and unit tests, as anybody would call them by hand.

use std::env;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::Ring;
use super::job::{Job, Tally};
use crate::image::GUESTS;
use crate::layout::Layout;
use crate::process;
use crate::setup::rust::Toolchain;
use crate::step::note;

/// All of it.
pub(super) fn jobs(layout: &Layout) -> Vec<Job<'_>> {
    let job = |ring, name: &str, work: Box<dyn Fn() -> Result<Tally> + Send + Sync>| Job {
        ring,
        name: name.to_owned(),
        work,
    };
    let root = layout.clone();
    let (format, host, target, units) = (root.clone(), root.clone(), root.clone(), root);
    vec![
        job(Ring::Lint, "format", Box::new(move || format_is_kept(&format))),
        job(
            Ring::Lint,
            "lints of the host",
            Box::new(move || lint(&host, cargo("clippy"), &["--all-targets"])),
        ),
        job(Ring::Lint, "lints of the target", Box::new(move || lint_for_target(&target))),
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
    let packages: Vec<&str> = ["--package", "hyp"].into_iter().chain(guests).collect();
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

/// Debian's compiler comes without these; a person with it still gets all tests.
fn is_missing(program: &str) -> bool {
    let missing = process::find(program).is_none();
    if missing {
        note(&format!("{program} is not installed: skipped"));
    }
    missing
}

/// All packages that run on this machine; cargo's own summary lines are added up.
fn unit_tests(layout: &Layout) -> Result<Tally> {
    let mut command = cargo("test");
    command.current_dir(layout.root()).arg("--target-dir").arg(layout.target());
    let output = process::capture(command.arg("--no-fail-fast"))?;
    let passed = output.lines().filter_map(passed_in).sum();
    if passed == 0 {
        bail!("cargo ran no test at all");
    }
    Ok(Tally { passed, failures: Vec::new() })
}

/// The 53 of `test result: ok. 53 passed; 0 failed; ...`.
fn passed_in(line: &str) -> Option<usize> {
    let counts = line.strip_prefix("test result: ok. ")?;
    counts.split_once(" passed")?.0.parse().ok()
}

fn cargo(task: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.arg(task);
    command
}

#[cfg(test)]
mod tests {
    use super::passed_in;

    #[test]
    fn summary_line_gives_its_count() {
        let line = "test result: ok. 53 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(passed_in(line), Some(53));
    }

    #[test]
    fn other_lines_give_none() {
        assert_eq!(passed_in("test frames::tests::x ... ok"), None);
    }
}
