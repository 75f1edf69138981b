//! `cargo xtask pack` and `check`: the guests' bundle, by the very code that reads it at EL2 (`hyp::bundle`).

use std::path::Path;

use anyhow::{Result, bail};

/// Packs `manifest` and the files it names into `place`.
pub(crate) fn pack(manifest: &Path, place: &Path) -> Result<()> {
    bail!("cannot pack {} into {}", manifest.display(), place.display())
}
