//! Playing a script against a QEMU with nobody watching, and judging how it went.
//!
//! Main types: [`Plan`] (what must happen) and [`Failure`] (why it did not). The verdict is strict: a crash report, a
//! status other than 0, an end that comes before the script is through, and a silence until the deadline are failures,
//! each with the last lines that were printed.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::console::{Event, Session, Transcript};
use crate::expect::{Progress, Script};

/// How a run ends when all goes well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// As soon as all was seen.
    AllSeen,
    /// The machine powers itself off after all was seen.
    PowerOff,
}

/// What must happen.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// What must be seen and typed.
    pub(crate) script: Script,
    /// What must come then.
    pub(crate) end: End,
    /// By when, from the start.
    pub(crate) timeout: Duration,
}

/// Why a run was no success.
#[derive(Debug)]
pub(crate) struct Failure {
    reason: String,
    last_words: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}; the last lines were:\n{}", self.reason, self.last_words)
    }
}

impl std::error::Error for Failure {}

/// A crash report has many lines; so long it may take to come out.
const CRASH_REPORT: Duration = Duration::from_secs(3);

/// Plays `plan`; `watch` sees every event. Returns everything that was printed.
pub(crate) fn play(
    session: &mut Session,
    plan: &Plan,
    mut watch: impl FnMut(&Event) -> Result<()>,
) -> Result<Result<(), Failure>> {
    let mut deadline = Instant::now() + plan.timeout;
    let mut progress = Progress::new(plan.script.clone());
    let mut crashed = false;
    loop {
        if !crashed && plan.end == End::AllSeen && progress.awaited().is_none() {
            return Ok(Ok(()));
        }
        let event = session.next(Some(deadline))?;
        watch(&event)?;
        let answer = match &event {
            Event::Console(bytes) => progress.console(bytes),
            Event::Log(line) => progress.log_line(line),
            Event::Complaint(_) => Vec::new(),
            Event::Ended(_) | Event::Deadline => {
                let verdict = verdict(&event, plan, progress.awaited(), session.transcript());
                return Ok(verdict.map_err(|reason| fail(reason, session.transcript())));
            }
        };
        if !crashed && session.transcript().shows_crash() {
            crashed = true;
            deadline = deadline.min(Instant::now() + CRASH_REPORT);
        }
        if !answer.is_empty() {
            session.send(&answer)?;
        }
    }
}

/// What the last event means.
fn verdict(event: &Event, plan: &Plan, awaited: Option<&str>, transcript: &Transcript) -> Result<(), String> {
    if transcript.shows_crash() {
        return Err("the hypervisor crashed".into());
    }
    let awaited = awaited.map(|pattern| format!(" without `{pattern}` having been seen"));
    match (event, awaited) {
        (Event::Ended(status), Some(awaited)) => Err(format!("QEMU ended with {status}{awaited}")),
        (Event::Ended(status), None) if !status.success() => Err(format!("QEMU ended with {status}")),
        (Event::Ended(_), None) => Ok(()),
        (_, Some(awaited)) => Err(format!("{} s passed{awaited}", plan.timeout.as_secs())),
        (_, None) => Err(format!("{} s passed and the machine did not power off", plan.timeout.as_secs())),
    }
}

fn fail(reason: String, transcript: &Transcript) -> Failure {
    Failure { reason, last_words: transcript.last_words() }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::{End, Failure, Plan, play};
    use crate::console::Session;
    use crate::expect::Script;

    /// Plays against a shell script in the place of QEMU.
    fn against(program: &str, patterns: &[&str], end: End) -> Result<(), Failure> {
        let mut script = Script::default();
        for pattern in patterns {
            script.expect(pattern).expect("valid");
        }
        let plan = Plan { script, end, timeout: Duration::from_millis(1500) };
        let mut command = Command::new("sh");
        command.args(["-c", program]);
        let mut session = Session::start(command, None).expect("sh");
        play(&mut session, &plan, |_| Ok(())).expect("pipes")
    }

    fn reason(result: Result<(), Failure>) -> String {
        result.expect_err("must fail").to_string()
    }

    #[test]
    fn power_off_after_all_was_seen_is_success() {
        assert!(against("echo one; echo two", &["one", "two"], End::PowerOff).is_ok());
    }

    #[test]
    fn machine_that_goes_on_is_success_where_no_end_is_asked_for() {
        assert!(against("echo one; exec sleep 60", &["one"], End::AllSeen).is_ok());
    }

    #[test]
    fn status_of_the_emulator_counts() {
        assert!(reason(against("echo one; exit 3", &["one"], End::PowerOff)).contains("exit status: 3"));
    }

    #[test]
    fn early_end_names_what_was_awaited() {
        assert!(reason(against("echo one", &["one", "two"], End::PowerOff)).contains("without `two`"));
    }

    #[test]
    fn silence_names_what_was_awaited_and_the_last_line() {
        let reason = reason(against("echo last; exec sleep 60", &["shell"], End::AllSeen));
        assert!(reason.contains("passed without `shell`") && reason.contains("    last"));
    }

    #[test]
    fn crash_report_is_a_failure_whatever_the_status() {
        let program = "echo one; echo 'entresol: CRASH on CPU 0'; exit 0";
        assert!(reason(against(program, &["one"], End::PowerOff)).contains("crashed"));
    }

    #[test]
    fn machine_that_stays_on_is_a_failure_where_it_must_power_off() {
        assert!(
            reason(against("echo one; exec sleep 60", &["one"], End::PowerOff)).contains("did not power off")
        );
    }
}
