//! Where to speak when nobody said what machine this is.
//!
//! The boot loader passed no device tree: nothing can be done but to say so, and no UART is known to say it on. So
//! the message goes to every place where a board that we know has one ([`say`]). This list, and a shorter one for 32-bit
//! mode in boot.S, are the only ones of boards in
//! the hypervisor: read for a machine that is lost anyway, and for no other.
//!
//! Like [`early`](super::early) it runs before the MMU is on: no pointers, no formatting. An address at which nothing
//! answers must not stop the caller.

use super::{Kind, Spacing, Uart, UartInfo, Width};
use crate::mmio::Registers;

/// The consoles of boards, from their device trees. A Raspberry Pi comes early: what follows it is memory there.
const PLACES: [(Kind, u64); 10] = [
    // QEMU's virt.
    (Kind::Pl011, 0x0900_0000),
    // Raspberry Pi 4: PL011 and mini-UART; which of them is on the header depends on config.txt.
    (Kind::Pl011, 0xfe20_1000),
    (Kind::Bcm2835Aux, 0xfe21_5040),
    // Raspberry Pi 5.
    (Kind::Pl011, 0x10_7d00_1000),
    // LX2160A.
    (Kind::Pl011, 0x021c_0000),
    // i.MX 8M Mini, Nano, Plus.
    (Kind::Imx, 0x3089_0000),
    // i.MX 8M (Quad).
    (Kind::Imx, 0x3086_0000),
    // i.MX 93 and 95.
    (Kind::Lpuart, 0x4438_0000),
    // Layerscape LS10xx.
    (Kind::Ns16550(Spacing { width: Width::Byte, shift: 0 }), 0x021c_0500),
    // Zynq UltraScale+.
    (Kind::Cadence, 0xff00_0000),
];

/// How often a byte is offered: for longer than it takes to send one at 9600 baud.
const PATIENCE: u32 = if cfg!(test) { 2 } else { 1 << 16 };

/// Says `text` on every UART that takes it. `block` makes registers of a physical address, unless that is not to be
/// touched.
pub fn say(text: &[u8], block: impl Fn(u64) -> Option<Registers>) {
    for (kind, base) in PLACES {
        let Some(registers) = block(base) else { continue };
        if kind == Kind::Pl011 && !is_pl011(registers) {
            continue;
        }
        let uart = Uart::new(&UartInfo { kind, base, interrupt: None, clock: None }, registers);
        // What does not take a byte is no UART, or not one that is switched on.
        let _ = text.iter().all(|&byte| offer(&uart, byte));
    }
}

fn offer(uart: &Uart, byte: u8) -> bool {
    (0..PATIENCE).any(|_| uart.try_put(byte))
}

/// Whether the identification registers are a PL011's (DDI 0183, "Peripheral identification registers": part number
/// 0x011, designer Arm).
fn is_pl011(registers: Registers) -> bool {
    registers.read32(0xfe0) & 0xff == 0x11 && registers.read32(0xfe4) & 0xff == 0x10
}

#[cfg(test)]
mod tests {
    use super::say;
    use crate::mmio::fake::FakeRegisters;

    /// What the last byte said is at the only address that is there, with these identification registers.
    fn last_byte(base: u64, identification: [u32; 2]) -> u32 {
        let mut block = FakeRegisters::new(0x1000);
        let registers = block.registers();
        registers.write32(0xfe0, identification[0]);
        registers.write32(0xfe4, identification[1]);
        say(b"xyz", |address| (address == base).then_some(registers));
        registers.read32(0)
    }

    #[test]
    fn pl011_where_virt_has_it_is_spoken_to() {
        assert_eq!(last_byte(0x0900_0000, [0x11, 0x10]), u32::from(b'z'));
    }

    #[test]
    fn other_device_in_its_place_is_left_alone() {
        assert_eq!(last_byte(0x0900_0000, [0x31, 0x10]), 0);
    }

    #[test]
    fn uart_that_takes_nothing_is_passed_over() {
        let mut block = FakeRegisters::new(0x1000);
        let registers = block.registers();
        // Cadence: channel status, transmit FIFO full.
        registers.write32(0x2c, 0x10);
        say(b"xyz", |address| (address == 0xff00_0000).then_some(registers));
        assert_eq!(registers.read32(0x30), 0);
    }
}
