//! A register that the guest's CPU does not have is an undefined instruction to it, at that instruction.

use crate::guest::{BASE, Guest, SET_VECTORS, STOP};
use crate::kit::{Verdict, ensure_eq};
use hyp::boot::Hardware;

/// `mrs x2, pmcr_el0`: guests see no performance monitors.
const READ_PMCR: u32 = 0xd53b_9c02;
/// `mrs x2, s3_3_c15_c0_0`: implementation defined.
const READ_UNKNOWN: u32 = 0xd53b_f002;

pub(crate) fn run(hardware: &Hardware) -> Verdict {
    for read in [READ_PMCR, READ_UNKNOWN] {
        let mut guest = Guest::new(hardware, &[SET_VECTORS, read, STOP])?;
        guest.task.regs.x[2] = 0x5a5a;
        guest.run()?;
        let injected = guest.injected().map(|injected| (injected.esr, injected.elr));
        // Unknown reason, 32-bit instruction (DDI 0487, ESR_EL1).
        ensure_eq!(injected, Some((0x0200_0000, BASE + 4)), "{read:#x}: ESR_EL1 and ELR_EL1");
        ensure_eq!(guest.x(2), 0x5a5a, "{read:#x}: x2");
    }
    Ok(())
}
