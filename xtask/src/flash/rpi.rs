//! The boot partition of a Raspberry Pi 4 or 5.
//!
//! Main function: [`files`]. [`Boot`] reads such a partition as the firmware does, for the test that boots from it. What
//! the lines of config.txt mean is in Raspberry Pi's documentation, "config.txt".

use anyhow::{Context as _, Result, bail};

use super::File;

const KERNEL: &str = "kernel8.img";
const BUNDLE: &str = "entresol.bnd";
const CONFIG: &str = include_str!("rpi-config.txt");
const README: &str = include_str!("rpi-readme.txt");

/// The files, with `cmdline` as the hypervisor's command line.
pub(super) fn files(image: Vec<u8>, bundle: Vec<u8>, cmdline: &str) -> Result<Vec<File>> {
    if cmdline.contains('\n') {
        bail!("cmdline.txt has one line, and so must --cmdline");
    }
    Ok(vec![
        File::new(KERNEL, image),
        File::new(BUNDLE, bundle),
        File::new("config.txt", CONFIG),
        File::new("cmdline.txt", format!("{cmdline}\n")),
        File::new("README.txt", README),
    ])
}

/// What the firmware takes from the partition.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Boot {
    /// The kernel's file.
    pub(crate) kernel: String,
    /// The initial RAM disk's file.
    pub(crate) initramfs: String,
    /// The command line.
    pub(crate) cmdline: String,
}

impl Boot {
    /// What a Raspberry Pi 4 would do with `files`: lines `name=value`, `initramfs FILE ADDRESS` without an equals sign,
    /// sections in brackets that hold for some models only.
    pub(crate) fn of(files: &[File]) -> Result<Self> {
        let text = |name: &str| -> Result<&str> {
            let file = files.iter().find(|file| file.name == name);
            let file = file.with_context(|| format!("the boot partition has no {name}"))?;
            str::from_utf8(&file.contents).with_context(|| format!("{name} is not text"))
        };
        let (mut kernel, mut initramfs) = (None, None);
        let mut section = "[all]";
        for line in text("config.txt")?.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.starts_with('[') {
                section = line;
            } else if matches!(section, "[all]" | "[pi4]") {
                if let Some(value) = line.strip_prefix("kernel=") {
                    kernel = Some(value.to_owned());
                } else if let Some(value) = line.strip_prefix("initramfs ") {
                    initramfs = value.split_whitespace().next().map(str::to_owned);
                }
            }
        }
        Ok(Self {
            kernel: kernel.context("config.txt names no kernel")?,
            initramfs: initramfs.context("config.txt names no initramfs")?,
            cmdline: text("cmdline.txt")?.trim().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Boot, CONFIG, files};
    use crate::flash::File;

    #[test]
    fn firmware_finds_every_file_that_it_is_told_of() {
        let files = files(vec![1], vec![2], "entresol.log=defmt").expect("one line");
        let boot = Boot::of(&files).expect("complete");
        let contents =
            |name: &str| files.iter().find(|file| file.name == name).map(|file| &file.contents[..]);
        assert_eq!(contents(&boot.kernel), Some(&[1][..]));
        assert_eq!(contents(&boot.initramfs), Some(&[2][..]));
        assert_eq!(boot.cmdline, "entresol.log=defmt");
    }

    #[test]
    fn lines_for_other_models_are_passed_over() {
        let config = "kernel=one\ninitramfs two followkernel\n[pi5]\nkernel=three\n[all]\n# kernel=four\n";
        let files = [File::new("config.txt", config), File::new("cmdline.txt", "\n")];
        assert_eq!(Boot::of(&files).expect("complete").kernel, "one");
    }

    #[test]
    fn line_break_in_the_command_line_is_refused() {
        assert!(files(vec![], vec![], "one\ntwo").is_err());
    }

    /// The firmware ignores what is behind the 98th character (documentation, "File format").
    #[test]
    fn lines_of_the_configuration_are_short() {
        assert!(CONFIG.lines().all(|line| line.len() <= 98));
    }
}
