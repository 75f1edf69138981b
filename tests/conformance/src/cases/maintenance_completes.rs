//! Cache, TLB and address translation instructions of EL1 complete.
#![expect(unsafe_code, reason = "maintenance needs assembly")]

use core::arch::asm;

use guest_kit::Machine;
use guest_kit::exceptions::catch;
use guest_kit::machine::RAM_BASE;

use crate::kit::{Verdict, ensure};

macro_rules! ensure_complete {
    ($($instruction:literal),+) => { $(
        // SAFETY: maintenance changes no data; the caches and TLBs hold nothing of ours.
        let fault = catch(|| unsafe {
            asm!($instruction, "dsb sy", "isb", in("x1") RAM_BASE, in("x2") 0u64, options(nostack))
        });
        ensure!(fault.is_none(), "{}: {fault:?}", $instruction);
    )+ };
}

pub(crate) fn run(_: &Machine) -> Verdict {
    ensure_complete!(
        "ic ialluis",
        "ic iallu",
        "ic ivau, x1",
        "dc civac, x1",
        "dc cvac, x1",
        "dc cvau, x1",
        "dc ivac, x1",
        "dc isw, x2",
        "dc csw, x2",
        "dc cisw, x2",
        "tlbi vmalle1",
        "tlbi vmalle1is",
        "tlbi vaae1is, x2",
        "tlbi aside1is, x2",
        "at s1e1r, x1",
        "at s1e0w, x1"
    );
    Ok(())
}
