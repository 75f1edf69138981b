//! Debian's U-Boot for QEMU's `virt`: the boot loader of most boards, to test what we write for it.

use std::fs;

use anyhow::{Context as _, Result};

use super::apt::{self, PrivateApt};
use super::stamp;
use crate::layout::Layout;
use crate::step::step;

/// Raise it when what is below `.cache/u-boot` must be made anew.
const RECIPE: &str = "u-boot recipe 1";

const PACKAGE: &str = "u-boot-qemu";
/// The build for 64-bit `virt` within the package.
const BINARY: &str = "usr/lib/u-boot/qemu_arm64/u-boot.bin";

/// Makes sure that [`Layout::u_boot`] is in the cache.
pub(crate) fn ensure(layout: &Layout) -> Result<()> {
    let home = layout.cache().join("u-boot");
    if stamp::is_current(&home, RECIPE) {
        return Ok(());
    }
    let (fresh, state) = (layout.cache().join("u-boot.new"), layout.cache().join("apt-u-boot"));
    stamp::empty_directory(&fresh)?;
    let root = fresh.join("root");
    step("downloading Debian 13's U-Boot for QEMU", || {
        let packages = PrivateApt::open(&state, "arm64")?.download(&[PACKAGE], &fresh.join("packages"))?;
        packages.iter().try_for_each(|package| apt::unpack(package, &root))
    })?;
    let binary = root.join(BINARY);
    fs::copy(&binary, fresh.join("u-boot.bin")).with_context(|| format!("{PACKAGE} holds no {BINARY}"))?;
    for leftover in [&root, &fresh.join("packages"), &state] {
        fs::remove_dir_all(leftover)?;
    }
    stamp::install(&fresh, &home, RECIPE)
}
