//! What a kernel writes to the debug registers while booting goes through: all
//! breakpoints and watchpoints off, the OS lock open.
#![expect(unsafe_code, reason = "debug registers need assembly")]

use core::arch::asm;

use guest_kit::Machine;
use guest_kit::exceptions::catch;

use crate::kit::{Verdict, ensure};

macro_rules! ensure_written {
    ($($register:literal),+) => { $(
        // SAFETY: zero switches debug functions off.
        let fault = catch(|| unsafe { asm!(concat!("msr ", $register, ", xzr"), options(nostack)) });
        ensure!(fault.is_none(), "writing {}: {fault:?}", $register);
    )+ };
}

pub(crate) fn run(_: &Machine) -> Verdict {
    // Two breakpoints and two watchpoints: every implementation has them.
    ensure_written!(
        "oslar_el1",
        "osdlr_el1",
        "mdscr_el1",
        "dbgbcr0_el1",
        "dbgbvr0_el1",
        "dbgbcr1_el1",
        "dbgbvr1_el1",
        "dbgwcr0_el1",
        "dbgwvr0_el1",
        "dbgwcr1_el1",
        "dbgwvr1_el1"
    );
    Ok(())
}
