//! The bundle: every guest, in the one file that the boot loader passes as the initrd.
//!
//! A bundle is a plain cpio archive (the "newc" format that Linux uses for its own
//! initramfs). It holds `vms.toml`, which the user wrote, and the image files that
//! `vms.toml` names. `cpio -t` lists it, and one made by hand with `cpio -o -H newc`
//! works. `cargo xtask pack` makes a better one: `vms.toml` first and each file's data
//! on a page boundary.
//!
//! The host (`pack`, `check`) and EL2 run the same code, in this order:
//!
//! 1. [`cpio`]: the archive's members.
//! 2. [`toml`]: the text of `vms.toml` to sections of `key = value`.
//! 3. [`manifest`]: those sections to one [`VmConfig`] or [`ConfigError`] per VM.
//! 4. [`admit`]: every VM against its images and the machine, to a plan or a [`Refusal`].
//!
//! Nothing on this path trusts its input, and each step keeps the damage of one VM away
//! from the others: a bad VM is an error *in the list* of VMs. Only without a readable
//! `vms.toml` is there no bundle at all. Heap use is bounded by the limits in [`toml`],
//! whatever the archive holds. [`pack`] is the way back, for the host.
//!
//! See `docs/bundle.md` for the format as the user sees it.

pub mod admit;
pub mod cpio;
pub mod error;
pub mod manifest;
pub mod pack;
pub mod toml;

pub use admit::{Machine, VmPlan};
pub use error::{BundleError, ConfigError, Problem, Refusal};
pub use manifest::VmConfig;

use alloc::string::String;
use alloc::vec::Vec;
use cpio::{Damage, Kind, Member, Members};
use manifest::Manifest;

/// The name of the member that describes the VMs.
pub const MANIFEST_NAME: &str = "vms.toml";

/// A bundle in memory: its VMs and where their files are.
pub struct Bundle<'a> {
    archive: &'a [u8],
    manifest: Manifest,
}

impl<'a> Bundle<'a> {
    /// Reads `archive`, the whole initrd.
    ///
    /// # Errors
    ///
    /// There is no readable `vms.toml` in it. What is wrong with one VM is reported by
    /// [`Self::vms`] instead.
    pub fn parse(archive: &'a [u8]) -> Result<Self, BundleError> {
        let text = manifest_text(archive)?;
        Ok(Self { archive, manifest: Manifest::parse(text) })
    }

    /// The VMs in the order of `vms.toml`, each usable or with what is wrong with it.
    pub fn vms(&self) -> &[Result<VmConfig, ConfigError>] {
        &self.manifest.vms
    }

    /// What is wrong with `vms.toml` outside its VMs.
    pub fn problems(&self) -> &[Problem] {
        &self.manifest.problems
    }

    /// Where the archive stops being one; members before that place are intact.
    pub fn damage(&self) -> Option<Damage> {
        Members::new(self.archive).find_map(Result::err)
    }

    /// The first member called `name`, looked up anew each time so that the number of
    /// members costs no memory.
    ///
    /// # Errors
    ///
    /// The archive's damage if it ends before such a member, or `None` if it simply has none.
    pub fn member(&self, name: &str) -> Result<Member<'a>, Option<Damage>> {
        find(self.archive, name)
    }
}

/// The text of `vms.toml`.
fn manifest_text(archive: &[u8]) -> Result<&str, BundleError> {
    if archive.is_empty() {
        return Err(BundleError::Empty);
    }
    let member = find(archive, MANIFEST_NAME).map_err(|damage| match damage {
        Some(damage) => BundleError::Damaged(damage),
        None => BundleError::NoManifest { members: some_names(archive) },
    })?;
    if member.kind != Kind::File {
        return Err(BundleError::ManifestIsNoFile);
    }
    str::from_utf8(member.data)
        .map_err(|error| BundleError::ManifestNotUtf8 { valid_up_to: error.valid_up_to() })
}

/// The first member called `name`.
fn find<'a>(archive: &'a [u8], name: &str) -> Result<Member<'a>, Option<Damage>> {
    let name = cpio::plain_name(name);
    for member in Members::new(archive) {
        let member = member.map_err(Some)?;
        if member.name == name {
            return Ok(member);
        }
    }
    Err(None)
}

