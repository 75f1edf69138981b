//! Arm PrimeCell UART (PL011, DDI 0183), and its subset in the Server Base System Architecture.

use super::Interrupt;
use crate::mmio::Registers;

/// Data: writing sends, reading receives (error flags above bit 7).
const DR: usize = 0x00;
/// Flags.
const FR: usize = 0x18;
/// Interrupt mask set/clear: 1 lets through.
const IMSC: usize = 0x38;
/// Interrupt clear.
const ICR: usize = 0x44;

const FR_RECEIVE_EMPTY: u32 = 1 << 4;
const FR_TRANSMIT_FULL: u32 = 1 << 5;

/// Receive, at the FIFO's trigger level, and receive timeout, for what stays below it.
const RECEIVE: u32 = 1 << 4 | 1 << 6;
/// The transmit FIFO has fallen to its trigger level. Until it was once fuller than that, this never comes.
const TRANSMIT: u32 = 1 << 5;

/// A PL011.
#[derive(Clone, Copy, Debug)]
pub struct Pl011(pub(super) Registers);

impl Pl011 {
    pub(super) fn try_put(self, byte: u8) -> bool {
        let has_room = self.0.read32(FR) & FR_TRANSMIT_FULL == 0;
        if has_room {
            self.0.write32(DR, byte.into());
        }
        has_room
    }

    pub(super) fn try_get(self) -> Option<u8> {
        let is_empty = self.0.read32(FR) & FR_RECEIVE_EMPTY != 0;
        (!is_empty).then(|| self.0.read32(DR) as u8)
    }

    pub(super) fn set_rx_interrupt(self, interrupt: Interrupt) {
        self.0.write32(IMSC, interrupt.apply(self.0.read32(IMSC), RECEIVE));
    }

    pub(super) fn set_tx_interrupt(self, interrupt: Interrupt) {
        self.0.write32(IMSC, interrupt.apply(self.0.read32(IMSC), TRANSMIT));
        // The condition is latched when the FIFO falls to its trigger level. Cleared here, before
        // the FIFO is filled again, and nowhere else, it is never lost and never stale.
        if interrupt == Interrupt::Disabled {
            self.0.write32(ICR, TRANSMIT);
        }
    }

    /// Only what was received: clearing the transmit condition here could lose it to a CPU that has
    /// just filled the FIFO and is about to enable its interrupt.
    pub(super) fn acknowledge(self) {
        self.0.write32(ICR, RECEIVE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mmio::fake::FakeRegisters;

    #[test]
    fn a_byte_goes_to_the_data_register() {
        let mut block = FakeRegisters::new(0x100);
        let registers = block.registers();
        assert!(Pl011(registers).try_put(b'x'));
        assert_eq!(registers.read32(DR), u32::from(b'x'));
    }

    #[test]
    fn a_full_fifo_refuses_the_byte() {
        let mut block = FakeRegisters::new(0x100);
        let registers = block.registers();
        registers.write32(FR, 0x20);
        assert!(!Pl011(registers).try_put(b'x'));
        assert_eq!(registers.read32(DR), 0);
    }

    #[test]
    fn error_flags_are_no_part_of_a_received_byte() {
        let mut block = FakeRegisters::new(0x100);
        let registers = block.registers();
        registers.write32(DR, 0xf61);
        assert_eq!(Pl011(registers).try_get(), Some(0x61));
        registers.write32(FR, 0x10);
        assert_eq!(Pl011(registers).try_get(), None);
    }

    #[test]
    fn each_condition_is_cleared_by_its_own_side_only() {
        let mut block = FakeRegisters::new(0x100);
        let registers = block.registers();
        Pl011(registers).acknowledge();
        assert_eq!(registers.read32(ICR), 0x50);
        Pl011(registers).set_tx_interrupt(Interrupt::Enabled);
        assert_eq!(registers.read32(ICR), 0x50);
        Pl011(registers).set_tx_interrupt(Interrupt::Disabled);
        assert_eq!(registers.read32(ICR), 0x20);
    }

    #[test]
    fn receive_and_transmit_interrupts_are_masked_apart() {
        let mut block = FakeRegisters::new(0x100);
        let registers = block.registers();
        Pl011(registers).set_rx_interrupt(Interrupt::Enabled);
        assert_eq!(registers.read32(IMSC), 0x50);
        Pl011(registers).set_tx_interrupt(Interrupt::Enabled);
        Pl011(registers).set_rx_interrupt(Interrupt::Disabled);
        assert_eq!(registers.read32(IMSC), 0x20);
    }
}
