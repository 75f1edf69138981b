//! The meaning of `vms.toml`: its sections to one [`VmConfig`] per VM.
//!
//! [`KEYS`] is the list of keys, and [`Draft::set`] says what each one takes; between
//! them, `docs/bundle.md` and the tests there is no third place. Every value is checked
//! as far as the text alone allows. What needs the images or the machine is decided in
//! [`admit`](crate::bundle::admit).
//!
//! A VM with problems becomes a [`ConfigError`] at its place in the list, with all of its
//! problems, so that one look is enough to correct them.

use crate::bundle::error::{ConfigError, Problem, Shown, note};
use crate::bundle::toml::{self, Pair, Section, Value};
use crate::vcpu_set::MAX_VCPUS;
use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// VMs in one bundle.
pub const MAX_VMS: usize = 16;
/// Physical CPUs that `on` can name.
pub const MAX_CPUS: u32 = 16;
/// Bytes in a VM's name; it is printed in front of each line of its console.
pub const MAX_NAME: usize = 31;
/// Bytes in a kernel command line: Linux's COMMAND_LINE_SIZE on arm64, less its NUL.
pub const MAX_CMDLINE: usize = 2047;
/// A VM's memory is a multiple of this, so that it can be mapped in 2 MiB blocks.
pub const MEMORY_GRANULE: u64 = 2 << 20;
/// The most memory of a VM: as on QEMU virt, RAM ends below 256 GiB.
pub const MAX_MEMORY: u64 = 255 << 30;
/// Restarts in a row when `max-restarts` doesn't say.
pub const DEFAULT_MAX_RESTARTS: u32 = 5;

/// The section that describes a VM.
const VM: &str = "vm";
/// Every key a VM can have.
const KEYS: [&str; 12] = [
    "name",
    "cpus",
    "on",
    "memory",
    "kernel",
    "initrd",
    "cmdline",
    "autostart",
    "on-poweroff",
    "on-reboot",
    "on-crash",
    "max-restarts",
];

/// `vms.toml`, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The VMs in the order of the text.
    pub vms: Vec<Result<VmConfig, ConfigError>>,
    /// What is wrong outside of any VM.
    pub problems: Vec<Problem>,
}

/// One VM as the user wants it. Names are checked, files and machine are not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmConfig {
    /// Unique; letters, digits, `-` and `_`.
    pub name: String,
    /// How many vCPUs, 1 to [`MAX_VCPUS`].
    pub cpus: usize,
    /// The physical CPU of each vCPU (as many as `cpus`), or `None` to have them spread.
    pub on: Option<Vec<u32>>,
    /// Bytes of RAM, a multiple of [`MEMORY_GRANULE`].
    pub memory: u64,
    /// Name of the kernel's file in the bundle.
    pub kernel: String,
    /// Name of the initial RAM disk's file in the bundle.
    pub initrd: Option<String>,
    /// The kernel command line, `/chosen/bootargs`.
    pub cmdline: String,
    /// Whether it starts with the machine, or waits for `start` at the prompt.
    pub autostart: bool,
    /// What happens when it ends.
    pub policy: Policy,
    /// Where to point at in `vms.toml`.
    pub lines: Lines,
}

/// What to do when a VM ends, by the way it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// After PSCI SYSTEM_OFF.
    pub on_poweroff: Then,
    /// After PSCI SYSTEM_RESET or SYSTEM_RESET2.
    pub on_reboot: Then,
    /// After the hypervisor stopped it for something it can't go on from.
    pub on_crash: Then,
    /// How often in a row a VM is restarted after a poweroff or a crash before it stays
    /// stopped. A reboot is the guest's own wish and isn't counted.
    pub max_restarts: u32,
}

/// What happens to a VM that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It stays stopped until someone starts it.
    Stop,
    /// It starts again from its images.
    Restart,
}

/// The lines of a VM's values, for what turns out to be wrong with them later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lines {
    /// Its `[[vm]]`; the values below stand there too where the text has none.
    pub vm: u32,
    /// `on`.
    pub on: u32,
    /// `memory`.
    pub memory: u32,
    /// `kernel`.
    pub kernel: u32,
    /// `initrd`.
    pub initrd: u32,
}

