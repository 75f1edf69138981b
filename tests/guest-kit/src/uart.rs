//! The console: a PL011 (DDI 0183), which the loader or hypervisor left ready.

use core::fmt;

use crate::machine::UART;
use crate::mmio::{read32, write32};

const DR: usize = UART;
const FR: usize = UART + 0x18;
const CR: usize = UART + 0x30;
const IMSC: usize = UART + 0x38;
const RIS: usize = UART + 0x3c;
const ICR: usize = UART + 0x44;

const FR_RXFE: u32 = 1 << 4;
const FR_TXFF: u32 = 1 << 5;
/// UART, transmitter and receiver enabled.
const CR_ON: u32 = 1 | 1 << 8 | 1 << 9;

/// The interrupts a PL011 raises here, as bits of IMSC, RIS and ICR.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Cause {
    /// Input waits (receive and receive time-out).
    Receive = 1 << 4 | 1 << 6,
    /// The transmitter has room.
    Transmit = 1 << 5,
}

struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                put(b'\r');
            }
            put(byte);
        }
        Ok(())
    }
}

/// Writes formatted text; `print!` and `println!` call this.
pub fn print(arguments: fmt::Arguments<'_>) {
    // The console itself never fails, and no `Display` of ours does.
    let _ = fmt::Write::write_fmt(&mut Console, arguments);
}

/// Writes one byte when there is room.
#[inline(always)]
pub fn put(byte: u8) {
    while read32(FR) & FR_TXFF != 0 {}
    write32(DR, u32::from(byte));
}

/// Takes one byte of input, if there is any.
pub fn take() -> Option<u8> {
    (read32(FR) & FR_RXFE == 0).then(|| read32(DR) as u8)
}

/// Lets `cause` raise the console's interrupt.
pub fn enable_interrupt(cause: Cause) {
    write32(CR, CR_ON);
    write32(IMSC, read32(IMSC) | cause as u32);
}

/// Keeps `cause` from raising the console's interrupt.
pub fn disable_interrupt(cause: Cause) {
    write32(IMSC, read32(IMSC) & !(cause as u32));
}

/// Withdraws what `cause` raised.
pub fn clear_interrupt(cause: Cause) {
    write32(ICR, cause as u32);
}

/// Whether `cause` holds, enabled or not.
pub fn is_raised(cause: Cause) -> bool {
    read32(RIS) & cause as u32 != 0
}
