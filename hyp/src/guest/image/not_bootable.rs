//! Files that people pass as a kernel and that can't run: told apart from raw binaries
//! by their magic numbers, so that the answer is a sentence and not a guest that hangs.
//!
//! A raw binary starts with an instruction, and some magic numbers are short enough to
//! be one; hence a few checks of more than the magic.

use super::{Compression, Container, ImageError, le32};

/// What `kernel` is, if it is something that can't be started.
pub(super) fn recognise(kernel: &[u8]) -> Option<ImageError> {
    if let Some(compression) = compression(kernel) {
        return Some(ImageError::Compressed(compression));
    }
    if let Some(container) = container(kernel) {
        return Some(ImageError::Container(container));
    }
    other_machine(kernel).map(|machine| ImageError::OtherMachine { machine })
}

fn compression(kernel: &[u8]) -> Option<Compression> {
    Some(match kernel {
        // 8 is "deflate", the only method there is.
        [0x1F, 0x8B, 8, ..] => Compression::Gzip,
        [0xFD, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
        [0x28, 0xB5, 0x2F, 0xFD, ..] => Compression::Zstd,
        // The frame format, and the older one that Linux's build uses.
        [0x04, 0x22, 0x4D, 0x18, ..] | [0x02, 0x21, 0x4C, 0x18, ..] => Compression::Lz4,
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Compression::Bzip2,
        // 5D 00 00 xx is also a branch; a stream of unknown length has eight FF besides.
        [0x5D, 0, 0, _, _, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, ..] => Compression::Lzma,
        _ => return None,
    })
}

fn container(kernel: &[u8]) -> Option<Container> {
    Some(match kernel {
        [b'M', b'Z', _, _, b'z', b'i', b'm', b'g', ..] => Container::EfiZboot,
        [b'M', b'Z', ..] if has_pe_header(kernel) => Container::EfiProgram,
        [0x27, 0x05, 0x19, 0x56, ..] => Container::UbootImage,
        [0xD0, 0x0D, 0xFE, 0xED, ..] => Container::DeviceTree,
        [b'0', b'7', b'0', b'7', b'0', b'1' | b'2' | b'7', ..] => Container::Cpio,
        [b'#', b'!', ..] => Container::Script,
        [b'!', b'<', b'a', b'r', b'c', b'h', b'>', ..] => Container::DebianPackage,
        _ => return None,
    })
}

/// Whether the DOS header points to a PE header (Microsoft "PE Format").
fn has_pe_header(kernel: &[u8]) -> bool {
    const PE: u32 = u32::from_le_bytes(*b"PE\0\0");
    let at = le32(kernel, 0x3C).and_then(|at| usize::try_from(at).ok());
    at.and_then(|at| le32(kernel, at)) == Some(PE)
}

/// The machine of a Linux kernel for another one.
fn other_machine(kernel: &[u8]) -> Option<&'static str> {
    const ARM_ZIMAGE: (usize, u32) = (0x24, 0x016F_2818);
    const RISCV_IMAGE: (usize, u32) = (0x38, u32::from_le_bytes(*b"RSC\x05"));
    const X86_BZIMAGE: (usize, u32) = (0x202, u32::from_le_bytes(*b"HdrS"));
    let machines = [(ARM_ZIMAGE, "32-bit Arm"), (RISCV_IMAGE, "RISC-V"), (X86_BZIMAGE, "x86")];
    machines.into_iter().find(|&((at, magic), _)| le32(kernel, at) == Some(magic)).map(|(_, machine)| machine)
}
