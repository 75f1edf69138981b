//! A load from an address where nothing is becomes a data abort in the guest, at its instruction.

use crate::guest::{BASE, Guest, Injected, SET_VECTORS, STOP};
use crate::kit::{Verdict, ensure_eq};
use hyp::boot::Hardware;

/// `ldr x2, [x1]`.
const LOAD: u32 = 0xf940_0022;
/// Between the UART and RAM.
const HOLE: u64 = 0x2000_0008;

pub(crate) fn run(hardware: &Hardware) -> Verdict {
    let mut guest = Guest::new(hardware, &[SET_VECTORS, LOAD, STOP])?;
    guest.task.regs.x[1] = HOLE;
    guest.run()?;
    // Data abort from the same level, 32-bit instruction, synchronous external abort (DDI 0487, ESR_EL1).
    let expected = Injected { esr: 0x9600_0010, far: HOLE, elr: BASE + 4 };
    ensure_eq!(guest.injected(), Some(expected), "what the guest's vectors saw");
    Ok(())
}
