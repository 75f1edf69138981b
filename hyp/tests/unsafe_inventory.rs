//! `docs/unsafe.md` lists exactly the files that opt into unsafe code.
//!
//! A row names a file, or a directory that stands for all files below it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Where Rust code of this project is.
const SOURCES: [&str; 7] = ["bench", "hyp", "platform", "stage2", "tests", "vms", "xtask"];

/// The attribute by which a module opts in. Split, so that this file does not contain it.
const OPT_IN: &str = concat!("expect(", "unsafe_code");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The `.rs` files below `directory`, as paths from the root.
fn rust_files(directory: &str) -> Vec<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root().join(directory)).expect("a directory of the project") {
        let entry = entry.expect("readable");
        let path = format!("{directory}/{}", entry.file_name().to_string_lossy());
        if entry.file_type().expect("known").is_dir() {
            files.extend(rust_files(&path));
        } else if path.ends_with(".rs") {
            files.push(path);
        }
    }
    files
}

/// The files that opt in.
fn opted_in() -> BTreeSet<String> {
    let opts_in = |path: &String| fs::read_to_string(root().join(path)).expect("text").contains(OPT_IN);
    SOURCES.iter().flat_map(|directory| rust_files(directory)).filter(opts_in).collect()
}

/// The first cell of each row of the list.
fn listed() -> Vec<String> {
    let text = fs::read_to_string(root().join("docs/unsafe.md")).expect("the list");
    let first_cell = |line: &str| Some(line.strip_prefix("| `")?.split_once("` |")?.0.to_owned());
    text.lines().filter_map(first_cell).collect()
}

fn covers(row: &str, file: &str) -> bool {
    row == file || row.ends_with('/') && file.starts_with(row)
}

#[test]
fn every_file_with_unsafe_code_is_listed() {
    let rows = listed();
    let missing: Vec<_> =
        opted_in().into_iter().filter(|file| !rows.iter().any(|row| covers(row, file))).collect();
    assert!(missing.is_empty(), "not in docs/unsafe.md: {missing:?}");
}

#[test]
fn every_row_has_a_file_with_unsafe_code() {
    let files = opted_in();
    let stale: Vec<_> =
        listed().into_iter().filter(|row| !files.iter().any(|file| covers(row, file))).collect();
    assert!(stale.is_empty(), "in docs/unsafe.md, but without unsafe code: {stale:?}");
}

#[test]
fn no_file_is_listed_twice() {
    let rows = listed();
    let once: BTreeSet<_> = rows.iter().collect();
    assert_eq!(rows.len(), once.len(), "{rows:?}");
}
