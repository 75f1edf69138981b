//! Writing initial RAM disks: the `newc` cpio format that the kernel unpacks (Documentation/driver-api/early-userspace,
//! "initramfs buffer format").
//!
//! Main type: [`Archive`]. Written here, because an archive with device nodes and root's files is otherwise only made as
//! root; a file in an archive is just bytes. All times are zero, so equal contents give equal archives.

/// The kernel's names for file types and permissions in one number, as in `stat`.
pub(crate) mod mode {
    /// A directory everybody may enter.
    pub(crate) const DIRECTORY: u32 = 0o040_755;
    /// A program.
    pub(crate) const PROGRAM: u32 = 0o100_755;
    /// A symbolic link.
    pub(crate) const LINK: u32 = 0o120_777;
    /// A character device for root.
    pub(crate) const CHARACTER_DEVICE: u32 = 0o020_600;
}

/// An archive being written.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    next_inode: u32,
}

impl Archive {
    /// Adds a directory.
    pub(crate) fn directory(&mut self, path: &str) {
        self.member(path, mode::DIRECTORY, (0, 0), &[]);
    }

    /// Adds an executable file.
    pub(crate) fn program(&mut self, path: &str, contents: &[u8]) {
        self.member(path, mode::PROGRAM, (0, 0), contents);
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &str) {
        self.member(path, mode::LINK, (0, 0), target.as_bytes());
    }

    /// Adds a character device with its (major, minor) number.
    pub(crate) fn character_device(&mut self, path: &str, number: (u32, u32)) {
        self.member(path, mode::CHARACTER_DEVICE, number, &[]);
    }

    /// The archive, completed by the trailer that ends it.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.next_inode = 0;
        self.member("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    /// A header of thirteen eight-digit hexadecimal fields, the name, the contents; each part padded to four bytes.
    fn member(&mut self, path: &str, mode: u32, device: (u32, u32), contents: &[u8]) {
        let links = if mode == mode::DIRECTORY { 2 } else { 1 };
        let size = u32::try_from(contents.len()).expect("files of an initial RAM disk are far below 4 GiB");
        let name_size = u32::try_from(path.len() + 1).expect("paths are short");
        let fields = [self.next_inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0];
        self.next_inode += 1;
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn member_is_laid_out_as_the_format_says() {
        let mut archive = Archive::default();
        archive.program("init", b"hello");
        let bytes = archive.finish();
        let header = "07070100000000000081ed000000000000000000000001000000000000000500000000000000000000000000000000\
                      0000000500000000";
        assert_eq!(&bytes[..110], header.as_bytes());
        assert_eq!(&bytes[110..124], b"init\0\0hello\0\0\0");
    }

    #[test]
    fn archive_ends_with_the_trailer() {
        let bytes = Archive::default().finish();
        assert!(bytes.windows(11).any(|window| window == b"TRAILER!!!\0"));
        assert_eq!(bytes.len() % 4, 0);
    }
}
