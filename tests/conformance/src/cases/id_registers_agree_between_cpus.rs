//! Every CPU shows the same ID registers, so that code found usable on one is
//! usable on all.
#![expect(unsafe_code, reason = "ID registers need assembly")]

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use guest_kit::Machine;

use crate::kit::{Verdict, ensure_eq, on_cpu_1};

macro_rules! id_registers {
    ($($register:literal),+) => {
        const NAMES: &[&str] = &[$($register),+];

        fn read_all() -> [u64; COUNT] {
            [$({
                let value: u64;
                // SAFETY: reading an ID register has no effect.
                unsafe { asm!(concat!("mrs {}, ", $register), out(reg) value, options(nostack)) };
                value
            }),+]
        }
    };
}

const COUNT: usize = 14;
id_registers!(
    "midr_el1",
    "revidr_el1",
    "ctr_el0",
    "dczid_el0",
    "id_aa64pfr0_el1",
    "id_aa64pfr1_el1",
    "id_aa64dfr0_el1",
    "id_aa64isar0_el1",
    "id_aa64isar1_el1",
    "id_aa64isar2_el1",
    "id_aa64mmfr0_el1",
    "id_aa64mmfr1_el1",
    "id_aa64mmfr2_el1",
    "clidr_el1"
);

static OF_CPU_1: [AtomicU64; COUNT] = [const { AtomicU64::new(0) }; COUNT];

pub(crate) fn run(_: &Machine) -> Verdict {
    on_cpu_1(|_| {
        for (slot, value) in OF_CPU_1.iter().zip(read_all()) {
            slot.store(value, Ordering::Relaxed);
        }
    })?;
    for ((name, other), mine) in NAMES.iter().zip(&OF_CPU_1).zip(read_all()) {
        ensure_eq!(other.load(Ordering::Relaxed), mine, "{name} of CPU 1");
    }
    Ok(())
}
