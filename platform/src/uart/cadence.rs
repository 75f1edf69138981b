//! Cadence UART of the Zynq and Zynq UltraScale+ (UG1085, "UART Controller", register overview in UG1087).

use super::Interrupt;
use crate::mmio::Registers;

/// Control.
const CR: usize = 0x00;
/// Interrupt enable and disable: a written 1 acts, there is no reading.
const IER: usize = 0x08;
const IDR: usize = 0x0c;
/// Interrupt status; a written 1 clears.
const ISR: usize = 0x14;
/// Receive FIFO trigger level.
const RXWM: usize = 0x20;
/// Channel status.
const SR: usize = 0x2c;
/// Data: writing sends, reading receives.
const FIFO: usize = 0x30;

/// CR: receiver and transmitter on. The register is all zeroes, both off, where no firmware ran.
const CR_ON: u32 = 1 << 2 | 1 << 4;
const SR_RECEIVE_EMPTY: u32 = 1 << 1;
const SR_TRANSMIT_FULL: u32 = 1 << 4;
/// The receive FIFO is at its trigger level.
const RECEIVE: u32 = 1 << 0;
/// The transmit FIFO is empty.
const TRANSMIT: u32 = 1 << 3;

/// A Cadence UART.
#[derive(Clone, Copy, Debug)]
pub struct Cadence(pub(super) Registers);

impl Cadence {
    pub(super) fn init(self) {
        self.0.write32(CR, CR_ON);
    }

    pub(super) fn try_put(self, byte: u8) -> bool {
        let has_room = self.0.read32(SR) & SR_TRANSMIT_FULL == 0;
        if has_room {
            self.0.write32(FIFO, byte.into());
        }
        has_room
    }

    pub(super) fn try_get(self) -> Option<u8> {
        let is_empty = self.0.read32(SR) & SR_RECEIVE_EMPTY != 0;
        (!is_empty).then(|| self.0.read32(FIFO) as u8)
    }

    pub(super) fn set_rx_interrupt(self, interrupt: Interrupt) {
        // One character is enough: there is no second interrupt for what stays below a higher level.
        self.0.write32(RXWM, 1);
        self.set(interrupt, RECEIVE);
    }

    pub(super) fn set_tx_interrupt(self, interrupt: Interrupt) {
        self.set(interrupt, TRANSMIT);
    }

    pub(super) fn acknowledge(self) {
        self.0.write32(ISR, RECEIVE | TRANSMIT);
    }

    fn set(self, interrupt: Interrupt, mask: u32) {
        match interrupt {
            Interrupt::Enabled => self.0.write32(IER, mask),
            Interrupt::Disabled => self.0.write32(IDR, mask),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mmio::fake::FakeRegisters;

    #[test]
    fn it_is_switched_on_before_use() {
        let mut block = FakeRegisters::new(0x100);
        let registers = block.registers();
        Cadence(registers).init();
        assert_eq!(registers.read32(CR), 0x14);
    }

    #[test]
    fn a_full_fifo_refuses_the_byte() {
        let mut block = FakeRegisters::new(0x100);
        let registers = block.registers();
        registers.write32(SR, 0x10);
        assert!(!Cadence(registers).try_put(b'x'));
        registers.write32(SR, 0);
        assert!(Cadence(registers).try_put(b'x'));
        assert_eq!(registers.read32(FIFO), u32::from(b'x'));
    }

    #[test]
    fn an_empty_fifo_gives_nothing() {
        let mut block = FakeRegisters::new(0x100);
        let registers = block.registers();
        registers.write32(FIFO, 0x41);
        assert_eq!(Cadence(registers).try_get(), Some(0x41));
        registers.write32(SR, 0x2);
        assert_eq!(Cadence(registers).try_get(), None);
    }

    #[test]
    fn interrupts_are_disabled_through_the_disable_register() {
        let mut block = FakeRegisters::new(0x100);
        let registers = block.registers();
        Cadence(registers).set_rx_interrupt(Interrupt::Enabled);
        Cadence(registers).set_tx_interrupt(Interrupt::Disabled);
        assert_eq!((registers.read32(IER), registers.read32(IDR)), (0x1, 0x8));
    }
}
