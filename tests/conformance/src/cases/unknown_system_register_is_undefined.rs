//! What EL1 has no right to, and what nobody has, is an undefined instruction;
//! the target register keeps its value.
#![expect(unsafe_code, reason = "system registers need assembly")]

use core::arch::asm;

use guest_kit::Machine;
use guest_kit::exceptions::catch;

use crate::kit::{Verdict, ensure, ensure_eq};

const BEFORE: u64 = 0x1234_5678_9abc_def0;

macro_rules! ensure_undefined {
    ($($register:literal),+) => { $(
        let mut value = BEFORE;
        // SAFETY: the read faults; if it does not, it has no effect.
        let fault = catch(|| unsafe { asm!(concat!("mrs {}, ", $register), inout(reg) value, options(nostack)) });
        ensure!(
            fault.is_some_and(|fault| fault.is_undefined()),
            "reading {} was not undefined: {fault:?}",
            $register
        );
        ensure_eq!(value, BEFORE, "target of the undefined read of {}", $register);
        // SAFETY: the write faults; if it does not, the claim has failed anyway.
        let fault = catch(|| unsafe { asm!(concat!("msr ", $register, ", {}"), in(reg) 0u64, options(nostack)) });
        ensure!(
            fault.is_some_and(|fault| fault.is_undefined()),
            "writing {} was not undefined: {fault:?}",
            $register
        );
    )+ };
}

pub(crate) fn run(_: &Machine) -> Verdict {
    // HCR_EL2, VTTBR_EL2, CNTVOFF_EL2, ICH_HCR_EL2, SCR_EL3; then encodings that
    // are unallocated or the implementation's own.
    ensure_undefined!(
        "S3_4_C1_C1_0",
        "S3_4_C2_C1_0",
        "S3_4_C14_C0_3",
        "S3_4_C12_C11_0",
        "S3_6_C1_C1_0",
        "S3_0_C3_C7_7",
        "S3_5_C13_C9_5",
        "S3_3_C11_C12_7"
    );
    Ok(())
}
