//! The outer ring: the real image boots real guests, and a script at the console says what must be seen.
//!
//! Main type: [`Scenario`]; the scenarios are data, [`SCENARIOS`]. Everything a run printed is kept in `build/test/`.

use std::fs;
use std::time::Duration;

use anyhow::Result;

use super::Ring;
use super::job::{Job, Tally};
use crate::bundle;
use crate::console::{Session, Transcript};
use crate::expect::Script;
use crate::layout::Layout;
use crate::log::Decoder;
use crate::qemu::{self, Board, Machine};
use crate::run;
use crate::scenario::{self, End, Plan};

/// One boot and what must come of it.
struct Scenario {
    name: &'static str,
    board: Board,
    gic: u8,
    cpu: &'static str,
    cpus: u8,
    /// The guests; nothing: no bundle is passed.
    guests: Option<&'static str>,
    /// What to wait for, and what to type then.
    script: &'static [(&'static str, &'static str)],
    end: End,
    seconds: u64,
}

/// What most scenarios have in common.
const USUAL: Scenario = Scenario {
    name: "",
    board: Board::Virt,
    gic: 3,
    cpu: "max",
    cpus: 4,
    guests: None,
    script: &[],
    end: End::PowerOff,
    seconds: 120,
};

const SHELL: (&str, &str) = ("guest userspace up: 2 CPUs", "");

const SCENARIOS: [Scenario; 6] = [
    Scenario {
        name: "debian gets a shell on gicv3 max",
        guests: Some("tests/system/debian.toml"),
        script: &[
            SHELL,
            ("# ", "nproc\\n"),
            (r"^2\n", "cat /proc/interrupts\\n"),
            ("arch_timer", "poweroff\\n"),
        ],
        ..USUAL
    },
    Scenario {
        name: "debian gets a shell on gicv2 cortex-a72",
        guests: Some("tests/system/debian.toml"),
        gic: 2,
        cpu: "cortex-a72",
        script: &[SHELL, ("# ", "nproc\\n"), (r"^2\n", "poweroff\\n")],
        ..USUAL
    },
    Scenario {
        name: "debian reboots",
        guests: Some("tests/system/debian.toml"),
        script: &[SHELL, ("# ", "reboot\\n"), SHELL, ("# ", "poweroff\\n")],
        ..USUAL
    },
    Scenario {
        name: "debian shares one CPU",
        guests: Some("tests/system/debian.toml"),
        cpus: 1,
        script: &[SHELL, ("# ", "poweroff\\n")],
        ..USUAL
    },
    Scenario {
        name: "two guests run at once",
        guests: Some("vms/default.toml"),
        script: &[("heartbeat 1", ""), SHELL, ("heartbeat", ""), ("heartbeat", "")],
        end: End::AllSeen,
        ..USUAL
    },
    Scenario { name: "no bundle is explained", script: &[("bundle", "")], seconds: 30, ..USUAL },
];

/// One job per scenario.
pub(super) fn jobs(layout: &Layout) -> Vec<Job<'_>> {
    let job = |scenario: &'static Scenario| Job {
        ring: Ring::System,
        name: scenario.name.to_owned(),
        work: Box::new(move || work(layout, scenario)),
    };
    SCENARIOS.iter().map(job).collect()
}

fn work(layout: &Layout, scenario: &Scenario) -> Result<Tally> {
    let Scenario { name, board, gic, cpus, .. } = *scenario;
    let machine = Machine { board, gic, cpu: scenario.cpu.into(), cpus, memory: 1024, ..Machine::default() };
    let mut script = Script::default();
    for (pattern, answer) in scenario.script {
        script.expect(pattern)?;
        script.send(answer)?;
    }
    let plan = Plan { script, end: scenario.end, timeout: Duration::from_secs(scenario.seconds) };
    let mut session = start_hypervisor(layout, &machine, scenario.guests, name, &[])?;
    let outcome = scenario::play(&mut session, &plan, |_| Ok(()))?;
    keep_transcript(layout, name, session.transcript())?;
    outcome?;
    Ok(Tally::success())
}

/// Packs `guests` (a path below the root) and starts the hypervisor with them; `name` is the test's.
pub(super) fn start_hypervisor(
    layout: &Layout,
    machine: &Machine,
    guests: Option<&str>,
    name: &str,
    extra: &[String],
) -> Result<Session> {
    let bundle = layout.build().join("test").join(file_name(name)).with_extension("bundle");
    if let Some(guests) = guests {
        bundle::pack(layout, &layout.root().join(guests), &bundle)?;
    }
    let boot = run::hypervisor_boot(layout, guests.map(|_| bundle), "");
    Session::start(qemu::command(layout, machine, &boot, extra), Decoder::open(&layout.elf())?)
}

/// Leaves what was printed where a person finds it.
pub(super) fn keep_transcript(layout: &Layout, name: &str, transcript: &Transcript) -> Result<()> {
    let directory = layout.build().join("test");
    fs::create_dir_all(&directory)?;
    let text = transcript.lines().join("\n") + "\n";
    fs::write(directory.join(file_name(name)).with_extension("log"), text)?;
    Ok(())
}

fn file_name(name: &str) -> String {
    let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    plain.replace("--", "-")
}
