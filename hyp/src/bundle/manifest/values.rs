//! What each kind of value may be, and the sentence for one that may not.
//!
//! Every function takes what the text has and gives the value or a message that says
//! what to write instead; which key takes what is decided in [`Draft`](super::draft::Draft).

use super::{MAX_CMDLINE, MAX_CPUS, MAX_MEMORY, MAX_NAME, MEMORY_GRANULE, Then};
use crate::bundle::error::Shown;
use crate::bundle::toml::Value;
use crate::vcpu_set::MAX_VCPUS;
use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// A name that is fit for the prompt and for console tags.
pub(super) fn vm_name(name: Cow<'_, str>) -> Result<String, String> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if name.is_empty() || name.len() > MAX_NAME || !plain {
        return Err(format!(
            "{} is no name for a VM: take 1 to {MAX_NAME} letters, digits, `-` and `_`",
            Shown(&name)
        ));
    }
    Ok(name.into_owned())
}

/// A number of vCPUs.
pub(super) fn cpu_count(count: i64) -> Result<usize, String> {
    usize::try_from(count)
        .ok()
        .filter(|count| (1..=MAX_VCPUS).contains(count))
        .ok_or_else(|| format!("{count} vCPUs: a VM can have 1 to {MAX_VCPUS}"))
}

/// A number of restarts.
pub(super) fn restart_count(count: i64) -> Result<u32, String> {
    u32::try_from(count).map_err(|_| format!("{count} restarts: give a number from 0 to {}", u32::MAX))
}

/// The physical CPUs in `on`.
pub(super) fn cpu_list(value: Value<'_>) -> Result<Vec<u32>, String> {
    const EXAMPLE: &str = "[0, 1]";
    let Value::Array(elements) = value else {
        return Err(wrong_type("on", &value, "a list of physical CPUs", EXAMPLE));
    };
    if elements.is_empty() || elements.len() > MAX_VCPUS {
        return Err(format!("`on` lists {} CPUs: name 1 to {MAX_VCPUS}, or leave it out", elements.len()));
    }
    elements.iter().map(physical_cpu).collect()
}

/// One element of `on`.
fn physical_cpu(value: &Value<'_>) -> Result<u32, String> {
    let Value::Integer(cpu) = *value else {
        return Err(wrong_type("on", value, "numbers of physical CPUs", "[0, 1]"));
    };
    u32::try_from(cpu)
        .ok()
        .filter(|&cpu| cpu < MAX_CPUS)
        .ok_or_else(|| format!("`on` names physical CPU {cpu}: they are numbered 0 to {}", MAX_CPUS - 1))
}

/// Bytes of RAM.
pub(super) fn memory_size(value: Value<'_>) -> Result<u64, String> {
    const EXAMPLE: &str = "\"512M\"";
    let text = match value {
        Value::String(text) => text,
        Value::Integer(number) => {
            return Err(format!("`memory = {number}` has no unit: write \"{number}M\" for MiB"));
        }
        other => return Err(wrong_type("memory", &other, "a string", EXAMPLE)),
    };
    let shown = Shown(&text);
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).unwrap_or_default();
    let shift = match unit {
        "M" | "MiB" if !number.is_empty() => 20,
        "G" | "GiB" if !number.is_empty() => 30,
        _ => {
            return Err(format!(
                "{shown} is no amount of memory: write a number and M or G, such as {EXAMPLE}"
            ));
        }
    };
    let bytes = number.parse().ok().and_then(|number: u64| number.checked_mul(1 << shift));
    match bytes {
        Some(bytes) if (MEMORY_GRANULE..=MAX_MEMORY).contains(&bytes) => {
            let rounded = bytes.next_multiple_of(MEMORY_GRANULE);
            if rounded == bytes {
                return Ok(bytes);
            }
            Err(format!("{shown} is not a multiple of 2M: write \"{}M\"", rounded >> 20))
        }
        _ => Err(format!("{shown} of memory: a VM can have \"2M\" to \"{}G\"", MAX_MEMORY >> 30)),
    }
}

/// The name of a bundle's member.
pub(super) fn file_name(key: &str, name: Cow<'_, str>) -> Result<String, String> {
    if name.is_empty() || name.len() > 255 || name.chars().any(char::is_control) {
        return Err(format!("{} is no file for `{key}`: give the name it has in the bundle", Shown(&name)));
    }
    Ok(name.into_owned())
}

/// A kernel command line.
pub(super) fn command_line(text: Cow<'_, str>) -> Result<String, String> {
    if text.len() > MAX_CMDLINE {
        return Err(format!("`cmdline` has {} bytes: a kernel takes {MAX_CMDLINE}", text.len()));
    }
    if let Some(control) = text.chars().find(|char| char.is_control()) {
        return Err(format!("`cmdline` holds the control character `{}`: remove it", control.escape_debug()));
    }
    Ok(text.into_owned())
}

/// What follows the end of a VM.
pub(super) fn then(key: &str, value: Value<'_>) -> Result<Then, String> {
    const CHOICES: [&str; 2] = ["stop", "restart"];
    let text = string(key, value, "restart")?;
    match text.as_ref() {
        "stop" => Ok(Then::Stop),
        "restart" => Ok(Then::Restart),
        other => Err(match nearest(other, &CHOICES) {
            Some(choice) => format!("`{key}` can't be {}; did you mean `{choice}`?", Shown(other)),
            None => format!("`{key}` can't be {}: write \"stop\" or \"restart\"", Shown(other)),
        }),
    }
}

/// Any string.
pub(super) fn string<'s>(key: &str, value: Value<'s>, example: &str) -> Result<Cow<'s, str>, String> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(wrong_type(key, &other, "a string", &format!("\"{example}\""))),
    }
}

/// Any integer.
pub(super) fn number(key: &str, value: &Value<'_>, example: &str) -> Result<i64, String> {
    match *value {
        Value::Integer(number) => Ok(number),
        ref other => Err(wrong_type(key, other, "a number", example)),
    }
}

/// `true` or `false`.
pub(super) fn boolean(key: &str, value: &Value<'_>) -> Result<bool, String> {
    match *value {
        Value::Boolean(value) => Ok(value),
        ref other => Err(wrong_type(key, other, "true or false", "true")),
    }
}

/// The message for a value of the wrong type.
fn wrong_type(key: &str, value: &Value<'_>, wanted: &str, example: &str) -> String {
    let found = match value {
        Value::String(text) => format!("the string {}", Shown(text)),
        Value::Integer(number) => format!("the number {number}"),
        Value::Boolean(value) => format!("{value}"),
        Value::Array(_) => String::from("a list"),
        Value::Other(name) => format!("a {name}"),
    };
    format!("`{key}` wants {wanted}, not {found}: write `{key} = {example}`")
}

/// The one of `known` that `word` was probably meant to be: it has the same letters but
/// for two, in any order, and fewer than would turn anything into anything.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    const LONGEST: usize = 20;
    if word.len() > LONGEST {
        return None;
    }
    let (difference, nearest) =
        known.iter().map(|&candidate| (letters_apart(word, candidate), candidate)).min()?;
    (difference <= 2 && difference < nearest.len() / 2).then_some(nearest)
}

/// How many letters one of the words has more often than the other.
fn letters_apart(a: &str, b: &str) -> usize {
    let count = |word: &str, letter| word.bytes().filter(|&byte| byte == letter).count();
    (0..=u8::MAX).map(|letter| count(a, letter).abs_diff(count(b, letter))).sum()
}

/// `words` as a list in a sentence.
pub(super) fn quoted_list(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    quoted.join(", ")
}
