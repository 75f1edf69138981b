//! What makes set-up idempotent and safe to interrupt: a prepared directory appears whole or not at all.
//!
//! A directory is prepared beside its final place, gets a `stamp` file naming the recipe it was made by, and is then
//! renamed. A directory with another stamp, or none, is made anew.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Whether `directory` was completely made by this `recipe`.
pub(crate) fn is_current(directory: &Path, recipe: &str) -> bool {
    fs::read_to_string(directory.join("stamp")).is_ok_and(|text| text.trim_end() == recipe)
}

/// Makes `directory` exist and be empty.
pub(crate) fn empty_directory(directory: &Path) -> Result<()> {
    remove(directory)?;
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))
}

/// Stamps the prepared directory `fresh` and puts it in the place of `home`.
pub(crate) fn install(fresh: &Path, home: &Path, recipe: &str) -> Result<()> {
    fs::write(fresh.join("stamp"), format!("{recipe}\n"))?;
    remove(home)?;
    fs::rename(fresh, home).with_context(|| format!("cannot create {}", home.display()))
}

fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{empty_directory, install, is_current};

    #[test]
    fn directory_is_current_only_for_the_recipe_it_was_made_by() {
        let place = std::env::temp_dir().join(format!("entresol-stamp-{}", std::process::id()));
        let (fresh, home) = (place.join("fresh"), place.join("home"));
        empty_directory(&fresh).expect("temporary directory");
        assert!(!is_current(&home, "recipe 1"));
        install(&fresh, &home, "recipe 1").expect("temporary directory");
        assert!(is_current(&home, "recipe 1"));
        assert!(!is_current(&home, "recipe 2"));
        fs::remove_dir_all(place).expect("temporary directory");
    }
}
