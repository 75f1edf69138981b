//! Walking the tree forwards with a stack of ancestors.
//!
//! On entering a node its properties are read once and the ones that matter to its children or to nearly every
//! question are kept in a frame: cell sizes, `ranges`, `interrupt-parent`, `status`, `compatible`, `reg`,
//! `device_type`. Anything else is looked up on demand by going over that one node's properties again. Properties
//! precede children (Devicetree Specification, "Structure Block"), so a frame is complete before a child is seen.

use crate::mmio::ByteOrder;

use super::{
    DtError, Interrupts, NodeRef, Strings, Tree,
    token::{Token, Tokens},
    value::{cells, text, word},
};

/// Nodes deeper than this are passed over; the deepest known tree has nine levels.
pub const MAX_DEPTH: usize = 16;

/// A range of physical addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// First address.
    pub base: u64,
    /// Bytes.
    pub size: u64,
}

impl Region {
    /// One past the last address; saturates (regions read from a tree never do).
    pub fn end(&self) -> u64 {
        self.base.saturating_add(self.size)
    }
}

/// What is kept of a node while it or a descendant is being looked at.
#[derive(Clone, Copy)]
struct Frame<'dt> {
    name: &'dt [u8],
    offset: u32,
    first_property: u32,
    address_cells: usize,
    size_cells: usize,
    /// `None`: the children's addresses mean nothing to us. Empty: they are ours.
    ranges: Option<&'dt [u8]>,
    interrupt_parent: Option<u32>,
    is_enabled: bool,
    compatible: &'dt [u8],
    device_type: &'dt [u8],
    reg: &'dt [u8],
}

impl Frame<'_> {
    /// Before a node is entered: nothing to inherit, and the cell counts that hold in the absence of any
    /// (Devicetree Specification, "#address-cells and #size-cells").
    const EMPTY: Self = Self {
        name: &[],
        offset: 0,
        first_property: 0,
        address_cells: 2,
        size_cells: 1,
        ranges: None,
        interrupt_parent: None,
        is_enabled: true,
        compatible: &[],
        device_type: &[],
        reg: &[],
    };
}

/// The properties that a frame keeps.
#[derive(Clone, Copy)]
enum Known {
    Compatible,
    Reg,
    Ranges,
    Status,
    DeviceType,
    AddressCells,
    SizeCells,
    InterruptParent,
    Other,
}

impl Known {
    fn of_name(name: &[u8]) -> Self {
        match name {
            b"compatible" => Self::Compatible,
            b"reg" => Self::Reg,
            b"ranges" => Self::Ranges,
            b"status" => Self::Status,
            b"device_type" => Self::DeviceType,
            b"#address-cells" => Self::AddressCells,
            b"#size-cells" => Self::SizeCells,
            b"interrupt-parent" => Self::InterruptParent,
            _ => Self::Other,
        }
    }
}

/// What was found at offsets of the strings block, by the offsets' low bits. Trees use the same few names over and
/// over, and nearly always one copy of each, so most are recognised without being read.
struct Names([(u32, Known); 32]);

impl Names {
    fn get(&mut self, tree: &Tree<'_>, offset: u32) -> Known {
        let slot = &mut self.0[offset as usize % 32];
        if slot.0 != offset {
            *slot = (offset, tree.string(offset).map_or(Known::Other, Known::of_name));
        }
        slot.1
    }
}

/// A position in the tree: a node and its ancestors.
pub struct Walk<'dt> {
    tree: Tree<'dt>,
    tokens: Tokens<'dt>,
    /// Root first; only the first `depth` are in use.
    frames: [Frame<'dt>; MAX_DEPTH],
    depth: usize,
    names: Names,
}

impl<'dt> Walk<'dt> {
    /// Before the root node.
    pub fn new(tree: &Tree<'dt>) -> Self {
        Self {
            tree: *tree,
            tokens: Tokens::new(tree),
            frames: [Frame::EMPTY; MAX_DEPTH],
            depth: 0,
            // No name is at the offset that the empty slots carry: no block is that long.
            names: Names([(u32::MAX, Known::Other); 32]),
        }
    }

