//! One VM while its keys come in.
//!
//! [`KEYS`] is the list of keys and [`Draft::set`] says what each one takes. A [`Draft`]
//! goes on after a mistake and notes it, so that one look at its problems is enough to
//! correct them all.

use super::values::{
    boolean, command_line, cpu_count, cpu_list, file_name, memory_size, nearest, number, quoted_list,
    restart_count, string, then, vm_name,
};
use super::{DEFAULT_MAX_RESTARTS, Lines, Policy, Then, VmConfig};
use crate::bundle::error::{ConfigError, Problem, Shown, note};
use crate::bundle::toml::Pair;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Every key a VM can have.
pub(super) const KEYS: [&str; 12] = [
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

/// A VM while its values come in.
pub(super) struct Draft {
    pub(super) name: Option<String>,
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
    pub(super) problems: Vec<Problem>,
}

impl Draft {
    pub(super) fn new(line: u32, problems: Vec<Problem>) -> Self {
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
    pub(super) fn add(&mut self, pair: Pair<'_>) {
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
    pub(super) fn finish(mut self) -> Result<VmConfig, ConfigError> {
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
