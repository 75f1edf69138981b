//! Making a bundle: the text of `vms.toml` and the files it names to one archive.
//!
//! `cargo xtask pack` calls [`build`] with a function that reads files; nothing here knows
//! of a file system. Only text without any problem is packed, since the person who can
//! correct it is right there. Each file is read and stored once, however many VMs use it,
//! under the name that `vms.toml` gives it.

use crate::bundle::MANIFEST_NAME;
use crate::bundle::cpio::{TooLong, Writer, plain_name};
use crate::bundle::error::{ConfigError, Problem, Role};
use crate::bundle::manifest::{Manifest, VmConfig};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Why there is no archive. `E` is the error of the function that reads files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PackError<E> {
    /// `vms.toml` has problems; all of them, at least one.
    Manifest {
        /// Those outside of any VM.
        problems: Vec<Problem>,
        /// Those in VMs.
        vms: Vec<ConfigError>,
    },
    /// A file could not be read.
    Read {
        /// Its name in `vms.toml`.
        file: String,
        /// The line that names it.
        line: u32,
        /// Why.
        error: E,
    },
    /// A file is too long for the format.
    TooLong {
        /// Its name in `vms.toml`.
        file: String,
        /// The line that names it.
        line: u32,
    },
    /// A file has the name of `vms.toml` itself.
    NameTaken {
        /// The line that names it.
        line: u32,
    },
}

impl<E: fmt::Display> fmt::Display for PackError<E> {
    /// One line per problem.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest { problems, vms } => {
                let mut separator = "";
                for problem in problems.iter().chain(vms.iter().flat_map(|vm| &vm.problems)) {
                    write!(f, "{separator}{problem}")?;
                    separator = "\n";
                }
                Ok(())
            }
            Self::Read { file, line, error } => {
                write!(f, "vms.toml line {line}: can't read `{file}`: {error}")
            }
            Self::TooLong { file, line } => {
                write!(f, "vms.toml line {line}: `{file}` is 4 GiB or longer, more than a bundle can hold")
            }
            Self::NameTaken { line } => {
                write!(
                    f,
                    "vms.toml line {line}: `{MANIFEST_NAME}` is the name of this text, give the image another"
                )
            }
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for PackError<E> {}

/// Packs `text` and the files it names, each read with `read`.
///
/// `read` is told what the file is for, so that it can decompress a kernel: one for which
/// [`Format::detect`](crate::guest::image::Format::detect) says that it is compressed
/// wouldn't run, while a compressed initrd is as it should be.
///
/// # Errors
///
/// The text has problems, or a file can't be read or stored.
pub fn build<E>(
    text: &str,
    mut read: impl FnMut(Role, &str) -> Result<Vec<u8>, E>,
) -> Result<Vec<u8>, PackError<E>> {
    let vms = all_good(Manifest::parse(text))?;
    let mut writer = Writer::new();
    add(&mut writer, MANIFEST_NAME, 1, text.as_bytes())?;
    let mut packed: Vec<&str> = Vec::new();
    for (role, file, line) in vms.iter().flat_map(files) {
        if plain_name(file) == MANIFEST_NAME {
            return Err(PackError::NameTaken { line });
        }
        if packed.contains(&plain_name(file)) {
            continue;
        }
        packed.push(plain_name(file));
        let data =
            read(role, file).map_err(|error| PackError::Read { file: String::from(file), line, error })?;
        add(&mut writer, plain_name(file), line, &data)?;
    }
    Ok(writer.finish())
}

/// The VMs, if nothing at all is wrong.
fn all_good<E>(manifest: Manifest) -> Result<Vec<VmConfig>, PackError<E>> {
    let Manifest { vms, problems } = manifest;
    let (good, bad): (Vec<_>, Vec<_>) = vms.into_iter().partition(Result::is_ok);
    if problems.is_empty() && bad.is_empty() {
        return Ok(good.into_iter().flatten().collect());
    }
    Err(PackError::Manifest { problems, vms: bad.into_iter().filter_map(Result::err).collect() })
}

/// The files a VM names.
fn files(vm: &VmConfig) -> impl Iterator<Item = (Role, &str, u32)> {
    let kernel = (Role::Kernel, vm.kernel.as_str(), vm.lines.kernel);
    let initrd = vm.initrd.as_deref().map(|initrd| (Role::Initrd, initrd, vm.lines.initrd));
    core::iter::once(kernel).chain(initrd)
}

fn add<E>(writer: &mut Writer, file: &str, line: u32, data: &[u8]) -> Result<(), PackError<E>> {
    writer.add(file, data).map_err(|TooLong| PackError::TooLong { file: String::from(file), line })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Bundle;

    const TEXT: &str = "[[vm]]\nname = \"a\"\nmemory = \"2M\"\nkernel = \"k\"\ninitrd = \"./i\"\n\
                        [[vm]]\nname = \"b\"\nmemory = \"2M\"\nkernel = \"./k\"\n";

    fn contents(_: Role, name: &str) -> Result<Vec<u8>, String> {
        Ok(name.as_bytes().to_vec())
    }

    #[test]
    fn packed_bundle_holds_text_and_files() {
        let archive = build(TEXT, contents).unwrap();
        let bundle = Bundle::parse(&archive).unwrap();
        assert!(bundle.vms().iter().all(Result::is_ok));
        assert_eq!(bundle.member("i").unwrap().data, b"./i");
        assert_eq!(bundle.damage(), None);
    }

    #[test]
    fn shared_file_is_read_once() {
        let mut read = Vec::new();
        build(TEXT, |role, name| {
            read.push((role, String::from(name)));
            contents(role, name)
        })
        .unwrap();
        assert_eq!(read, [(Role::Kernel, String::from("k")), (Role::Initrd, String::from("./i"))]);
    }

    #[test]
    fn same_input_gives_the_same_bytes() {
        assert_eq!(build(TEXT, contents), build(TEXT, contents));
    }

    #[test]
    fn problems_are_all_reported() {
        let error = build("[[vm]]\ncpus = 9\n[[vm]]\nname = \"b\"", contents).unwrap_err();
        assert_eq!(error.to_string().lines().count(), 6, "{error}");
    }

    #[test]
    fn image_called_like_the_text_is_refused() {
        let error = build(&TEXT.replace("\"k\"", "\"./vms.toml\""), contents).unwrap_err();
        assert_eq!(error, PackError::NameTaken { line: 4 });
    }

    #[test]
    fn unreadable_file_is_named_with_its_line() {
        let error = build(TEXT, |_, _| Err::<Vec<u8>, _>("no such file")).unwrap_err();
        assert_eq!(error.to_string(), "vms.toml line 4: can't read `k`: no such file");
    }
}