    /// Moves to the root node.
    pub fn root(&mut self) -> Result<Node<'_, 'dt>, DtError> {
        self.tokens = Tokens::new(&self.tree);
        self.depth = 0;
        match self.tokens.next()? {
            Token::Begin(name) => self.enter(0, name),
            _ => return Err(DtError::NoRoot),
        }
        self.node().ok_or(DtError::NoRoot)
    }

    /// Moves to the node that `path` names, from the root; `None` if there is none.
    ///
    /// A component without unit address matches the first node of that name, as in `libfdt`.
    pub fn find(&mut self, path: &[u8]) -> Result<Option<Node<'_, 'dt>>, DtError> {
        self.root()?;
        self.follow(path)
    }

    /// Moves down along `path`.
    pub(super) fn follow(&mut self, path: &[u8]) -> Result<Option<Node<'_, 'dt>>, DtError> {
        for component in path.split(|&byte| byte == b'/') {
            if !component.is_empty() && !self.descend(component)? {
                return Ok(None);
            }
        }
        Ok(self.node())
    }

    /// The current node; `None` before the first move.
    pub fn node(&self) -> Option<Node<'_, 'dt>> {
        let (frame, parents) = self.frames.get(..self.depth)?.split_last()?;
        Some(Node { tree: &self.tree, frame, parents })
    }

    /// Moves to the next node in depth-first order, the root being the first; `None` after the last.
    pub fn advance(&mut self) -> Result<Option<Node<'_, 'dt>>, DtError> {
        loop {
            let offset = self.tokens.offset();
            match self.tokens.next()? {
                Token::Begin(_) if self.depth == MAX_DEPTH => self.tokens.skip_node()?,
                Token::Begin(name) => {
                    self.enter(offset, name);
                    return Ok(self.node());
                }
                Token::End => self.depth = self.depth.saturating_sub(1),
                Token::Property => {}
                Token::Finish => return Ok(None),
            }
        }
    }

    /// Moves to the first child of the current node that `component` names and says whether there is one.
    fn descend(&mut self, component: &[u8]) -> Result<bool, DtError> {
        loop {
            let offset = self.tokens.offset();
            match self.tokens.next()? {
                Token::Begin(name) if self.depth < MAX_DEPTH && is_named(name, component) => {
                    self.enter(offset, name);
                    return Ok(true);
                }
                Token::Begin(_) => self.tokens.skip_node()?,
                Token::Property => {}
                Token::End | Token::Finish => return Ok(false),
            }
        }
    }

    /// Reads the properties of the node just begun into the next frame, of which there must be one.
    fn enter(&mut self, offset: u32, name: &'dt [u8]) {
        let parent = self.depth.checked_sub(1).and_then(|parent| self.frames.get(parent));
        let interrupt_parent = parent.and_then(|parent| parent.interrupt_parent);
        let is_enabled = parent.is_none_or(|parent| parent.is_enabled);
        // Filled where it stays: a copy of a frame costs as much as reading the node.
        let Some(frame) = self.frames.get_mut(self.depth) else { return };
        self.depth += 1;
        *frame = Frame { name, offset, interrupt_parent, is_enabled, ..Frame::EMPTY };
        frame.first_property = self.tokens.offset();
        while let Some((name, value)) = self.tokens.next_property() {
            match self.names.get(&self.tree, name) {
                Known::Compatible => frame.compatible = value,
                Known::Reg => frame.reg = value,
                Known::Ranges => frame.ranges = Some(value),
                Known::Status => frame.is_enabled &= matches!(text(value), b"okay" | b"ok"),
                Known::DeviceType => frame.device_type = text(value),
                Known::AddressCells => frame.address_cells = cell_count(value),
                Known::SizeCells => frame.size_cells = cell_count(value),
                Known::InterruptParent => frame.interrupt_parent = word(value, 0),
                Known::Other => {}
            }
        }
    }
}

