//! `cargo xtask pack` and `check`: the guests' bundle, by the very code that reads it at EL2 (`hyp::bundle`).
//!
//! Files named in a vms.toml are looked for beside it, then in the project's root. Compressed kernels are stored
//! uncompressed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use hyp::bundle::cpio::{TooLong, Writer};
use hyp::bundle::error::Role;
use hyp::bundle::manifest::Manifest;
use hyp::bundle::{Bundle, MANIFEST_NAME, Machine, admit, pack};

use crate::board::{self, Report};
use crate::image::write_if_changed;
use crate::kernel;
use crate::layout::Layout;

/// Packs `manifest` and the files it names into `place`. What every machine would refuse is refused here.
pub(crate) fn pack(layout: &Layout, manifest: &Path, place: &Path) -> Result<()> {
    let archive = packed(layout, manifest)?;
    admitted(&archive, &Machine::LARGEST).with_context(|| format!("{} cannot run", manifest.display()))?;
    write_if_changed(place, &archive)
}

/// Packs what there is of `manifest` without any check: bundles for testing how the hypervisor takes bad ones.
pub(crate) fn pack_unchecked(layout: &Layout, manifest: &Path) -> Result<Vec<u8>> {
    let text = text_of(manifest)?;
    let mut writer = Writer::new();
    let mut add = |name: &str, data: &[u8]| {
        writer.add(name, data).map_err(|TooLong| anyhow!("{name} is too long for a bundle"))
    };
    add(MANIFEST_NAME, text.as_bytes())?;
    let vms = Manifest::parse(&text).vms;
    let mut names: Vec<&str> = vms.iter().flatten().map(|vm| vm.kernel.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        if let Ok(data) = fs::read(find(layout, manifest, name)) {
            add(name, &data)?;
        }
    }
    Ok(writer.finish())
}

/// Says what the hypervisor would make of a board, of a bundle, or of a bundle on a board. Fails if it would give up.
pub(crate) fn check(layout: &Layout, manifest: Option<&Path>, device_tree: Option<&Path>) -> Result<()> {
    if manifest.is_none() && device_tree.is_none() {
        bail!("nothing to check: name a vms.toml, a device tree (--dtb FILE), or both");
    }
    let blob = device_tree.map(board::read).transpose()?;
    let board = blob.as_deref().map(board::board).transpose()?;
    if let Some(board) = &board {
        accepted(&board::report(board))?;
    }
    let Some(manifest) = manifest else { return Ok(()) };
    let archive = packed(layout, manifest)?;
    let lines = match &board {
        None => admitted(&archive, &Machine::LARGEST)?,
        Some(board) => {
            let cpus = (0..board.cpus.len()).fold(0, |cpus, cpu| cpus | 1 << cpu);
            admitted(&archive, &Machine { cpus, free: &board::free_memory(board) })?
        }
    };
    println!("{}", lines.join("\n"));
    Ok(())
}

/// Prints what was found on a board, and fails if that does not do.
fn accepted(report: &Report) -> Result<()> {
    println!("{}", report.lines.join("\n"));
    if !report.refusals.is_empty() {
        bail!("with this device tree Entresol would give up:\n{}", report.refusals.join("\n"));
    }
    Ok(())
}

/// What becomes of each VM, or everything that is in the way.
fn admitted(archive: &[u8], machine: &Machine<'_>) -> Result<Vec<String>> {
    let bundle = Bundle::parse(archive).map_err(|error| anyhow!("{error}"))?;
    let plans = admit::plan(&bundle, machine);
    let refusals: Vec<String> =
        plans.iter().filter_map(|plan| plan.as_ref().err()).map(ToString::to_string).collect();
    if !refusals.is_empty() {
        bail!("{}", refusals.join("\n"));
    }
    let names = bundle.vms().iter().flatten().map(|vm| &vm.name);
    let lines = names.zip(plans.iter().flatten()).map(|(name, plan)| {
        format!("{name}: {} MiB, vCPUs on CPUs {:?}", plan.memory >> 20, plan.cpus.as_slice())
    });
    Ok(lines.collect())
}

fn packed(layout: &Layout, manifest: &Path) -> Result<Vec<u8>> {
    let text = text_of(manifest)?;
    pack::build(&text, |role, name| read(layout, manifest, role, name)).map_err(|error| anyhow!("{error}"))
}

fn text_of(manifest: &Path) -> Result<String> {
    fs::read_to_string(manifest).with_context(|| format!("cannot read {}", manifest.display()))
}

fn read(layout: &Layout, manifest: &Path, role: Role, name: &str) -> Result<Vec<u8>, String> {
    let path = find(layout, manifest, name);
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    match role {
        Role::Kernel => kernel::uncompressed(bytes).map_err(|error| format!("{error:#}")),
        Role::Initrd => Ok(bytes),
    }
}

fn find(layout: &Layout, manifest: &Path, name: &str) -> PathBuf {
    let beside = manifest.with_file_name("").join(name);
    if beside.exists() { beside } else { layout.root().join(name) }
}
