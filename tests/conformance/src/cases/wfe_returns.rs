//! WFE ends by an event that was sent, by its own CPU or by another.
#![expect(unsafe_code, reason = "events need assembly")]

use core::arch::asm;

use guest_kit::Machine;

use crate::kit::Verdict;

pub(crate) fn run(_: &Machine) -> Verdict {
    for _ in 0..100 {
        // SAFETY: no effect but on the event register.
        unsafe { asm!("sevl", "wfe", "sev", "wfe", options(nostack)) };
    }
    Ok(())
}
