//! From an ELF file to the flat bytes that boot loaders want: what `objcopy -O binary` does.
//!
//! Main function: [`flatten`]. Segments are laid out by physical address; what a segment has in memory beyond its bytes
//! in the file (`.bss`, stacks, boot tables) is not stored.

use anyhow::{Context as _, Result, bail};
use object::LittleEndian;
use object::read::elf::{ElfFile64, ProgramHeader as _};

/// Gaps between segments are stored as zeros; a wrong linker script must not fill the disk with them.
const LONGEST: u64 = 64 << 20;

/// The flat image of `elf`, from its lowest loaded byte to its highest.
pub(crate) fn flatten(elf: &[u8]) -> Result<Vec<u8>> {
    let file = ElfFile64::<LittleEndian>::parse(elf).context("not a 64-bit little-endian ELF file")?;
    let mut pieces = Vec::new();
    for header in file.elf_program_headers() {
        if header.p_type(LittleEndian) == object::elf::PT_LOAD && header.p_filesz(LittleEndian) != 0 {
            let data = header.data(LittleEndian, elf).ok().context("a segment lies outside the file")?;
            pieces.push((header.p_paddr(LittleEndian), data));
        }
    }
    assemble(pieces)
}

/// Whether `image` has the header of an arm64 Linux image (Documentation/arch/arm64/booting.rst).
pub(crate) fn is_linux_image(image: &[u8]) -> bool {
    image.get(56..60) == Some(b"ARM\x64")
}

fn assemble(mut pieces: Vec<(u64, &[u8])>) -> Result<Vec<u8>> {
    pieces.sort_by_key(|&(address, _)| address);
    let Some(&(base, _)) = pieces.first() else { bail!("the file has nothing to load") };
    let mut image = Vec::new();
    for (address, data) in pieces {
        let offset = address - base;
        if offset > LONGEST {
            bail!("a segment at {address:#x} is more than {LONGEST:#x} away from the first one at {base:#x}");
        }
        let offset = usize::try_from(offset)?;
        if offset < image.len() {
            bail!("the segment at {address:#x} overlaps the one before it");
        }
        image.resize(offset, 0);
        image.extend_from_slice(data);
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::{assemble, flatten, is_linux_image};

    #[test]
    fn pieces_are_ordered_by_address_and_gaps_are_zero() {
        let image = assemble(vec![(0x1004, b"cd"), (0x1000, b"ab")]).expect("valid");
        assert_eq!(image, b"ab\0\0cd");
    }

    #[test]
    fn overlapping_pieces_are_refused() {
        assert!(assemble(vec![(0x1000, b"abc"), (0x1002, b"d")]).is_err());
    }

    #[test]
    fn distant_pieces_are_refused() {
        assert!(assemble(vec![(0, b"a"), (1 << 40, b"b")]).is_err());
    }

    #[test]
    fn memory_without_bytes_in_the_file_is_not_stored() {
        let mut elf = elf_header(1);
        elf.extend(program_header(0x4020_0000, 120, 4, 0x1000));
        elf.extend(*b"code");
        assert_eq!(flatten(&elf).expect("valid"), b"code");
    }

    #[test]
    fn segment_outside_the_file_is_refused() {
        let mut elf = elf_header(1);
        elf.extend(program_header(0x4020_0000, 120, 5, 5));
        elf.extend(*b"code");
        assert!(flatten(&elf).is_err());
    }

    #[test]
    fn header_magic_is_looked_for_at_its_place() {
        let mut image = vec![0; 64];
        assert!(!is_linux_image(&image));
        image[56..60].copy_from_slice(b"ARMd");
        assert!(is_linux_image(&image));
    }

    /// ELF64 header, little-endian, AArch64, program headers right behind it.
    fn elf_header(segments: u16) -> Vec<u8> {
        let mut header = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        header.extend([2, 0, 183, 0, 1, 0, 0, 0]);
        header.extend(0_u64.to_le_bytes());
        header.extend(64_u64.to_le_bytes());
        header.extend(0_u64.to_le_bytes());
        header.extend(0_u32.to_le_bytes());
        for field in [64, 56, segments, 64, 0, 0] {
            header.extend(field.to_le_bytes());
        }
        header
    }

    fn program_header(address: u64, offset: u64, in_file: u64, in_memory: u64) -> Vec<u8> {
        let mut header = [1_u32, 5].map(u32::to_le_bytes).concat();
        for field in [offset, address, address, in_file, in_memory, 4] {
            header.extend(field.to_le_bytes());
        }
        header
    }
}
