//! A hypercall's answer arrives in x0, and x1 to x30 are as the guest left them, on the short way and on the long one.

use crate::guest::{BASE, Guest, STOP};
use crate::kit::{Verdict, ensure_eq};
use hyp::boot::Hardware;

/// `hvc #0`.
const CALL: u32 = 0xd400_0002;

/// PSCI_VERSION (DEN0022), answered in the handler: 1.1.
const ON_THE_SHORT_WAY: (u64, u64) = (0x8400_0000, 0x1_0001);
/// A PSCI function that does not exist, answered outside: NOT_SUPPORTED.
const ON_THE_LONG_WAY: (u64, u64) = (0x8400_001e, u64::MAX);

pub(crate) fn run(hardware: &Hardware) -> Verdict {
    for (function, answer) in [ON_THE_SHORT_WAY, ON_THE_LONG_WAY] {
        let mut guest = Guest::new(hardware, &[CALL, STOP])?;
        let before: [u64; 31] =
            core::array::from_fn(|number| if number == 0 { function } else { 0x1111_0000 * number as u64 });
        guest.task.regs.x = before;
        guest.run()?;
        ensure_eq!(guest.task.regs.pc, BASE + 8, "where it stopped");
        ensure_eq!(guest.x(0), answer, "answer to {function:#x}");
        for (number, &value) in before.iter().enumerate().skip(1) {
            ensure_eq!(guest.x(number), value, "x{number} after {function:#x}");
        }
    }
    Ok(())
}
