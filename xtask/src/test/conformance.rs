//! The middle ring: what a guest may rely on, checked by a guest (`tests/conformance`), machine by machine.
//!
//! The guest prints `test NAME ... ok`, `... FAILED: why` or `... skipped: why` for each claim, and `N passed, N failed`
//! at the end ([`judge`]). It runs on the hypervisor, and on bare machines as well: a claim that does not hold there is
//! the claim's fault.

use std::time::Duration;

use anyhow::Result;

use super::Ring;
use super::job::{Job, Tally};
use super::system::{Guests, keep_transcript, start_hypervisor};
use crate::console::Session;
use crate::expect::Script;
use crate::layout::Layout;
use crate::qemu::{self, Boot, Entry, Machine};
use crate::scenario::{self, End, Plan};

/// All claims together; each one's own waits are limited by the guest.
const TIMEOUT: Duration = Duration::from_secs(90);

const GUESTS: Guests = Guests::Packed("tests/system/conformance.toml");

/// What that description gives the guest.
const GUEST_CPUS: u8 = 2;

struct Place {
    name: &'static str,
    gic: u8,
    cpu: &'static str,
    cpus: u8,
}

const PLACES: [Place; 4] = [
    Place { name: "gicv3 max", gic: 3, cpu: "max", cpus: 4 },
    Place { name: "gicv3 cortex-a53", gic: 3, cpu: "cortex-a53", cpus: 4 },
    Place { name: "gicv2 cortex-a72", gic: 2, cpu: "cortex-a72", cpus: 4 },
    // All vCPUs of the guest share one physical CPU.
    Place { name: "gicv3 max, one CPU", gic: 3, cpu: "max", cpus: 1 },
];

/// The claims on the hypervisor and on bare machines.
pub(super) fn jobs(layout: &Layout) -> Vec<Job<'_>> {
    let job = |place: &'static Place, entry: Entry| {
        let where_ = match entry {
            Entry::Hypervisor => "hypervisor",
            Entry::Kernel => "bare machine",
        };
        let name = format!("conformance, {where_}, {}", place.name);
        let work_name = name.clone();
        Job { ring: Ring::Conformance, name, work: Box::new(move || work(layout, &work_name, place, entry)) }
    };
    let bare = PLACES.iter().filter(|place| place.cpus > 1).map(|place| job(place, Entry::Kernel));
    PLACES.iter().map(|place| job(place, Entry::Hypervisor)).chain(bare).collect()
}

fn work(layout: &Layout, name: &str, place: &Place, entry: Entry) -> Result<Tally> {
    let Place { gic, cpu, cpus, .. } = *place;
    let cpus = if entry == Entry::Kernel { GUEST_CPUS } else { cpus };
    let machine = Machine { gic, cpu: cpu.into(), cpus, memory: 512, ..Machine::default() };
    let mut session = match entry {
        Entry::Hypervisor => start_hypervisor(layout, &machine, GUESTS, name, &[])?,
        Entry::Kernel => {
            let kernel = layout.guests().join("conformance.bin");
            let boot = Boot { entry, kernel, initrd: None, cmdline: "bare".into() };
            Session::start(qemu::command(layout, &machine, &boot, &[]), None)?
        }
    };
    let mut script = Script::default();
    script.expect(r"\d+ passed, \d+ failed\n")?;
    let plan = Plan { script, end: End::PowerOff, timeout: TIMEOUT };
    let outcome = scenario::play(&mut session, &plan, |_| Ok(()))?;
    keep_transcript(layout, name, session.transcript())?;
    let mut tally = judge(name, &session.transcript().lines());
    if let Err(failure) = outcome {
        tally.failures.push(format!("{name}: {failure}"));
    }
    Ok(tally)
}

/// Counts the claims in what the guest printed. A summary that is missing or does not fit the lines is a failure too.
pub(super) fn judge(name: &str, lines: &[String]) -> Tally {
    let mut tally = Tally::default();
    let mut summary = None;
    for line in lines {
        match line.split_once("test ").and_then(|(_, rest)| rest.split_once(" ... ")) {
            Some((_, verdict)) if verdict.starts_with("ok") => tally.passed += 1,
            Some((claim, verdict)) if verdict.starts_with("FAILED") => {
                tally.failures.push(format!("{name}: {claim} {verdict}"));
            }
            Some((_, verdict)) if verdict.starts_with("skipped") => {}
            // Whatever else the line got to hold: the claim was begun and never judged.
            Some((claim, _)) => tally.failures.push(format!("{name}: {claim} came to no verdict")),
            None => summary = counts(line).or(summary),
        }
    }
    let seen = (tally.passed, tally.failures.len());
    match summary {
        None => tally.failures.push(format!("{name}: the line `N passed, N failed` is missing")),
        Some((0, 0)) => tally.failures.push(format!("{name}: not one claim was checked")),
        Some(said) if said != seen => {
            tally.failures.push(format!("{name}: the guest counted {said:?}, its lines say {seen:?}"));
        }
        Some(_) => {}
    }
    tally
}

fn counts(line: &str) -> Option<(usize, usize)> {
    let (before, after) = line.trim_end().strip_suffix(" failed")?.split_once(" passed, ")?;
    let passed = before.rsplit(' ').next()?.parse().ok()?;
    Some((passed, after.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::judge;

    fn judged(lines: &[&str]) -> (usize, Vec<String>) {
        let lines: Vec<String> = lines.iter().map(|&line| line.to_owned()).collect();
        let tally = judge("here", &lines);
        (tally.passed, tally.failures)
    }

    #[test]
    fn claims_are_counted_and_skipped_ones_are_not() {
        let lines = [
            "test one ... ok",
            "[guest] test two ... ok",
            "test three ... skipped: why",
            "2 passed, 0 failed",
        ];
        assert_eq!(judged(&lines), (2, vec![]));
    }

    #[test]
    fn failed_claim_is_named_with_its_reason() {
        let lines = ["test one ... ok", "test two ... FAILED: read 5", "1 passed, 1 failed"];
        assert_eq!(judged(&lines), (1, vec!["here: two FAILED: read 5".to_owned()]));
    }

    #[test]
    fn claim_without_a_verdict_is_named() {
        let (_, failures) = judged(&["test one ... ok", "test two ... "]);
        assert_eq!(failures[0], "here: two came to no verdict");
    }

    #[test]
    fn missing_summary_is_a_failure() {
        let (_, failures) = judged(&["test one ... ok"]);
        assert!(failures.iter().any(|failure| failure.contains("missing")));
    }

    #[test]
    fn zero_claims_are_a_failure() {
        let (_, failures) = judged(&["0 passed, 0 failed"]);
        assert!(failures.iter().any(|failure| failure.contains("not one")));
    }

    #[test]
    fn lost_lines_are_a_failure() {
        let (_, failures) = judged(&["test one ... ok", "2 passed, 0 failed"]);
        assert_eq!(failures.len(), 1);
    }
}
