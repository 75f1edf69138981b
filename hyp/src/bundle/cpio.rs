//! cpio archives in the "newc" format: a reader for any of them, a writer for ours.
//!
//! Each member is a header of 110 ASCII characters (a magic and thirteen hexadecimal
//! fields), its name with a NUL, and its data; name and data are each padded to 4 bytes.
//! A member called `TRAILER!!!` ends the archive. (cpio(5); Linux
//! `Documentation/driver-api/early-userspace/buffer-format.rst`.)
//!
//! The crate for this, `cpio_reader`, was looked at and not taken: it ends a damaged
//! archive as silently as a complete one, so that a truncated bundle would look like one
//! with files missing, and it sums every byte of every file, which for a 30 MB guest
//! costs more than the rest of the boot.
//!
//! Members lie one behind the other, so they can't overlap; a member with a wrong size
//! shows up as [`Damage::NoHeader`] where the next one should be.

use alloc::vec::Vec;
use core::fmt;

/// Length of the header in front of each member's name.
const HEADER_LEN: usize = 110;
/// The name of the member that ends an archive.
const TRAILER: &str = "TRAILER!!!";
/// The writer puts data on multiples of this, so that guest pages can be made of it.
pub const DATA_ALIGN: usize = 4096;

/// One member of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// The name, without a leading `./`.
    pub name: &'a str,
    /// What the member is.
    pub kind: Kind,
    /// The content; for a symbolic link, the path it points to.
    pub data: &'a [u8],
}

/// What a member is, from the file type in its mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A symbolic link.
    SymbolicLink,
    /// A directory, device or other thing without content.
    Other,
}

/// Where and how an archive stops being one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The archive ends inside a member or before the trailer.
    Truncated {
        /// Length of what there is, in bytes.
        at: usize,
        /// How many bytes the member cut short still needs.
        missing: usize,
    },
    /// No member header where one should be.
    NoHeader {
        /// Offset into the archive, in bytes.
        at: usize,
        /// What the bytes there look like.
        looks_like: LooksLike,
    },
    /// A member's header has a field that is no hexadecimal number, or a name that is not UTF-8.
    BadHeader {
        /// Offset of the member into the archive, in bytes.
        at: usize,
    },
}

/// What stands where a "newc" header was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LooksLike {
    /// A cpio header of an older format.
    OldCpio,
    /// The start of a gzip, xz, zstd, bzip2, lzma or lz4 stream.
    Compressed,
    /// A device tree, such as a FIT image.
    DeviceTree,
    /// A U-Boot legacy image (`mkimage -T ramdisk`).
    UbootImage,
    /// None of those.
    Unknown,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Truncated { at, missing } => {
                write!(
                    f,
                    "it ends after {at} bytes, {missing} short: was the file copied or loaded completely?"
                )
            }
            Self::NoHeader { at, looks_like } => {
                write!(f, "no cpio \"newc\" header at byte {at}: ")?;
                f.write_str(match looks_like {
                    LooksLike::OldCpio => "this is an older cpio format, make it with `cpio -o -H newc`",
                    LooksLike::Compressed => "this is compressed data, pass the bundle uncompressed",
                    LooksLike::DeviceTree => "this is a device tree or FIT image, pass the plain bundle",
                    LooksLike::UbootImage => {
                        "this has a U-Boot header, pass the plain bundle with its size to `booti`"
                    }
                    LooksLike::Unknown => "not a bundle, or damaged",
                })
            }
            Self::BadHeader { at } => write!(f, "the member header at byte {at} is damaged"),
        }
    }
}

/// `name` without a leading `./`, which `find . | cpio` leaves on some systems.
pub fn plain_name(name: &str) -> &str {
    name.strip_prefix("./").unwrap_or(name)
}

/// The members of an archive in order, up to its trailer or its damage.
pub struct Members<'a> {
    archive: &'a [u8],
    /// Where the next header is; `None` after the end.
    next: Option<usize>,
}

impl<'a> Members<'a> {
    /// The members of `archive`.
    pub const fn new(archive: &'a [u8]) -> Self {
        Self { archive, next: Some(0) }
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = Result<Member<'a>, Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.next.take()?;
        match read_member(self.archive, at) {
            Ok((member, _)) if member.name == TRAILER => None,
            Ok((member, next)) => {
                self.next = Some(next);
                Some(Ok(member))
            }
            Err(damage) => Some(Err(damage)),
        }
    }
}

