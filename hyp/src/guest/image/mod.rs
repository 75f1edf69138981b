//! Kernel images: what format one is, and where everything goes in guest RAM.
//!
//! [`plan`] takes the files and the size of RAM and answers with a [`LoadPlan`]: what to
//! copy where, where to start, and what to write into the device tree. Nothing is copied
//! here. The format is told by content, never by name:
//!
//! - arm64 `Image` (`arm64`), the format of Linux and of whatever boots like it;
//! - ELF for AArch64 (`elf_file`), loaded by physical address;
//! - anything else is a raw binary, unless it is recognised (`not_bootable`) as something
//!   that can't run, such as a compressed kernel.
//!
//! Places are QEMU's (`hw/arm/boot.c`), as far as guests can have come to rely on them:
//!
//! ```text
//!   RAM_BASE                                                                end of RAM
//!   |device tree| ... |kernel, its bss| ...... |initrd| .......................|
//!                      ^ +2 MiB + text_offset, ^ half of RAM, at most 128 MiB,
//!                        +512 KiB, or by ELF     after the kernel, before the end
//! ```
//!
//! The device tree is at the start of RAM, where firmware built for `virt` looks for it;
//! if the kernel is there, it follows the initrd. Register x0 holds its address for every
//! format. All sizes are the bundle's word and none is believed: sums are checked, and
//! the plan's pieces lie inside RAM and apart from each other.

mod arm64;
mod elf_file;
mod error;
mod not_bootable;

pub use error::{Compression, Container, ElfFault, ImageError};

use crate::guest::layout::{DTB_MAX, INITRD_OFFSET_MAX, RAM_BASE, RAW_OFFSET};
use core::ops::Range;

/// Loadable segments of an ELF file.
pub const MAX_SEGMENTS: usize = 16;
/// Where an initrd can start.
const INITRD_ALIGN: u64 = 4096;

/// What kind of file a kernel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An arm64 Linux `Image`.
    Image,
    /// An AArch64 ELF executable.
    Elf,
    /// Code that is run from its first byte.
    Raw,
}

impl Format {
    /// The format of `kernel`.
    ///
    /// # Errors
    ///
    /// It is empty, or something that can't be started as it is.
    pub fn detect(kernel: &[u8]) -> Result<Self, ImageError> {
        if kernel.is_empty() {
            return Err(ImageError::Empty);
        }
        // Magic numbers inside an arm64 Image (the PE header of its EFI stub) come second.
        if arm64::is_image(kernel) {
            return Ok(Self::Image);
        }
        if elf_file::is_elf(kernel) {
            return Ok(Self::Elf);
        }
        match not_bootable::recognise(kernel) {
            Some(error) => Err(error),
            None => Ok(Self::Raw),
        }
    }
}

/// Bytes to put into guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Where they go.
    pub ipa: u64,
    /// The bytes.
    pub data: &'a [u8],
    /// How many zero bytes follow. Only what the format promises to be zero: a Linux
    /// `Image` clears its own bss.
    pub zeroes: u64,
}

impl Segment<'_> {
    /// The guest memory this covers.
    pub fn range(&self) -> Range<u64> {
        let len = (self.data.len() as u64).saturating_add(self.zeroes);
        self.ipa..self.ipa.saturating_add(len)
    }
}

/// Segments of a kernel, in the order of the file.
pub type Segments<'a> = heapless::Vec<Segment<'a>, MAX_SEGMENTS>;

/// A kernel in guest RAM.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kernel<'a> {
    segments: Segments<'a>,
    entry: u64,
    /// All of RAM from the first to the last byte it uses, bss included.
    range: Range<u64>,
}

/// How to load a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadPlan<'a> {
    /// What the kernel turned out to be.
    pub format: Format,
    /// The kernel's parts.
    pub segments: Segments<'a>,
    /// The initial RAM disk.
    pub initrd: Option<Segment<'a>>,
    /// Where vCPU 0 starts.
    pub entry: u64,
    /// Where the device tree goes, [`DTB_MAX`] bytes of room, and what x0 holds at the start.
    pub dtb: u64,
}

impl<'a> LoadPlan<'a> {
    /// Everything to be copied before the start, apart from the device tree.
    pub fn pieces(&self) -> impl Iterator<Item = &Segment<'a>> {
        self.segments.iter().chain(&self.initrd)
    }
}

/// Plans loading `kernel` and `initrd` into `memory` bytes of RAM.
///
/// # Errors
///
/// The kernel is no usable image, or something doesn't fit.
pub fn plan<'a>(kernel: &'a [u8], initrd: Option<&'a [u8]>, memory: u64) -> Result<LoadPlan<'a>, ImageError> {
    let ram = RAM_BASE..RAM_BASE.saturating_add(memory);
    let format = Format::detect(kernel)?;
    let kernel = match format {
        Format::Image => arm64::place(kernel)?,
        Format::Elf => elf_file::place(kernel)?,
        Format::Raw => raw(kernel),
    };
    if kernel.range.start < ram.start || kernel.range.end > ram.end {
        return Err(ImageError::KernelOutsideRam { kernel: kernel.range, ram });
    }

    // The device tree has the start of RAM or, if the kernel is there, the place after the initrd.
    let dtb_at_start = kernel.range.start >= ram.start + DTB_MAX;
    let room_end = if dtb_at_start { ram.end } else { ram.end.saturating_sub(DTB_MAX) };

    let initrd_len = initrd.map_or(0, |data| data.len() as u64);
    let preferred = (ram.start + (memory / 2).min(INITRD_OFFSET_MAX)).max(kernel.range.end);
    let highest = align_down(room_end.saturating_sub(initrd_len), INITRD_ALIGN);
    let initrd_start = align_up(preferred, INITRD_ALIGN).min(highest);
    if initrd_start < kernel.range.end {
        let needed = (kernel.range.end - ram.start).saturating_add(initrd_len).saturating_add(2 * DTB_MAX);
        return Err(ImageError::InitrdTooLarge { initrd_len, needed, memory });
    }

    let dtb = if dtb_at_start { ram.start } else { align_up(initrd_start + initrd_len, DTB_MAX) };
    let initrd = initrd.map(|data| Segment { ipa: initrd_start, data, zeroes: 0 });
    Ok(LoadPlan { format, segments: kernel.segments, initrd, entry: kernel.entry, dtb })
}

/// A raw binary: loaded and started where QEMU would.
fn raw(data: &[u8]) -> Kernel<'_> {
    one_segment(data, RAM_BASE + RAW_OFFSET, 0)
}

/// A kernel that is one piece, started at its first byte, and uses at least `len` bytes.
fn one_segment(data: &[u8], ipa: u64, len: u64) -> Kernel<'_> {
    let len = len.max(data.len() as u64);
    let segments = Segments::from_iter([Segment { ipa, data, zeroes: 0 }]);
    Kernel { segments, entry: ipa, range: ipa..ipa.saturating_add(len) }
}

/// `value` rounded up to a multiple of `align`, a power of two.
const fn align_up(value: u64, align: u64) -> u64 {
    align_down(value.saturating_add(align - 1), align)
}

/// `value` rounded down to a multiple of `align`, a power of two.
const fn align_down(value: u64, align: u64) -> u64 {
    value & !(align - 1)
}

/// The little-endian number at `at`.
fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

/// The little-endian number at `at`.
fn le64(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests;
