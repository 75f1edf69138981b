//! Protocols, tried in every order: loom's models and Miri; and whether tests notice when something is missing.
//!
//! Loom runs the lock-free parts under all interleavings and all reorderings that the memory model allows; Miri runs the
//! host tests and looks for undefined behaviour. Each needs its own build, in its own folder, so that neither throws away
//! what the others have built. `--deep` gives both more to do: hours, for a machine that has nothing else to do.

use anyhow::Result;

use super::Ring;
use super::host::{cargo, tests_of};
use super::job::{Job, Tally};
use crate::layout::Layout;
use crate::mutants;
use crate::setup::rust;
use crate::step::note;

/// How thorough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// As much as fits into a run of all tests.
    Usual,
    /// As much as there is.
    Deep,
}

/// A package with models, and what makes its atomics loom's.
const MODELS: [(&str, &str); 2] = [("stage2", "stage2_loom"), ("hyp", "hyp_loom")];

/// What comes near `unsafe` in no more than a minute: Miri is too slow for what maps whole tables.
const NEAR_UNSAFE: [&str; 2] = ["epoch::tests", "reclaim::tests"];

/// All of it.
pub(super) fn jobs(layout: &Layout, depth: Depth) -> Vec<Job<'_>> {
    let models = MODELS.map(|(package, switch)| Job {
        ring: Ring::Proof,
        name: format!("interleavings of {package}"),
        work: Box::new(move || interleavings(layout, depth, package, switch)),
    });
    let miri = Job {
        ring: Ring::Proof,
        name: "stage2 under Miri".to_owned(),
        work: Box::new(move || miri(layout, depth)),
    };
    let mutants = Job {
        ring: Ring::Proof,
        name: "mutants of stage2".to_owned(),
        work: Box::new(move || mutants(layout, depth)),
    };
    models.into_iter().chain([miri, mutants]).collect()
}

fn interleavings(layout: &Layout, depth: Depth, package: &str, switch: &str) -> Result<Tally> {
    let mut command = cargo("test");
    command.args(["--release", "--package", package, "--lib"]).env("RUSTFLAGS", format!("--cfg {switch}"));
    if depth == Depth::Deep {
        command.env("LOOM_MAX_PREEMPTIONS", "4");
    }
    tests_of(layout, command.arg("--target-dir").arg(layout.target().join(switch)).arg("interleave"))
}

/// Whether the tests miss what is taken out of the crate.
fn mutants(layout: &Layout, depth: Depth) -> Result<Tally> {
    let score = mutants::hunt(layout, &mutants::Options::all(depth == Depth::Deep))?;
    Ok(Tally { passed: score.caught, failures: score.survivors })
}

fn miri(layout: &Layout, depth: Depth) -> Result<Tally> {
    if let Err(error) = rust::ensure_miri() {
        note(&format!("SKIPPED: undefined behaviour is not looked for, as there is no Miri: {error:#}"));
        return Ok(Tally::default());
    }
    let mut command = rust::miri();
    command.args(["miri", "test", "--package", "stage2", "--target-dir"]).arg(layout.target().join("miri"));
    // Proptest wants to know where it is.
    let mut flags = "-Zmiri-strict-provenance -Zmiri-disable-isolation".to_owned();
    match depth {
        Depth::Usual => command.args(["--lib", "--"]).args(NEAR_UNSAFE),
        Depth::Deep => {
            flags += " -Zmiri-many-seeds=0..16";
            command.args(["--lib", "--test", "suite"]).env("PROPTEST_CASES", "4")
        }
    };
    tests_of(layout, command.env("MIRIFLAGS", flags))
}