impl Manifest {
    /// Reads the text of `vms.toml`.
    pub fn parse(text: &str) -> Self {
        let mut manifest = Self::default();
        for section in toml::parse(text) {
            match section.name.as_deref() {
                Some(VM) => manifest.add_vm(section),
                Some(_) => manifest.reject_section(section),
                None => manifest.reject_head(section),
            }
        }
        if manifest.vms.is_empty() && manifest.problems.is_empty() {
            note(&mut manifest.problems, 1, String::from("no VM in it: start each one with a line `[[vm]]`"));
        }
        manifest
    }

    fn add_vm(&mut self, section: Section<'_>) {
        let line = section.line;
        if self.vms.len() >= MAX_VMS {
            let message = format!("more than {MAX_VMS} VMs: this one and those below are left out");
            if self.problems.last().is_none_or(|last| last.message != message) {
                note(&mut self.problems, line, message);
            }
            return;
        }
        let mut draft = Draft::new(line, section.problems);
        for pair in section.pairs {
            draft.add(pair);
        }
        if let Some(first) = draft.name.as_deref().and_then(|name| self.line_of_vm(name)) {
            let name = draft.name.as_deref().unwrap_or_default();
            let message =
                format!("a second VM called `{name}`, the first is on line {first}: give it another name");
            note(&mut draft.problems, line, message);
        }
        self.vms.push(draft.finish());
    }

    /// The line of the VM called `name`, good or bad.
    fn line_of_vm(&self, name: &str) -> Option<u32> {
        self.vms.iter().find_map(|vm| match vm {
            Ok(config) if config.name == name => Some(config.lines.vm),
            Err(error) if error.name.as_deref() == Some(name) => Some(error.line),
            _ => None,
        })
    }

    fn reject_section(&mut self, section: Section<'_>) {
        let name = section.name.unwrap_or_default();
        let message = format!("unknown section {}: each VM starts with `[[vm]]`", Shown(&name));
        note(&mut self.problems, section.line, message);
    }

    /// Problems and keys in front of the first header.
    fn reject_head(&mut self, section: Section<'_>) {
        for Problem { line, message } in section.problems {
            note(&mut self.problems, line, message);
        }
        for pair in section.pairs {
            let message = format!("{} stands before the first `[[vm]]`: move it below", Shown(&pair.key));
            note(&mut self.problems, pair.line, message);
        }
    }
}

/// A VM while its values come in.
struct Draft {
    name: Option<String>,
    cpus: Option<usize>,
    on: Option<Vec<u32>>,
    memory: Option<u64>,
    kernel: Option<String>,
    initrd: Option<String>,
    cmdline: Option<String>,
    autostart: Option<bool>,
    policy: Policy,
    lines: Lines,
    /// The line of each of [`KEYS`] met so far.
    seen: [Option<u32>; KEYS.len()],
    problems: Vec<Problem>,
}

impl Draft {
    fn new(line: u32, problems: Vec<Problem>) -> Self {
        Self {
            name: None,
            cpus: None,
            on: None,
            memory: None,
            kernel: None,
            initrd: None,
            cmdline: None,
            autostart: None,
            policy: Policy {
                on_poweroff: Then::Stop,
                on_reboot: Then::Restart,
                on_crash: Then::Stop,
                max_restarts: DEFAULT_MAX_RESTARTS,
            },
            lines: Lines { vm: line, on: line, memory: line, kernel: line, initrd: line },
            seen: [None; KEYS.len()],
            problems,
        }
    }

    /// Takes one `key = value`, or notes what is wrong with it.
    fn add(&mut self, pair: Pair<'_>) {
        let line = pair.line;
        let result = self.first_time(&pair).and_then(|()| self.set(pair));
        if let Err(message) = result {
            note(&mut self.problems, line, message);
        }
    }

    /// Checks that the key exists and is new to this VM.
    fn first_time(&mut self, pair: &Pair<'_>) -> Result<(), String> {
        let key = pair.key.as_ref();
        let seen = KEYS.iter().position(|&known| known == key).and_then(|index| self.seen.get_mut(index));
        let Some(seen) = seen else {
            return Err(unknown_key(key));
        };
        match seen.replace(pair.line) {
            None => Ok(()),
            Some(first) => Err(format!("`{key}` is given twice, first on line {first}: keep one of them")),
        }
    }

