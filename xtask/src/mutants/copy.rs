//! A copy of the crate with all mutants in it, in a workspace of its own.
//!
//! Main type: [`Copy`].

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::table::{Expected, Mutant};
use crate::layout::Layout;
use crate::process;
use crate::test::cargo;

/// Which mutant is meant, for the programs that are built from the copy.
pub(super) const CHOICE: &str = "STAGE2_MUTANT";

/// Goes into the copy's root: whether a mutant was chosen.
const SWITCH: &str = r#"
#[doc(hidden)]
pub(crate) mod mutants {
    extern crate std;

    pub(crate) fn is(number: usize) -> bool {
        static CHOSEN: std::sync::OnceLock<Option<usize>> = std::sync::OnceLock::new();
        *CHOSEN.get_or_init(|| std::env::var("STAGE2_MUTANT").ok()?.parse().ok()) == Some(number)
    }
}
"#;

/// What the copy is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Build {
    /// Tests as they are.
    Host,
    /// Models for loom.
    Loom,
}

impl Build {
    pub(super) const ALL: [Self; 2] = [Self::Host, Self::Loom];

    /// Whether the tests that should catch a mutant are in this build.
    pub(super) fn is_for(self, mutant: &Mutant) -> bool {
        match mutant.expected {
            Expected::Host(_) => self == Self::Host,
            Expected::Loom(_) => self == Self::Loom,
            Expected::Harmless(_) => false,
        }
    }
}

/// The copy.
pub(super) struct Copy {
    root: PathBuf,
}

impl Copy {
    /// Brings the copy up to date. Files that stay the same are not touched, so that cargo need not build them again.
    pub(super) fn make(layout: &Layout, mutants: &[Mutant]) -> Result<Self> {
        let copy = Self { root: layout.target().join("mutants/source") };
        let manifest = fs::read_to_string(layout.root().join("Cargo.toml"))?;
        write(&copy.root.join("Cargo.toml"), &alone(&manifest))?;
        if !copy.root.join("Cargo.lock").exists() {
            let lock = fs::read_to_string(layout.root().join("Cargo.lock"))?;
            write(&copy.root.join("Cargo.lock"), &lock)?;
        }
        // The longer ones first: others may lie within them.
        let mut mutants: Vec<&Mutant> = mutants.iter().collect();
        mutants.sort_by_key(|mutant| Reverse(mutant.find.len()));
        copy.add(&layout.root().join("stage2"), Path::new("stage2"), &mutants)?;
        Ok(copy)
    }

    /// Copies a directory, with its mutants.
    fn add(&self, from: &Path, to: &Path, mutants: &[&Mutant]) -> Result<()> {
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let to = to.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                self.add(&entry.path(), &to, mutants)?;
            } else {
                let mut text = fs::read_to_string(entry.path())
                    .with_context(|| format!("cannot read {}", entry.path().display()))?;
                for mutant in mutants {
                    if to == Path::new("stage2/src").join(&mutant.file) {
                        text = mutated(&text, mutant)?;
                    }
                }
                if to == Path::new("stage2/src/lib.rs") {
                    text += SWITCH;
                }
                write(&self.root.join(&to), &text)?;
            }
        }
        Ok(())
    }

    /// Builds the tests, and returns their programs.
    pub(super) fn build(&self, layout: &Layout, build: Build) -> Result<Vec<PathBuf>> {
        let mut command = cargo("test");
        command.args(["--quiet", "--no-run", "--package", "stage2", "--lib", "--message-format", "json"]);
        match build {
            Build::Host => command.args(["--test", "suite"]),
            Build::Loom => command.arg("--release").env("RUSTFLAGS", "--cfg stage2_loom"),
        };
        let target = layout.target().join("mutants").join(format!("{build:?}").to_lowercase());
        let output = self.in_copy(command.arg("--target-dir").arg(target))?;
        let programs: Vec<PathBuf> = output.lines().filter_map(program_in).map(PathBuf::from).collect();
        ensure!(!programs.is_empty(), "cargo built no tests");
        Ok(programs)
    }

    fn in_copy(&self, command: &mut Command) -> Result<String> {
        process::capture(command.current_dir(&self.root)).context("the copy with all mutants")
    }
}

/// The program that a line of cargo's messages tells of.
fn program_in(line: &str) -> Option<&str> {
    line.split_once("\"executable\":\"")?.1.split('"').next()
}

/// The text with a mutant in it.
fn mutated(text: &str, mutant: &Mutant) -> Result<String> {
    let switch = format!("crate::mutants::is({})", mutant.number);
    ensure!(text.matches(&mutant.find).count() == 1, "mutant `{}` meets another one", mutant.name);
    Ok(text.replacen(&mutant.find, &mutant.replacement.replace(Mutant::CHOSEN, &switch), 1))
}

/// The workspace with `stage2` as its only member.
fn alone(manifest: &str) -> String {
    let line = |line: &str| match line {
        line if line.starts_with("members =") => "members = [\"stage2\"]\n".to_owned(),
        line if line.starts_with("default-members =") => String::new(),
        line => format!("{line}\n"),
    };
    manifest.lines().map(line).collect()
}

fn write(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::{CHOICE, SWITCH, alone, program_in};

    #[test]
    fn switch_reads_what_the_hunt_sets() {
        assert!(SWITCH.contains(&format!("{CHOICE:?}")));
    }

    #[test]
    fn other_packages_are_left_out() {
        let manifest =
            "[workspace]\nmembers = [\"stage2\", \"hyp\"]\ndefault-members = [\"hyp\"]\n[profile]\n";
        assert_eq!(alone(manifest), "[workspace]\nmembers = [\"stage2\"]\n[profile]\n");
    }

    #[test]
    fn programs_are_found_in_cargos_messages() {
        let line = r#"{"reason":"compiler-artifact","executable":"/target/suite-1f","fresh":true}"#;
        assert_eq!(program_in(line), Some("/target/suite-1f"));
        assert_eq!(program_in(r#"{"executable":null}"#), None);
    }
}
