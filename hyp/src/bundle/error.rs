//! What can be wrong with a bundle, in words that name the place, the cause and the fix.
//!
//! By reach: [`BundleError`] leaves no VM at all; [`Problem`]s stand in `vms.toml`, and
//! those inside one VM make its [`ConfigError`]; a [`Refusal`] is a VM that is well
//! described and still can't run here. None of them stops another VM.

use crate::bundle::cpio::Damage;
use crate::guest::image::ImageError;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// A piece of someone else's text for a message: in backticks, on one line, and cut
/// after 60 characters, so that no text can make its own error message too long to keep.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown<'a>(pub &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 60;
        f.write_str("`")?;
        let mut chars = self.0.chars();
        for char in chars.by_ref().take(LONGEST) {
            match char {
                '"' | '\'' => fmt::Write::write_char(f, char)?,
                _ => write!(f, "{}", char.escape_debug())?,
            }
        }
        f.write_str(if chars.next().is_some() { "...`" } else { "`" })
    }
}

/// Problems kept per section and per VM; one mistake can cause many.
pub(crate) const MAX_PROBLEMS: usize = 8;

/// Adds to `problems` what still fits.
pub(crate) fn note(problems: &mut Vec<Problem>, line: u32, message: String) {
    if problems.len() < MAX_PROBLEMS {
        problems.push(Problem { line, message });
    }
}

/// Why there is no bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BundleError {
    /// The initrd has no bytes.
    Empty,
    /// It is no cpio archive, or stops being one before `vms.toml`.
    Damaged(Damage),
    /// It is an archive of something else.
    NoManifest {
        /// The first few members' names.
        members: Vec<String>,
    },
    /// `vms.toml` is a link or a directory.
    ManifestIsNoFile,
    /// `vms.toml` is not text.
    ManifestNotUtf8 {
        /// How many bytes of it are.
        valid_up_to: usize,
    },
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => {
                f.write_str("the initrd is empty: pass the file that `cargo xtask pack vms.toml` writes")
            }
            Self::Damaged(damage) => write!(f, "the initrd is no usable bundle: {damage}"),
            Self::NoManifest { members } => {
                f.write_str("the initrd is a cpio archive without `vms.toml` (it holds ")?;
                for (index, name) in members.iter().enumerate() {
                    write!(f, "{}{}", if index == 0 { "" } else { ", " }, Shown(name))?;
                }
                f.write_str(if members.is_empty() { "nothing" } else { "" })?;
                f.write_str("): pass the file that `cargo xtask pack vms.toml` writes")
            }
            Self::ManifestIsNoFile => f.write_str(
                "`vms.toml` in the bundle is a link or directory: pack the file itself (`cpio -L`)",
            ),
            Self::ManifestNotUtf8 { valid_up_to } => {
                write!(f, "`vms.toml` is not UTF-8 text from byte {valid_up_to} on: save it as UTF-8")
            }
        }
    }
}

impl core::error::Error for BundleError {}

/// One thing wrong with `vms.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line, counted from 1.
    pub line: u32,
    /// What is wrong there and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vms.toml line {}: {}", self.line, self.message)
    }
}

impl core::error::Error for Problem {}

/// Everything wrong with the description of one VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The VM's name, if that much is known.
    pub name: Option<String>,
    /// The line of its `[[vm]]`.
    pub line: u32,
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    /// One line per problem.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl core::error::Error for ConfigError {}

/// Why a well-described VM can't run on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The VM's name; empty if not even that could be read.
    pub name: String,
    /// The line of `vms.toml` to look at.
    pub line: u32,
    /// The reason.
    pub cause: Cause,
}

/// The reason for a [`Refusal`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its description is wrong.
    Config(ConfigError),
    /// A file it names is not in the bundle.
    Missing {
        /// Which file.
        role: Role,
        /// Its name.
        file: String,
        /// The archive's damage, if that may be why.
        damage: Option<Damage>,
    },
    /// A file it names is a link or a directory in the bundle.
    NoFile {
        /// Which file.
        role: Role,
        /// Its name.
        file: String,
    },
    /// The files are there and can't be loaded.
    Image {
        /// The kernel's name.
        file: String,
        /// What is wrong.
        error: ImageError,
    },
    /// `on` names a physical CPU that is absent or failed to start.
    NoSuchCpu {
        /// The CPU in the text.
        cpu: u32,
        /// The CPUs there are, one bit each.
        usable: u16,
    },
    /// The machine has no CPU to run guests on.
    NoCpus,
    /// Not enough memory.
    Memory {
        /// What it wants, in MiB.
        wanted_mib: u64,
        /// What is left of it after the VMs before, in MiB.
        left_mib: u64,
        /// What the machine has for guests, in MiB.
        total_mib: u64,
    },
}

/// What a VM uses a file for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The program it starts with.
    Kernel,
    /// The initial RAM disk.
    Initrd,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A `ConfigError` brings its own lines.
        if let Cause::Config(error) = &self.cause {
            return write!(f, "{error}");
        }
        write!(f, "vms.toml line {}: VM `{}`: {}", self.line, self.name, self.cause)
    }
}

impl core::error::Error for Refusal {}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => write!(f, "{error}"),
            Self::Missing { role, file, damage: None } => {
                write!(f, "its {role} `{file}` is not in the bundle: add that file, or correct the name")
            }
            Self::Missing { role, file, damage: Some(damage) } => {
                write!(f, "its {role} `{file}` is not in the readable part of the bundle: {damage}")
            }
            Self::NoFile { role, file } => write!(
                f,
                "its {role} `{file}` is a link or directory in the bundle: pack the file itself (`cpio -L`)"
            ),
            Self::Image { file, error } => write!(f, "`{file}`: {error}"),
            Self::NoSuchCpu { cpu, usable } => {
                write!(f, "`on` names physical CPU {cpu}, this machine has ")?;
                for (index, cpu) in (0..16).filter(|cpu| usable >> cpu & 1 != 0).enumerate() {
                    write!(f, "{}{cpu}", if index == 0 { "" } else { ", " })?;
                }
                f.write_str(": name one of those, or leave `on` out")
            }
            Self::NoCpus => f.write_str("no physical CPU is free for guests"),
            Self::Memory { wanted_mib, left_mib, total_mib } => write!(
                f,
                "wants {wanted_mib} MiB of memory, {left_mib} MiB of {total_mib} MiB are left: lower `memory` here \
                 or in the VMs above, or give the machine more"
            ),
        }
    }
}
