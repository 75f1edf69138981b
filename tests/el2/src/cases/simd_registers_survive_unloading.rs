//! A guest's SIMD registers are the same after they were saved, overwritten and loaded again.
#![expect(
    unsafe_code,
    reason = "EL2's code has no SIMD of its own: the registers are set and read in assembly"
)]

use crate::kit::{Verdict, ensure_eq};
use core::arch::asm;
use hyp::arch::Simd;
use hyp::boot::Hardware;

/// Fills and reads both halves of the first and the last register, and the status register.
pub(crate) fn run(_: &Hardware) -> Verdict {
    let pattern =
        [0x0123_4567_89ab_cdef, !0x0123_4567_89ab_cdef, 0xfedc_ba98, 0x1357_9bdf_0246_8ace, 0x800_0000];
    fill(pattern);
    let mut kept = Simd::new();
    kept.save();
    Simd::new().load();
    ensure_eq!(read(), [0; 5], "after loading zeroes");
    kept.load();
    ensure_eq!(read(), pattern, "after loading what was saved");
    Simd::new().load();
    Ok(())
}

fn fill([low0, high0, low31, high31, status]: [u64; 5]) {
    // SAFETY: EL2's code is built without SIMD, so nothing else is in these registers.
    unsafe {
        asm!(
            ".arch_extension fp", ".arch_extension simd",
            "fmov d0, {low0}", "mov v0.d[1], {high0}",
            "fmov d31, {low31}", "mov v31.d[1], {high31}",
            "msr fpsr, {status}",
            low0 = in(reg) low0, high0 = in(reg) high0, low31 = in(reg) low31, high31 = in(reg) high31,
            status = in(reg) status,
            options(nomem, nostack, preserves_flags)
        );
    }
}

fn read() -> [u64; 5] {
    let (low0, high0, low31, high31, status);
    // SAFETY: reads registers.
    unsafe {
        asm!(
            ".arch_extension fp", ".arch_extension simd",
            "fmov {low0}, d0", "mov {high0}, v0.d[1]",
            "fmov {low31}, d31", "mov {high31}, v31.d[1]",
            "mrs {status}, fpsr",
            low0 = out(reg) low0, high0 = out(reg) high0, low31 = out(reg) low31, high31 = out(reg) high31,
            status = out(reg) status,
            options(nomem, nostack, preserves_flags)
        );
    }
    [low0, high0, low31, high31, status]
}
