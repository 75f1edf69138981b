//! `cargo xtask pack` and `check`: the guests' bundle, by the very code that reads it at EL2 (`hyp::bundle`).
//!
//! Files named in a vms.toml are looked for beside it, then in the project's root. Compressed kernels are stored
//! uncompressed.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use hyp::bundle::cpio::{TooLong, Writer};
use hyp::bundle::error::Role;
use hyp::bundle::manifest::Manifest;
use hyp::bundle::{Bundle, MANIFEST_NAME, Machine, admit, pack};
use platform::board::Board;

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

/// Says what the hypervisor would say to `manifest`, on the machine of a device tree if there is one.
pub(crate) fn check(layout: &Layout, manifest: &Path, device_tree: Option<&Path>) -> Result<()> {
    let archive = packed(layout, manifest)?;
    let lines = match device_tree {
        Some(path) => on_machine_of(&archive, path)?,
        None => admitted(&archive, &Machine::LARGEST)?,
    };
    println!("{}", lines.join("\n"));
    Ok(())
}

fn on_machine_of(archive: &[u8], device_tree: &Path) -> Result<Vec<String>> {
    let blob = fs::read(device_tree).with_context(|| format!("cannot read {}", device_tree.display()))?;
    let board = Board::from_dt(&blob).map_err(|error| anyhow!("{}: {error:?}", device_tree.display()))?;
    let span = |region: &platform::board::Region| region.base..region.end();
    let free = without(board.memory.iter().map(span).collect(), board.reserved.iter().map(span));
    let cpus = (0..board.cpus.len()).fold(0, |cpus, cpu| cpus | 1 << cpu);
    admitted(archive, &Machine { cpus, free: &free })
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

/// `memory` with all of `reserved` cut out.
fn without(memory: Vec<Range<u64>>, reserved: impl Iterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    reserved.fold(memory, |memory, hole| {
        let parts = memory.into_iter().flat_map(|range| {
            let below = range.start..range.end.min(hole.start);
            let above = range.start.max(hole.end)..range.end;
            [below, above]
        });
        parts.filter(|range| !range.is_empty()).collect()
    })
}

#[cfg(test)]
mod tests {
    use std::iter::once;

    use super::without;

    #[test]
    fn hole_in_the_middle_leaves_both_sides() {
        assert_eq!(without(vec![0..100, 200..300], once(40..50)), [0..40, 50..100, 200..300]);
    }

    #[test]
    fn hole_across_two_ranges_cuts_both() {
        assert_eq!(without(vec![0..10, 20..30], once(5..25)), [0..5, 25..30]);
    }

    #[test]
    fn hole_outside_changes_nothing() {
        assert_eq!(without(vec![0..10, 20..30], once(10..20)), [0..10, 20..30]);
    }
}
