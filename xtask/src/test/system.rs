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
    /// More for QEMU.
    extra: &'static [&'static str],
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
    extra: &[],
};

/// Something like firmware, for imx8mp-evk: it starts the watchdog, which then resets the machine after two seconds, and
/// goes on where QEMU's own boot code would have gone.
///
/// ```text
/// movz w1, #0x3028, lsl #16   // WDOG1
/// movz w2, #0x0334            // WCR: two seconds, no reset now, enabled
/// strh w2, [x1]
/// movz x3, #0x4000, lsl #16   // QEMU's boot code
/// ldr  x0, [x3, #0x18]        // its device tree
/// ldr  x4, [x3, #0x20]        // its kernel
/// br   x4
/// ```
const WATCHDOG_STARTED: &[&str] = &[
    "-device",
    "loader,addr=0x48f00000,data-len=8,data=0x5280668252a60501",
    "-device",
    "loader,addr=0x48f00008,data-len=8,data=0xd2a8000379000022",
    "-device",
    "loader,addr=0x48f00010,data-len=8,data=0xf9401064f9400c60",
    "-device",
    "loader,addr=0x48f00018,data-len=8,data=0xd61f0080",
    "-device",
    "loader,addr=0x48f00000,cpu-num=0",
];

const SHELL: (&str, &str) = ("guest userspace up: 2 CPUs", "");
const LAST_IS_OFF: (&str, &str) = ("the last VM is off: powering off", "");

const SCENARIOS: [Scenario; 12] = [
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
    // It is entered at EL3, so it has one CPU, and is switched off by the board's own means.
    Scenario {
        name: "watchdog that firmware left running is kept alive",
        guests: Guests::Packed("tests/system/heartbeat.toml"),
        board: Board::Imx8mpEvk,
        script: &[
            ("watchdog imx2-wdt at 0x30280000 is running: kept alive", ""),
            ("heartbeat 6", "q"),
            LAST_IS_OFF,
        ],
        seconds: 60,
        extra: WATCHDOG_STARTED,
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
    let extra: Vec<String> = scenario.extra.iter().map(|&word| word.to_owned()).collect();
    let mut session = start_hypervisor(layout, &machine, scenario.guests, name, &extra)?;
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
