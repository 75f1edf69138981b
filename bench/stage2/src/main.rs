//! What the `stage2` crate costs on the machine you sit at, beside
//! google/aarch64-paging and beside itself behind one lock.
//!
//! `cargo xtask bench --host` runs it. Figures are compared within one run
//! only; nothing in them says how fast a hypervisor is, as there are no TLBs
//! here and no barriers of the architecture. They say whether the work on
//! tables is done in few steps, and whether CPUs get in each other's way.
//!
//! `work.rs` says what is done, `side.rs` by whom, `count.rs` and `time.rs` how
//! it is measured. `ager.rs` has what only this project's crate does.

mod ager;
mod count;
mod pool;
mod report;
mod side;
mod time;
mod work;

use std::env;

use anyhow::{Context as _, Result, bail};

use count::Counts;
use report::{Goal, Row};
use side::Contender;
use work::{DISJOINT, REGIONS, SHARED, Sharing, WORKS, Work};

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => everything().map(|_| ()),
        ["--check"] => match everything()? {
            0 => Ok(()),
            missed => bail!("{missed} goals are missed"),
        },
        [count::ARGUMENT, work, contender] => {
            let work = work::find(work).context("there is no such work")?;
            let named = |candidate: &Contender| candidate.name() == contender;
            let contender = Contender::ALL.into_iter().find(named).context("nobody has this name")?;
            count::run_counted(work, contender);
            Ok(())
        }
        _ => bail!("the only argument is --check: fail if a goal is missed"),
    }
}

/// Measures everything, prints the table, and says how many goals are missed.
fn everything() -> Result<usize> {
    let mut missed = instructions()?;
    missed += report::print("nanoseconds, one thread", &times());
    missed += report::print("two threads, nothing shared", &disjoint());
    missed += report::print("nanoseconds, two threads in the same 2 MiB", &[shared()]);
    missed += report::print("aging", &ager::measure());
    Ok(missed)
}

/// The part of the table that is the same whenever it is printed.
fn instructions() -> Result<usize> {
    let mut rows = Vec::new();
    for work in WORKS {
        let mut counts = Vec::new();
        for contender in Contender::ALL {
            let Some(Counts { instructions, loads }) = count::count(work, contender)? else {
                println!("no instructions are counted: there is no valgrind on this machine\n");
                return Ok(0);
            };
            counts.push(instructions as f64 / f64::from(work.units));
            if contender == Contender::Ours
                && let Some(most) = work.loads_at_most
            {
                rows.push(Row {
                    work: format!("{}, loads", work.unit),
                    value: loads as f64,
                    baseline: None,
                    goal: Goal::AtMost(most),
                });
            }
        }
        rows.extend(against_rivals(work, &counts));
    }
    let [alone, of_many] = REGIONS.each_ref().map(|work| -> Result<f64> {
        let counted = count::count(work, Contender::Ours)?.context("valgrind is gone")?;
        Ok(counted.instructions as f64 / f64::from(work.units))
    });
    rows.push(Row {
        work: REGIONS[1].unit.into(),
        value: of_many?,
        baseline: Some(("the same alone".into(), alone?)),
        goal: Goal::RatioAtMost(1.05),
    });
    Ok(report::print("instructions, one thread", &rows))
}

fn times() -> Vec<Row> {
    WORKS.iter().flat_map(|work| against_rivals(work, &time::compare(work))).collect()
}

/// A row for each rival. `figures` are in the order of [`Contender::ALL`].
fn against_rivals(work: &Work, figures: &[f64]) -> Vec<Row> {
    let all = Contender::ALL.into_iter().zip(figures);
    let ours = figures.first().copied().unwrap_or(f64::NAN);
    let row = |(rival, figure): (Contender, &f64)| Row {
        work: work.unit.into(),
        value: ours,
        baseline: Some((rival.name().into(), *figure)),
        goal: match rival {
            Contender::RivalInUse => Goal::RatioAtMost(1.0),
            Contender::Ours | Contender::RivalIdle => Goal::None,
        },
    };
    all.skip(1).map(row).collect()
}

/// How much more two threads get done than one, in ranges of their own.
fn disjoint() -> Vec<Row> {
    let row = |sharing: &Sharing| {
        let [free, locked] = time::scale(sharing).map(|scaling| scaling.factor());
        Row {
            work: format!("{}, throughput over one thread", sharing.unit),
            value: free,
            baseline: Some(("one lock".into(), locked)),
            goal: Goal::AtLeast(1.8),
        }
    };
    DISJOINT.iter().map(row).collect()
}

/// What a unit of work takes two threads in the same place.
fn shared() -> Row {
    let [free, locked] = time::scale(&SHARED);
    Row {
        work: SHARED.unit.into(),
        value: free.together,
        baseline: Some(("one lock".into(), locked.together)),
        goal: Goal::RatioAtMost(1.0),
    }
}
