//! `cargo xtask bench`: what the hypervisor costs, in instructions, beside a bare machine, the best rival and our limits.
//!
//! Main function: [`run`]. A small guest (`bench/guest`) measures the ways out of a guest and prints `bench NAME VALUE`
//! lines; Debian's kernel measures its own way to init. QEMU counts: with one instruction being one nanosecond of its
//! time, two runs give the same figures on any machine.
//!
//! What is measured, and the figures to compare with, are data: [`table`]. With `--host` it is the crate `stage2` that is
//! measured, by a program of its own (`bench/stage2`).

mod table;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use clap::Args;
use hyp::guest::dtb::{self, GuestMachine, RNG_SEED_LEN, TooLong};
use hyp::vgic::Version;

use crate::bundle;
use crate::console::Session;
use crate::expect::Script;
use crate::image::{self, write_if_changed};
use crate::layout::Layout;
use crate::process;
use crate::qemu::{self, Boot, Entry, Machine};
use crate::scenario::{self, End, Plan};
use crate::setup::{self, Part};
use crate::step::{note, step};
use table::{Figures, SETUPS, Setup, Workload};

/// How to measure.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Fail if a limit is missed
    #[arg(long)]
    check: bool,
    /// Leave Debian's boot out: it takes as long as all the rest
    #[arg(long)]
    quick: bool,
    /// Measure the stage 2 tables on this machine instead, beside another crate for them
    #[arg(long, conflicts_with = "quick")]
    host: bool,
}

const TIMEOUT: Duration = Duration::from_secs(120);

/// Memory of the hypervisor's machine, in MiB: that of the rivals' figures.
const HOST_MEMORY: u32 = 1024;

/// Builds, measures and prints the table.
pub(crate) fn run(layout: &Layout, options: &Options) -> Result<()> {
    if options.host {
        return on_host(layout, options);
    }
    setup::ensure(layout, &[Part::Rust, Part::Qemu, Part::Debian])?;
    image::hypervisor(layout)?;
    image::guests(layout)?;
    let mut figures = Figures::default();
    let image = fs::metadata(layout.image())?.len();
    figures.ours.insert("image_bytes".into(), image);
    let mut failed = 0;
    for setup in SETUPS.iter().filter(|setup| !(options.quick && setup.workload == Workload::Debian)) {
        let on_bare_machine = setup.bare.then_some(Entry::Kernel);
        for entry in on_bare_machine.into_iter().chain([Entry::Hypervisor]) {
            let (place, column) = match entry {
                Entry::Kernel => ("a bare machine", &mut figures.bare),
                Entry::Hypervisor => ("the hypervisor", &mut figures.ours),
            };
            match step(&format!("{} on {place}", setup.name), || measure(layout, setup, entry)) {
                Ok(found) => column.extend(setup.named(found)),
                Err(error) => {
                    failed += 1;
                    note(&format!("{error:#}"));
                }
            }
        }
    }
    count_from_reset(&mut figures);
    let missed = table::print(&figures);
    if failed != 0 {
        bail!("{failed} of the machines did not get through");
    }
    if options.check && missed != 0 {
        bail!("{missed} limits are missed");
    }
    Ok(())
}

/// Runs `bench/stage2`, which measures and prints by itself.
fn on_host(layout: &Layout, options: &Options) -> Result<()> {
    if process::find("valgrind").is_none() {
        note("valgrind is not installed: instructions are not counted, only time is taken");
    }
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(layout.root()).args(["run", "--quiet", "--target-dir"]).arg(layout.target());
    command.args(["--profile", image::PROFILE, "--package", "stage2-bench", "--"]);
    process::run(command.args(options.check.then_some("--check")))
}

/// Debian's clock begins with its kernel; what a guest of its size waits for that is measured apart.
fn count_from_reset(figures: &mut Figures) {
    let reset = figures.ours.get("large_reset_physical").copied();
    if let Some(to_init) = figures.ours.get_mut("debian_to_init") {
        *to_init += reset.unwrap_or_default();
    }
}

