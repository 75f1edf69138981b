//! Accesses that a device cannot take, or that do not describe themselves to a
//! hypervisor (pairs, write-back, exclusives, SIMD, atomics, unaligned): each is
//! done or is a data abort, and the guest goes on.
#![expect(unsafe_code, reason = "unusual instructions need assembly")]

use core::arch::asm;

use guest_kit::Machine;
use guest_kit::exceptions::catch;
use guest_kit::gic::distributor;
use guest_kit::machine::{GICD, UART};

use crate::kit::{Verdict, ensure};

macro_rules! ensure_done_or_abort {
    ($address:expr, $($instruction:literal),+) => { $(
        // SAFETY: the addresses are devices', whose state the accesses do not harm.
        let fault = catch(|| unsafe {
            asm!(".arch_extension simd", ".arch_extension lse", $instruction,
                inout("x1") $address => _, inout("x2") 0u64 => _, out("x3") _, options(nostack))
        });
        ensure!(fault.is_none_or(|fault| fault.is_data_abort()), "{}: {fault:?}", $instruction);
    )+ };
}

pub(crate) fn run(_: &Machine) -> Verdict {
    // A read-only register of each device: the stores change nothing.
    for address in [UART + 0x18, GICD + distributor::TYPER] {
        ensure_done_or_abort!(
            address,
            "ldp w2, w3, [x1]",
            "stp w2, w2, [x1]",
            "ldp x2, x3, [x1]",
            "ldr w2, [x1], #4",
            "str w2, [x1, #0]!",
            "ldr x2, [x1]",
            "str x2, [x1]",
            "ldrb w2, [x1]",
            "ldrh w2, [x1, #2]",
            "strb w2, [x1]",
            "ldrsw x2, [x1]",
            "ldxr w2, [x1]",
            "ldaxr w2, [x1]",
            "ldar w2, [x1]",
            "stlr w2, [x1]",
            "ldr s0, [x1]",
            "ldr q0, [x1]",
            "str d0, [x1]",
            "ld1 {{v0.4s}}, [x1]",
            "prfm pldl1keep, [x1]",
            "ldr w2, [x1, #1]",
            "str w2, [x1, #2]",
            "ldr x2, [x1, #4]"
        );
    }
    clear_exclusive();
    Ok(())
}

fn clear_exclusive() {
    // SAFETY: dropping the exclusive monitor's state is always allowed.
    unsafe { asm!("clrex", options(nostack)) };
}
