//! The stock guest: Debian 13's arm64 kernel as it is packaged, and an initial RAM disk around Debian's busybox.
//!
//! Both come as arm64 packages through the private apt; nothing is registered on the machine. The kernel needs no
//! modules here: PL011, the interrupt controllers, the timer and PSCI are built in.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use flate2::read::GzDecoder;

use super::apt::{self, PrivateApt};
use super::stamp;
use crate::cpio::Archive;
use crate::flatten::is_linux_image;
use crate::layout::Layout;
use crate::step::{note, step};

/// Raise it when what is below `.cache/debian` must be made anew.
const RECIPE: &str = "debian recipe 2";

/// Device trees of the boards that QEMU emulates but has no tree for, below the package's directory of trees.
const DEVICE_TREES: [&str; 2] = ["broadcom/bcm2711-rpi-4-b.dtb", "freescale/imx8mp-evk.dtb"];

/// What runs first in the guest. The line it prints is what scripts wait for.
const INIT: &str = include_str!("guest-init.sh");

/// Makes sure that Debian's kernel and our initial RAM disk are in the cache.
pub(crate) fn ensure(layout: &Layout) -> Result<()> {
    let home = layout.cache().join("debian");
    if stamp::is_current(&home, RECIPE) {
        return Ok(());
    }
    note(&format!(
        "Debian's arm64 kernel and busybox are not in {} yet: about 100 MB, no root needed",
        home.display()
    ));
    let fresh = layout.cache().join("debian.new");
    stamp::empty_directory(&fresh)?;
    let state = layout.cache().join("apt-debian");
    let apt = step("reading Debian 13's package index for arm64", || PrivateApt::open(&state, "arm64"))?;
    let kernel = apt.dependency("linux-image-arm64", "linux-image-")?;
    let root = fresh.join("root");
    step(&format!("downloading {kernel} and busybox-static"), || {
        let packages = apt.download(&[&kernel, "busybox-static"], &fresh.join("packages"))?;
        packages.iter().try_for_each(|package| apt::unpack(package, &root))
    })?;
    let image = uncompressed(&fs::read(kernel_file(&root.join("boot"))?)?)?;
    fs::write(fresh.join("Image"), image)?;
    fs::write(fresh.join("initrd"), initrd(&fs::read(busybox_file(&root)?)?))?;
    let trees = root.join("usr/lib").join(&kernel);
    for tree in DEVICE_TREES.map(|tree| trees.join(tree)) {
        let name = tree.file_name().unwrap_or_default();
        fs::copy(&tree, fresh.join(name)).with_context(|| format!("{kernel} holds no {}", tree.display()))?;
    }
    fs::write(fresh.join("kernel-package"), format!("{kernel}\n"))?;
    for leftover in [&root, &fresh.join("packages"), &state] {
        fs::remove_dir_all(leftover)?;
    }
    stamp::install(&fresh, &home, RECIPE)
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

/// A kernel as the boot protocol wants it. Debian ships a plain `Image` today; gzip and the EFI self-extracting form
/// (`drivers/firmware/efi/libstub/zboot-header.S`: "zimg" at 4, offset and size of the payload at 8, its kind at 24) are
/// what other releases and distributions ship.
fn uncompressed(kernel: &[u8]) -> Result<Vec<u8>> {
    let image = if kernel.starts_with(&[0x1f, 0x8b]) {
        gunzip(kernel)?
    } else if kernel.get(4..8) == Some(b"zimg") {
        let kind = kernel.get(24..28).unwrap_or_default();
        if kind != b"gzip" {
            bail!("the kernel is compressed with {}, not gzip", String::from_utf8_lossy(kind));
        }
        gunzip(zboot_payload(kernel).context("the kernel's EFI payload is cut short")?)?
    } else {
        kernel.to_vec()
    };
    if !is_linux_image(&image) {
        bail!("Debian's kernel is no arm64 Image");
    }
    Ok(image)
}

fn zboot_payload(kernel: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| {
        let bytes: [u8; 4] = kernel.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let (offset, size) = (word(8)?, word(12)?);
    kernel.get(offset..offset.checked_add(size)?)
}

fn gunzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut plain).context("cannot decompress the kernel")?;
    Ok(plain)
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};

    use super::uncompressed;

    fn image() -> Vec<u8> {
        let mut image = vec![0; 64];
        image[56..60].copy_from_slice(b"ARM\x64");
        image
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    }

    #[test]
    fn plain_image_is_taken_as_it_is() {
        assert_eq!(uncompressed(&image()).expect("an image"), image());
    }

    #[test]
    fn gzip_image_is_decompressed() {
        assert_eq!(uncompressed(&gzip(&image())).expect("an image"), image());
    }

    #[test]
    fn self_extracting_image_is_decompressed() {
        let payload = gzip(&image());
        let mut kernel = vec![0; 64];
        kernel[4..8].copy_from_slice(b"zimg");
        kernel[8..12].copy_from_slice(&64_u32.to_le_bytes());
        kernel[12..16].copy_from_slice(&u32::try_from(payload.len()).expect("small").to_le_bytes());
        kernel[24..28].copy_from_slice(b"gzip");
        kernel.extend(payload);
        assert_eq!(uncompressed(&kernel).expect("an image"), image());
    }

    #[test]
    fn anything_else_is_refused() {
        assert!(uncompressed(b"\x7fELF").is_err());
    }
}
