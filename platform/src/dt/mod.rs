//! The flattened device tree, read without trusting it.
//!
//! A layer on the `fdt` crate. The crate checks the container (header and blocks); its node API costs a walk over
//! the whole subtree per step and lacks what a boot needs, so nodes are read here: one forward pass ([`Walk`])
//! that keeps a small stack of ancestors and can therefore translate `reg` through every `ranges`, use the
//! parent's cell sizes and inherit `interrupt-parent` and `status`.
//!
//! * [`Tree`] — a checked blob: structure block, strings block, memory reservations.
//! * [`Walk`] and [`Node`] — depth-first over all nodes, or down one path.
//! * [`NodeRef`] — a node remembered by its offset; prints as its path.
//! * [`Chosen`] — what the boot loader says about this boot.
//! * [`Interrupts`] and [`Controller`] — specifiers to GIC interrupt numbers.
//!
//! Everything a tree can get wrong is a [`DtError`] or a `None`; nothing here panics. The reader also runs before
//! the MMU is on, at another address than it was linked for (`uart::early`), so it keeps no tables of pointers,
//! takes no function pointers, and formats nothing except in `Display`.

mod chosen;
mod interrupt;
mod path;
#[cfg(test)]
pub(crate) mod testing;
mod token;
mod value;
mod walk;
mod words;

use core::fmt;

use fdt::Fdt;

pub use chosen::{Chosen, option};
pub use interrupt::{Controller, Interrupts, Trigger};
pub use path::NodeRef;
pub use value::{Strings, cells, text, word};
pub use walk::{MAX_DEPTH, Node, Region, Walk};

/// Why a blob is not a usable device tree. Offsets are bytes into the structure block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DtError {
    /// The first word is not 0xd00d_feed (or there are fewer than 40 bytes).
    NotATree,
    /// The header is for a format older than 17 or incompatible with it.
    Version,
    /// The header's sizes and offsets point outside the blob.
    Truncated,
    /// The blob or its structure block does not begin at a multiple of four.
    Misaligned,
    /// An unknown token at this offset.
    BadToken(u32),
    /// The structure block ends in the middle of a node.
    EndsEarly(u32),
    /// The structure block does not begin with a root node.
    NoRoot,
}

impl fmt::Display for DtError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotATree => write!(f, "no device tree: its first word is not 0xd00dfeed"),
            Self::Version => write!(f, "device tree format is not version 17: rebuild it with a current dtc"),
            Self::Truncated => write!(f, "device tree header points past the end: the file is truncated"),
            Self::Misaligned => write!(f, "device tree is not aligned: load it at a multiple of 8"),
            Self::BadToken(at) => {
                write!(f, "device tree is damaged: unknown token at structure offset {at:#x}")
            }
            Self::EndsEarly(at) => {
                write!(f, "device tree is damaged: ends early at structure offset {at:#x}")
            }
            Self::NoRoot => write!(f, "device tree is damaged: no root node"),
        }
    }
}

/// Bytes of the header that [`blob_size`] and [`Tree::new`] read.
pub const HEADER_SIZE: usize = 40;

/// How many bytes the blob that begins with `header` claims to have.
///
/// For code that holds only a pointer: read the header, ask here, then make the slice.
pub fn blob_size(header: &[u8]) -> Result<u32, DtError> {
    let magic = word(header, 0).ok_or(DtError::NotATree)?;
    let size = word(header, 1).ok_or(DtError::NotATree)?;
    if magic != 0xd00d_feed || (size as usize) < HEADER_SIZE {
        return Err(DtError::NotATree);
    }
    Ok(size)
}

/// A blob whose header has been checked.
#[derive(Clone, Copy)]
pub struct Tree<'dt> {
    structure: &'dt [u8],
    structure_words: &'dt [u32],
    strings: &'dt [u8],
    reservations: &'dt [u8],
}

impl<'dt> Tree<'dt> {
    /// Checks the header of `blob`, which must begin at a multiple of four and may be longer than the tree.
    pub fn new(blob: &'dt [u8]) -> Result<Self, DtError> {
        let size = blob_size(blob)? as usize;
        let blob = blob.get(..size).ok_or(DtError::Truncated)?;
        check_header(blob)?;
        let tree = Fdt::new_unaligned_fallible(blob).map_err(|_| DtError::Truncated)?;
        let reservations = blob.get(tree.header().memory_reserve_map_offset as usize..);
        Ok(Self {
            structure: tree.structs_block(),
            structure_words: words::words(tree.structs_block()).ok_or(DtError::Misaligned)?,
            strings: tree.strings_block(),
            reservations: reservations.ok_or(DtError::Truncated)?,
        })
    }

