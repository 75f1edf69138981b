//! Small device trees for tests, written node by node.

use std::{
    ops::{Deref, DerefMut},
    vec::Vec,
};

/// A finished blob, aligned as a boot loader aligns it.
pub(crate) struct Blob {
    bytes: Vec<u8>,
    start: usize,
}

impl Blob {
    /// A copy of `tree`.
    pub(crate) fn new(tree: &[u8]) -> Self {
        let mut bytes = std::vec![0; tree.len() + 8];
        let start = bytes.as_ptr().align_offset(8);
        bytes.truncate(start + tree.len());
        bytes[start..].copy_from_slice(tree);
        Self { bytes, start }
    }
}

impl Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl DerefMut for Blob {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }
}

/// Builds a blob of format version 17.
pub(crate) struct TreeBuilder {
    structure: Vec<u8>,
    strings: Vec<u8>,
    reservations: Vec<u8>,
    depth: usize,
}

impl TreeBuilder {
    /// With an open root node of two address and two size cells.
    pub(crate) fn new() -> Self {
        let builder = Self { structure: Vec::new(), strings: Vec::new(), reservations: Vec::new(), depth: 0 };
        builder.begin("").cells("#address-cells", &[2]).cells("#size-cells", &[2])
    }

    pub(crate) fn reserve(mut self, base: u64, size: u64) -> Self {
        self.reservations.extend(base.to_be_bytes());
        self.reservations.extend(size.to_be_bytes());
        self
    }

    pub(crate) fn begin(mut self, name: &str) -> Self {
        self.word(1);
        self.structure.extend(name.as_bytes());
        self.structure.push(0);
        self.pad();
        self.depth += 1;
        self
    }

    pub(crate) fn end(mut self) -> Self {
        self.word(2);
        self.depth -= 1;
        self
    }

    pub(crate) fn nop(mut self) -> Self {
        self.word(4);
        self
    }

    pub(crate) fn bytes(mut self, name: &str, value: &[u8]) -> Self {
        self.word(3);
        self.word(value.len() as u32);
        self.word(self.strings.len() as u32);
        self.structure.extend(value);
        self.pad();
        self.strings.extend(name.as_bytes());
        self.strings.push(0);
        self
    }

    pub(crate) fn cells(self, name: &str, value: &[u32]) -> Self {
        let bytes: Vec<u8> = value.iter().flat_map(|cell| cell.to_be_bytes()).collect();
        self.bytes(name, &bytes)
    }

    /// A string, or a list with NULs between its strings.
    pub(crate) fn text(self, name: &str, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(name, &bytes)
    }

    /// Closes what is open and writes the header.
    pub(crate) fn build(mut self) -> Blob {
        while self.depth > 0 {
            self = self.end();
        }
        self.word(9);
        self = self.reserve(0, 0);
        let reservations_at = 40;
        let structure_at = reservations_at + self.reservations.len();
        let strings_at = structure_at + self.structure.len();
        let total = strings_at + self.strings.len();
        let header = [
            0xd00d_feed,
            total,
            structure_at,
            strings_at,
            reservations_at,
            17,
            16,
            0,
            self.strings.len(),
            self.structure.len(),
        ];
        let mut blob: Vec<u8> = header.iter().flat_map(|&field| (field as u32).to_be_bytes()).collect();
        blob.extend(self.reservations);
        blob.extend(self.structure);
        blob.extend(self.strings);
        Blob::new(&blob)
    }

    fn word(&mut self, word: u32) {
        self.structure.extend(word.to_be_bytes());
    }

    fn pad(&mut self) {
        let length = self.structure.len().next_multiple_of(4);
        self.structure.resize(length, 0);
    }
}
