//! All registers of a CPU around one way out of the guest.
//!
//! [`exit_with!`] makes a function that fills x2-x30, q0-q31, FPCR and FPSR with
//! values made from a seed, executes the given instructions, and stores what the
//! registers hold then. Two guests with different seeds on one CPU would see
//! each other's values if a switch mixed them up.

use crate::kit::{Verdict, ensure_eq};

/// The registers after the exit.
#[repr(C, align(16))]
#[derive(Default)]
pub(crate) struct Snapshot {
    x: [u64; 31],
    padding: u64,
    q: [u128; 32],
    fpcr: u64,
    fpsr: u64,
}

const _: () = assert!(size_of::<Snapshot>() == 256 + 512 + 16, "the offsets in exit_with! hold");

/// FPCR while inside: flush to zero, default NaN.
const FPCR: u64 = 0x0300_0000;
/// FPSR while inside: saturation and all five cumulative flags.
const FPSR: u64 = 0x0800_001f;

/// Which registers an exit may change.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Results {
    /// x0 only: the target of a load.
    X0,
    /// x0 to x3, as the SMC Calling Convention gives results.
    X0ToX3,
}

/// Defines `fn $name(x0, x1, &mut Snapshot, seed)` around `$exit`.
macro_rules! exit_with {
    ($name:ident, $($exit:literal),+) => {
        #[unsafe(naked)]
        extern "C" fn $name(x0: u64, x1: u64, snapshot: &mut $crate::snapshot::Snapshot, seed: u64) {
            // Inside, sp + 96 holds the snapshot's address and sp + 104 what was in x0.
            core::arch::naked_asm!(
                ".arch_extension fp",
                ".arch_extension simd",
                "stp x29, x30, [sp, #-112]!",
                "stp x19, x20, [sp, #16]",
                "stp x21, x22, [sp, #32]",
                "stp x23, x24, [sp, #48]",
                "stp x25, x26, [sp, #64]",
                "stp x27, x28, [sp, #80]",
                "str x2, [sp, #96]",
                "mov x30, x3",
                "mov x2, #0x03000000",
                "msr fpcr, x2",
                "mov x2, #0x1f",
                "movk x2, #0x0800, lsl #16",
                "msr fpsr, x2",
                ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
                "add x2, x30, #64 + \\n",
                "dup v\\n\\().2d, x2",
                ".endr",
                ".irp n, 2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30",
                "add x\\n, x30, #\\n",
                ".endr",
                $($exit,)+
                "str x0, [sp, #104]",
                "ldr x0, [sp, #96]",
                "stp x2, x3, [x0, #16]",
                "stp x4, x5, [x0, #32]",
                "stp x6, x7, [x0, #48]",
                "stp x8, x9, [x0, #64]",
                "stp x10, x11, [x0, #80]",
                "stp x12, x13, [x0, #96]",
                "stp x14, x15, [x0, #112]",
                "stp x16, x17, [x0, #128]",
                "stp x18, x19, [x0, #144]",
                "stp x20, x21, [x0, #160]",
                "stp x22, x23, [x0, #176]",
                "stp x24, x25, [x0, #192]",
                "stp x26, x27, [x0, #208]",
                "stp x28, x29, [x0, #224]",
                "str x30, [x0, #240]",
                "ldr x2, [sp, #104]",
                "stp x2, x1, [x0]",
                "add x1, x0, #256",
                ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
                "str q\\n, [x1], #16",
                ".endr",
                "mrs x2, fpcr",
                "mrs x3, fpsr",
                "stp x2, x3, [x1]",
                "msr fpcr, xzr",
                "ldp x19, x20, [sp, #16]",
                "ldp x21, x22, [sp, #32]",
                "ldp x23, x24, [sp, #48]",
                "ldp x25, x26, [sp, #64]",
                "ldp x27, x28, [sp, #80]",
                "ldp x29, x30, [sp], #112",
                "ret"
            )
        }
    };
}
pub(crate) use exit_with;

/// A way out of the guest, as [`exit_with!`] defines it.
pub(crate) type Exit = extern "C" fn(u64, u64, &mut Snapshot, u64);

/// Takes the exit with `arguments` in x0 and x1 and checks that all registers
/// but its results are as they were.
pub(crate) fn ensure_kept(name: &str, exit: Exit, arguments: [u64; 2], results: Results) -> Verdict {
    let seed = guest_kit::sysreg::cntpct() << 16;
    let mut snapshot = Snapshot::default();
    exit(arguments[0], arguments[1], &mut snapshot, seed);
    if results == Results::X0 {
        ensure_eq!(snapshot.x[1], arguments[1], "{name}: x1");
    }
    let first = if results == Results::X0 { 2 } else { 4 };
    for (index, &found) in snapshot.x.iter().enumerate().skip(first) {
        ensure_eq!(found, seed + index as u64, "{name}: x{index}");
    }
    for (index, &found) in snapshot.q.iter().enumerate() {
        let lane = u128::from(seed + 64 + index as u64);
        ensure_eq!(found, lane << 64 | lane, "{name}: q{index}");
    }
    ensure_eq!(snapshot.fpcr, FPCR, "{name}: FPCR");
    ensure_eq!(snapshot.fpsr, FPSR, "{name}: FPSR");
    Ok(())
}
