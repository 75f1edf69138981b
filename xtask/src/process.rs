//! Running other programs: their failure is our error, with their own last words in it.
//!
//! Main functions: [`run`] (the program talks to the terminal), [`capture`] (we want its output) and [`quietly`]
//! (nobody wants its output unless it fails).

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context as _, Result, bail};

/// Runs `command` with our terminal; fails when it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| cannot_start(command))?;
    if !status.success() {
        bail!("`{}` ended with {status}", words(command));
    }
    Ok(())
}

/// Runs `command` and returns what it printed; fails with its last words when it fails.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        bail!("`{}` ended with {}\n{}", words(command), output.status, last_words(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs `command` and returns all of its output, however it ended.
pub(crate) fn output(command: &mut Command) -> Result<Output> {
    command.output().with_context(|| cannot_start(command))
}

/// Runs `command` and shows nothing unless it fails.
pub(crate) fn quietly(command: &mut Command) -> Result<()> {
    capture(command).map(drop)
}

/// The full path of `program` as the shell would find it.
pub(crate) fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|candidate| is_file(candidate))
}

/// The command as a person would type it, for messages.
pub(crate) fn words(command: &Command) -> String {
    let parts = std::iter::once(command.get_program()).chain(command.get_args());
    parts.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file())
}

fn cannot_start(command: &Command) -> String {
    format!("cannot start `{}`", command.get_program().to_string_lossy())
}

/// The last lines of what a program printed.
pub(crate) fn last_words(output: &Output) -> String {
    const LINES: usize = 20;
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
