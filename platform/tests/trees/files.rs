//! Where the trees are, and what to say where they are not.

use std::fs;
use std::io::Write as _;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

/// A device tree from a file.
pub(crate) struct Tree {
    /// Maker and board: `broadcom/bcm2711-rpi-4-b.dtb`.
    pub(crate) name: String,
    path: PathBuf,
}

/// A tree's bytes, aligned as a boot loader aligns them.
pub(crate) struct Blob {
    bytes: Vec<u8>,
    start: usize,
}

impl Blob {
    fn new(tree: &[u8]) -> Self {
        let mut bytes = vec![0; tree.len() + 8];
        let start = bytes.as_ptr().align_offset(8);
        bytes.truncate(start + tree.len());
        bytes[start..].copy_from_slice(tree);
        Self { bytes, start }
    }
}

impl Clone for Blob {
    /// A copy that is aligned as well, wherever it lies.
    fn clone(&self) -> Self {
        Self::new(self)
    }
}

impl Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl DerefMut for Blob {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }
}

impl Tree {
    /// The file's content.
    pub(crate) fn blob(&self) -> Blob {
        Blob::new(&fs::read(&self.path).expect("is readable"))
    }
}

/// All trees by name, or `None`, said aloud, if they were not fetched.
pub(crate) fn trees() -> Option<Vec<Tree>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/device-trees");
    let Ok(makers) = fs::read_dir(&root) else {
        assert_ne!(
            std::env::var("ENTRESOL_DEVICE_TREES").as_deref(),
            Ok("required"),
            "{} is missing: run `cargo xtask setup`",
            root.display()
        );
        // Not `eprintln`, which cargo captures.
        let line = "SKIPPED: the device trees of real boards are missing: run `cargo xtask setup`\n";
        let _ = std::io::stderr().write_all(line.as_bytes());
        return None;
    };
    let mut trees = Vec::new();
    for maker in makers.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
        for path in fs::read_dir(&maker).expect("is readable").flatten().map(|entry| entry.path()) {
            if path.extension().is_some_and(|end| end == "dtb") {
                let name = path.strip_prefix(&root).expect("is below it").display().to_string();
                trees.push(Tree { name, path });
            }
        }
    }
    trees.sort_by(|one, other| one.name.cmp(&other.name));
    Some(trees)
}
