//! A compiler for the bare-metal target.
//!
//! Main type: [`Toolchain`]. Three ways lead to one: the target is installed already; rustup installs it; or the core
//! library is compiled from source (`rust-src` of rustup, `rust-web-src` of Debian), for which a stable compiler must be
//! told that we know what we are doing (`RUSTC_BOOTSTRAP`).

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::process;
use crate::step::note;

/// The target of everything that runs on the board: no vector registers, so EL2 never touches a guest's.
pub(crate) const TARGET: &str = "aarch64-unknown-none-softfloat";

/// How programs for [`TARGET`] are compiled here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// The target's core library is installed.
    Installed,
    /// The core library is compiled along.
    FromSource,
}

impl Toolchain {
    /// The way that works now.
    pub(crate) fn find() -> Result<Option<Self>> {
        let rustlib = rustlib()?;
        if rustlib.join(TARGET).join("lib").is_dir() {
            return Ok(Some(Self::Installed));
        }
        let source = rustlib.join("src/rust/library/core/src/lib.rs");
        Ok(source.exists().then_some(Self::FromSource))
    }

    /// A cargo command (`build`, `clippy`) for the target, without the packages it is about.
    pub(crate) fn cargo(self, task: &str) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args([task, "--target", TARGET]);
        if self == Self::FromSource {
            command.env("RUSTC_BOOTSTRAP", "1");
            command.arg("-Zbuild-std=core,alloc,compiler_builtins");
            command.arg("-Zbuild-std-features=compiler-builtins-mem");
            if !brings_its_linker() {
                command.env("CARGO_TARGET_AARCH64_UNKNOWN_NONE_SOFTFLOAT_LINKER", "ld.lld");
            }
        }
        command
    }
}

/// Makes sure that there is a [`Toolchain`].
pub(crate) fn ensure() -> Result<()> {
    if Toolchain::find()?.is_some() {
        return Ok(());
    }
    if let Some(rustup) = process::find("rustup") {
        note(&format!("installing the Rust target {TARGET} with rustup"));
        let added = process::run(Command::new(&rustup).args(["target", "add", TARGET]));
        let added = added.or_else(|error| {
            note(&format!("{error:#}; trying the library's source instead"));
            process::run(Command::new(rustup).args(["component", "add", "rust-src"]))
        });
        if added.is_ok() && Toolchain::find()?.is_some() {
            return Ok(());
        }
    }
    bail!(
        "there is no Rust target {TARGET} and no source of Rust's core library.\n\
         With Debian's compiler: apt-get install rustc-web cargo-web rust-web-src lld, then run `make setup`."
    )
}

/// Makes sure that there is Miri. It exists for the nightly compiler only, which is used for nothing else.
pub(crate) fn ensure_miri() -> Result<()> {
    if process::output(miri().args(["miri", "--version"])).is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    let Some(rustup) = process::find("rustup") else { bail!("rustup is not installed") };
    note("installing Miri and the nightly compiler that it comes with");
    let install = ["toolchain", "install", NIGHTLY, "--profile", "minimal", "--component", "miri,rust-src"];
    process::run(Command::new(rustup).args(install))
}

/// A cargo command for Miri.
pub(crate) fn miri() -> Command {
    let mut command = Command::new("cargo");
    // Cargo tells what it runs which compiler it was built for.
    command.arg(format!("+{NIGHTLY}")).env_remove("RUSTUP_TOOLCHAIN").env_remove("RUSTC").env_remove("CARGO");
    command
}

const NIGHTLY: &str = "nightly";

/// Where the compiler's libraries for all targets are.
fn rustlib() -> Result<PathBuf> {
    let sysroot = process::capture(Command::new(rustc()).args(["--print", "sysroot"]))?;
    Ok(Path::new(sysroot.trim()).join("lib/rustlib"))
}

/// Rust's own compiler comes with a linker for bare-metal targets; Debian's uses the system's.
fn brings_its_linker() -> bool {
    let Ok(hosts) = rustlib().and_then(|rustlib| Ok(fs::read_dir(rustlib)?)) else { return false };
    hosts.flatten().any(|host| host.path().join("bin/rust-lld").exists())
}

/// The compiler that cargo will use: cargo passes on a choice made by the person, not its own default.
fn rustc() -> OsString {
    env::var_os("RUSTC").unwrap_or_else(|| PathBuf::from("rustc").into())
}
