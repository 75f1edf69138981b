//! What the ID registers claim can be used, and what they do not claim is
//! undefined: never half of each.
#![expect(unsafe_code, reason = "optional instructions need assembly")]

use core::arch::asm;

use guest_kit::Machine;
use guest_kit::exceptions::catch;

use crate::kit::{Verdict, ensure, ensure_eq};

macro_rules! id {
    ($register:literal, $shift:literal) => {{
        let value: u64;
        // SAFETY: reading an ID register has no effect.
        unsafe { asm!(concat!("mrs {}, ", $register), out(reg) value, options(nostack)) };
        value >> $shift & 0xf
    }};
}

/// Whether the instructions execute; `false` if they are undefined. Any other
/// exception fails the claim.
macro_rules! works {
    ($($instruction:literal),+) => {{
        // SAFETY: the instructions write x2 and the SVE register z0 at most.
        let fault = catch(|| unsafe { asm!($($instruction,)+ inout("x2") 0u64 => _, out("x3") _, options(nostack)) });
        match fault {
            None => true,
            Some(fault) if fault.is_undefined() => false,
            Some(fault) => return Err($crate::kit::Failure::new(format_args!("{}: {fault:?}", concat!($($instruction, " "),+)))),
        }
    }};
}

/// A feature field that says "implementation defined" counts as absent.
const IMPLEMENTATION_DEFINED: u64 = 0xf;

pub(crate) fn run(_: &Machine) -> Verdict {
    ensure_eq!(id!("id_aa64pfr0_el1", 8), 0, "ID_AA64PFR0_EL1.EL2: the guest has no EL2");
    open_vector_registers();
    let pmu = id!("id_aa64dfr0_el1", 8);
    let claims = [
        ("PMU", pmu != 0 && pmu != IMPLEMENTATION_DEFINED, works!("mrs x2, pmcr_el0")),
        ("SVE", id!("id_aa64pfr0_el1", 32) != 0, works!("mrs x2, S3_0_C1_C2_0")), // ZCR_EL1
        ("MTE", id!("id_aa64pfr1_el1", 8) >= 2, works!("mrs x2, S3_0_C1_C0_6")),  // GCR_EL1
        ("SME", id!("id_aa64pfr1_el1", 24) != 0, works!("mrs x2, S3_0_C1_C2_6")), // SMCR_EL1
        ("RNDR", id!("id_aa64isar0_el1", 60) != 0, works!("mrs x2, S3_3_C2_C4_0")),
        ("SPE", id!("id_aa64dfr0_el1", 32) != 0, works!("mrs x2, S3_0_C9_C10_0")), // PMBLIMITR_EL1
        ("trace filter", id!("id_aa64dfr0_el1", 40) != 0, works!("mrs x2, S3_0_C1_C2_1")), // TRFCR_EL1
        ("RAS", id!("id_aa64pfr0_el1", 28) != 0, works!("mrs x2, S3_0_C5_C3_0")),  // ERRIDR_EL1
        ("LORegions", id!("id_aa64mmfr1_el1", 16) != 0, works!("mrs x2, S3_0_C10_C4_7")), // LORID_EL1
        ("PAN", id!("id_aa64mmfr1_el1", 20) != 0, works!("mrs x2, S3_0_C4_C2_3")),
        ("UAO", id!("id_aa64mmfr2_el1", 4) != 0, works!("mrs x2, S3_0_C4_C2_4")),
        ("DIT", id!("id_aa64pfr0_el1", 48) != 0, works!("mrs x2, S3_3_C4_C2_5")),
        ("SSBS", id!("id_aa64pfr1_el1", 4) >= 2, works!("mrs x2, S3_3_C4_C2_6")),
        ("CSV2_2", has_csv2_2(), works!("mrs x2, S3_0_C13_C0_7")), // SCXTNUM_EL1
        ("pointer authentication", has_pauth(), works!("mrs x2, S3_0_C2_C1_0")), // APIAKeyLo_EL1
        (
            "atomics",
            id!("id_aa64isar0_el1", 20) != 0,
            works!(".arch_extension lse", "mov x3, sp", "ldadd xzr, x2, [x3]"),
        ),
    ];
    for (name, claimed, works) in claims {
        ensure!(claimed == works, "{name}: claimed {claimed}, usable {works}");
    }
    Ok(())
}

/// CPACR_EL1: SME, SVE and FP/SIMD do not trap to EL1 itself.
fn open_vector_registers() {
    // SAFETY: compiled code uses none of the three.
    unsafe { asm!("msr cpacr_el1, {}", "isb", in(reg) 0x0333_0000u64, options(nostack)) };
}

fn has_pauth() -> bool {
    id!("id_aa64isar1_el1", 4) != 0 || id!("id_aa64isar1_el1", 8) != 0 || id!("id_aa64isar2_el1", 12) != 0
}

/// SCXTNUM comes with CSV2 2, or with CSV2 1 and a minor version of 2.
fn has_csv2_2() -> bool {
    id!("id_aa64pfr0_el1", 56) >= 2 || id!("id_aa64pfr1_el1", 32) >= 2
}
