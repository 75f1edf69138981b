//! The second ring: the hypervisor's own code on a processor, checked at EL2 by a program in its place (`tests/el2`).
//!
//! Main function: [`jobs`]. The program prints what the conformance guest prints ([`super::conformance::judge`]) and
//! logs each test's name through defmt before it runs: at least one such statement must arrive and decode, since nothing
//! else shows that logs work. Each test has a deadline of its own; silence, a crash, a missing end are failures.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::Ring;
use super::conformance::judge;
use super::job::{Job, Tally};
use super::system::keep_transcript;
use crate::console::{Event, Session};
use crate::layout::Layout;
use crate::log::Decoder;
use crate::qemu::{self, Boot, Entry, Machine};

/// From one verdict to the next; booting counts as one test.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What each test logs before it runs, in front of its name.
const BEGINS: &str = "begins: ";

struct Place {
    name: &'static str,
    gic: u8,
    cpu: &'static str,
}

const PLACES: [Place; 2] = [
    Place { name: "el2, gicv3 max", gic: 3, cpu: "max" },
    Place { name: "el2, gicv2 cortex-a72", gic: 2, cpu: "cortex-a72" },
];

/// All tests, once per machine.
pub(super) fn jobs(layout: &Layout) -> Vec<Job<'_>> {
    let job = |place: &'static Place| Job {
        ring: Ring::El2,
        name: place.name.to_owned(),
        work: Box::new(move || work(layout, place)),
    };
    PLACES.iter().map(job).collect()
}

fn work(layout: &Layout, place: &Place) -> Result<Tally> {
    let machine =
        Machine { gic: place.gic, cpu: place.cpu.into(), cpus: 4, memory: 512, ..Machine::default() };
    let boot = Boot {
        entry: Entry::Hypervisor,
        kernel: layout.el2_tests(),
        initrd: None,
        cmdline: "entresol.log=defmt".into(),
    };
    let decoder = Decoder::open(&layout.el2_tests_elf())?;
    let mut session = Session::start(qemu::command(layout, &machine, &boot, &[]), decoder)?;
    let (ending, logged) = watch(&mut session, TIMEOUT)?;
    keep_transcript(layout, place.name, session.transcript())?;
    let mut tally = judge(place.name, &session.transcript().lines());
    let complaints = [
        ending.err(),
        session.transcript().shows_crash().then(|| "the program crashed".to_owned()),
        (logged == 0).then(|| "not one log statement arrived and decoded".to_owned()),
    ];
    for complaint in complaints.into_iter().flatten() {
        let last_words = session.transcript().last_words();
        tally.failures.push(format!("{}: {complaint}; the last lines were:\n{last_words}", place.name));
    }
    Ok(tally)
}

/// Waits for the end, with `patience` for each test. How it ended, and how many tests logged that they began.
fn watch(session: &mut Session, patience: Duration) -> Result<(Result<(), String>, usize)> {
    let mut deadline = Instant::now() + patience;
    let (mut verdicts, mut logged) = (0, 0);
    loop {
        match session.next(Some(deadline))? {
            Event::Console(_) => {
                let lines = session.transcript().lines();
                let now = lines.iter().filter(|line| line.contains(" ... ")).count();
                if now > verdicts {
                    (verdicts, deadline) = (now, Instant::now() + patience);
                }
            }
            Event::Log(line) => logged += usize::from(line.contains(BEGINS)),
            Event::Complaint(_) => {}
            Event::Ended(status) if status.success() => return Ok((Ok(()), logged)),
            Event::Ended(status) => return Ok((Err(format!("QEMU ended with {status}")), logged)),
            Event::Deadline => {
                return Ok((Err(format!("{} s passed without a verdict", patience.as_secs())), logged));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::watch;
    use crate::console::Session;

    /// Watches a shell script in the place of QEMU.
    fn against(program: &str) -> (Result<(), String>, usize) {
        let mut command = Command::new("sh");
        command.args(["-c", program]);
        let mut session = Session::start(command, None).expect("sh");
        watch(&mut session, Duration::from_millis(600)).expect("pipes")
    }

    #[test]
    fn each_verdict_gives_the_next_test_its_own_time() {
        let slow = "for i in 1 2 3; do sleep 0.4; echo \"test $i ... ok\"; done";
        assert_eq!(against(slow).0, Ok(()));
    }

    #[test]
    fn test_without_a_verdict_is_not_waited_for() {
        let ending = against("echo 'test one ... ok'; exec sleep 60").0;
        assert!(ending.is_err_and(|reason| reason.contains("without a verdict")));
    }

    #[test]
    fn status_of_the_emulator_counts() {
        assert!(against("exit 3").0.is_err_and(|reason| reason.contains("exit status: 3")));
    }
}