/// A few members' names, for a message to someone who passed the wrong archive.
fn some_names(archive: &[u8]) -> Vec<String> {
    Members::new(archive).filter_map(Result::ok).take(4).map(|member| String::from(member.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::cpio::Writer;
    use proptest::prelude::*;

    fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = Writer::new();
        for (name, data) in members {
            writer.add(name, data).expect("small");
        }
        writer.finish()
    }

    #[test]
    fn vms_and_members_are_found() {
        let archive = archive(&[
            ("vms.toml", b"[[vm]]\nname = \"a\"\nmemory = \"2M\"\nkernel = \"k\"\n"),
            ("k", b"code"),
        ]);
        let bundle = Bundle::parse(&archive).unwrap();
        assert_eq!(bundle.vms()[0].as_ref().unwrap().name, "a");
        assert_eq!(bundle.member("k").unwrap().data, b"code");
        assert_eq!(bundle.damage(), None);
    }

    #[test]
    fn a_name_may_start_with_dot_slash_on_either_side() {
        let archive = archive(&[("./vms.toml", b""), ("./k", b"1"), ("l", b"2")]);
        let bundle = Bundle::parse(&archive).unwrap();
        assert_eq!(bundle.member("k").unwrap().data, b"1");
        assert_eq!(bundle.member("./l").unwrap().data, b"2");
    }

    #[test]
    fn archive_without_manifest_is_described() {
        let archive = archive(&[("init", b"#!/bin/sh"), ("bin", b"")]);
        let error = Bundle::parse(&archive).err().unwrap();
        assert_eq!(
            error.to_string(),
            "the initrd is a cpio archive without `vms.toml` (it holds `init`, `bin`): pass the file that \
             `cargo xtask pack vms.toml` writes"
        );
    }

    #[test]
    fn members_before_the_damage_stay_usable() {
        let mut archive = archive(&[("vms.toml", b"# empty"), ("k", b"12345678"), ("l", b"12345678")]);
        archive.truncate(archive.len() - 4096);
        let bundle = Bundle::parse(&archive).unwrap();
        assert_eq!(bundle.member("k").unwrap().data, b"12345678");
        assert!(matches!(bundle.member("l"), Err(Some(Damage::Truncated { .. }))));
        assert!(bundle.damage().is_some());
    }

    #[test]
    fn linked_manifest_is_refused() {
        let mut archive = archive(&[("vms.toml", b"other.toml")]);
        archive[14..22].copy_from_slice(b"0000A1FF");
        assert_eq!(Bundle::parse(&archive).err(), Some(BundleError::ManifestIsNoFile));
    }

    #[test]
    fn manifest_that_is_not_text_is_refused() {
        let archive = archive(&[("vms.toml", b"ok\xFF")]);
        assert_eq!(Bundle::parse(&archive).err(), Some(BundleError::ManifestNotUtf8 { valid_up_to: 2 }));
    }

    #[test]
    fn empty_initrd_is_not_a_bundle() {
        assert_eq!(Bundle::parse(&[]).err(), Some(BundleError::Empty));
    }

    /// A bundle with an ELF-like, an Image-like and a raw kernel, as `pack` makes it.
    fn sample() -> Vec<u8> {
        let text = "[[vm]]\nname = \"a\"\nmemory = \"64M\"\nkernel = \"elf\"\ncpus = 2\n\
                    [[vm]]\nname = \"b\"\nmemory = \"64M\"\nkernel = \"image\"\ninitrd = \"raw\"\n\
                    [[vm]]\nname = \"c\"\nmemory = \"2M\"\nkernel = \"raw\"\non = [3]\n";
        pack::build(text, |_, name| {
            let mut file = alloc::vec![0; 300];
            match name {
                "elf" => file[..20].copy_from_slice(b"\x7FELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xB7\0"),
                "image" => file[0x38..0x3C].copy_from_slice(b"ARM\x64"),
                _ => {}
            }
            Ok::<_, ()>(file)
        })
        .unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1500))]

        #[test]
        fn mutated_bundle_gives_plans_that_fit_the_machine_or_sentences(
            edits in prop::collection::vec((0..sample().len(), any::<u8>()), 0..20),
            // Most of the archive is padding: most edits go where the text and headers are.
            text_edits in prop::collection::vec((4096..4400_usize, any::<u8>()), 0..4),
            cut in prop::option::of(0..sample().len()),
            cpus in any::<u16>(),
            free in prop::collection::vec((0..1_u64 << 30, 0..128_u64 << 20), 0..4),
        ) {
            let mut archive = sample();
            for (at, byte) in edits.into_iter().chain(text_edits) {
                archive[at] = byte;
            }
            archive.truncate(cut.unwrap_or(archive.len()));
            let mut start = 0;
            let free: Vec<_> = free.into_iter().map(|(gap, len)| {
                let region = start + gap..start + gap + len;
                start = region.end;
                region
            }).collect();
            let total: u64 = free.iter().map(|region| region.end - region.start).sum();

            match Bundle::parse(&archive) {
                Err(error) => prop_assert!(!error.to_string().is_empty()),
                Ok(bundle) => {
                    let plans = admit::plan(&bundle, &Machine { cpus, free: &free });
                    prop_assert_eq!(plans.len(), bundle.vms().len());
                    let mut wanted = 0;
                    for (plan, vm) in plans.iter().zip(bundle.vms()) {
                        match (plan, vm) {
                            (Ok(plan), Ok(vm)) => {
                                prop_assert_eq!(plan.cpus.len(), vm.cpus);
                                prop_assert!(plan.cpus.iter().all(|cpu| cpus >> cpu & 1 == 1));
                                wanted += plan.memory;
                            }
                            (Ok(_), Err(_)) => prop_assert!(false, "a bad VM was admitted"),
                            (Err(refusal), _) => prop_assert!(refusal.to_string().starts_with("vms.toml line")),
                        }
                    }
                    prop_assert!(wanted <= total);
                }
            }
        }

        #[test]
        fn any_bytes_are_no_bundle(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(Bundle::parse(&bytes).is_err());
        }
    }
}
