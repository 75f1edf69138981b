//! `cargo xtask run`: the hypervisor in QEMU, with a person at the console or with a script.
//!
//! Main type: [`Options`]; main function: [`run`]. What is missing is fetched, what has changed is built, the bundle is
//! packed; then QEMU is started with its console here. The status tells the truth: see `scenario.rs` for a script; with
//! a person at the console it is QEMU's own, or a failure when the hypervisor crashed.

use std::ffi::OsStr;
use std::fs;
use std::io::{ErrorKind, IsTerminal as _, Read, Write, stderr, stdin, stdout};
use std::path::{Path, PathBuf};
use std::process::ChildStdin;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::bundle;
use crate::console::{Event, Session};
use crate::image;
use crate::layout::Layout;
use crate::log::Decoder;
use crate::qemu::{self, Board, Boot, Entry, Machine};
use crate::scenario::{self, End, Plan};
use crate::script_arguments::ScriptArguments;
use crate::setup::{self, Part};
use crate::step::note;
use crate::terminal::Raw;

/// How to run.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The guests: a vms.toml, packed into a bundle on the way
    #[arg(value_name = "VMS.TOML", default_value = "vms/default.toml")]
    manifest: PathBuf,
    #[command(flatten)]
    machine: Machine,
    /// Pass this bundle instead of packing one
    #[arg(long, value_name = "FILE", conflicts_with = "no_bundle")]
    bundle: Option<PathBuf>,
    /// Pass no bundle at all
    #[arg(long)]
    no_bundle: bool,
    /// Add this to the hypervisor's command line
    #[arg(long, value_name = "WORDS", default_value = "")]
    cmdline: String,
    /// Ask for the log as plain text instead of decoding it here
    #[arg(long)]
    plain_log: bool,
    /// Run what is in build/ as it is
    #[arg(long)]
    no_build: bool,
    /// Nobody is at the console: play --expect and --send, then end
    #[arg(long)]
    headless: bool,
    /// With --headless: fail after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120, requires = "headless")]
    timeout: u64,
    /// With --headless: all seen, the machine must power itself off (always so without --expect)
    #[arg(long, requires = "headless")]
    expect_poweroff: bool,
    #[command(flatten)]
    script: ScriptArguments,
    /// Boot Debian's kernel, or --kernel, at EL1 without the hypervisor
    #[arg(long, hide = true)]
    bare: bool,
    /// With --bare: another kernel, and no initrd unless --initrd names one
    #[arg(long, hide = true, requires = "bare")]
    kernel: Option<PathBuf>,
    /// With --bare: another initrd
    #[arg(long, hide = true, requires = "bare")]
    initrd: Option<PathBuf>,
    /// Passed to QEMU as they are
    #[arg(last = true, value_name = "QEMU ARGUMENTS")]
    extra: Vec<String>,
}

/// Fetches, builds, packs and runs.
pub(crate) fn run(layout: &Layout, options: &Options) -> Result<()> {
    setup::ensure(layout, &[Part::Qemu])?;
    if options.machine.board != Board::Virt {
        // Their device trees come with Debian's kernel.
        setup::ensure(layout, &[Part::Debian])?;
    }
    let boot = if options.bare { bare(layout, options)? } else { hypervisor(layout, options)? };
    let decoder = if options.bare { None } else { Decoder::open(&layout.elf())? };
    let command = qemu::command(layout, &options.machine, &boot, &options.extra);
    let session = Session::start(command, decoder)?;
    if options.headless { headless(session, options) } else { interactive(session) }
}

fn hypervisor(layout: &Layout, options: &Options) -> Result<Boot> {
    if !options.no_build {
        setup::ensure(layout, &[Part::Rust])?;
        image::hypervisor(layout)?;
        image::guests(layout)?;
    }
    let initrd = match (&options.bundle, options.no_bundle) {
        (Some(bundle), _) => Some(bundle.clone()),
        (None, true) => None,
        (None, false) => Some(packed(layout, &options.manifest)?),
    };
    let mut boot = hypervisor_boot(layout, initrd, &options.cmdline);
    if options.plain_log {
        boot.cmdline = options.cmdline.clone();
    }
    Ok(boot)
}

/// The hypervisor with its log as frames, which we can decode.
pub(crate) fn hypervisor_boot(layout: &Layout, bundle: Option<PathBuf>, cmdline: &str) -> Boot {
    let cmdline = format!("entresol.log=defmt {cmdline}").trim_end().to_owned();
    Boot { entry: Entry::Hypervisor, kernel: layout.image(), initrd: bundle, cmdline }
}

/// Packs a manifest into `build/`; Debian's kernel is fetched only for guests that want it.
pub(crate) fn packed(layout: &Layout, manifest: &Path) -> Result<PathBuf> {
    let text = fs::read_to_string(manifest).with_context(|| format!("cannot read {}", manifest.display()))?;
    if text.contains(".cache/debian/") {
        setup::ensure(layout, &[Part::Debian])?;
    }
    let name = manifest.file_stem().unwrap_or(OsStr::new("vms"));
    let place = layout.build().join(name).with_extension("bundle");
    bundle::pack(layout, manifest, &place)?;
    Ok(place)
}

