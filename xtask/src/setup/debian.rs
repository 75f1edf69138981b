//! The stock guest: Debian 13's arm64 kernel as it is packaged, and an initial RAM disk around Debian's busybox.
//!
//! Both come as arm64 packages through the private apt; nothing is registered on the machine. The kernel needs no
//! modules here: PL011, the interrupt controllers, the timer and PSCI are built in.
//!
//! The kernel's package also holds the device tree of every board that it supports, about a thousand. They are kept
//! beside the rest, in a directory of their own: `platform` is tested with all of them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::apt::{self, PrivateApt};
use super::stamp;
use crate::cpio::Archive;
use crate::flatten::is_linux_image;
use crate::kernel;
use crate::layout::Layout;
use crate::step::{note, step};

/// Raise it when what is below `.cache/debian` must be made anew.
const RECIPE: &str = "debian recipe 3";

/// Raise it when what is below `.cache/device-trees` must be made anew.
const TREES_RECIPE: &str = "device trees recipe 1";

/// What runs first in the guest. The line it prints is what scripts wait for.
const INIT: &str = include_str!("guest-init.sh");

/// Makes sure that Debian's kernel, our initial RAM disk and the boards' device trees are in the cache.
pub(crate) fn ensure(layout: &Layout) -> Result<()> {
    let (home, trees) = (layout.cache().join("debian"), layout.device_trees());
    let (lacks_guest, lacks_trees) =
        (!stamp::is_current(&home, RECIPE), !stamp::is_current(&trees, TREES_RECIPE));
    if !lacks_guest && !lacks_trees {
        return Ok(());
    }
    note(&format!(
        "Debian's arm64 kernel, its device trees and busybox are not all in {} yet: about 100 MB, no root needed",
        layout.cache().display()
    ));
    let package = Unpacked::download(layout)?;
    if lacks_guest {
        install_guest(&package, &layout.cache().join("debian.new"), &home)?;
    }
    if lacks_trees {
        install_trees(&package, &layout.cache().join("device-trees.new"), &trees)?;
    }
    package.remove()
}

/// The packages, unpacked.
struct Unpacked {
    /// All that is left to be removed.
    directories: [PathBuf; 2],
    /// Where their files are, as below `/`.
    root: PathBuf,
    /// Name of the kernel's package.
    kernel: String,
}

impl Unpacked {
    fn download(layout: &Layout) -> Result<Self> {
        let (work, state) = (layout.cache().join("debian-packages"), layout.cache().join("apt-debian"));
        stamp::empty_directory(&work)?;
        let apt = step("reading Debian 13's package index for arm64", || PrivateApt::open(&state, "arm64"))?;
        let kernel = apt.dependency("linux-image-arm64", "linux-image-")?;
        let root = work.join("root");
        step(&format!("downloading {kernel} and busybox-static"), || {
            let packages = apt.download(&[&kernel, "busybox-static"], &work.join("packages"))?;
            packages.iter().try_for_each(|package| apt::unpack(package, &root))
        })?;
        Ok(Self { directories: [work, state], root, kernel })
    }

    /// The directory with the boards' device trees, one directory per maker.
    fn trees(&self) -> PathBuf {
        self.root.join("usr/lib").join(&self.kernel)
    }

    fn remove(self) -> Result<()> {
        Ok(self.directories.iter().try_for_each(fs::remove_dir_all)?)
    }
}

fn install_guest(package: &Unpacked, fresh: &Path, home: &Path) -> Result<()> {
    stamp::empty_directory(fresh)?;
    let image = kernel::uncompressed(fs::read(kernel_file(&package.root.join("boot"))?)?)?;
    if !is_linux_image(&image) {
        bail!("Debian's kernel is no arm64 Image");
    }
    fs::write(fresh.join("Image"), image)?;
    fs::write(fresh.join("initrd"), initrd(&fs::read(busybox_file(&package.root)?)?))?;
    fs::write(fresh.join("kernel-package"), format!("{}\n", package.kernel))?;
    stamp::install(fresh, home, RECIPE)
}

/// Moves the trees; they are of no use to the guest. Call it last.
fn install_trees(package: &Unpacked, fresh: &Path, home: &Path) -> Result<()> {
    stamp::empty_directory(fresh)?;
    let makers =
        fs::read_dir(package.trees()).with_context(|| format!("{} holds no device trees", package.kernel))?;
    for maker in makers {
        let maker = maker?;
        fs::rename(maker.path(), fresh.join(maker.file_name()))?;
    }
    stamp::install(fresh, home, TREES_RECIPE)
}

fn kernel_file(boot: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(boot).with_context(|| format!("cannot read {}", boot.display()))?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    let is_kernel =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"));
    paths.find(is_kernel).context("the kernel package holds no boot/vmlinuz-*")
}

fn busybox_file(root: &Path) -> Result<PathBuf> {
    let candidates = ["usr/bin/busybox", "bin/busybox"].map(|path| root.join(path));
    candidates.into_iter().find(|path| path.exists()).context("busybox-static holds no busybox")
}

/// `/dev/console` must be in the archive: the kernel opens it for `init` before anything is mounted.
fn initrd(busybox: &[u8]) -> Vec<u8> {
    let mut archive = Archive::default();
    for directory in ["bin", "dev", "proc", "root", "sys", "tmp"] {
        archive.directory(directory);
    }
    archive.character_device("dev/console", (5, 1));
    archive.program("bin/busybox", busybox);
    archive.link("bin/sh", "busybox");
    archive.program("init", INIT.as_bytes());
    archive.finish()
}
