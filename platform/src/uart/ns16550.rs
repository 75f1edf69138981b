//! 16550 and its relatives, with any register spacing; the mini-UART of the BCM2835 is one whose registers are words.
//!
//! The baud rate is the firmware's: nothing here touches the divisor.

use super::{Interrupt, Spacing, Width};
use crate::mmio::Registers;

/// Receive buffer and transmit holding register.
const DATA: usize = 0;
/// Interrupt enable.
const IER: usize = 1;
/// Interrupt identification; reading it takes back a transmit interrupt.
const IIR: usize = 2;
/// Line status.
const LSR: usize = 5;
/// DesignWare only: UART status. Reading it takes back a busy-detect interrupt.
const USR: usize = 31;

/// IER: received data, and line status. The BCM2835's mini-UART raises no receive interrupt without the latter
/// (errata to "BCM2835 ARM Peripherals", AUX_MU_IER_REG).
const RECEIVE: u32 = 1 << 0 | 1 << 2;
/// IER: transmitter empty.
const TRANSMIT: u32 = 1 << 1;

const IIR_KIND: u32 = 0xf;
/// DesignWare only: LCR was written while a character was under way.
const IIR_BUSY: u32 = 7;

const LSR_DATA_READY: u32 = 1 << 0;
const LSR_TRANSMITTER_EMPTY: u32 = 1 << 5;

/// A 16550.
#[derive(Clone, Copy, Debug)]
pub struct Ns16550 {
    pub(super) registers: Registers,
    pub(super) spacing: Spacing,
}

impl Ns16550 {
    pub(super) fn try_put(self, byte: u8) -> bool {
        let has_room = self.read(LSR) & LSR_TRANSMITTER_EMPTY != 0;
        if has_room {
            self.write(DATA, byte.into());
        }
        has_room
    }

    pub(super) fn try_get(self) -> Option<u8> {
        let is_ready = self.read(LSR) & LSR_DATA_READY != 0;
        is_ready.then(|| self.read(DATA) as u8)
    }

    pub(super) fn set_rx_interrupt(self, interrupt: Interrupt) {
        self.write(IER, interrupt.apply(self.read(IER), RECEIVE));
    }

    pub(super) fn set_tx_interrupt(self, interrupt: Interrupt) {
        self.write(IER, interrupt.apply(self.read(IER), TRANSMIT));
    }

    pub(super) fn acknowledge(self) {
        if self.read(IIR) & IIR_KIND == IIR_BUSY {
            self.read(USR);
        }
    }

    fn read(self, register: usize) -> u32 {
        let offset = register << self.spacing.shift;
        match self.spacing.width {
            Width::Byte => self.registers.read8(offset).into(),
            Width::Word => self.registers.read32(offset),
        }
    }

    fn write(self, register: usize, value: u32) {
        let offset = register << self.spacing.shift;
        match self.spacing.width {
            Width::Byte => self.registers.write8(offset, value as u8),
            Width::Word => self.registers.write32(offset, value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mmio::fake::FakeRegisters;

    const BYTES: Spacing = Spacing { width: Width::Byte, shift: 0 };
    const WORDS: Spacing = Spacing { width: Width::Word, shift: 2 };

    #[test]
    fn registers_lie_as_far_apart_as_the_spacing_says() {
        let mut block = FakeRegisters::new(0x100);
        let registers = block.registers();
        registers.write32(5 << 2, 0x20);
        assert!(Ns16550 { registers, spacing: WORDS }.try_put(b'x'));
        assert!(!Ns16550 { registers, spacing: BYTES }.try_put(b'y'));
        assert_eq!(registers.read8(0), b'x');
    }

    #[test]
    fn byte_registers_leave_their_neighbours_alone() {
        let mut block = FakeRegisters::new(0x100);
        let registers = block.registers();
        registers.write32(0, 0xffff_00ff);
        Ns16550 { registers, spacing: BYTES }.set_rx_interrupt(Interrupt::Enabled);
        assert_eq!(registers.read32(0), 0xffff_05ff);
    }

    #[test]
    fn nothing_is_received_before_data_is_ready() {
        let mut block = FakeRegisters::new(0x100);
        let uart = Ns16550 { registers: block.registers(), spacing: WORDS };
        assert_eq!(uart.try_get(), None);
        uart.registers.write32(5 << 2, 0x1);
        uart.registers.write32(0, 0x41);
        assert_eq!(uart.try_get(), Some(0x41));
    }

    #[test]
    fn transmit_interrupts_are_enabled_apart_from_receive() {
        let mut block = FakeRegisters::new(0x100);
        let uart = Ns16550 { registers: block.registers(), spacing: WORDS };
        uart.set_rx_interrupt(Interrupt::Enabled);
        uart.set_tx_interrupt(Interrupt::Enabled);
        uart.set_rx_interrupt(Interrupt::Disabled);
        assert_eq!(uart.registers.read32(1 << 2), 0x2);
    }
}
