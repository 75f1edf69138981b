//! The host tool: everything that happens around the hypervisor on the machine a developer sits at.
//!
//! One command per module: `setup` (fetch what is missing), `image` (build), `pack` and `check` (guest bundles), `run`,
//! `test` and `bench` (in QEMU). `make` is the menu over it.

mod bench;
mod board;
mod bundle;
mod console;
mod cpio;
mod expect;
mod flash;
mod flatten;
mod frames;
mod image;
mod kernel;
mod layout;
mod log;
mod mutants;
mod no_firmware;
mod process;
mod qemu;
mod run;
mod scenario;
mod script_arguments;
mod setup;
mod step;
mod terminal;
mod test;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use layout::Layout;
use setup::Part;

/// Builds, runs and tests the Entresol hypervisor.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Fetch what this machine lacks: QEMU, Debian's kernel, the Rust target
    Setup,
    /// Build build/Image, build/entresol.elf and the small guests
    Image,
    /// Pack a vms.toml and the files it names into the one file a boot loader passes as initrd
    Pack {
        /// The guests
        #[arg(value_name = "VMS.TOML")]
        manifest: PathBuf,
        /// The bundle to write
        #[arg(short, long, value_name = "FILE", default_value = "build/bundle")]
        output: PathBuf,
    },
    /// Say what the hypervisor would say to a vms.toml, to a board, or to both
    Check {
        /// The guests
        #[arg(value_name = "VMS.TOML")]
        manifest: Option<PathBuf>,
        /// The board's device tree; without it, a board with enough of everything
        #[arg(long, value_name = "FILE")]
        dtb: Option<PathBuf>,
    },
    /// Write what goes onto a board's boot partition
    Flash(flash::Options),
    /// Build and boot in QEMU
    Run(Box<run::Options>),
    /// Decode the lines that the command `log` of the hypervisor's prompt printed
    Decode {
        /// What the terminal recorded; standard input without it
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Measure costs in instructions and compare them with the limits
    Bench(bench::Options),
    /// Take barriers, invalidations and breaks out of `stage2`, one at a time, and see its tests fail
    Mutants(mutants::Options),
    /// Run all tests
    Test(test::Options),
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    let layout = Layout::find();
    match task {
        Task::Setup => setup::ensure(&layout, &[Part::Rust, Part::Qemu, Part::Debian, Part::UBoot]),
        Task::Image => {
            setup::ensure(&layout, &[Part::Rust])?;
            image::hypervisor(&layout)?;
            image::guests(&layout)
        }
        Task::Pack { manifest, output } => {
            bundle::pack(&layout, &manifest, &output)?;
            step::note(&format!("{} is packed into {}", manifest.display(), output.display()));
            Ok(())
        }
        Task::Check { manifest, dtb } => bundle::check(&layout, manifest.as_deref(), dtb.as_deref()),
        Task::Flash(options) => flash::run(&layout, &options),
        Task::Run(options) => run::run(&layout, &options),
        Task::Decode { file } => {
            let text = file.map_or_else(|| io::read_to_string(io::stdin()), fs::read_to_string)?;
            log::decode(&layout.elf(), &text)
        }
        Task::Bench(options) => bench::run(&layout, &options),
        Task::Mutants(options) => mutants::run(&layout, &options),
        Task::Test(options) => test::run(&layout, &options),
    }
}
