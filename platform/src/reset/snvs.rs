//! NXP i.MX secure non-volatile storage (i.MX 8M Plus reference manual, "SNVS"), which also holds the line that
//! keeps the board's power supply on.

use crate::{dt::Node, mmio::Registers};

/// Bytes of registers.
pub(super) const BLOCK: u64 = 0x3c;

/// Low-power control.
const LPCR: usize = 0x38;
/// LPCR: the line follows bit 6, and bit 6: let go of it.
const TURN_OFF: u32 = 1 << 5 | 1 << 6;

/// An i.MX SNVS.
#[derive(Clone, Copy, Debug)]
pub struct Snvs(pub(super) Registers);

impl Snvs {
    pub(super) fn power_off(self) {
        self.0.write32(LPCR, self.0.read32(LPCR) | TURN_OFF);
    }
}

/// Whether `node` is one of those on an i.MX. A Layerscape's security monitor lists the same `compatible`, after its
/// own; it is big-endian, and no power supply hangs on it.
pub(super) fn is_of_imx(node: &Node<'_, '_>) -> bool {
    node.compatible().next() == Some(&b"fsl,sec-v4.0-mon"[..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mmio::fake::FakeRegisters;

    #[test]
    fn power_off_keeps_the_clock_running() {
        let mut block = FakeRegisters::new(0x40);
        let registers = block.registers();
        registers.write32(0x38, 0x1);
        Snvs(registers).power_off();
        assert_eq!(registers.read32(0x38), 0x61);
    }
}
