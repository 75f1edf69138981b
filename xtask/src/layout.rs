//! Where things are: the project's root, its cache of downloads and its build products.
//!
//! Main type: [`Layout`]. Nothing outside these directories is ever written. Several clones share one cache of downloads
//! where `.cache` is a symbolic link to it.

use std::env;
use std::path::{Path, PathBuf};

/// The directories that all commands agree on.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
    cache: PathBuf,
}

impl Layout {
    /// Finds the project this tool belongs to, wherever it was called from.
    pub(crate) fn find() -> Self {
        // Set by `cargo run` to the package's directory; the compiled-in copy serves a binary that is started by hand.
        let package = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = package.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf);
        Self { cache: root.join(".cache"), root }
    }

    /// The project's root directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Downloads, kept from run to run.
    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }

    /// Build products that a person would look for.
    pub(crate) fn build(&self) -> PathBuf {
        self.root.join("build")
    }

    /// Cargo's own directory. It is always passed to cargo, so that no personal setting can move it.
    pub(crate) fn target(&self) -> PathBuf {
        self.root.join("target")
    }

    /// The hypervisor with its symbols: what logs are decoded against.
    pub(crate) fn elf(&self) -> PathBuf {
        self.build().join("entresol.elf")
    }

    /// The hypervisor as a boot loader wants it.
    pub(crate) fn image(&self) -> PathBuf {
        self.build().join("Image")
    }

    /// The tests at EL2 with their symbols.
    pub(crate) fn el2_tests_elf(&self) -> PathBuf {
        self.build().join("el2-tests.elf")
    }

    /// The tests at EL2 as a boot loader wants them.
    pub(crate) fn el2_tests(&self) -> PathBuf {
        self.build().join("el2-tests.Image")
    }

    /// The small guest programs.
    pub(crate) fn guests(&self) -> PathBuf {
        self.build().join("guests")
    }

    /// Debian's arm64 kernel, uncompressed.
    pub(crate) fn debian_kernel(&self) -> PathBuf {
        self.cache.join("debian/Image")
    }

    /// The initial RAM disk with Debian's busybox.
    pub(crate) fn debian_initrd(&self) -> PathBuf {
        self.cache.join("debian/initrd")
    }

    /// U-Boot for QEMU's `virt`.
    pub(crate) fn u_boot(&self) -> PathBuf {
        self.cache.join("u-boot/u-boot.bin")
    }

    /// The device trees of all boards that Debian's kernel supports, one directory per maker.
    pub(crate) fn device_trees(&self) -> PathBuf {
        self.cache.join("device-trees")
    }
}
