//! What is wrong with a kernel or its place in RAM, and what to do about it.

use core::fmt;
use core::ops::Range;

/// Why a VM's images can't be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// The file has no bytes, or not even a complete header.
    Empty,
    /// It is compressed.
    Compressed(Compression),
    /// It is a file that has a kernel inside, or none at all.
    Container(Container),
    /// It is a kernel for another machine.
    OtherMachine {
        /// Which.
        machine: &'static str,
    },
    /// It is an ELF file that can't be used.
    Elf(ElfFault),
    /// An arm64 `Image` wants to be 2 MiB or more from a 2 MiB boundary.
    TextOffset {
        /// The field in its header.
        text_offset: u64,
    },
    /// The kernel's memory, bss included, is not all RAM.
    KernelOutsideRam {
        /// What it needs.
        kernel: Range<u64>,
        /// What there is.
        ram: Range<u64>,
    },
    /// Kernel, initrd and device tree don't fit into RAM together.
    InitrdTooLarge {
        /// The initrd's length in bytes; 0 if there is none and only the device tree has no room.
        initrd_len: u64,
        /// Bytes of RAM that are enough.
        needed: u64,
        /// Bytes of RAM that there are.
        memory: u64,
    },
}

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// gzip.
    Gzip,
    /// xz.
    Xz,
    /// Zstandard.
    Zstd,
    /// lz4, with either header.
    Lz4,
    /// bzip2.
    Bzip2,
    /// lzma, the predecessor of xz.
    Lzma,
}

/// Something that may hold a kernel and is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// A Linux kernel that decompresses itself under EFI (`vmlinuz.efi`).
    EfiZboot,
    /// A program for EFI firmware.
    EfiProgram,
    /// A U-Boot legacy image (`mkimage`).
    UbootImage,
    /// A device tree, or the FIT image that is built like one.
    DeviceTree,
    /// A cpio archive.
    Cpio,
    /// A script.
    Script,
    /// A Debian package.
    DebianPackage,
}

/// What is wrong with an ELF file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElfFault {
    /// A header is cut off or contradicts itself.
    Damaged,
    /// It is a 32-bit program.
    ThirtyTwoBit,
    /// It is big-endian.
    BigEndian,
    /// It is for another machine.
    Machine {
        /// The field `e_machine`.
        machine: u16,
    },
    /// It is an object file or a core dump.
    NotExecutable {
        /// The field `e_type`.
        kind: u16,
    },
    /// Nothing in it is to be loaded.
    NoSegments,
    /// It has more loadable segments than a plan can hold.
    TooManySegments {
        /// How many that is.
        limit: usize,
    },
    /// A segment's bytes are not in the file.
    SegmentOutsideFile {
        /// Its physical address.
        ipa: u64,
    },
    /// Two segments share memory.
    Overlap {
        /// One's physical address.
        first: u64,
        /// The other's.
        second: u64,
    },
    /// The entry point is in none of the segments.
    EntryOutside {
        /// The field `e_entry`.
        entry: u64,
    },
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the kernel is empty or cut off: pack the file again"),
            Self::Compressed(compression) => write!(f, "the kernel is compressed: {compression}"),
            Self::Container(container) => write!(f, "{container}"),
            Self::OtherMachine { machine } => {
                write!(f, "this is a kernel for {machine}: guests need one for arm64 (AArch64)")
            }
            Self::Elf(fault) => write!(f, "the ELF file can't be loaded: {fault}"),
            Self::TextOffset { text_offset } => {
                write!(
                    f,
                    "the Image header is damaged (text_offset {text_offset:#x}): build or copy the kernel again"
                )
            }
            Self::KernelOutsideRam { kernel, ram } if kernel.start < ram.start || kernel.start >= ram.end => {
                write!(
                    f,
                    "the kernel is linked for {:#x}, RAM is {:#x}..{:#x}: link it for an address in there, or use a \
                 format that can be moved (for Linux, arch/arm64/boot/Image)",
                    kernel.start, ram.start, ram.end
                )
            }
            Self::KernelOutsideRam { kernel, ram } => write!(
                f,
                "the kernel with its bss needs RAM up to {:#x}, which ends at {:#x}: raise `memory` to \"{}M\"",
                kernel.end,
                ram.end,
                mib(kernel.end.saturating_sub(ram.start))
            ),
            Self::InitrdTooLarge { initrd_len: 0, needed, memory } => write!(
                f,
                "no room for the device tree in \"{}M\": raise `memory` to \"{}M\"",
                memory >> 20,
                mib(*needed)
            ),
            Self::InitrdTooLarge { initrd_len, needed, memory } => write!(
                f,
                "the initrd of {} KiB does not fit beside the kernel in \"{}M\": raise `memory` to \"{}M\"",
                initrd_len.div_ceil(1024),
                memory >> 20,
                mib(*needed)
            ),
        }
    }
}

impl core::error::Error for ImageError {}

/// Bytes as the next possible `memory`, in MiB.
fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(2 << 20) * 2
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "decompress it with `gunzip`, or pack it with `cargo xtask pack`, which does that",
            Self::Xz => "decompress it with `unxz`",
            Self::Zstd => "decompress it with `unzstd`",
            Self::Lz4 => "decompress it with `unlz4`",
            Self::Bzip2 => "decompress it with `bunzip2`",
            Self::Lzma => "decompress it with `unlzma`",
        })
    }
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EfiZboot => {
                "this is an EFI zboot kernel with the real one compressed inside: pack it with `cargo xtask pack`, \
                 which takes that out if it is gzip, or use arch/arm64/boot/Image"
            }
            Self::EfiProgram => "this is an EFI program: guests have no EFI firmware, use an arm64 Image, ELF or raw binary",
            Self::UbootImage => "this is a U-Boot image: take the kernel it was made from, or `dumpimage` it",
            Self::DeviceTree => "this is a device tree or FIT image: take the kernel inside it (`dumpimage`)",
            Self::Cpio => "this is a cpio archive: was it meant as `initrd`?",
            Self::Script => "this is a script: name the kernel's own file",
            Self::DebianPackage => "this is a Debian package: take the kernel out of it (`dpkg-deb -x`)",
        })
    }
}

impl fmt::Display for ElfFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged => f.write_str("its headers are damaged or cut off, build or copy it again"),
            Self::ThirtyTwoBit => f.write_str("it is a 32-bit program, guests start in AArch64"),
            Self::BigEndian => f.write_str("it is big-endian, guests start little-endian"),
            Self::Machine { machine: 62 } => f.write_str("it is for x86-64, guests need AArch64"),
            Self::Machine { machine: 243 } => f.write_str("it is for RISC-V, guests need AArch64"),
            Self::Machine { machine } => write!(f, "it is for machine {machine}, guests need AArch64 (183)"),
            Self::NotExecutable { kind } => {
                write!(f, "it is no executable (type {kind}), link it or name the linked file")
            }
            Self::NoSegments => f.write_str("it has nothing to load, link it with program headers"),
            Self::TooManySegments { limit } => {
                write!(f, "it has more than {limit} loadable segments, merge sections in its linker script")
            }
            Self::SegmentOutsideFile { ipa } => {
                write!(f, "the segment for {ipa:#x} is not all in the file, build or copy it again")
            }
            Self::Overlap { first, second } => {
                write!(f, "the segments for {first:#x} and {second:#x} overlap, correct its linker script")
            }
            Self::EntryOutside { entry } => {
                write!(f, "its entry point {entry:#x} is in no segment, correct its linker script")
            }
        }
    }
}