/// A `#…-cells` value; an unreadable one is as good as one too large.
fn cell_count(value: &[u8]) -> usize {
    word(value, 0).map_or(usize::MAX, |count| count as usize)
}

/// Whether a node called `name` is meant by `component`, which may lack the unit address.
fn is_named(name: &[u8], component: &[u8]) -> bool {
    matches!(name.strip_prefix(component), Some([] | [b'@', ..]))
}

/// The current node of a [`Walk`].
#[derive(Clone, Copy)]
pub struct Node<'walk, 'dt> {
    tree: &'walk Tree<'dt>,
    frame: &'walk Frame<'dt>,
    /// Root first.
    parents: &'walk [Frame<'dt>],
}

impl<'dt> Node<'_, 'dt> {
    /// Levels below the root, whose own depth is 0.
    pub fn depth(&self) -> usize {
        self.parents.len()
    }

    /// Name with unit address.
    pub fn name(&self) -> &'dt [u8] {
        self.frame.name
    }

    /// Name without unit address.
    pub fn base_name(&self) -> &'dt [u8] {
        let name = self.frame.name;
        let end = name.iter().position(|&byte| byte == b'@').unwrap_or(name.len());
        name.get(..end).unwrap_or(name)
    }

    /// The parent's name with unit address; empty for the root and its children.
    pub fn parent_name(&self) -> &'dt [u8] {
        self.parents.last().map_or(&[], |parent| parent.name)
    }

    /// The node that this one is a child of; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        let (frame, parents) = self.parents.split_last()?;
        Some(Self { tree: self.tree, frame, parents })
    }

    /// Remembers this node without borrowing the walk.
    pub fn reference(&self) -> NodeRef<'dt> {
        NodeRef::new(*self.tree, self.frame.offset)
    }

    /// Whether neither this node nor an ancestor has a `status` other than `okay`.
    pub fn is_enabled(&self) -> bool {
        self.frame.is_enabled
    }

    /// The `compatible` list, most specific first.
    pub fn compatible(&self) -> Strings<'dt> {
        Strings::new(self.frame.compatible)
    }

    /// The deprecated but still decisive `device_type`, empty if absent.
    pub fn device_type(&self) -> &'dt [u8] {
        self.frame.device_type
    }

    /// The raw value of property `name`.
    pub fn property(&self, name: &[u8]) -> Option<&'dt [u8]> {
        let mut properties = Tokens::at(self.tree, self.frame.first_property);
        while let Some((offset, value)) = properties.next_property() {
            if self.tree.is_string(offset, name) {
                return Some(value);
            }
        }
        None
    }

    /// The `reg` address number `index` on the node's own bus, untranslated.
    pub fn bus_address(&self, index: usize) -> Option<u64> {
        self.bus_region(index).map(|region| region.base)
    }

    /// The `reg` entry number `index` as a CPU sees it: translated through the `ranges` of every ancestor.
    ///
    /// `None` if there is no such entry, if it wraps around, or if no `ranges` leads to it.
    pub fn region(&self, index: usize) -> Option<Region> {
        let Region { base, size } = self.bus_region(index)?;
        let base = translate(base, self.parents)?;
        base.checked_add(size)?;
        Some(Region { base, size })
    }

    /// How many entries `reg` has.
    pub fn region_count(&self) -> usize {
        let Some(parent) = self.parents.last() else { return 0 };
        let Some(entry) = parent.address_cells.checked_add(parent.size_cells) else { return 0 };
        (self.frame.reg.len() / 4).checked_div(entry).unwrap_or(0)
    }

    /// What interrupts the node raises, from `interrupts-extended` or `interrupts`.
    pub fn interrupts(&self) -> Interrupts<'dt> {
        match self.property(b"interrupts-extended") {
            Some(value) => Interrupts::extended(value),
            None => Interrupts::inherited(
                self.frame.interrupt_parent,
                self.property(b"interrupts").unwrap_or(&[]),
            ),
        }
    }

    /// The number other nodes refer to this one by.
    pub fn phandle(&self) -> Option<u32> {
        word(self.property(b"phandle").or_else(|| self.property(b"linux,phandle"))?, 0)
    }

    /// How the bytes of the device's registers are arranged.
    pub fn byte_order(&self) -> ByteOrder {
        if self.property(b"big-endian").is_some() { ByteOrder::Big } else { ByteOrder::Little }
    }

    fn bus_region(&self, index: usize) -> Option<Region> {
        let parent = self.parents.last()?;
        let entry = parent.address_cells.checked_add(parent.size_cells)?;
        let at = index.checked_mul(entry)?;
        let base = cells(self.frame.reg, at, parent.address_cells)?;
        let size = cells(self.frame.reg, at.checked_add(parent.address_cells)?, parent.size_cells)?;
        (entry > 0).then_some(Region { base, size })
    }
}