/// The machine without us, to compare with.
fn bare(layout: &Layout, options: &Options) -> Result<Boot> {
    let (kernel, initrd) = match &options.kernel {
        Some(kernel) => (kernel.clone(), options.initrd.clone()),
        None => {
            setup::ensure(layout, &[Part::Debian])?;
            (layout.debian_kernel(), Some(options.initrd.clone().unwrap_or_else(|| layout.debian_initrd())))
        }
    };
    let cmdline = format!("console=ttyAMA0 {}", options.cmdline).trim_end().to_owned();
    Ok(Boot { entry: Entry::Kernel, kernel, initrd, cmdline })
}

fn headless(mut session: Session, options: &Options) -> Result<()> {
    let script = options.script.0.clone();
    let end = if options.expect_poweroff || script.is_empty() { End::PowerOff } else { End::AllSeen };
    let plan = Plan { script, end, timeout: Duration::from_secs(options.timeout) };
    let mut column = 0;
    scenario::play(&mut session, &plan, |event| show(event, &mut column))??;
    let seconds = session.transcript().elapsed().as_secs_f32();
    note(&format!("all was as expected after {seconds:.1} s"));
    Ok(())
}

fn interactive(mut session: Session) -> Result<()> {
    let raw = Raw::enter()?;
    if raw.is_some() {
        note(
            "every key goes to the machine; Ctrl-] is the hypervisor's; Ctrl-] three times at once ends QEMU\r",
        );
    }
    if let Some(keyboard) = session.take_input() {
        type_along(keyboard);
    }
    let mut column = 0;
    let status = loop {
        match session.next(None)? {
            Event::Ended(status) => break status,
            event => show(&event, &mut column)?,
        }
    };
    drop(raw);
    if session.transcript().shows_crash() {
        bail!("the hypervisor crashed");
    }
    if !status.success() {
        bail!("QEMU ended with {status}");
    }
    Ok(())
}

/// Console to standard output, all else to standard error, dim, on lines of their own.
fn show(event: &Event, column: &mut usize) -> Result<()> {
    let line = match event {
        Event::Console(bytes) => {
            let mut out = stdout().lock();
            out.write_all(bytes)?;
            out.flush()?;
            let behind_newline = bytes.rsplit(|&byte| byte == b'\n').next().unwrap_or_default().len();
            *column = if bytes.contains(&b'\n') { behind_newline } else { *column + behind_newline };
            return Ok(());
        }
        Event::Log(line) => line.clone(),
        Event::Complaint(bytes) => String::from_utf8_lossy(bytes).trim_end().replace('\n', "\r\n"),
        Event::Ended(_) | Event::Deadline => return Ok(()),
    };
    let mut out = stderr().lock();
    let start = if *column == 0 { "" } else { "\r\n" };
    *column = 0;
    // A file gets the text alone.
    let (dim, bright) = if out.is_terminal() { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
    write!(out, "{start}{dim}{line}{bright}\r\n")?;
    Ok(())
}

/// Types what the person types. The thread ends with the process; at the input's end the machine just runs on.
fn type_along(mut machine: ChildStdin) {
    thread::spawn(move || {
        let mut emergency = Emergency::default();
        let mut buffer = [0; 256];
        loop {
            let keys = match stdin().read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => buffer.get(..length).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            if machine.write_all(keys).and_then(|()| machine.flush()).is_err() {
                return;
            }
            if keys.iter().any(|&key| emergency.is_meant_by(key, Instant::now())) {
                drop(Raw);
                eprintln!("\r\nentresol: ended from the keyboard");
                std::process::exit(130);
            }
        }
    });
}

/// The way out when nothing answers any more: Ctrl-] three times within a second.
#[derive(Default)]
struct Emergency {
    presses: Vec<Instant>,
}

impl Emergency {
    const KEY: u8 = 0x1d;
    const PRESSES: usize = 3;
    const WITHIN: Duration = Duration::from_secs(1);

    fn is_meant_by(&mut self, key: u8, now: Instant) -> bool {
        if key != Self::KEY {
            self.presses.clear();
            return false;
        }
        self.presses.retain(|&press| now.duration_since(press) < Self::WITHIN);
        self.presses.push(now);
        self.presses.len() >= Self::PRESSES
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Emergency;

    #[test]
    fn three_presses_within_a_second_end_it() {
        let mut emergency = Emergency::default();
        let now = Instant::now();
        let meant =
            [0, 300, 600].map(|ms| emergency.is_meant_by(Emergency::KEY, now + Duration::from_millis(ms)));
        assert_eq!(meant, [false, false, true]);
    }

    #[test]
    fn slow_presses_are_the_hypervisors() {
        let mut emergency = Emergency::default();
        let now = Instant::now();
        let meant = [0, 600, 1200, 1800]
            .map(|ms| emergency.is_meant_by(Emergency::KEY, now + Duration::from_millis(ms)));
        assert_eq!(meant, [false; 4]);
    }

    #[test]
    fn another_key_between_starts_anew() {
        let mut emergency = Emergency::default();
        let now = Instant::now();
        let meant = [0x1d, 0x1d, b'l', 0x1d].map(|key| emergency.is_meant_by(key, now));
        assert_eq!(meant, [false; 4]);
    }
}