    /// What each key takes.
    fn set(&mut self, pair: Pair<'_>) -> Result<(), String> {
        let Pair { line, key, value } = pair;
        let key = key.as_ref();
        match key {
            "name" => self.name = Some(vm_name(string(key, value, "debian")?)?),
            "cpus" => self.cpus = Some(cpu_count(number(key, &value, "2")?)?),
            "on" => {
                self.lines.on = line;
                self.on = Some(cpu_list(value)?);
            }
            "memory" => {
                self.lines.memory = line;
                self.memory = Some(memory_size(value)?);
            }
            "kernel" => {
                self.lines.kernel = line;
                self.kernel = Some(file_name(key, string(key, value, "vmlinuz")?)?);
            }
            "initrd" => {
                self.lines.initrd = line;
                self.initrd = Some(file_name(key, string(key, value, "initrd.img")?)?);
            }
            "cmdline" => self.cmdline = Some(command_line(string(key, value, "console=ttyAMA0")?)?),
            "autostart" => self.autostart = Some(boolean(key, &value)?),
            "on-poweroff" => self.policy.on_poweroff = then(key, value)?,
            "on-reboot" => self.policy.on_reboot = then(key, value)?,
            "on-crash" => self.policy.on_crash = then(key, value)?,
            "max-restarts" => self.policy.max_restarts = restart_count(number(key, &value, "5")?)?,
            // `KEYS` and this list are held together by a test.
            _ => return Err(unknown_key(key)),
        }
        Ok(())
    }

    /// The configuration, if nothing is wrong or missing.
    fn finish(mut self) -> Result<VmConfig, ConfigError> {
        let name = self.required("name", self.name.clone(), "name = \"debian\"");
        let memory = self.required("memory", self.memory, "memory = \"512M\"");
        let kernel = self.required("kernel", self.kernel.clone(), "kernel = \"vmlinuz\"");
        let cpus = self.consistent_cpus();
        let (Some(name), Some(memory), Some(kernel), true) = (name, memory, kernel, self.problems.is_empty())
        else {
            return Err(ConfigError { name: self.name, line: self.lines.vm, problems: self.problems });
        };
        Ok(VmConfig {
            name,
            cpus,
            on: self.on,
            memory,
            kernel,
            initrd: self.initrd,
            cmdline: self.cmdline.unwrap_or_default(),
            autostart: self.autostart.unwrap_or(true),
            policy: self.policy,
            lines: self.lines,
        })
    }

    /// `value`; a problem if the text never had one. A wrong value was reported already.
    fn required<T>(&mut self, key: &str, value: Option<T>, example: &str) -> Option<T> {
        let given = KEYS.iter().zip(self.seen).any(|(&known, seen)| known == key && seen.is_some());
        if !given {
            let message = format!("this VM has no `{key}`: add a line such as `{example}`");
            note(&mut self.problems, self.lines.vm, message);
        }
        value
    }

    /// The number of vCPUs, from `cpus`, else from the length of `on`, else 1.
    fn consistent_cpus(&mut self) -> usize {
        let placed = self.on.as_ref().map(Vec::len);
        if let (Some(cpus), Some(placed)) = (self.cpus, placed)
            && cpus != placed
        {
            let message =
                format!("`on` lists {placed} CPUs for {cpus} vCPUs: name one physical CPU for each vCPU");
            note(&mut self.problems, self.lines.on, message);
        }
        self.cpus.or(placed).unwrap_or(1)
    }
}

fn unknown_key(key: &str) -> String {
    let shown = Shown(key);
    match nearest(key, &KEYS) {
        Some(known) => format!("unknown key {shown}; did you mean `{known}`?"),
        None => format!("unknown key {shown}; a VM has {}", quoted_list(&KEYS)),
    }
}

fn vm_name(name: Cow<'_, str>) -> Result<String, String> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if name.is_empty() || name.len() > MAX_NAME || !plain {
        return Err(format!(
            "{} is no name for a VM: take 1 to {MAX_NAME} letters, digits, `-` and `_`",
            Shown(&name)
        ));
    }
    Ok(name.into_owned())
}