/// `address` on the bus of the last of `buses`, as the root (the first) sees it.
fn translate(mut address: u64, buses: &[Frame<'_>]) -> Option<u64> {
    for pair in buses.windows(2).rev() {
        let [parent, bus] = pair else { return None };
        let ranges = bus.ranges?;
        if ranges.is_empty() {
            continue;
        }
        let parent_at = bus.address_cells;
        let size_at = parent_at.checked_add(parent.address_cells)?;
        let entry = size_at.checked_add(bus.size_cells)?;
        let entry_bytes = entry.checked_mul(4).filter(|&bytes| bytes > 0)?;
        address = ranges.chunks_exact(entry_bytes).find_map(|range| {
            let child = cells(range, 0, bus.address_cells)?;
            let offset = address.checked_sub(child)?;
            let size = cells(range, size_at, bus.size_cells)?;
            if offset >= size {
                return None;
            }
            cells(range, parent_at, parent.address_cells)?.checked_add(offset)
        })?;
    }
    Some(address)
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{Blob, TreeBuilder},
        *,
    };

    fn with_node<T>(blob: &[u8], path: &str, claim: impl FnOnce(Node<'_, '_>) -> T) -> T {
        let tree = Tree::new(blob).expect("valid header");
        claim(Walk::new(&tree).find(path.as_bytes()).expect("valid tree").expect("node exists"))
    }

    /// Two buses that shift addresses: child 0x7e20_1000 is 0xfe20_1000 on the middle bus and +4 GiB at the root.
    fn nested_buses() -> Blob {
        TreeBuilder::new()
            .begin("outer")
            .cells("#address-cells", &[2])
            .cells("#size-cells", &[1])
            .cells("ranges", &[0, 0, 1, 0, 0xffff_ffff])
            .begin("soc")
            .cells("#address-cells", &[1])
            .cells("#size-cells", &[1])
            .cells("ranges", &[0x7c00_0000, 0, 0xfc00_0000, 0x0380_0000])
            .begin("serial@7e201000")
            .cells("reg", &[0x7e20_1000, 0x200, 0x9000_0000, 0x10])
            .build()
    }

    #[test]
    fn addresses_are_translated_through_every_bus() {
        let blob = nested_buses();
        let region = with_node(&blob, "/outer/soc/serial@7e201000", |node| node.region(0));
        assert_eq!(region, Some(Region { base: 0x1_fe20_1000, size: 0x200 }));
    }

    #[test]
    fn an_address_outside_the_ranges_is_unreachable() {
        let blob = nested_buses();
        assert_eq!(with_node(&blob, "/outer/soc/serial", |node| node.region(1)), None);
    }

    #[test]
    fn a_bus_without_ranges_hides_its_children() {
        let blob = TreeBuilder::new()
            .begin("i2c")
            .cells("#address-cells", &[1])
            .cells("#size-cells", &[0])
            .begin("rtc@68")
            .cells("reg", &[0x68])
            .build();
        assert_eq!(
            with_node(&blob, "/i2c/rtc", |node| (node.region(0), node.bus_address(0))),
            (None, Some(0x68))
        );
    }

    #[test]
    fn empty_ranges_are_the_identity() {
        let blob = TreeBuilder::new()
            .begin("soc")
            .bytes("ranges", &[])
            .cells("#size-cells", &[2])
            .begin("uart@1")
            .cells("reg", &[0, 0x900_0000, 0, 0x1000])
            .build();
        let region = with_node(&blob, "/soc/uart", |node| node.region(0));
        assert_eq!(region, Some(Region { base: 0x900_0000, size: 0x1000 }));
    }

    #[test]
    fn a_region_that_wraps_around_is_none() {
        let blob = TreeBuilder::new().begin("a").cells("reg", &[0xffff_ffff, 0xffff_f000, 0, 0x1001]).build();
        assert_eq!(with_node(&blob, "/a", |node| node.region(0)), None);
    }

    #[test]
    fn zero_cells_for_address_and_size_mean_no_regions() {
        let blob = TreeBuilder::new()
            .begin("bus")
            .cells("#address-cells", &[0])
            .cells("#size-cells", &[0])
            .begin("a")
            .cells("reg", &[1, 2, 3])
            .build();
        let entry = with_node(&blob, "/bus/a", |node| (node.region_count(), node.bus_address(0)));
        assert_eq!(entry, (0, None));
    }

    #[test]
    fn huge_cell_counts_mean_no_regions() {
        let blob = TreeBuilder::new()
            .begin("bus")
            .cells("#address-cells", &[u32::MAX])
            .cells("#size-cells", &[u32::MAX])
            .cells("ranges", &[1, 2, 3])
            .begin("a")
            .cells("reg", &[1, 2, 3])
            .build();
        assert_eq!(with_node(&blob, "/bus/a", |node| (node.region_count(), node.region(0))), (0, None));
    }

    #[test]
    fn a_disabled_parent_disables_its_children() {
        let blob = TreeBuilder::new().begin("bus").text("status", "disabled").begin("a").build();
        assert!(!with_node(&blob, "/bus/a", |node| node.is_enabled()));
    }

    #[test]
    fn the_interrupt_parent_is_inherited() {
        let blob = TreeBuilder::new().cells("interrupt-parent", &[7]).begin("bus").begin("a").build();
        assert_eq!(with_node(&blob, "/bus/a", |node| node.interrupts().parent()), Some(7));
    }

    #[test]
    fn nops_are_passed_over_everywhere() {
        let blob =
            TreeBuilder::new().nop().begin("a").nop().text("compatible", "x").nop().end().nop().build();
        assert!(with_node(&blob, "/a", |node| node.compatible().eq([b"x"])));
    }

    #[test]
    fn a_name_without_unit_address_matches_the_first_of_that_name() {
        let blob =
            TreeBuilder::new().begin("uart2").end().begin("uart@1").end().begin("uart@2").end().build();
        assert_eq!(with_node(&blob, "/uart", |node| node.name().to_vec()), b"uart@1");
    }

    #[test]
    fn a_unit_address_is_not_matched_by_its_beginning() {
        let blob = TreeBuilder::new().begin("uart@10").end().begin("uart@1").end().build();
        assert_eq!(with_node(&blob, "/uart@1", |node| node.name().to_vec()), b"uart@1");
    }

    #[test]
    fn nodes_too_deep_are_passed_over() {
        let mut builder = TreeBuilder::new();
        for _ in 0..MAX_DEPTH + 3 {
            builder = builder.begin("a");
        }
        let blob = builder.build();
        let mut walk = Walk::new(&Tree::new(&blob).expect("valid header"));
        let mut nodes = 0;
        while walk.advance().expect("valid tree").is_some() {
            nodes += 1;
        }
        assert_eq!(nodes, MAX_DEPTH);
    }
}
