//! A `virt` machine as its boot ROM would leave it: no firmware, no boot loader, the highest exception level it has.
//!
//! Main function: [`command`]. Asked to boot a kernel, QEMU does what firmware does: it starts the kernel at EL2 and
//! answers PSCI calls. Asked only to load files, it does neither. So the image, the bundle and the device tree are put
//! into memory by its generic loader, and the first CPU starts at three instructions that pass the tree's address.
//!
//! The tree is the one that QEMU makes when it boots the same files itself. It names PSCI, which nobody answers here: the
//! hypervisor must know better. Other CPUs than the first can't be started then.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::layout::Layout;
use crate::process;
use crate::qemu::{self, Boot, Machine};

/// What the image finds in x0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tree {
    /// The address of the machine's device tree.
    Passed,
    /// That of the machine's device tree, in which properties with this value end in another letter. So one fact is
    /// missing, and all else is as it was.
    Misspelt(&'static str),
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
        Tree::Passed | Tree::Misspelt(_) => {
            let file = directory.join("no-firmware.dtb");
            let dump = ["-M".to_owned(), format!("dumpdtb={}", file.display())];
            process::quietly(&mut qemu::command(layout, machine, boot, &dump))?;
            if let Tree::Misspelt(word) = tree {
                fs::write(&file, misspelt(fs::read(&file)?, word))?;
            }
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

/// `blob`, in which each property that begins with the string `word` has another letter at its end.
fn misspelt(mut blob: Vec<u8>, word: &str) -> Vec<u8> {
    let string = [word.as_bytes(), b"\0"].concat();
    let places = blob.windows(string.len()).enumerate().filter(|(_, window)| *window == string);
    // Values begin at words.
    let values = places.map(|(place, _)| place).filter(|place| place.is_multiple_of(4));
    let last_letters: Vec<usize> = values.map(|place| place + word.len() - 1).collect();
    last_letters.into_iter().for_each(|place| blob[place] ^= 1);
    blob
}

/// Code that enters the image with `x0`.
fn stub(x0: u64) -> Vec<u8> {
    const LDR_X0_FROM_16: u32 = 0x5800_0080;
    const LDR_X1_FROM_24: u32 = 0x5800_00a1;
    const BR_X1: u32 = 0xd61f_0020;
    let code = [LDR_X0_FROM_16, LDR_X1_FROM_24, BR_X1, 0].map(u32::to_le_bytes);
    [code.as_flattened(), [x0, IMAGE].map(u64::to_le_bytes).as_flattened()].concat()
}

#[cfg(test)]
mod tests {
    use super::{misspelt, stub};

    #[test]
    fn only_values_are_misspelt() {
        let blob = misspelt(b"memory\0\0memory@0a-memory\0".to_vec(), "memory");
        assert_eq!(blob, b"memorx\0\0memory@0a-memory\0");
    }

    #[test]
    fn stub_passes_the_tree_and_jumps_to_the_image() {
        let code = stub(0x4710_0000);
        let literal = |at: usize| u64::from_le_bytes(code[at..at + 8].try_into().expect("eight bytes"));
        assert_eq!((literal(16), literal(24)), (0x4710_0000, 0x4123_5000));
    }
}
