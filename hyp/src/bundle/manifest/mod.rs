//! The meaning of `vms.toml`: its sections to one [`VmConfig`] per VM.
//!
//! `draft` has the list of keys and what each one takes, `values` what each value may
//! be. Every value is checked as far as the text alone allows. What needs the images or
//! the machine is decided in [`admit`](crate::bundle::admit).
//!
//! A VM with problems becomes a [`ConfigError`] at its place in the list, with all of its
//! problems, so that one look is enough to correct them.

mod draft;
mod values;

use crate::bundle::error::{ConfigError, Problem, Shown, note};
use crate::bundle::toml::{self, Section};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use draft::Draft;

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
    /// How many vCPUs, 1 to [`MAX_VCPUS`](crate::vcpu_set::MAX_VCPUS).
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

#[cfg(test)]
mod tests;
