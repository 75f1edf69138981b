//! A `virt` machine as its boot ROM would leave it: no firmware, no boot loader, the highest exception level it has.
//!
//! Main function: [`command`]. Asked to boot a kernel, QEMU does what firmware does: it starts the kernel at EL2 and
//! answers PSCI calls. Asked only to load files, it does neither. So the image, the bundle and the device tree are put
//! into memory by its generic loader, and the first CPU starts at three instructions that pass the tree's address.
//!
//! The tree is the one that QEMU makes when it boots the same files itself ([`tree_of`]), without the node `psci`:
//! there is nobody to answer, and a call to an empty EL3 ends nowhere. Other CPUs than the first can't be started then.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::layout::Layout;
use crate::process;
use crate::qemu::{self, Boot, Machine};

/// What the image finds in x0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tree {
    /// The address of the machine's device tree.
    Passed,
    /// Zero.
    Absent,
}

/// Where things are put. The image's place is a multiple of 4 KiB and of nothing larger: no boot loader is as unkind.
const IMAGE: u64 = 0x4123_5000;
const STUB: u64 = 0x4700_0000;
const TREE: u64 = 0x4710_0000;
/// Where QEMU would put it, and what its tree therefore says. The machine must have 256 MiB at least.
const BUNDLE: u64 = 0x4800_0000;

/// The machine, which starts `boot` by itself. Files that it needs are left in `directory`.
pub(crate) fn command(
    layout: &Layout,
    machine: &Machine,
    boot: &Boot,
    tree: Tree,
    directory: &Path,
) -> Result<Command> {
    let mut command = qemu::empty(layout, machine, boot.entry);
    let mut load = |file: &Path, address: u64| {
        command.arg("-device").arg(format!("loader,file={},addr={address:#x},force-raw=on", file.display()));
    };
    load(&boot.kernel, IMAGE);
    if let Some(bundle) = &boot.initrd {
        load(bundle, BUNDLE);
    }
    let x0 = match tree {
        Tree::Absent => 0,
        Tree::Passed => {
            let file = directory.join("no-firmware.dtb");
            fs::write(&file, tree_of(layout, machine, boot, &file)?)?;
            load(&file, TREE);
            TREE
        }
    };
    let file = directory.join(format!("no-firmware-{x0:x}.stub"));
    fs::write(&file, stub(x0))?;
    load(&file, STUB);
    command.arg("-device").arg(format!("loader,addr={STUB:#x},cpu-num=0"));
    Ok(command)
}

/// Code that enters the image with `x0`.
fn stub(x0: u64) -> Vec<u8> {
    const LDR_X0_FROM_16: u32 = 0x5800_0080;
    const LDR_X1_FROM_24: u32 = 0x5800_00a1;
    const BR_X1: u32 = 0xd61f_0020;
    let code = [LDR_X0_FROM_16, LDR_X1_FROM_24, BR_X1, 0].map(u32::to_le_bytes);
    [code.as_flattened(), [x0, IMAGE].map(u64::to_le_bytes).as_flattened()].concat()
}

/// The device tree that QEMU passes when it boots `boot`, as it would be without PSCI. `scratch` is overwritten.
fn tree_of(layout: &Layout, machine: &Machine, boot: &Boot, scratch: &Path) -> Result<Vec<u8>> {
    let dump = ["-M".to_owned(), format!("dumpdtb={}", scratch.display())];
    process::quietly(&mut qemu::command(layout, machine, boot, &dump))?;
    let mut tree = fs::read(scratch).context("QEMU left no device tree")?;
    blank_child_of_root(&mut tree, b"psci").context("QEMU's device tree has no psci node")?;
    Ok(tree)
}

/// Overwrites the root's child `name` with NOP tokens (Devicetree Specification, "Lexical structure").
fn blank_child_of_root(blob: &mut [u8], name: &[u8]) -> Option<()> {
    const BEGIN_NODE: u32 = 1;
    const END_NODE: u32 = 2;
    const PROPERTY: u32 = 3;
    const NOP: u32 = 4;
    const DEPTH: usize = 2;
    let word = |at: usize| blob.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
    // Byte 8 of the header: the offset of the structure block.
    let mut at = word(8)? as usize;
    let (mut depth, mut begin) = (0, None);
    let end = loop {
        let token = at;
        at += 4;
        match word(token)? {
            BEGIN_NODE => {
                let found = blob.get(at..)?.split(|&byte| byte == 0).next()?;
                depth += 1;
                if depth == DEPTH && found == name {
                    begin = Some(token);
                }
                at = (at + found.len() + 1).next_multiple_of(4);
            }
            END_NODE if depth == DEPTH && begin.is_some() => break at,
            END_NODE => depth -= 1,
            PROPERTY => at = (at + 8 + word(at)? as usize).next_multiple_of(4),
            NOP => {}
            _ => return None,
        }
    };
    let node = blob.get_mut(begin?..end)?;
    node.chunks_exact_mut(4).for_each(|word| word.copy_from_slice(&NOP.to_be_bytes()));
    Some(())
}

#[cfg(test)]
mod tests {
    use platform::board::{Board, Conduit};

    use super::{blank_child_of_root, stub};

    /// As `-M virt,gic-version=3,dumpdtb=` left it.
    const VIRT: &[u8] = include_bytes!("../../platform/tests/fixtures/qemu-virt-gic3.dtb");

    #[test]
    fn blanked_node_is_gone_and_the_rest_is_there() {
        let whole = VIRT.to_vec();
        let before = Board::from_dt(&whole).expect("valid tree");
        let mut blob = whole.clone();
        blank_child_of_root(&mut blob, b"psci").expect("has the node");
        let after = Board::from_dt(&blob).expect("valid tree");
        assert_eq!((before.psci, after.psci), (Some(Conduit::Smc), None));
        assert_eq!((before.cpus, before.console), (after.cpus, after.console));
    }

    #[test]
    fn node_that_is_missing_is_not_found() {
        assert_eq!(blank_child_of_root(&mut VIRT.to_vec(), b"firmware"), None);
    }

    #[test]
    fn stub_passes_the_tree_and_jumps_to_the_image() {
        let code = stub(0x4710_0000);
        let literal = |at: usize| u64::from_le_bytes(code[at..at + 8].try_into().expect("eight bytes"));
        assert_eq!((literal(16), literal(24)), (0x4710_0000, 0x4123_5000));
    }
}
