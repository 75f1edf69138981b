//! The table of mutants, read and held against the source.
//!
//! Main type: [`Mutant`]; main function: [`read`].

use std::collections::HashMap;
use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use toml::{Table, Value};

use crate::layout::Layout;

/// A small change that makes the crate wrong.
pub(super) struct Mutant {
    /// Its place in the table.
    pub(super) number: usize,
    /// What it takes away.
    pub(super) name: String,
    /// The file, below `stage2/src`.
    pub(super) file: String,
    /// What stands there now.
    pub(super) find: String,
    /// What stands in its place in the copy. [`Mutant::CHOSEN`] in it is whether this mutant is meant.
    pub(super) replacement: String,
    /// Who should notice.
    pub(super) expected: Expected,
}

/// What should become of a mutant.
pub(super) enum Expected {
    /// A test whose name contains one of these fails.
    Host(Vec<String>),
    /// A model of loom whose name contains one of these fails.
    Loom(Vec<String>),
    /// Nobody can tell it from the original, because of this.
    Harmless(String),
}

impl Mutant {
    /// In a replacement: whether this mutant is meant.
    pub(super) const CHOSEN: &str = "MUTANT";

    fn parse((number, entry): (usize, &Value)) -> Result<Self> {
        let entry = entry.as_table().context("not a table")?;
        let name = text(entry, "name")?;
        let parsed = || -> Result<Self> {
            let find = text(entry, "find")?;
            let replacement = match (entry.get("with"), entry.get("as")) {
                // `if` needs no braces around a statement, and is one itself.
                (Some(_), None) => {
                    format!("if {} {{ {} }} else {{ {find} }}", Self::CHOSEN, text(entry, "with")?)
                }
                (None, Some(_)) => text(entry, "as")?,
                _ => bail!("it needs either `with` or `as`"),
            };
            let lists = (entry.get("caught-by"), entry.get("loom"), entry.get("harmless"));
            let expected = match lists {
                (Some(tests), None, None) => Expected::Host(texts(tests)?),
                (None, Some(models), None) => Expected::Loom(texts(models)?),
                (None, None, Some(_)) => Expected::Harmless(text(entry, "harmless")?),
                _ => bail!("it needs one of `caught-by`, `loom` and `harmless`"),
            };
            Ok(Self { number, name: name.clone(), file: text(entry, "file")?, find, replacement, expected })
        };
        parsed().with_context(|| format!("mutant `{name}`"))
    }
}

/// All mutants; each has its place in the source.
pub(super) fn read(layout: &Layout) -> Result<Vec<Mutant>> {
    let path = layout.root().join("stage2/tests/mutants.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mutants = parse(&text).with_context(|| format!("in {}", path.display()))?;
    let mut sources = HashMap::new();
    for mutant in &mutants {
        if !sources.contains_key(&mutant.file) {
            let path = layout.root().join("stage2/src").join(&mutant.file);
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            sources.insert(mutant.file.clone(), text);
        }
        let count = sources.get(&mutant.file).map_or(0, |text| text.matches(&mutant.find).count());
        ensure!(
            count == 1,
            "mutant `{}`: `{}` is {count} times in {}",
            mutant.name,
            mutant.find,
            mutant.file
        );
    }
    Ok(mutants)
}

fn parse(text: &str) -> Result<Vec<Mutant>> {
    let table: Table = text.parse()?;
    let list = table.get("mutant").and_then(Value::as_array).context("there is no [[mutant]]")?;
    list.iter().enumerate().map(Mutant::parse).collect()
}

fn text(entry: &Table, key: &str) -> Result<String> {
    let value = entry.get(key).with_context(|| format!("there is no `{key}`"))?;
    Ok(value.as_str().with_context(|| format!("`{key}` is not a text"))?.to_owned())
}

fn texts(value: &Value) -> Result<Vec<String>> {
    let list = value.as_array().context("not a list")?;
    ensure!(!list.is_empty(), "an empty list");
    list.iter().map(|item| Ok(item.as_str().context("not a text")?.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::{Expected, parse};

    const BARRIER: &str = "[[mutant]]\nname = \"no barrier\"\nfile = \"a.rs\"\nfind = \"barrier();\"\n";

    #[test]
    fn replacement_keeps_the_original_beside_it() {
        let mutants = parse(&format!("{BARRIER}with = \"\"\ncaught-by = [\"one\"]\n")).expect("well formed");
        assert_eq!(mutants[0].replacement, "if MUTANT {  } else { barrier(); }");
        assert!(matches!(&mutants[0].expected, Expected::Host(tests) if tests[..] == ["one"]));
    }

    #[test]
    fn mutant_that_nobody_should_catch_is_refused() {
        assert!(parse(&format!("{BARRIER}with = \"\"\n")).is_err());
        assert!(parse(&format!("{BARRIER}with = \"\"\ncaught-by = []\n")).is_err());
    }

    #[test]
    fn mutant_is_spelt_in_one_way() {
        assert!(parse(&format!("{BARRIER}with = \"\"\nas = \"\"\nloom = [\"one\"]\n")).is_err());
        assert!(parse(&format!("{BARRIER}loom = [\"one\"]\n")).is_err());
    }
}
