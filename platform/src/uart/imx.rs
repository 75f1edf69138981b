//! NXP i.MX UART (i.MX 8M Plus reference manual, "UART", memory map; the same since the i.MX 6).

use super::Interrupt;
use crate::mmio::Registers;

/// Receive.
const URXD: usize = 0x00;
/// Transmit.
const UTXD: usize = 0x40;
/// Control 1.
const UCR1: usize = 0x80;
/// Control 2.
const UCR2: usize = 0x84;
/// Control 4.
const UCR4: usize = 0x8c;
/// Status 2.
const USR2: usize = 0x98;
/// Test register, the only place that tells of a full FIFO.
const UTS: usize = 0xb4;

/// UCR1: the UART is on.
const UART_ENABLE: u32 = 1 << 0;
/// UCR2: receiver and transmitter are on. Out of reset they are off; QEMU then sends but does not receive.
const RECEIVE_AND_TRANSMIT_ENABLE: u32 = 1 << 1 | 1 << 2;
/// UCR1: interrupt while the transmit FIFO is empty.
const TRANSMIT_EMPTY_ENABLE: u32 = 1 << 6;
/// UCR4: interrupt while any character waits, whatever the FIFO's trigger level.
const RECEIVE_READY_ENABLE: u32 = 1 << 0;
const USR2_RECEIVE_READY: u32 = 1 << 0;
const UTS_TRANSMIT_FULL: u32 = 1 << 4;

/// An i.MX UART.
#[derive(Clone, Copy, Debug)]
pub struct Imx(pub(super) Registers);

impl Imx {
    pub(super) fn init(self) {
        self.0.write32(UCR1, self.0.read32(UCR1) | UART_ENABLE);
        self.0.write32(UCR2, self.0.read32(UCR2) | RECEIVE_AND_TRANSMIT_ENABLE);
    }

    pub(super) fn try_put(self, byte: u8) -> bool {
        let has_room = self.0.read32(UTS) & UTS_TRANSMIT_FULL == 0;
        if has_room {
            self.0.write32(UTXD, byte.into());
        }
        has_room
    }

    pub(super) fn try_get(self) -> Option<u8> {
        let is_ready = self.0.read32(USR2) & USR2_RECEIVE_READY != 0;
        is_ready.then(|| self.0.read32(URXD) as u8)
    }

    pub(super) fn set_rx_interrupt(self, interrupt: Interrupt) {
        self.0.write32(UCR4, interrupt.apply(self.0.read32(UCR4), RECEIVE_READY_ENABLE));
    }

    pub(super) fn set_tx_interrupt(self, interrupt: Interrupt) {
        self.0.write32(UCR1, interrupt.apply(self.0.read32(UCR1), TRANSMIT_EMPTY_ENABLE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mmio::fake::FakeRegisters;

    #[test]
    fn it_is_switched_on_and_keeps_its_settings() {
        let mut block = FakeRegisters::new(0x100);
        let registers = block.registers();
        registers.write32(UCR2, 0x4021);
        Imx(registers).init();
        assert_eq!((registers.read32(UCR1), registers.read32(UCR2)), (0x1, 0x4027));
    }

    #[test]
    fn a_byte_goes_to_the_transmit_register_while_there_is_room() {
        let mut block = FakeRegisters::new(0x100);
        let registers = block.registers();
        assert!(Imx(registers).try_put(b'x'));
        assert_eq!(registers.read32(0x40), u32::from(b'x'));
        registers.write32(UTS, 0x10);
        assert!(!Imx(registers).try_put(b'y'));
    }

    #[test]
    fn status_bits_are_no_part_of_a_received_byte() {
        let mut block = FakeRegisters::new(0x100);
        let registers = block.registers();
        registers.write32(URXD, 0x8041);
        assert_eq!(Imx(registers).try_get(), None);
        registers.write32(USR2, 0x1);
        assert_eq!(Imx(registers).try_get(), Some(0x41));
    }

    #[test]
    fn what_the_firmware_set_stays_when_interrupts_are_enabled() {
        let mut block = FakeRegisters::new(0x100);
        let registers = block.registers();
        registers.write32(UCR1, 0x1);
        registers.write32(UCR4, 0x8000);
        Imx(registers).set_tx_interrupt(Interrupt::Enabled);
        Imx(registers).set_rx_interrupt(Interrupt::Enabled);
        assert_eq!((registers.read32(UCR1), registers.read32(UCR4)), (0x41, 0x8001));
    }
}
