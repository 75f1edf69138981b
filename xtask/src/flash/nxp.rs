//! The boot partition of a board with U-Boot: NXP i.MX 8M and Layerscape, and others.
//!
//! Main function: [`files`]. U-Boot looks on each disk for `boot.scr`, a text of its own commands behind a header of its
//! own (U-Boot's `include/image.h`, "legacy image format"), which `mkimage` writes elsewhere and [`script`] here.

use anyhow::{Context as _, Result, bail};
use flate2::Crc;

use super::File;

const COMMANDS: &str = include_str!("nxp-boot.cmd");
const README: &str = include_str!("nxp-readme.txt");
/// Where the command line goes in [`COMMANDS`].
const CMDLINE: &str = "@CMDLINE@";

/// The files, with `cmdline` as the hypervisor's command line.
pub(super) fn files(image: Vec<u8>, bundle: Vec<u8>, cmdline: &str) -> Result<Vec<File>> {
    if cmdline.contains(['\n', '"', '$', '\\', ';']) {
        bail!("U-Boot's script can't hold a line break or one of \" $ \\ ; in --cmdline");
    }
    let commands = COMMANDS.replace(CMDLINE, cmdline);
    Ok(vec![
        File::new("Image", image),
        File::new("entresol.bnd", bundle),
        File::new("boot.scr", script(&commands)?),
        File::new("boot.cmd", commands),
        File::new("README.txt", README),
    ])
}

/// `commands` as U-Boot's `source` wants them: a header of big-endian words, then the list of texts, here of one.
fn script(commands: &str) -> Result<Vec<u8>> {
    const MAGIC: u32 = 0x2705_1956;
    const LINUX: u8 = 5;
    const ARM64: u8 = 22;
    const SCRIPT: u8 = 6;
    const UNCOMPRESSED: u8 = 0;
    const NAME: [u8; 32] = *b"Entresol\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let length = u32::try_from(commands.len()).context("the script is too long")?;
    let data = [&length.to_be_bytes()[..], &[0; 4], commands.as_bytes()].concat();
    let header = |own_checksum: u32| {
        // Time, load address and entry point mean nothing for a script.
        let words = [MAGIC, own_checksum, 0, length + 8, 0, 0, checksum(&data)].map(u32::to_be_bytes);
        [words.as_flattened(), &[LINUX, ARM64, SCRIPT, UNCOMPRESSED], &NAME].concat()
    };
    Ok([header(checksum(&header(0))), data].concat())
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::{files, script};

    /// What `SOURCE_DATE_EPOCH=0 mkimage -A arm64 -O linux -T script -C none -n Entresol` wrote for the line `true`.
    #[test]
    fn script_is_what_mkimage_writes() {
        let words: [u32; 8] = [0x2705_1956, 0x5f2a_6939, 0, 0x0d, 0, 0, 0x8e5c_7f99, 0x0516_0600];
        let mut expected = words.map(u32::to_be_bytes).as_flattened().to_vec();
        expected.extend(b"Entresol");
        expected.extend([0; 24]);
        expected.extend([0, 0, 0, 5, 0, 0, 0, 0]);
        expected.extend(b"true\n");
        assert_eq!(script("true\n").expect("short"), expected);
    }

    #[test]
    fn command_line_is_in_the_script() {
        let files = files(vec![], vec![], "entresol.console=imx,0x30890000").expect("harmless");
        let commands = files.iter().find(|file| file.name == "boot.cmd").expect("is written");
        let text = str::from_utf8(&commands.contents).expect("text");
        assert!(
            text.contains("setenv bootargs \"entresol.console=imx,0x30890000\"\n") && !text.contains('@')
        );
    }

    #[test]
    fn what_the_script_would_take_for_commands_is_refused() {
        assert!(files(vec![], vec![], "one; reset").is_err());
    }
}
