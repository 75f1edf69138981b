//! NXP LPUART in its 32-bit little-endian form (i.MX 93 reference manual, "LPUART", memory map).

use super::Interrupt;
use crate::mmio::Registers;

/// Status: flags, some of which a written 1 clears, and a few settings.
const STAT: usize = 0x14;
/// Control.
const CTRL: usize = 0x18;
/// Data: writing sends, reading receives (flags above bit 9).
const DATA: usize = 0x1c;
/// FIFO watermarks and fill counts.
const WATER: usize = 0x2c;

/// STAT and, as enable bits, CTRL: the transmit FIFO is at or below its watermark.
const TRANSMIT: u32 = 1 << 23;
/// STAT and, as enable bits, CTRL: the receive FIFO is above its watermark.
const RECEIVE: u32 = 1 << 21;
/// WATER: how many characters wait.
const RECEIVE_COUNT: u32 = 0xff << 24;

/// An LPUART.
#[derive(Clone, Copy, Debug)]
pub struct Lpuart(pub(super) Registers);

impl Lpuart {
    pub(super) fn try_put(self, byte: u8) -> bool {
        let has_room = self.0.read32(STAT) & TRANSMIT != 0;
        if has_room {
            self.0.write32(DATA, byte.into());
        }
        has_room
    }

    pub(super) fn try_get(self) -> Option<u8> {
        let is_ready = self.0.read32(WATER) & RECEIVE_COUNT != 0;
        is_ready.then(|| self.0.read32(DATA) as u8)
    }

    pub(super) fn set_rx_interrupt(self, interrupt: Interrupt) {
        self.0.write32(CTRL, interrupt.apply(self.0.read32(CTRL), RECEIVE));
    }

    pub(super) fn set_tx_interrupt(self, interrupt: Interrupt) {
        self.0.write32(CTRL, interrupt.apply(self.0.read32(CTRL), TRANSMIT));
    }

    /// Clears the error flags that are set: after an overrun nothing is received until its flag is gone.
    pub(super) fn acknowledge(self) {
        self.0.write32(STAT, self.0.read32(STAT));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mmio::fake::FakeRegisters;

    #[test]
    fn a_byte_is_sent_only_while_the_transmitter_is_ready() {
        let mut block = FakeRegisters::new(0x100);
        let registers = block.registers();
        assert!(!Lpuart(registers).try_put(b'x'));
        registers.write32(STAT, 0x0080_0000);
        assert!(Lpuart(registers).try_put(b'x'));
        assert_eq!(registers.read32(DATA), u32::from(b'x'));
    }

    #[test]
    fn a_byte_is_received_while_the_fifo_counts_one() {
        let mut block = FakeRegisters::new(0x100);
        let registers = block.registers();
        registers.write32(DATA, 0x1041);
        assert_eq!(Lpuart(registers).try_get(), None);
        registers.write32(WATER, 0x0100_0000);
        assert_eq!(Lpuart(registers).try_get(), Some(0x41));
    }

    #[test]
    fn interrupts_leave_the_other_controls_alone() {
        let mut block = FakeRegisters::new(0x100);
        let registers = block.registers();
        registers.write32(CTRL, 0x000c_0000);
        Lpuart(registers).set_rx_interrupt(Interrupt::Enabled);
        assert_eq!(registers.read32(CTRL), 0x002c_0000);
    }
}
