//! `cargo xtask flash`: everything that goes onto a board's boot partition, as a directory and as a disk image.
//!
//! Main type: [`Options`]; main function: [`run`]. The image and the bundle are the same for all boards; what differs is
//! how the boot loader is told about them: `rpi` and `nxp`. `disk` writes the partition and reads it back.
//!
//! Firmware is not among the files: it has its own licences and its own releases. The instructions that are written
//! beside the files say where it comes from.

pub(crate) mod disk;
mod nxp;
pub(crate) mod rpi;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use crate::image::{self, write_if_changed};
use crate::layout::Layout;
use crate::run::packed;
use crate::setup::{self, Part};
use crate::step::note;

/// What to write, for which boards, and where to.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Which boards
    pub(crate) family: Family,
    /// The guests: a vms.toml, packed into a bundle on the way
    #[arg(value_name = "VMS.TOML", default_value = "vms/default.toml")]
    pub(crate) manifest: PathBuf,
    /// The directory to write; build/flash-rpi or build/flash-nxp without it
    #[arg(short, long, value_name = "DIRECTORY")]
    pub(crate) output: Option<PathBuf>,
    /// Write a disk image with one FAT partition as well
    #[arg(long, value_name = "FILE")]
    pub(crate) img: Option<PathBuf>,
    /// The hypervisor's command line
    #[arg(long, value_name = "WORDS", default_value = "")]
    pub(crate) cmdline: String,
}

/// Boards that are started in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Family {
    /// Raspberry Pi 4 and 5: the firmware reads config.txt
    Rpi,
    /// NXP i.MX 8M and Layerscape, and whatever else has U-Boot: a boot script
    Nxp,
}

/// A file of the boot partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    /// Its name in the root directory.
    pub(crate) name: String,
    /// What is in it.
    pub(crate) contents: Vec<u8>,
}

impl File {
    fn new(name: &str, contents: impl Into<Vec<u8>>) -> Self {
        Self { name: name.to_owned(), contents: contents.into() }
    }
}

/// Builds, packs, writes, and says where to go on.
pub(crate) fn run(layout: &Layout, options: &Options) -> Result<()> {
    setup::ensure(layout, &[Part::Rust])?;
    image::hypervisor(layout)?;
    image::guests(layout)?;
    let directory = write(layout, options, &packed(layout, &options.manifest)?)?;
    note(&format!(
        "{} holds what goes onto the boot partition; its README.txt says how",
        directory.display()
    ));
    if let Some(img) = &options.img {
        note(&format!(
            "{} is the same as a disk image; the firmware must still be added, see README.txt",
            img.display()
        ));
    }
    Ok(())
}

/// Writes the files around the image that is in `build/` already, and this bundle. Returns the directory.
pub(crate) fn write(layout: &Layout, options: &Options, bundle: &Path) -> Result<PathBuf> {
    let bundle = fs::read(bundle).with_context(|| format!("cannot read {}", bundle.display()))?;
    let image = fs::read(layout.image()).context("cannot read build/Image: run `make image`")?;
    let (default, files) = match options.family {
        Family::Rpi => ("flash-rpi", rpi::files(image, bundle, &options.cmdline)?),
        Family::Nxp => ("flash-nxp", nxp::files(image, bundle, &options.cmdline)?),
    };
    let directory = options.output.clone().unwrap_or_else(|| layout.build().join(default));
    for File { name, contents } in &files {
        write_if_changed(&directory.join(name), contents)?;
    }
    if let Some(img) = &options.img {
        disk::write(img, &files)?;
    }
    Ok(directory)
}
