//! The outer ring: the real image boots real guests, and a script at the console says what must be seen.
//!
//! Main type: [`Scenario`]; the scenarios are data, [`SCENARIOS`]. Everything a run printed is kept in `build/test/`.
//! That Debian runs on every machine is `machines.rs`.

use std::fs;
use std::time::Duration;

use anyhow::Result;

use super::Ring;
use super::job::{Job, Tally};
use crate::bundle;
use crate::console::{Session, Transcript};
use crate::expect::Script;
use crate::image::write_if_changed;
use crate::layout::Layout;
use crate::log::Decoder;
use crate::qemu::{self, Board, Machine};
use crate::run;
use crate::scenario::{self, End, Plan};

/// What is passed as the bundle, by the path of its vms.toml below the root.
#[derive(Clone, Copy)]
pub(super) enum Guests {
    /// Nothing.
    None,
    /// A bundle as everybody packs it.
    Packed(&'static str),
    /// A bundle that packing would have refused.
    Unchecked(&'static str),
    /// The first half of a bundle.
    Truncated(&'static str),
}

/// One boot and what must come of it.
struct Scenario {
    name: &'static str,
    board: Board,
    gic: u8,
    cpu: &'static str,
    cpus: u8,
    guests: Guests,
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
    guests: Guests::None,
    script: &[],
    end: End::PowerOff,
    seconds: 120,
};

const SHELL: (&str, &str) = ("guest userspace up: 2 CPUs", "");
const LAST_IS_OFF: (&str, &str) = ("the last VM is off: powering off", "");

const SCENARIOS: [Scenario; 11] = [
    Scenario {
        name: "debian reboots",
        guests: Guests::Packed("tests/system/debian.toml"),
        script: &[SHELL, ("# ", "reboot\\n"), ("rebooted, starting again", ""), SHELL, ("# ", "poweroff\\n")],
        ..USUAL
    },
    Scenario {
        name: "debian shares one CPU between its vCPUs",
        guests: Guests::Packed("tests/system/debian.toml"),
        cpus: 1,
        script: &[SHELL, ("# ", "poweroff\\n"), LAST_IS_OFF],
        ..USUAL
    },
    Scenario {
        name: "default guests run at once",
        guests: Guests::Packed("vms/default.toml"),
        script: &[
            ("heartbeat 1", ""),
            SHELL,
            ("# ", "nproc\\n"),
            (r"\] 2\n", "\\x1dh"),
            ("keys go to the hypervisor", "list\\r"),
            ("debian +running", "stop debian\\r"),
            ("VM debian: stopped", ""),
            ("heartbeat [0-9]+", ""),
            ("heartbeat [0-9]+", "poweroff\\r"),
        ],
        ..USUAL
    },
    Scenario {
        name: "two guests share a CPU and one ends alone",
        guests: Guests::Packed("tests/system/two-heartbeats.toml"),
        script: &[
            (r"\[left\] heartbeat 2", ""),
            (r"\[right\] heartbeat [0-9]", "\\x1d1"),
            ("keys go to right", "q"),
            ("VM right: powered off", ""),
            (r"\[left\] heartbeat [0-9]+", ""),
            (r"\[left\] heartbeat [0-9]+", "\\x1d0"),
            ("keys go to left", "q"),
            LAST_IS_OFF,
        ],
        seconds: 60,
        ..USUAL
    },
    Scenario {
        name: "guest that reboots starts again",
        guests: Guests::Packed("tests/system/heartbeat.toml"),
        script: &[
            ("heartbeat 1", "r"),
            ("rebooted, starting again", ""),
            ("heartbeat 0", ""),
            ("heartbeat 1", "q"),
            LAST_IS_OFF,
        ],
        seconds: 60,
        ..USUAL
    },
    Scenario {
        name: "guest that spins can be stopped",
        guests: Guests::Packed("tests/system/two-heartbeats.toml"),
        script: &[
            (r"\[left\] heartbeat 1", "s"),
            (r"\[right\] heartbeat [3-9]", "\\x1dh"),
            ("keys go to the hypervisor", "stop left\\r"),
            ("VM left: stopped", ""),
            (r"\[right\] heartbeat [0-9]+", "poweroff\\r"),
        ],
        seconds: 60,
        ..USUAL
    },
    Scenario {
        name: "bad guest is named and the others run",
        guests: Guests::Unchecked("tests/system/one-bad.toml"),
        script: &[
            ("VM `bad`", ""),
            (r"\[(first|last)\] heartbeat 1", "\\x1dh"),
            ("keys go to the hypervisor", "stop first\\r"),
            ("VM first: stopped", "stop last\\r"),
            LAST_IS_OFF,
        ],
        seconds: 60,
        ..USUAL
    },
    Scenario {
        name: "truncated bundle is explained",
        guests: Guests::Truncated("tests/system/heartbeat.toml"),
        script: &[("it ends after [0-9]+ bytes", "")],
        seconds: 30,
        ..USUAL
    },
    Scenario {
        name: "missing bundle is explained",
        script: &[("no bundle: pass", "")],
        seconds: 30,
        ..USUAL
    },
    Scenario {
        name: "raspi4b runs a guest and is switched off",
        guests: Guests::Packed("tests/system/heartbeat.toml"),
        board: Board::Raspi4b,
        script: &[("heartbeat 2", "q"), LAST_IS_OFF],
        seconds: 90,
        ..USUAL
    },
    Scenario {
        name: "imx8mp-evk runs a guest and is switched off",
        guests: Guests::Packed("tests/system/heartbeat.toml"),
        board: Board::Imx8mpEvk,
        script: &[("heartbeat 2", "q"), LAST_IS_OFF],
        seconds: 90,
        ..USUAL
    },
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

/// Packs `guests` and starts the hypervisor with them; `name` is the test's.
pub(super) fn start_hypervisor(
    layout: &Layout,
    machine: &Machine,
    guests: Guests,
    name: &str,
    extra: &[String],
) -> Result<Session> {
    let place = layout.build().join("test").join(file_name(name)).with_extension("bundle");
    let manifest = |path: &str| layout.root().join(path);
    let bundle = match guests {
        Guests::None => None,
        Guests::Packed(path) => {
            bundle::pack(layout, &manifest(path), &place)?;
            Some(place)
        }
        Guests::Unchecked(path) => {
            write_if_changed(&place, &bundle::pack_unchecked(layout, &manifest(path))?)?;
            Some(place)
        }
        Guests::Truncated(path) => {
            let archive = bundle::pack_unchecked(layout, &manifest(path))?;
            write_if_changed(&place, archive.split_at(archive.len() / 2).0)?;
            Some(place)
        }
    };
    let boot = run::hypervisor_boot(layout, bundle, "");
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

/// A test's name as a file's, without ending.
pub(super) fn file_name(name: &str) -> String {
    let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    plain.replace("--", "-")
}
