//! A private apt: Debian packages of any architecture, fetched and checked by apt, installed nowhere.
//!
//! Main type: [`PrivateApt`]. It is the machine's own apt with every directory it writes moved into the cache, an empty
//! list of installed packages, and one source: Debian 13 from a mirror the machine already uses (`sources.rs`). So it
//! needs no root, changes nothing on the machine (no foreign architecture, no new source), honours the machine's proxy
//! settings, and lets apt do what it is trusted for: every file is checked against an index signed by Debian's keys.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::sources;
use crate::process;

/// One release for everybody, whatever the machine runs: so all developers have the same QEMU and the same kernel.
pub(crate) const SUITE: &str = "trixie";

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An apt of our own for one architecture.
pub(crate) struct PrivateApt {
    directory: PathBuf,
    architecture: String,
}

impl PrivateApt {
    /// Prepares `directory` and fetches the signed index of packages for `architecture` (Debian's name: `arm64`).
    ///
    /// Fails if the machine has no apt, no Debian keyring, or no mirror that serves Debian with a valid signature.
    pub(crate) fn open(directory: &Path, architecture: &str) -> Result<Self> {
        check_machine()?;
        for part in ["lists/partial", "cache/archives/partial"] {
            let part = directory.join(part);
            fs::create_dir_all(&part).with_context(|| format!("cannot create {}", part.display()))?;
        }
        fs::write(directory.join("status"), "")?;
        let apt = Self { directory: directory.to_owned(), architecture: architecture.to_owned() };
        apt.update_from_first_good_mirror()?;
        Ok(apt)
    }

    /// Downloads `package` and everything it depends on.
    pub(crate) fn download_with_dependencies(&self, package: &str) -> Result<Vec<PathBuf>> {
        let arguments = ["--download-only", "--no-install-recommends", "--yes", "install", package];
        process::quietly(self.command("apt-get").args(arguments))?;
        debs_in(&self.directory.join("cache/archives"))
    }

    /// Downloads just these packages, without what they depend on, into `directory`.
    pub(crate) fn download(&self, packages: &[&str], directory: &Path) -> Result<Vec<PathBuf>> {
        fs::create_dir_all(directory)?;
        process::quietly(self.command("apt-get").arg("download").args(packages).current_dir(directory))?;
        debs_in(directory)
    }

    /// The first dependency of `package` whose name starts with `prefix`: how a metapackage names its current version.
    pub(crate) fn dependency(&self, package: &str, prefix: &str) -> Result<String> {
        let listing = process::capture(self.command("apt-cache").args(["depends", package]))?;
        let names = listing.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        let name = names.map(str::trim).find(|name| name.starts_with(prefix));
        name.map(str::to_owned).with_context(|| format!("{package} of Debian {SUITE} names no {prefix}..."))
    }

    /// Signatures are what decides between the candidates; an unsigned or foreign mirror just fails here.
    fn update_from_first_good_mirror(&self) -> Result<()> {
        let mut mirrors: Vec<String> = std::env::var("ENTRESOL_DEBIAN_MIRROR").into_iter().collect();
        mirrors.extend(sources::candidates(Path::new("/etc/apt")));
        let mut failures = Vec::new();
        for mirror in mirrors {
            let source = format!("deb [signed-by={KEYRING}] {mirror} {SUITE} main\n");
            fs::write(self.directory.join("sources.list"), source)?;
            match process::quietly(self.command("apt-get").args(["--error-on=any", "update"])) {
                Ok(()) => return Ok(()),
                Err(error) => failures.push(format!("{mirror}: {error:#}")),
            }
        }
        if failures.is_empty() {
            bail!(
                "this machine's apt sources name no Debian mirror; set ENTRESOL_DEBIAN_MIRROR to the address of one"
            );
        }
        bail!("no mirror of this machine's apt sources serves Debian {SUITE}:\n{}", failures.join("\n"))
    }

    fn command(&self, program: &str) -> Command {
        let directory = self.directory.display();
        let mut command = Command::new(program);
        // Message texts are parsed, so they must not be translated.
        command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
        let options = [
            format!("Dir::State={directory}"),
            format!("Dir::State::status={directory}/status"),
            format!("Dir::State::lists={directory}/lists"),
            format!("Dir::Cache={directory}/cache"),
            format!("Dir::Etc::sourcelist={directory}/sources.list"),
            "Dir::Etc::sourceparts=/dev/null".into(),
            "Dir::Etc::preferences=/dev/null".into(),
            "Dir::Etc::preferencesparts=/dev/null".into(),
            format!("APT::Architecture={}", self.architecture),
            format!("APT::Architectures={}", self.architecture),
            // All of it runs as the calling user on files of the calling user.
            "APT::Sandbox::User=".into(),
            "Debug::NoLocking=1".into(),
            // Containers often set this to delete what was just downloaded.
            "APT::Keep-Downloaded-Packages=true".into(),
            "Acquire::Languages=none".into(),
            "Acquire::Retries=3".into(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".into(),
            "Acquire::IndexTargets::deb::CNF::DefaultEnabled=false".into(),
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false".into(),
        ];
        for option in options {
            command.arg("-o").arg(option);
        }
        command
    }
}

/// Unpacks a package's files below `directory`.
pub(crate) fn unpack(package: &Path, directory: &Path) -> Result<()> {
    process::quietly(Command::new("dpkg-deb").arg("--extract").arg(package).arg(directory))
}

fn check_machine() -> Result<()> {
    for program in ["apt-get", "apt-cache", "dpkg-deb"] {
        if process::find(program).is_none() {
            bail!(
                "`{program}` is missing: downloads need Debian 12, Debian 13 or a relative of theirs. \
                 Elsewhere, install QEMU 10.0.13 or newer and name it in ENTRESOL_QEMU."
            );
        }
    }
    if !Path::new(KEYRING).exists() {
        bail!("{KEYRING} is missing: install the package debian-archive-keyring");
    }
    Ok(())
}

fn debs_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let mut debs: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|end| end == "deb")).collect();
    debs.sort();
    Ok(debs)
}
