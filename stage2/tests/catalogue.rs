//! Two lists in `docs/stage2` say how this crate answers what others have
//! learnt the hard way: mechanisms (B1 to B35) and bugs (C1 to C88). They name
//! tests and items of the source. Here each name is looked up, so that the
//! lists can't outlive what they talk about.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// How a line says that there is nothing to test.
const NOT_HERE: &str = "**Not here**";

/// One line of a list.
struct Row {
    /// Such as `C12`.
    number: String,
    /// What it says about this project.
    here: String,
}

impl Row {
    /// The names in it, each as a file and an item of that file.
    fn names(&self) -> Vec<(&str, &str)> {
        self.here.split('`').skip(1).step_by(2).filter_map(|quoted| quoted.split_once("::")).collect()
    }
}

/// Files of the project, each read once.
#[derive(Default)]
struct Sources(BTreeMap<String, Option<String>>);

impl Sources {
    /// The text of a file; `None` if there is no such file.
    fn text(&mut self, path: &str) -> Option<&str> {
        let read = || fs::read_to_string(root().join(path)).ok();
        self.0.entry(path.to_string()).or_insert_with(read).as_deref()
    }

    /// Whether a file has a test with this name.
    fn has_test(&mut self, path: &str, name: &str) -> bool {
        let Some(text) = self.text(path) else { return false };
        let mut is_test = false;
        for line in text.lines().map(str::trim) {
            if line.starts_with("#[test]") {
                is_test = true;
            } else if let Some(rest) = line.strip_prefix("fn ") {
                if is_test && rest.strip_prefix(name).is_some_and(|rest| rest.starts_with('(')) {
                    return true;
                }
                is_test = false;
            }
        }
        false
    }

    /// Whether a file declares an item with this name.
    fn has_item(&mut self, path: &str, name: &str) -> bool {
        let Some(text) = self.text(path) else { return false };
        text.lines().any(|line| {
            let mut words = line.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
            let declares = |word: &str| matches!(word, "fn" | "struct" | "enum" | "trait" | "const" | "type");
            words.any(declares) && words.next() == Some(name)
        })
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The lines of a list whose number begins with `letter`.
fn rows(list: &str, letter: char) -> Vec<Row> {
    let text = fs::read_to_string(root().join("docs/stage2").join(list)).unwrap();
    let cells = |line: &str| line.split(" | ").map(str::to_string).collect::<Vec<_>>();
    let lines = text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let rows = lines.map(cells).filter(|cells| cells[0].starts_with(letter));
    rows.map(|cells| match <[String; 3]>::try_from(cells) {
        Ok([number, _, here]) => Row { number, here },
        Err(cells) => panic!("{cells:?} is not three cells"),
    })
    .collect()
}

fn numbers(letter: char, count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("{letter}{number}")).collect()
}

fn numbers_of(rows: &[Row]) -> Vec<String> {
    rows.iter().map(|row| row.number.clone()).collect()
}

#[test]
fn every_bug_is_listed_once() {
    assert_eq!(numbers_of(&rows("bugs.md", 'C')), numbers('C', 88));
}

#[test]
fn every_mechanism_is_listed_once() {
    assert_eq!(numbers_of(&rows("mechanisms.md", 'B')), numbers('B', 35));
}

#[test]
fn every_bug_has_a_test_or_a_reason() {
    for row in rows("bugs.md", 'C') {
        let is_tested = !row.names().is_empty();
        assert!(is_tested != row.here.starts_with(NOT_HERE), "{} is neither, or both", row.number);
    }
}

#[test]
fn every_named_test_exists() {
    let mut sources = Sources::default();
    let rows = rows("bugs.md", 'C');
    let names = rows.iter().flat_map(|row| row.names().into_iter().map(|name| (&row.number, name)));
    let missing: Vec<_> = names.filter(|(_, (path, name))| !sources.has_test(path, name)).collect();
    assert!(missing.is_empty(), "there are no such tests: {missing:#?}");
}

#[test]
fn every_named_item_exists() {
    let mut sources = Sources::default();
    let rows = rows("mechanisms.md", 'B');
    let names = rows.iter().flat_map(|row| row.names().into_iter().map(|name| (&row.number, name)));
    let missing: Vec<_> = names.filter(|(_, (path, name))| !sources.has_item(path, name)).collect();
    assert!(missing.is_empty(), "there are no such items: {missing:#?}");
}

#[test]
fn tests_are_told_from_other_functions() {
    let mut sources = Sources::default();
    let this = "stage2/tests/catalogue.rs";
    assert!(sources.has_test(this, "tests_are_told_from_other_functions"));
    assert!(!sources.has_test(this, "tests_are_told"));
    assert!(!sources.has_test(this, "numbers_of"));
    assert!(!sources.has_test("stage2/tests/nowhere.rs", "numbers_of"));
}
