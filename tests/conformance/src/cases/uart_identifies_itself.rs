//! The console identifies itself as a PL011 (DDI 0183, "Peripheral
//! identification registers"), which drivers check.

use guest_kit::Machine;
use guest_kit::machine::UART;
use guest_kit::mmio::read32;

use crate::kit::{Verdict, ensure_eq};

pub(crate) fn run(_: &Machine) -> Verdict {
    let word = |offset: usize| {
        (0..4).map(|i| read32(UART + offset + 4 * i) & 0xff).fold(0, |id, byte| id >> 8 | byte << 24)
    };
    // Revision, in bits 23:20, is free.
    ensure_eq!(word(0xfe0) & 0xff0f_ffff, 0x0004_1011, "UARTPeriphID");
    ensure_eq!(word(0xff0), 0xb105_f00d, "UARTPCellID");
    Ok(())
}
