//! A reset or power-off that is a bit in a register of some system controller ("syscon-reboot" and "syscon-poweroff"
//! bindings): the tree says which register and which bits, so one driver serves many chips.

use crate::{
    dt::{Node, Region, word},
    mmio::{ByteOrder, Registers},
};

/// What the write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It resets the machine.
    Reset,
    /// It switches the machine off.
    PowerOff,
}

/// What to write where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// What it does.
    pub action: Action,
    /// Bytes from the system controller's first register.
    pub offset: u32,
    /// Only these bits are changed...
    pub mask: u32,
    /// ...to these.
    pub value: u32,
    /// How the register's bytes are arranged.
    pub order: ByteOrder,
}

/// Where the registers of a node are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Regmap {
    /// Here.
    Here(Block),
    /// Where the node with this phandle has its own.
    Of(u32),
}

/// A block of registers, as a node describes its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(super) region: Region,
    order: ByteOrder,
}

impl Block {
    /// The first block of `node`.
    pub(crate) fn of_node(node: &Node<'_, '_>) -> Option<Self> {
        Some(Self { region: node.region(0)?, order: node.byte_order() })
    }
}

impl Regmap {
    /// Where `node` says its system controller is: by phandle, or its parent.
    pub(super) fn from_node(node: &Node<'_, '_>) -> Option<Self> {
        match node.property(b"regmap") {
            Some(value) => Some(Self::Of(word(value, 0)?)),
            None => Some(Self::Here(Block::of_node(&node.parent()?)?)),
        }
    }
}

impl Write {
    /// What `node` says; without `value`, `mask` is the whole value (the bindings' older form).
    pub(super) fn from_node(node: &Node<'_, '_>, action: Action) -> Option<Self> {
        let number = |name| node.property(name).and_then(|value| word(value, 0));
        let (mask, value) = match (number(b"mask"), number(b"value")) {
            (mask, Some(value)) => (mask.unwrap_or(u32::MAX), value),
            (Some(mask), None) => (u32::MAX, mask),
            (None, None) => return None,
        };
        let offset = number(b"offset").or_else(|| number(b"reg"))?;
        // The registers are accessed as whole words.
        offset.is_multiple_of(4).then_some(Self { action, offset, mask, value, order: ByteOrder::Little })
    }

    /// The same for registers in `block`.
    pub(super) fn within(self, block: Block) -> Self {
        Self { order: block.order, ..self }
    }

    pub(super) fn perform(&self, registers: Registers) {
        let offset = self.offset as usize;
        let others = self.order.of32(registers.read32(offset)) & !self.mask;
        registers.write32(offset, self.order.of32(others | self.value & self.mask));
    }

    /// Bytes of registers up to the end of this one.
    pub(super) fn block(&self) -> u64 {
        u64::from(self.offset) + 4
    }
}
