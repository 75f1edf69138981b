//! `cargo xtask test`: every proof the project has, with one line at the end that tells the truth.
//!
//! Main type: [`Options`]; main function: [`run`]. The rings, from the inside out: [`host`] (format, lints, unit tests),
//! [`proof`] (loom and Miri), [`el2`] (the library on a processor, checked at EL2), [`conformance`] (claims checked by a small guest, on the
//! hypervisor and on a bare machine), [`system`], [`machines`] and [`refusals`] (whole boots played by a script). Only the last runs two
//! jobs at a time: the others use all of the machine, or need time to be true.
//!
//! Parts: [`job`] runs and counts.

mod conformance;
mod el2;
mod host;
mod job;
mod machines;
mod proof;
mod refusals;
mod system;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::image;
use crate::layout::Layout;
use crate::setup::{self, Part};
use crate::step::note;
pub(crate) use host::cargo;
use job::{Job, Tally};
use machines::Machines;
use proof::Depth;

/// Which tests.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Only tests whose name contains this
    #[arg(value_name = "NAME", default_value = "")]
    filter: String,
    /// Only this ring
    #[arg(long)]
    only: Option<Ring>,
    /// Say which tests there are, and run none
    #[arg(long)]
    list: bool,
    /// Give those that can be given any amount of time a lot of it
    #[arg(long)]
    deep: bool,
}

/// How far from the source a test stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Ring {
    /// Format and lints
    Lint,
    /// Unit tests on this machine
    Host,
    /// Protocols in every order (loom), undefined behaviour (Miri)
    Proof,
    /// What the hypervisor relies on, checked at EL2
    El2,
    /// A guest's claims, checked by the guest
    Conformance,
    /// Whole boots
    System,
}

/// Runs them; fails if one of them does, or if there is none.
pub(crate) fn run(layout: &Layout, options: &Options) -> Result<()> {
    let mut on_host = select(options, host::jobs(layout));
    let depth = if options.deep { Depth::Deep } else { Depth::Usual };
    on_host.extend(select(options, proof::jobs(layout, depth)));
    let mut claims = select(options, el2::jobs(layout));
    claims.extend(select(options, conformance::jobs(layout)));
    let machines = Machines::default();
    let mut boots = select(options, machines.jobs(layout));
    boots.extend(select(options, system::jobs(layout)));
    boots.extend(select(options, refusals::jobs(layout)));
    let all = || on_host.iter().chain(&claims).chain(&boots);
    if all().next().is_none() {
        bail!("no test has `{}` in its name", options.filter);
    }
    if options.list {
        all().for_each(|job| println!("{}", job.name));
        return Ok(());
    }
    setup::ensure(layout, &[Part::Rust])?;
    let mut tally = job::run(&on_host, 1);
    if !claims.is_empty() || !boots.is_empty() {
        match prepare(layout) {
            Ok(()) => {
                // Claims about time need CPUs that really run side by side.
                tally.add(job::run(&claims, 1));
                tally.add(job::run(&boots, job::QEMU_AT_ONCE));
                tally.add(machines.conclude(layout)?);
            }
            Err(error) => tally.add(Tally::failure(format!("cannot run anything in QEMU: {error:#}"))),
        }
    }
    conclude(&tally)
}

fn select<'a>(options: &Options, jobs: Vec<Job<'a>>) -> Vec<Job<'a>> {
    let wanted = |job: &Job<'_>| {
        job.name.contains(&options.filter) && options.only.is_none_or(|ring| ring == job.ring)
    };
    jobs.into_iter().filter(wanted).collect()
}

fn prepare(layout: &Layout) -> Result<()> {
    setup::ensure(layout, &[Part::Qemu, Part::Debian, Part::UBoot])?;
    image::hypervisor(layout)?;
    image::el2_tests(layout)?;
    image::guests(layout)
}

fn conclude(tally: &Tally) -> Result<()> {
    if !tally.failures.is_empty() {
        note("failures:");
        tally.failures.iter().for_each(|failure| eprintln!("  {failure}"));
    }
    println!("{} passed, {} failed", tally.passed, tally.failures.len());
    if !tally.failures.is_empty() {
        bail!("tests failed");
    }
    if tally.passed == 0 {
        bail!("not one test ran");
    }
    Ok(())
}