fn cpu_count(count: i64) -> Result<usize, String> {
    usize::try_from(count)
        .ok()
        .filter(|count| (1..=MAX_VCPUS).contains(count))
        .ok_or_else(|| format!("{count} vCPUs: a VM can have 1 to {MAX_VCPUS}"))
}

fn restart_count(count: i64) -> Result<u32, String> {
    u32::try_from(count).map_err(|_| format!("{count} restarts: give a number from 0 to {}", u32::MAX))
}

fn cpu_list(value: Value<'_>) -> Result<Vec<u32>, String> {
    const EXAMPLE: &str = "[0, 1]";
    let Value::Array(elements) = value else {
        return Err(wrong_type("on", &value, "a list of physical CPUs", EXAMPLE));
    };
    if elements.is_empty() || elements.len() > MAX_VCPUS {
        return Err(format!("`on` lists {} CPUs: name 1 to {MAX_VCPUS}, or leave it out", elements.len()));
    }
    elements.iter().map(physical_cpu).collect()
}

fn physical_cpu(value: &Value<'_>) -> Result<u32, String> {
    let Value::Integer(cpu) = *value else {
        return Err(wrong_type("on", value, "numbers of physical CPUs", "[0, 1]"));
    };
    u32::try_from(cpu)
        .ok()
        .filter(|&cpu| cpu < MAX_CPUS)
        .ok_or_else(|| format!("`on` names physical CPU {cpu}: they are numbered 0 to {}", MAX_CPUS - 1))
}

fn memory_size(value: Value<'_>) -> Result<u64, String> {
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

fn file_name(key: &str, name: Cow<'_, str>) -> Result<String, String> {
    if name.is_empty() || name.len() > 255 || name.chars().any(char::is_control) {
        return Err(format!("{} is no file for `{key}`: give the name it has in the bundle", Shown(&name)));
    }
    Ok(name.into_owned())
}

fn command_line(text: Cow<'_, str>) -> Result<String, String> {
    if text.len() > MAX_CMDLINE {
        return Err(format!("`cmdline` has {} bytes: a kernel takes {MAX_CMDLINE}", text.len()));
    }
    if let Some(control) = text.chars().find(|char| char.is_control()) {
        return Err(format!("`cmdline` holds the control character `{}`: remove it", control.escape_debug()));
    }
    Ok(text.into_owned())
}

fn then(key: &str, value: Value<'_>) -> Result<Then, String> {
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

fn string<'s>(key: &str, value: Value<'s>, example: &str) -> Result<Cow<'s, str>, String> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(wrong_type(key, &other, "a string", &format!("\"{example}\""))),
    }
}

fn number(key: &str, value: &Value<'_>, example: &str) -> Result<i64, String> {
    match *value {
        Value::Integer(number) => Ok(number),
        ref other => Err(wrong_type(key, other, "a number", example)),
    }
}

fn boolean(key: &str, value: &Value<'_>) -> Result<bool, String> {
    match *value {
        Value::Boolean(value) => Ok(value),
        ref other => Err(wrong_type(key, other, "true or false", "true")),
    }
}

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

/// The one of `known` that `word` was probably meant to be: at most two edits away, and
/// fewer than would turn anything into anything.
fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let (distance, nearest) =
        known.iter().map(|&candidate| (edit_distance(word, candidate), candidate)).min()?;
    (distance <= 2 && distance < nearest.len() / 2).then_some(nearest)
}

/// Insertions, removals, replacements and swaps of neighbours that turn `a` into `b`
/// (optimal string alignment). Words longer than any key are simply far away.
fn edit_distance(a: &str, b: &str) -> usize {
    const LONGEST: usize = 16;
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() > LONGEST || b.len() > LONGEST {
        return usize::MAX;
    }
    // `rows[i][j]` is the distance between the first i bytes of `a` and j bytes of `b`.
    let mut rows = [[0; LONGEST + 1]; LONGEST + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let same = a[i - 1] == b[j - 1];
                let mut least = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                least = least.min(rows[i - 1][j - 1] + usize::from(!same));
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    least = least.min(rows[i - 2][j - 2] + 1);
                }
                least
            };
        }
    }
    rows[a.len()][b.len()]
}

fn quoted_list(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests;
