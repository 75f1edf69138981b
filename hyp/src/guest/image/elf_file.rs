//! ELF executables: each loadable segment goes to its physical address.
//!
//! The `elf` crate reads headers, with every access checked. What is ours is what to
//! believe: only a 64-bit little-endian AArch64 program (System V ABI, "ELF Header") whose
//! segments lie inside the file, inside RAM and apart from each other. Section headers
//! are not looked at, so a stripped or cut-off section table does no harm.

use super::{ElfFault, ImageError, Kernel, MAX_SEGMENTS, Segment, Segments};
use core::ops::Range;
use elf::abi::{EM_AARCH64, ET_DYN, ET_EXEC, PT_LOAD};
use elf::endian::LittleEndian;
use elf::file::{Class, FileHeader};
use elf::parse::ParsingTable;
use elf::segment::ProgramHeader;

/// Length of the part of the header that is the same for every class.
const IDENT_LEN: usize = 16;
/// Length of a 64-bit file header.
const HEADER_LEN: usize = 64;
/// Length of a 64-bit program header.
const PROGRAM_HEADER_LEN: u16 = 56;

/// Whether `kernel` starts like an ELF file.
pub(super) fn is_elf(kernel: &[u8]) -> bool {
    kernel.starts_with(b"\x7FELF")
}

/// Places the file's segments.
pub(super) fn place(kernel: &[u8]) -> Result<Kernel<'_>, ImageError> {
    place_segments(kernel).map_err(ImageError::Elf)
}

fn place_segments(kernel: &[u8]) -> Result<Kernel<'_>, ElfFault> {
    let header = header(kernel)?;
    let mut segments = Segments::new();
    let mut entry = None;
    for program_header in program_headers(kernel, &header)?.iter().filter(|header| header.p_type == PT_LOAD) {
        if program_header.p_memsz == 0 {
            continue;
        }
        let segment = segment(kernel, &program_header)?;
        if let Some(other) = segments.iter().find(|other| overlap(&other.range(), &segment.range())) {
            return Err(ElfFault::Overlap { first: other.ipa, second: segment.ipa });
        }
        entry = entry.or_else(|| physical_entry(header.e_entry, &program_header));
        segments.push(segment).map_err(|_| ElfFault::TooManySegments { limit: MAX_SEGMENTS })?;
    }
    let start = segments.iter().map(|segment| segment.ipa).min().ok_or(ElfFault::NoSegments)?;
    let end = segments.iter().map(|segment| segment.range().end).max().ok_or(ElfFault::NoSegments)?;
    // A program that turns its MMU on by itself may give its entry as a physical address.
    let physical = segments.iter().any(|segment| segment.range().contains(&header.e_entry));
    let entry = entry
        .or(physical.then_some(header.e_entry))
        .ok_or(ElfFault::EntryOutside { entry: header.e_entry })?;
    Ok(Kernel { segments, entry, range: start..end })
}

/// The file header, if it is that of a program for us.
fn header(kernel: &[u8]) -> Result<FileHeader<LittleEndian>, ElfFault> {
    let (ident, tail) = kernel
        .get(..HEADER_LEN)
        .and_then(|header| header.split_at_checked(IDENT_LEN))
        .ok_or(ElfFault::Damaged)?;
    match ident {
        [_, _, _, _, 1, ..] => return Err(ElfFault::ThirtyTwoBit),
        [_, _, _, _, _, 2, ..] => return Err(ElfFault::BigEndian),
        _ => {}
    }
    let ident = elf::file::parse_ident::<LittleEndian>(ident).map_err(|_| ElfFault::Damaged)?;
    let header = FileHeader::parse_tail(ident, tail).map_err(|_| ElfFault::Damaged)?;
    if header.e_machine != EM_AARCH64 {
        return Err(ElfFault::Machine { machine: header.e_machine });
    }
    // Position-independent programs (ET_DYN) run at the address they were linked for.
    if !matches!(header.e_type, ET_EXEC | ET_DYN) {
        return Err(ElfFault::NotExecutable { kind: header.e_type });
    }
    Ok(header)
}

/// The table of program headers.
fn program_headers<'a>(
    kernel: &'a [u8],
    header: &FileHeader<LittleEndian>,
) -> Result<ParsingTable<'a, LittleEndian, ProgramHeader>, ElfFault> {
    if header.e_phnum == 0 {
        return Err(ElfFault::NoSegments);
    }
    if header.e_phentsize != PROGRAM_HEADER_LEN {
        return Err(ElfFault::Damaged);
    }
    let len = u64::from(header.e_phnum) * u64::from(PROGRAM_HEADER_LEN);
    let table = file_range(kernel, header.e_phoff, len).ok_or(ElfFault::Damaged)?;
    Ok(ParsingTable::new(LittleEndian, Class::ELF64, table))
}

fn segment<'a>(kernel: &'a [u8], header: &ProgramHeader) -> Result<Segment<'a>, ElfFault> {
    let ipa = header.p_paddr;
    let data =
        file_range(kernel, header.p_offset, header.p_filesz).ok_or(ElfFault::SegmentOutsideFile { ipa })?;
    let zeroes = header.p_memsz.checked_sub(header.p_filesz).ok_or(ElfFault::Damaged)?;
    // A sum that overflows is as far out of RAM as any.
    ipa.checked_add(header.p_memsz).ok_or(ElfFault::Damaged)?;
    Ok(Segment { ipa, data, zeroes })
}

/// The entry, which is a virtual address, as a physical one, if it lies in this segment.
fn physical_entry(entry: u64, header: &ProgramHeader) -> Option<u64> {
    let offset = entry.checked_sub(header.p_vaddr).filter(|&offset| offset < header.p_memsz)?;
    header.p_paddr.checked_add(offset)
}

fn file_range(kernel: &[u8], at: u64, len: u64) -> Option<&[u8]> {
    let at = usize::try_from(at).ok()?;
    kernel.get(at..at.checked_add(usize::try_from(len).ok()?)?)
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}
