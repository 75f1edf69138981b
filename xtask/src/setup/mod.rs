//! Everything a fresh machine lacks, brought into the project's cache: QEMU, Debian's kernel, U-Boot, the Rust target.
//!
//! Main function: [`ensure`], called by the commands for just the parts they need. It is quick when nothing is missing
//! (one stamp file is read per part), says what it is about to do, and needs no root for its own work; what a machine
//! without any Rust needs as root is done, after saying so, by `setup.sh` before this program can exist.
//!
//! Parts: `qemu`, `debian`, `u_boot`, `rust`; they use `apt` and `sources` (downloads) and `stamp` (interrupted runs).

mod apt;
mod debian;
pub(crate) mod qemu;
pub(crate) mod rust;
mod sources;
mod stamp;
mod u_boot;

use std::fs::{self, File};

use anyhow::{Context as _, Result};

use crate::layout::Layout;

/// Something that can be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// A compiler for the target.
    Rust,
    /// The emulator.
    Qemu,
    /// Debian's kernel and busybox.
    Debian,
    /// A boot loader.
    UBoot,
}

/// Brings in what is missing of `parts`.
pub(crate) fn ensure(layout: &Layout, parts: &[Part]) -> Result<()> {
    let _lock = lock(layout)?;
    for part in parts {
        match part {
            Part::Rust => rust::ensure()?,
            Part::Qemu => qemu::ensure(layout)?,
            Part::Debian => debian::ensure(layout)?,
            Part::UBoot => u_boot::ensure(layout)?,
        }
    }
    Ok(())
}

/// Two runs at once must not prepare the same directory. The lock ends with the file, even if we are killed.
fn lock(layout: &Layout) -> Result<File> {
    let cache = layout.cache();
    fs::create_dir_all(cache).with_context(|| format!("cannot create {}", cache.display()))?;
    let file = File::create(cache.join("lock"))?;
    file.lock().context("cannot lock the cache")?;
    Ok(file)
}
