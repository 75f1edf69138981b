//! A page that EL2 unmaps faults at the guest's next access, also if the guest used it just before.

use crate::guest::{BASE, Guest, SET_VECTORS, STOP, participant, range};
use crate::kit::{Verdict, ensure_eq};
use alloc::string::ToString;
use hyp::boot::Hardware;

/// `ldr x2, [x1]`.
const LOAD: u32 = 0xf940_0022;
/// `ldr x3, [x1]`.
const LOAD_AGAIN: u32 = 0xf940_0023;
const PAGE: u64 = BASE + 0x10_3000;
const NEXT_PAGE: u64 = PAGE + 0x1000;

pub(crate) fn run(hardware: &Hardware) -> Verdict {
    let mut guest = Guest::new(hardware, &[SET_VECTORS, LOAD, STOP, LOAD_AGAIN, STOP])?;
    for (page, word) in [(PAGE, 0x1234_u64), (NEXT_PAGE, 0x5678)] {
        guest.task.vcpu.vm.memory.write(page, &word.to_le_bytes()).map_err(|error| error.to_string())?;
    }
    guest.task.regs.x[1] = PAGE;
    guest.run()?;
    ensure_eq!(guest.x(2), 0x1234, "the page before");
    let cpu = participant()?;
    let page = range(PAGE, 0x1000)?;
    guest.space.unmap(&cpu.pin(), page, &guest.maintenance).map_err(|error| error.to_string())?;
    guest.run()?;
    ensure_eq!(guest.injected().map(|injected| injected.far), Some(PAGE), "FAR_EL1 of the second load");
    // The rest of the block that the page was cut from.
    guest.task.regs.pc = BASE + 4;
    guest.task.regs.x[1] = NEXT_PAGE;
    guest.run()?;
    ensure_eq!(guest.x(2), 0x5678, "the page behind it");
    Ok(())
}
