//! Building what runs on the board: the hypervisor's image and the small guest programs.
//!
//! Main functions: [`hypervisor`] leaves `build/entresol.elf` (symbols and log strings) and `build/Image`; [`guests`]
//! leaves each program as `build/guests/NAME.elf` and `NAME.bin`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::flatten::{flatten, is_linux_image};
use crate::layout::Layout;
use crate::process;
use crate::setup::rust::{TARGET, Toolchain};
use crate::step::note;

/// The profile of everything that is measured in instructions.
pub(crate) const PROFILE: &str = "image";

/// The packages of small guest programs, each with a binary of the same name.
pub(crate) const GUESTS: [&str; 3] = ["heartbeat", "bench-guest", "conformance"];

/// Builds the hypervisor. Says how large it became.
pub(crate) fn hypervisor(layout: &Layout) -> Result<()> {
    build(layout, &["--package", "hyp", "--bin", "entresol"])?;
    let image = export(layout, "entresol", &layout.elf(), &layout.image())?;
    if !is_linux_image(&image) {
        bail!(
            "{} has no arm64 Linux image header: is the head section linked first?",
            layout.image().display()
        );
    }
    note(&format!("build/Image is {} bytes ({} KiB)", image.len(), image.len().div_ceil(1024)));
    Ok(())
}

/// The package of the tests that run at EL2, and its binary.
pub(crate) const EL2_TESTS: &str = "hyp-tests";

/// Builds the tests that run in the hypervisor's place.
pub(crate) fn el2_tests(layout: &Layout) -> Result<()> {
    build(layout, &["--package", EL2_TESTS])?;
    export(layout, EL2_TESTS, &layout.el2_tests_elf(), &layout.el2_tests())?;
    Ok(())
}

/// Builds the small guest programs.
pub(crate) fn guests(layout: &Layout) -> Result<()> {
    let packages: Vec<&str> = GUESTS.iter().flat_map(|name| ["--package", name]).collect();
    build(layout, &packages)?;
    for name in GUESTS {
        let place = layout.guests().join(name);
        export(layout, name, &place.with_extension("elf"), &place.with_extension("bin"))?;
    }
    Ok(())
}

/// Compiles for the board; quick when nothing changed.
fn build(layout: &Layout, what: &[&str]) -> Result<()> {
    let toolchain =
        Toolchain::find()?.with_context(|| format!("no Rust target {TARGET}: run `make setup`"))?;
    let mut command: Command = toolchain.cargo("build");
    command.current_dir(layout.root()).arg("--target-dir").arg(layout.target());
    process::run(command.args(["--profile", PROFILE]).args(what))
}

/// Copies a compiled program to where people find it, and flattens it.
fn export(layout: &Layout, program: &str, elf: &Path, flat: &Path) -> Result<Vec<u8>> {
    let compiled = layout.target().join(TARGET).join(PROFILE).join(program);
    let bytes = fs::read(&compiled).with_context(|| format!("cannot read {}", compiled.display()))?;
    let image = flatten(&bytes).with_context(|| format!("cannot flatten {}", compiled.display()))?;
    for (path, contents) in [(elf, &bytes), (flat, &image)] {
        write_if_changed(path, contents)?;
    }
    Ok(image)
}

/// A file that is as it should be keeps its time stamp, and stays whole for whoever is reading it.
pub(crate) fn write_if_changed(path: &Path, contents: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|present| present == contents) {
        return Ok(());
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    }
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    fs::write(&fresh, contents).with_context(|| format!("cannot write {}", path.display()))?;
    fs::rename(&fresh, path).with_context(|| format!("cannot write {}", path.display()))
}