/// The member whose header is at `at`, and where the next header is.
fn read_member(archive: &[u8], at: usize) -> Result<(Member<'_>, usize), Damage> {
    let bad_header = Damage::BadHeader { at };
    let header =
        slice(archive, at, HEADER_LEN).map_err(|truncated| no_header(archive, at).unwrap_or(truncated))?;
    if let Some(damage) = no_header(archive, at) {
        return Err(damage);
    }
    let field = |index: usize| hexadecimal(header, 6 + 8 * index).ok_or(bad_header);
    let (mode, data_len, name_len) = (field(1)?, field(6)?, field(11)?);

    let name_at = at.saturating_add(HEADER_LEN);
    let padded_name = slice(archive, name_at, name_len)?;
    let name = padded_name.split(|&byte| byte == 0).next().unwrap_or_default();
    let name = str::from_utf8(name).map_err(|_| bad_header)?;

    let data_at = align_up(name_at.saturating_add(name_len), 4);
    let data = slice(archive, data_at, data_len)?;
    let kind = match mode & 0o170_000 {
        0o100_000 => Kind::File,
        0o120_000 => Kind::SymbolicLink,
        _ => Kind::Other,
    };
    let next = align_up(data_at.saturating_add(data_len), 4);
    Ok((Member { name: plain_name(name), kind, data }, next))
}

/// `None` if a "newc" header starts at `at`; the damage if anything else does.
///
/// Format 070702 differs by a checksum only, which nobody needs to pay for: whoever put
/// the archive into memory has checked it, or can't be helped by a sum of bytes.
fn no_header(archive: &[u8], at: usize) -> Option<Damage> {
    let start = archive.get(at..).unwrap_or_default();
    let looks_like = match start {
        [b'0', b'7', b'0', b'7', b'0', b'1' | b'2', ..] | [] => return None,
        [b'0', b'7', b'0', b'7', b'0', b'7', ..] | [0xC7, 0x71, ..] | [0x71, 0xC7, ..] => LooksLike::OldCpio,
        [0x1F, 0x8B, ..]
        | [0xFD, b'7', b'z', b'X', b'Z', ..]
        | [0x28, 0xB5, 0x2F, 0xFD, ..]
        | [b'B', b'Z', b'h', ..]
        | [0x5D, 0, 0, ..]
        | [0x02 | 0x04, 0x21 | 0x22, 0x4C | 0x4D, 0x18, ..] => LooksLike::Compressed,
        [0xD0, 0x0D, 0xFE, 0xED, ..] => LooksLike::DeviceTree,
        [0x27, 0x05, 0x19, 0x56, ..] => LooksLike::UbootImage,
        _ => LooksLike::Unknown,
    };
    Some(Damage::NoHeader { at, looks_like })
}

/// The eight hexadecimal digits at `at`.
fn hexadecimal(header: &[u8], at: usize) -> Option<usize> {
    let digits = header.get(at..at.checked_add(8)?)?;
    digits.iter().try_fold(0, |value: usize, &byte| {
        let digit = char::from(byte).to_digit(16)?;
        Some(value << 4 | usize::try_from(digit).ok()?)
    })
}

/// `len` bytes at `at`, or how many are missing.
fn slice(archive: &[u8], at: usize, len: usize) -> Result<&[u8], Damage> {
    let end = at.saturating_add(len);
    let truncated = Damage::Truncated { at: archive.len(), missing: end.saturating_sub(archive.len()) };
    archive.get(at..end).ok_or(truncated)
}

/// `value` rounded up to a multiple of `align`, a power of two.
const fn align_up(value: usize, align: usize) -> usize {
    value.saturating_add(align - 1) & !(align - 1)
}

/// Writes an archive whose members' data is aligned to [`DATA_ALIGN`].
///
/// Names are padded with NULs to get there, which readers take as part of the
/// terminator: GNU cpio and busybox list and extract such an archive as usual.
#[derive(Default)]
pub struct Writer {
    archive: Vec<u8>,
    members: u32,
}

