//! Where the ID registers claim pointer authentication, a signed pointer
//! authenticates, a signed and altered one does not, and keys stay the guest's.
#![expect(unsafe_code, reason = "pointer authentication needs assembly")]

use core::arch::asm;

use guest_kit::Machine;
use guest_kit::exceptions::catch;
use guest_kit::timer::pause_ms;

use crate::kit::{Verdict, ensure, ensure_eq};

/// SCTLR_EL1.EnIA.
const ENABLE_A: u64 = 1 << 31;

pub(crate) fn run(_: &Machine) -> Verdict {
    if !is_claimed() {
        return Ok(());
    }
    set_key(0x0123_4567_89ab_cdef);
    let sctlr = switch_on();
    let pointer = 0x4020_1234;
    let signed = sign(pointer, 7);
    pause_ms(20);
    let signed_later = sign(pointer, 7);
    let good = authenticate(signed, 7);
    let bad = authenticate(signed, 8);
    restore(sctlr);
    ensure_eq!(signed_later, signed, "the same pointer signed again, with the same key");
    ensure!(signed != pointer, "signing changed nothing");
    ensure_eq!(good, Some(pointer), "authenticated pointer");
    ensure_eq!(bad, None, "a pointer signed for another context was accepted");
    Ok(())
}

fn is_claimed() -> bool {
    let (isar1, isar2): (u64, u64);
    // SAFETY: reading ID registers has no effect.
    unsafe {
        asm!("mrs {}, id_aa64isar1_el1", "mrs {}, id_aa64isar2_el1", out(reg) isar1, out(reg) isar2, options(nostack))
    };
    isar1 & 0xff0 != 0 || isar2 & 0xf000 != 0
}

fn set_key(key: u64) {
    // SAFETY: nothing was signed with the old key. APIAKeyLo_EL1, APIAKeyHi_EL1.
    unsafe { asm!("msr S3_0_C2_C1_0, {0}", "msr S3_0_C2_C1_1, {0}", "isb", in(reg) key, options(nostack)) };
}

/// Switches instruction key A on; returns SCTLR_EL1 as it was.
fn switch_on() -> u64 {
    let old: u64;
    // SAFETY: compiled code does not sign pointers, so the switch changes nothing for it.
    unsafe { asm!("mrs {}, sctlr_el1", out(reg) old, options(nostack)) };
    restore(old | ENABLE_A);
    old
}

fn restore(sctlr: u64) {
    // SAFETY: as in `switch_on`; all other bits are as they were.
    unsafe { asm!("msr sctlr_el1, {}", "isb", in(reg) sctlr, options(nostack)) };
}

fn sign(pointer: u64, context: u64) -> u64 {
    let signed;
    // SAFETY: changes the register only.
    unsafe {
        asm!(".arch_extension pauth", "pacia {0}, {1}", inout(reg) pointer => signed, in(reg) context, options(nostack))
    };
    signed
}

/// `None` if the CPU rejects it: with FEAT_FPAC by an exception, else by an
/// address that is not the pointer's.
fn authenticate(signed: u64, context: u64) -> Option<u64> {
    let mut pointer = signed;
    let fault = catch(|| {
        // SAFETY: changes the register only.
        unsafe {
            asm!(".arch_extension pauth", "autia {0}, {1}", inout(reg) pointer, in(reg) context, options(nostack))
        }
    });
    (fault.is_none() && pointer >> 48 == 0).then_some(pointer)
}