    /// The memory reservation block: ranges nobody may use, none of them empty.
    pub fn reservations(&self) -> impl Iterator<Item = Region> + use<'dt> {
        let entries = self.reservations.chunks_exact(16).map(|entry| {
            let base = cells(entry, 0, 2).unwrap_or(0);
            let size = cells(entry, 2, 2).unwrap_or(0);
            Region { base, size }
        });
        entries.take_while(|region| region.base != 0 || region.size != 0).filter(|region| region.size != 0)
    }

    /// The NUL-terminated name at `offset` of the strings block, without its NUL.
    fn string(&self, offset: u32) -> Option<&'dt [u8]> {
        let rest = self.strings.get(offset as usize..)?;
        let end = rest.iter().position(|&byte| byte == 0)?;
        rest.get(..end)
    }

    /// Whether the name at `offset` of the strings block is `name`.
    fn is_string(&self, offset: u32, name: &[u8]) -> bool {
        let rest = self.strings.get(offset as usize..).unwrap_or(&[]);
        rest.first() == name.first() && matches!(rest.strip_prefix(name), Some([0, ..]))
    }
}

impl fmt::Debug for Tree<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tree({} bytes of structure)", self.structure.len())
    }
}

/// What the `fdt` crate adds up unchecked: block ends must fit the blob (and 32 bits).
fn check_header(blob: &[u8]) -> Result<(), DtError> {
    let field = |index| word(blob, index).ok_or(DtError::Truncated);
    let (version, last_compatible) = (field(5)?, field(6)?);
    if version < 17 || last_compatible > 17 {
        return Err(DtError::Version);
    }
    let structure_end = field(2)?.checked_add(field(9)?).ok_or(DtError::Truncated)?;
    let strings_end = field(3)?.checked_add(field(8)?).ok_or(DtError::Truncated)?;
    if structure_end as usize > blob.len() || strings_end as usize > blob.len() {
        return Err(DtError::Truncated);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{
        testing::{Blob, TreeBuilder},
        *,
    };

    fn patched(index: usize, value: u32) -> Result<(), DtError> {
        let mut blob = TreeBuilder::new().build();
        blob[index * 4..index * 4 + 4].copy_from_slice(&value.to_be_bytes());
        Tree::new(&blob).map(|_| ())
    }

    #[test]
    fn a_blob_without_the_magic_is_no_tree() {
        assert_eq!(patched(0, 0), Err(DtError::NotATree));
        assert_eq!(Tree::new(&[]).err(), Some(DtError::NotATree));
    }

    #[test]
    fn block_ends_that_overflow_are_truncation() {
        for index in [2, 3, 8, 9] {
            assert_eq!(patched(index, u32::MAX), Err(DtError::Truncated), "header word {index}");
        }
    }

    #[test]
    fn a_misaligned_blob_is_refused() {
        let blob = TreeBuilder::new().build();
        let mut shifted = std::vec![0; blob.len() + 8];
        let at = shifted.as_ptr().align_offset(4) + 1;
        shifted[at..at + blob.len()].copy_from_slice(&blob);
        assert_eq!(Tree::new(&shifted[at..]).err(), Some(DtError::Misaligned));
    }

    #[test]
    fn a_size_beyond_the_slice_is_truncation() {
        assert_eq!(patched(1, 1 << 20), Err(DtError::Truncated));
    }

    #[test]
    fn another_format_version_is_refused() {
        assert_eq!(patched(5, 16), Err(DtError::Version));
        assert_eq!(patched(6, 18), Err(DtError::Version));
    }

    #[test]
    fn a_tree_may_be_followed_by_anything() {
        let mut bytes = TreeBuilder::new().build().to_vec();
        bytes.extend([0xff; 100]);
        assert!(Tree::new(&Blob::new(&bytes)).is_ok());
    }

    #[test]
    fn reservations_end_at_the_empty_one() {
        let blob = TreeBuilder::new().reserve(0, 0x1000).reserve(0x8000_0000, 0x2000).build();
        let tree = Tree::new(&blob).expect("valid header");
        let expected = [Region { base: 0, size: 0x1000 }, Region { base: 0x8000_0000, size: 0x2000 }];
        assert!(tree.reservations().eq(expected));
    }

    #[test]
    fn a_structure_block_without_a_root_is_refused() {
        let mut blob = TreeBuilder::new().build();
        let structure = word(&blob, 2).expect("has a header") as usize;
        blob[structure + 3] = 9;
        let tree = Tree::new(&blob).expect("valid header");
        assert_eq!(Walk::new(&tree).root().map(|_| ()).err(), Some(DtError::NoRoot));
    }
}