/// A member's data is longer than the format can say (4 GiB).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl Writer {
    /// An archive without members.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a regular file.
    ///
    /// # Errors
    ///
    /// `data` is 4 GiB or longer.
    pub fn add(&mut self, name: &str, data: &[u8]) -> Result<(), TooLong> {
        const REGULAR_READABLE: u32 = 0o100_644;
        let data_len = u32::try_from(data.len()).map_err(|_| TooLong)?;
        let name_at = self.archive.len() + HEADER_LEN;
        let data_at = align_up(name_at + name.len() + 1, DATA_ALIGN);
        let name_len = u32::try_from(data_at - name_at).map_err(|_| TooLong)?;
        self.member(name, name_len, REGULAR_READABLE, data_len);
        self.archive.extend_from_slice(data);
        self.pad(4);
        Ok(())
    }

    /// The complete archive.
    pub fn finish(mut self) -> Vec<u8> {
        const TRAILER_LEN: u32 = 11;
        self.member(TRAILER, TRAILER_LEN, 0, 0);
        // The block size that cpio itself rounds an archive to.
        self.pad(512);
        self.archive
    }

    /// Header and name, up to where the data goes. Owner, group, time and device stay
    /// zero, so that the same input gives the same bytes.
    fn member(&mut self, name: &str, name_len: u32, mode: u32, data_len: u32) {
        self.members += 1;
        let (inode, links) = (self.members, 1);
        let fields = [inode, mode, 0, 0, links, 0, data_len, 0, 0, 0, 0, name_len, 0];
        let name_end = self.archive.len() + HEADER_LEN + usize::try_from(name_len).unwrap_or(usize::MAX);
        self.archive.extend_from_slice(b"070701");
        for field in fields {
            self.archive.extend_from_slice(alloc::format!("{field:08X}").as_bytes());
        }
        self.archive.extend_from_slice(name.as_bytes());
        self.archive.resize(name_end, 0);
        self.pad(4);
    }

    fn pad(&mut self, align: usize) {
        self.archive.resize(align_up(self.archive.len(), align), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As `printf hi > a; echo a | cpio -o -H newc` writes it, without the trailer.
    fn by_hand() -> Vec<u8> {
        let mut archive = concat!(
            "070701", "0000000A", "000081A4", "000003E8", "000003E8", "00000001", "65000000", "00000002",
            "00000008", "00000001", "00000000", "00000000", "00000002", "00000000",
        )
        .as_bytes()
        .to_vec();
        archive.extend_from_slice(b"a\0hi\0\0");
        archive
    }

    fn trailer() -> Vec<u8> {
        Writer::new().finish()
    }

    fn first_damage(archive: &[u8]) -> Option<Damage> {
        Members::new(archive).find_map(Result::err)
    }

    #[test]
    fn member_of_plain_cpio_is_read() {
        let mut archive = by_hand();
        archive.extend(trailer());
        let members: Vec<_> = Members::new(&archive).collect();
        assert_eq!(members, [Ok(Member { name: "a", kind: Kind::File, data: b"hi" })]);
    }

    #[test]
    fn missing_trailer_is_damage() {
        assert_eq!(first_damage(&by_hand()), Some(Damage::Truncated { at: 116, missing: 110 }));
    }

    #[test]
    fn data_past_the_end_is_damage() {
        let archive = by_hand();
        let cut = &archive[..113];
        assert_eq!(first_damage(cut), Some(Damage::Truncated { at: 113, missing: 1 }));
    }

    #[test]
    fn wrong_size_is_seen_at_the_next_header() {
        let mut archive = by_hand();
        archive[61] = b'1'; // 1 byte instead of 2: the same padding
        archive.extend(trailer());
        assert_eq!(first_damage(&archive), None);
        archive[61] = b'9';
        assert!(matches!(first_damage(&archive), Some(Damage::NoHeader { at: 124, .. })));
    }

    #[test]
    fn sign_in_a_hexadecimal_field_is_damage() {
        let mut archive = by_hand();
        archive[54] = b'+';
        assert_eq!(first_damage(&archive), Some(Damage::BadHeader { at: 0 }));
    }

    #[test]
    fn compressed_archive_is_called_compressed() {
        let expected = Damage::NoHeader { at: 0, looks_like: LooksLike::Compressed };
        assert_eq!(first_damage(&[0x1F, 0x8B, 8, 0]), Some(expected));
    }

    #[test]
    fn symbolic_link_is_no_file() {
        let mut archive = by_hand();
        archive[14..22].copy_from_slice(b"0000A1FF");
        let member = Members::new(&archive).next();
        assert_eq!(member, Some(Ok(Member { name: "a", kind: Kind::SymbolicLink, data: b"hi" })));
    }

    #[test]
    fn written_data_is_page_aligned() {
        let mut writer = Writer::new();
        writer.add("one", &[1; 5000]).expect("small");
        writer.add(&"n".repeat(5000), &[2; 3]).expect("small");
        let archive = writer.finish();
        for member in Members::new(&archive) {
            let offset = member.unwrap().data.as_ptr().addr() - archive.as_ptr().addr();
            assert_eq!(offset % DATA_ALIGN, 0);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(files in prop::collection::vec(("[a-z./]{1,20}x", prop::collection::vec(any::<u8>(), 0..9000)), 0..5)) {
            let mut writer = Writer::new();
            for (name, data) in &files {
                writer.add(name, data).expect("small");
            }
            let archive = writer.finish();
            let members: Vec<_> = Members::new(&archive).map(|member| member.unwrap()).collect();
            prop_assert_eq!(members.len(), files.len());
            for (member, (name, data)) in members.iter().zip(&files) {
                prop_assert_eq!(member.name, plain_name(name));
                prop_assert_eq!(member.data, data.as_slice());
            }
        }

        #[test]
        fn mutated_archive_never_panics(edits in prop::collection::vec((0..400_usize, any::<u8>()), 0..12), cut in 0..900_usize) {
            let mut archive = by_hand();
            archive.extend(by_hand());
            archive.extend(trailer());
            for (at, byte) in edits {
                if let Some(place) = archive.get_mut(at) {
                    *place = byte;
                }
            }
            archive.truncate(cut);
            // Each member takes at least its header, so this ends.
            prop_assert!(Members::new(&archive).count() <= 1 + archive.len() / HEADER_LEN);
        }

        #[test]
        fn any_lengths_never_panic(data_len in any::<u32>(), name_len in any::<u32>()) {
            let mut archive = by_hand();
            archive[54..62].copy_from_slice(alloc::format!("{data_len:08X}").as_bytes());
            archive[94..102].copy_from_slice(alloc::format!("{name_len:08x}").as_bytes());
            for _ in Members::new(&archive) {}
        }
    }
}