/// Boots one set-up and gathers what it prints.
fn measure(layout: &Layout, setup: &Setup, entry: Entry) -> Result<BTreeMap<String, u64>> {
    let Setup { gic, cpus, .. } = *setup;
    let (boot, memory) = match entry {
        Entry::Hypervisor => (on_hypervisor(layout, setup)?, HOST_MEMORY),
        Entry::Kernel => (on_bare_machine(layout, setup), setup.memory),
    };
    let machine = Machine { gic, cpus, memory, icount: true, ..Machine::default() };
    let mut script = Script::default();
    match setup.workload {
        Workload::Guest => script.expect(r"bench done\n")?,
        Workload::Debian => {
            script.expect(r"init started after .*\n")?;
            script.expect("# ")?;
            script.send("poweroff\\n")?;
        }
    }
    let plan = Plan { script, end: End::PowerOff, timeout: TIMEOUT };
    let extra = match (entry, setup.workload) {
        (Entry::Kernel, Workload::Debian) => guests_device_tree(layout, setup)?,
        _ => Vec::new(),
    };
    let mut session = Session::start(qemu::command(layout, &machine, &boot, &extra), None)?;
    scenario::play(&mut session, &plan, |_| Ok(()))??;
    let lines = session.transcript().lines();
    let found: BTreeMap<String, u64> = lines.iter().filter_map(|line| figure(line)).collect();
    if found.is_empty() { bail!("not one figure was printed") } else { Ok(found) }
}

/// As a board's firmware would start it: no log asked for, no word on the command line.
fn on_hypervisor(layout: &Layout, setup: &Setup) -> Result<Boot> {
    let bundle =
        layout.build().join("bench").join(setup.name.replace([' ', ','], "-")).with_extension("bundle");
    bundle::pack(layout, &layout.root().join(setup.guests), &bundle)?;
    Ok(Boot {
        entry: Entry::Hypervisor,
        kernel: layout.image(),
        initrd: Some(bundle),
        cmdline: String::new(),
    })
}

fn on_bare_machine(layout: &Layout, setup: &Setup) -> Boot {
    let (kernel, initrd, cmdline) = match setup.workload {
        Workload::Guest => (layout.guests().join("bench-guest.bin"), None, "bare"),
        Workload::Debian => (layout.debian_kernel(), Some(layout.debian_initrd()), "console=ttyAMA0 quiet"),
    };
    Boot { entry: Entry::Kernel, kernel, initrd, cmdline: cmdline.into() }
}

/// QEMU arguments that make the bare machine look like a guest's: its own tree has devices that Debian's kernel spends
/// a tenth of its time on, and no guest has.
fn guests_device_tree(layout: &Layout, setup: &Setup) -> Result<Vec<String>> {
    let tree = dtb::build(&GuestMachine {
        name: "debian",
        cpus: usize::from(setup.cpus),
        memory: u64::from(setup.memory) << 20,
        gic: if setup.gic == 2 { Version::V2 } else { Version::V3 },
        cmdline: "",
        initrd: None,
        timer_hz: None,
        rng_seed: &[0x5a; RNG_SEED_LEN],
        kaslr_seed: 0,
    });
    let tree = tree.map_err(|TooLong| anyhow!("the guest's device tree is too long"))?;
    let place = layout.build().join("bench/guest.dtb");
    write_if_changed(&place, &tree)?;
    Ok(vec!["-dtb".into(), place.to_string_lossy().into_owned()])
}

/// `bench NAME VALUE` of our guest, or what Debian's init says about the kernel's way to it.
fn figure(line: &str) -> Option<(String, u64)> {
    if let Some((_, time)) = line.split_once("entresol: init started after ") {
        return Some(("to_init".into(), nanoseconds(time.trim())?));
    }
    let (_, rest) = line.split_once("bench ")?;
    let mut words = rest.split_whitespace();
    Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
}

/// `1.582433 s`, the kernel's way to write a time.
fn nanoseconds(time: &str) -> Option<u64> {
    let (seconds, fraction) = time.strip_suffix(" s")?.split_once('.')?;
    let microseconds: u64 = (fraction.len() == 6).then(|| fraction.parse().ok()).flatten()?;
    Some((seconds.trim().parse::<u64>().ok()? * 1_000_000 + microseconds) * 1000)
}

#[cfg(test)]
mod tests {
    use super::figure;

    #[test]
    fn guests_line_is_a_figure_with_and_without_a_tag() {
        assert_eq!(figure("bench uart_putc 9"), Some(("uart_putc".into(), 9)));
        assert_eq!(figure("[bench] bench uart_putc 9"), Some(("uart_putc".into(), 9)));
    }

    #[test]
    fn kernels_time_is_in_nanoseconds() {
        let line = "entresol: init started after 0.958123 s";
        assert_eq!(figure(line), Some(("to_init".into(), 958_123_000)));
    }

    #[test]
    fn other_lines_are_none() {
        assert_eq!(figure("bench done"), None);
        assert_eq!(figure("heartbeat 1"), None);
    }
}
