//! The EL1 system registers belong to the guest, though other guests may have had
//! the CPU in between. The MMU is off, so translation registers are only storage.
#![expect(unsafe_code, reason = "system registers need assembly")]

use core::arch::asm;

use guest_kit::timer::pause_ms;
use guest_kit::{Machine, sysreg};

use crate::kit::{Verdict, ensure_eq};

/// A register, the bits of it that hold anything, and how to reach it.
struct Register {
    name: &'static str,
    storage: u64,
    read: fn() -> u64,
    write: fn(u64),
}

macro_rules! register {
    ($name:literal, $storage:expr) => {
        Register {
            name: $name,
            storage: $storage,
            read: || {
                let value: u64;
                // SAFETY: reading the register has no effect.
                unsafe { asm!(concat!("mrs {}, ", $name), out(reg) value, options(nostack)) };
                value
            },
            write: |value| {
                // SAFETY: with the MMU off and no exception in between, nothing uses it.
                unsafe { asm!(concat!("msr ", $name, ", {}"), "isb", in(reg) value, options(nostack)) };
            },
        }
    };
}

const ALL: u64 = u64::MAX;

const REGISTERS: [Register; 15] = [
    register!("tpidr_el0", ALL),
    register!("tpidrro_el0", ALL),
    register!("sp_el0", ALL & !0xf),
    register!("contextidr_el1", 0xffff_ffff),
    register!("ttbr0_el1", 0x0000_ffff_ffff_f000),
    register!("ttbr1_el1", 0x0000_ffff_ffff_f000),
    register!("tcr_el1", 0x003f_003f),
    register!("mair_el1", ALL),
    register!("elr_el1", ALL & !3),
    register!("spsr_el1", 0xf000_03c5),
    register!("esr_el1", 0xffff_ffff),
    register!("far_el1", ALL),
    register!("cntkctl_el1", 0xf3),
    register!("par_el1", 0x0000_ffff_ffff_f000),
    register!("csselr_el1", 0x2),
];

pub(crate) fn run(_: &Machine) -> Verdict {
    let old: [u64; REGISTERS.len()] = REGISTERS.each_ref().map(|register| (register.read)());
    let seed = sysreg::cntpct().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let expected = |index: usize, register: &Register| seed.rotate_left(index as u32) & register.storage;
    for (index, register) in REGISTERS.iter().enumerate() {
        (register.write)(expected(index, register));
    }
    pause_ms(100);
    let found: [u64; REGISTERS.len()] = REGISTERS.each_ref().map(|register| (register.read)());
    for (register, value) in REGISTERS.iter().zip(old) {
        (register.write)(value);
    }
    for (index, register) in REGISTERS.iter().enumerate() {
        let Some(&found) = found.get(index) else { break };
        ensure_eq!(found & register.storage, expected(index, register), "{}", register.name);
    }
    Ok(())
}
