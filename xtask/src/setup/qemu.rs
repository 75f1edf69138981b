//! The one QEMU everybody runs: Debian 13's, unpacked into the cache.
//!
//! Older ones lack boards (raspi4b before 9.0, imx8mp-evk before 10.0) or the board's virtual interrupt lines (imx8mp-evk
//! before 10.0.3), and instruction counts are compared between people. So a QEMU on `PATH` is not used; a person who
//! wants another one names it in `ENTRESOL_QEMU`.
//!
//! Debian 13's programs need Debian 13's C library. They run on Debian 12 by calling the unpacked dynamic loader with the
//! unpacked libraries, which a generated wrapper script does; setting `LD_LIBRARY_PATH` instead would break every other
//! program that inherits it.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::apt::{self, PrivateApt};
use super::stamp;
use crate::layout::Layout;
use crate::process;
use crate::step::{note, step};

/// The first version whose boards all work for us.
const OLDEST: [u32; 3] = [10, 0, 13];

/// Raise it when what is below `.cache/qemu` must be made anew.
const RECIPE: &str = "qemu recipe 1";

/// The QEMU to run: the one named by the person, or ours. It exists after [`ensure`].
pub(crate) fn program(layout: &Layout) -> PathBuf {
    env::var_os("ENTRESOL_QEMU").map_or_else(|| home(layout).join("qemu-system-aarch64"), PathBuf::from)
}

/// Makes sure that [`program`] can be run.
pub(crate) fn ensure(layout: &Layout) -> Result<()> {
    if env::var_os("ENTRESOL_QEMU").is_some() {
        return check_version(&program(layout));
    }
    let home = home(layout);
    if stamp::is_current(&home, RECIPE) {
        return Ok(());
    }
    note(&format!(
        "QEMU is not in {} yet: it comes from Debian 13, about 40 MB, no root needed",
        home.display()
    ));
    let fresh = layout.cache().join("qemu.new");
    stamp::empty_directory(&fresh)?;
    let machine = machine()?;
    let apt = step("reading Debian 13's package index", || {
        PrivateApt::open(&layout.cache().join("apt-qemu"), machine.debian)
    })?;
    let packages = step("downloading QEMU", || apt.download_with_dependencies("qemu-system-arm"))?;
    step("unpacking QEMU", || {
        let root = fresh.join("root");
        packages.iter().try_for_each(|package| apt::unpack(package, &root))?;
        write_wrapper(&fresh, machine)
    })?;
    check_version(&fresh.join("qemu-system-aarch64"))?;
    // The downloaded packages are as large again as what was unpacked from them and of no more use.
    fs::remove_dir_all(layout.cache().join("apt-qemu"))?;
    stamp::install(&fresh, &home, RECIPE)?;
    note(&format!("QEMU is in {}", home.display()));
    Ok(())
}

fn home(layout: &Layout) -> PathBuf {
    layout.cache().join("qemu")
}

/// What differs between the machines a developer may sit at.
#[derive(Clone, Copy)]
struct Machine {
    debian: &'static str,
    triplet: &'static str,
    loader: &'static str,
}

fn machine() -> Result<Machine> {
    match env::consts::ARCH {
        "x86_64" => Ok(Machine {
            debian: "amd64",
            triplet: "x86_64-linux-gnu",
            loader: "usr/lib64/ld-linux-x86-64.so.2",
        }),
        "aarch64" => Ok(Machine {
            debian: "arm64",
            triplet: "aarch64-linux-gnu",
            loader: "usr/lib/ld-linux-aarch64.so.1",
        }),
        other => {
            bail!("no prepared QEMU for {other} machines: name one of 10.0.13 or newer in ENTRESOL_QEMU")
        }
    }
}

/// The module directory must be named too: QEMU would otherwise load modules of the machine's own QEMU and abort.
fn write_wrapper(directory: &Path, machine: Machine) -> Result<()> {
    let Machine { triplet, loader, .. } = machine;
    let script = format!(
        "#!/bin/sh\n\
         # Runs Debian 13's QEMU with Debian 13's libraries on any Linux.\n\
         root=$(dirname \"$(readlink -f \"$0\")\")/root\n\
         export QEMU_MODULE_DIR=\"$root/usr/lib/{triplet}/qemu\"\n\
         exec \"$root/{loader}\" --library-path \"$root/usr/lib/{triplet}\" \\\n\
         \x20   \"$root/usr/bin/qemu-system-aarch64\" -L \"$root/usr/share/qemu\" \"$@\"\n"
    );
    let path = directory.join("qemu-system-aarch64");
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn check_version(program: &Path) -> Result<()> {
    let banner = process::capture(Command::new(program).arg("--version"))?;
    let version = version(&banner).with_context(|| format!("{} is no QEMU: {banner}", program.display()))?;
    let [major, minor, patch] = version;
    if version < OLDEST {
        let [a, b, c] = OLDEST;
        bail!("{} is QEMU {major}.{minor}.{patch}; {a}.{b}.{c} or newer is needed", program.display());
    }
    Ok(())
}

fn version(banner: &str) -> Option<[u32; 3]> {
    let text = banner.split_once("version ")?.1;
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some([next()?, next()?, next().unwrap_or(0)])
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn version_is_found_in_debians_banner() {
        let banner = "QEMU emulator version 10.0.13 (Debian 1:10.0.13+ds-0+deb13u1)\nCopyright";
        assert_eq!(version(banner), Some([10, 0, 13]));
    }

    #[test]
    fn versions_compare_by_number_not_by_text() {
        assert!(version("QEMU emulator version 9.2.1").expect("valid") < super::OLDEST);
        assert!(version("QEMU emulator version 11.1.3").expect("valid") > super::OLDEST);
    }

    #[test]
    fn other_programs_have_no_version() {
        assert_eq!(version("GNU sed 4.9"), None);
    }
}
