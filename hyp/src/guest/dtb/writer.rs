//! Writes flattened device trees (Devicetree Specification, "Flattened Devicetree (DTB) Format").
//!
//! [`Tree`] holds the two blocks that grow: the structure and the names of properties.
//! [`Node`] is a node that is open; nodes nest as closures do, so none is left open and
//! none is closed twice. Properties come before child nodes, which the specification
//! demands and the tests' `dtc` checks.
//!
//! The crate for this, `vm-fdt`, takes 77,000 instructions for a guest's tree, a fifth of
//! the time from reset to a guest's first instruction: it validates and allocates every
//! name and keeps them in a map to store each one once. Here a name is stored each time
//! it is used, which the format allows; that costs some hundred bytes and no search.

use alloc::vec::Vec;

const MAGIC: u32 = 0xD00D_FEED;
const VERSION: u32 = 17;
const LAST_COMPATIBLE_VERSION: u32 = 16;

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const END: u32 = 9;

/// Header fields, of four bytes each.
const HEADER_LEN: usize = 40;
/// The memory reservation block: only the entry that ends it.
const RESERVATIONS: [u8; 16] = [0; 16];
/// Names take about this share of the structure.
const NAMES_SHARE: usize = 3;

/// A device tree being written.
pub(super) struct Tree {
    /// Header, memory reservations and structure block.
    head: Vec<u8>,
    names: Vec<u8>,
}

impl Tree {
    /// An empty tree with room for about `structure` bytes of nodes and properties.
    pub(super) fn with_capacity(structure: usize) -> Self {
        let mut head = Vec::with_capacity(structure + structure / NAMES_SHARE);
        head.resize(HEADER_LEN, 0);
        head.extend_from_slice(&RESERVATIONS);
        Self { head, names: Vec::with_capacity(structure / NAMES_SHARE) }
    }

    /// Writes the root node with what `fill` puts into it.
    pub(super) fn root(&mut self, fill: impl FnOnce(&mut Node<'_>)) {
        self.node("", fill);
    }

    /// The finished tree, as long as its header says.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.token(END);
        let names_at = self.head.len();
        let names_len = self.names.len();
        self.head.append(&mut self.names);

        let structure_at = HEADER_LEN + RESERVATIONS.len();
        let fields = [
            MAGIC,
            length(self.head.len()),
            length(structure_at),
            length(names_at),
            length(HEADER_LEN),
            VERSION,
            LAST_COMPATIBLE_VERSION,
            0, // the boot CPU is vCPU 0
            length(names_len),
            length(names_at - structure_at),
        ];
        for (place, field) in self.head.chunks_exact_mut(4).zip(fields) {
            place.copy_from_slice(&field.to_be_bytes());
        }
        self.head
    }

    fn node(&mut self, name: &str, fill: impl FnOnce(&mut Node<'_>)) {
        self.token(BEGIN_NODE);
        self.head.extend_from_slice(name.as_bytes());
        self.head.push(0);
        self.pad();
        fill(&mut Node(self));
        self.token(END_NODE);
    }

    /// What comes before a property's value of `len` bytes.
    fn property(&mut self, name: &str, len: usize) {
        let [token, len, name_at] = [PROPERTY, length(len), length(self.names.len())].map(u32::to_be_bytes);
        self.head.extend_from_slice([token, len, name_at].as_flattened());
        self.names.extend_from_slice(name.as_bytes());
        self.names.push(0);
    }

    fn token(&mut self, token: u32) {
        self.head.extend_from_slice(&token.to_be_bytes());
    }

    /// Tokens stand on multiples of four bytes.
    fn pad(&mut self) {
        let over = self.head.len() % 4;
        if over != 0 {
            self.head.extend_from_slice([0; 4].get(over..).unwrap_or_default());
        }
    }
}

/// Lengths and offsets are 32 bits wide; a tree of 4 GiB is nothing that a caller can ask for.
fn length(len: usize) -> u32 {
    u32::try_from(len).expect("trees are limited by DTB_MAX")
}

/// An open node of a tree.
pub(super) struct Node<'t>(&'t mut Tree);

impl Node<'_> {
    /// A child node, called `name` with its unit address, filled by `fill`.
    pub(super) fn node(&mut self, name: &str, fill: impl FnOnce(&mut Node<'_>)) {
        self.0.node(name, fill);
    }

    /// A property without a value.
    pub(super) fn flag(&mut self, name: &str) {
        self.0.property(name, 0);
    }

    /// A property of 32-bit numbers.
    pub(super) fn cells(&mut self, name: &str, cells: &[u32]) {
        self.0.property(name, size_of_val(cells));
        for cell in cells {
            self.0.head.extend_from_slice(&cell.to_be_bytes());
        }
    }

    /// A property of one 64-bit number.
    pub(super) fn address(&mut self, name: &str, address: u64) {
        self.bytes(name, &address.to_be_bytes());
    }

    /// A property of address ranges, each with its start and size in two cells.
    pub(super) fn regions(&mut self, name: &str, regions: &[(u64, u64)]) {
        self.0.property(name, size_of_val(regions));
        for &(start, size) in regions {
            self.0.head.extend_from_slice([start.to_be_bytes(), size.to_be_bytes()].as_flattened());
        }
    }

    /// A property of one string.
    pub(super) fn string(&mut self, name: &str, value: &str) {
        self.0.property(name, value.len() + 1);
        self.0.head.extend_from_slice(value.as_bytes());
        self.0.head.push(0);
        self.0.pad();
    }

    /// A property of several strings, each with its NUL.
    pub(super) fn strings(&mut self, name: &str, values: &str) {
        self.bytes(name, values.as_bytes());
    }

    /// A property of bytes.
    pub(super) fn bytes(&mut self, name: &str, value: &[u8]) {
        self.0.property(name, value.len());
        self.0.head.extend_from_slice(value);
        self.0.pad();
    }
}
