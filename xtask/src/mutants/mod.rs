//! `cargo xtask mutants`: whether the tests of `stage2` miss what is taken out of it.
//!
//! A test that nothing can fail proves nothing. So `stage2/tests/mutants.toml` lists small changes that make the crate
//! wrong: a barrier less, an invalidation less, a break that is skipped, an ordering that is too weak. Each must make one
//! of the tests fail that are named beside it. One that none fails *survives*, which is a failure here.
//!
//! All mutants are compiled at once, into a copy of the crate (`copy`), each beside what it replaces, and the environment
//! says at run time which one is meant. So there is one build for all, or two with that for loom, and a mutant costs no
//! more than the tests that catch it. What `table` reads is checked against the source first: a change whose place is not
//! there exactly once is out of date. `hunt` runs the tests.

mod copy;
mod hunt;
mod table;

use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::layout::Layout;
use copy::{Build, Copy};
use hunt::Fate;
use table::{Expected, Mutant};

/// Which mutants.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Only mutants whose name contains this
    #[arg(value_name = "NAME", default_value = "")]
    filter: String,
    /// Also those that only loom's models can tell
    #[arg(long)]
    deep: bool,
}

impl Options {
    /// All that fit into a run of all tests, or all there are.
    pub(crate) fn all(deep: bool) -> Self {
        Self { filter: String::new(), deep }
    }
}

/// How many were caught, and which were not.
pub(crate) struct Score {
    pub(crate) caught: usize,
    /// One text for each that survived.
    pub(crate) survivors: Vec<String>,
}

/// Hunts them all, and prints the score.
pub(crate) fn run(layout: &Layout, options: &Options) -> Result<()> {
    let score = hunt(layout, options)?;
    if !score.survivors.is_empty() {
        bail!("{} mutants survive", score.survivors.len());
    }
    Ok(())
}

/// Says of each mutant what became of it, and how many were caught.
pub(crate) fn hunt(layout: &Layout, options: &Options) -> Result<Score> {
    let mutants = table::read(layout)?;
    let copy = Copy::make(layout, &mutants)?;
    let chosen: Vec<&Mutant> =
        mutants.iter().filter(|mutant| mutant.name.contains(&options.filter)).collect();
    let mut score = Score { caught: 0, survivors: Vec::new() };
    for build in Build::ALL {
        let here: Vec<&Mutant> = chosen.iter().copied().filter(|mutant| build.is_for(mutant)).collect();
        if here.is_empty() {
            continue;
        }
        if build == Build::Loom && !options.deep && options.filter.is_empty() {
            println!("      left for --deep  {} mutants that only loom can tell", here.len());
            continue;
        }
        let programs = copy.build(layout, build)?;
        let healthy = hunt::healthy(&programs, &here).context("without any mutant")?;
        println!("{healthy:>20}  tests pass without any mutant");
        for mutant in here {
            report(mutant, hunt::one(&programs, mutant)?, &mut score);
        }
    }
    chosen.iter().for_each(|mutant| {
        if let Expected::Harmless(why) = &mutant.expected {
            println!("            harmless  {}: {why}", mutant.name);
        }
    });
    println!("{} of {} mutants caught", score.caught, score.caught + score.survivors.len());
    Ok(score)
}

fn report(mutant: &Mutant, (fate, started): (Fate, Instant), score: &mut Score) {
    let seconds = started.elapsed().as_secs_f32();
    let (verdict, by) = match &fate {
        Fate::Caught { test } => ("caught", test.as_str()),
        Fate::Hung => ("caught", "nobody gets on any more"),
        Fate::Survived => ("SURVIVES", ""),
    };
    println!("{verdict:>12} {seconds:5.1} s  {}: {by}", mutant.name);
    match fate {
        Fate::Survived => score.survivors.push(format!("mutant `{}` survives", mutant.name)),
        Fate::Caught { .. } | Fate::Hung => score.caught += 1,
    }
}
