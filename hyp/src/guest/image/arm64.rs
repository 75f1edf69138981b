//! The arm64 Linux `Image` (Linux `Documentation/arch/arm64/booting.rst`).
//!
//! ```text
//!   0x08  text_offset  where it wants to be, from a 2 MiB boundary
//!   0x10  image_size   how much RAM it uses, bss included; 0 before Linux 3.17
//!   0x18  flags
//!   0x38  "ARM\x64"
//! ```
//!
//! The flags (endianness, page size, placement) ask nothing of the loader that is not
//! true of guest RAM anyway.

use super::{ImageError, Kernel, le32, le64, one_segment};
use crate::guest::layout::{DTB_MAX, RAM_BASE, RAW_OFFSET};

/// Magic at 0x38.
const MAGIC: u32 = u32::from_le_bytes(*b"ARM\x64");
const MAGIC_AT: usize = 0x38;
const TEXT_OFFSET_AT: usize = 0x08;
const IMAGE_SIZE_AT: usize = 0x10;

/// `text_offset` is counted from a boundary like this.
const BASE_ALIGN: u64 = 2 << 20;

/// Whether `kernel` has the header.
pub(super) fn is_image(kernel: &[u8]) -> bool {
    le32(kernel, MAGIC_AT) == Some(MAGIC)
}

/// Places the image. As QEMU does, one that wants the very start of RAM goes 2 MiB up,
/// which leaves the start to the device tree.
pub(super) fn place(kernel: &[u8]) -> Result<Kernel<'_>, ImageError> {
    let (Some(text_offset), Some(image_size)) = (le64(kernel, TEXT_OFFSET_AT), le64(kernel, IMAGE_SIZE_AT))
    else {
        return Err(ImageError::Empty);
    };
    // Before image_size existed, text_offset was not reliable either.
    let text_offset = if image_size == 0 { RAW_OFFSET } else { text_offset };
    if text_offset >= BASE_ALIGN {
        return Err(ImageError::TextOffset { text_offset });
    }
    let base = if text_offset < DTB_MAX { RAM_BASE + BASE_ALIGN } else { RAM_BASE };
    Ok(one_segment(kernel, base + text_offset, image_size))
}
