//! Device registers by plain `ldr` and `str`.
//!
//! A volatile access may compile to a form with write-back or to a pair, which
//! a hypervisor cannot emulate: the syndrome does not describe it. Explicit
//! instructions have the one form that it does.
#![expect(unsafe_code, reason = "device registers are reached by address")]

use core::arch::asm;

/// Reads a 32-bit register. A hole faults, see [`crate::exceptions::catch`].
#[inline(always)]
pub fn read32(address: usize) -> u32 {
    let value: u32;
    // SAFETY: callers name device registers or holes, never the program's own memory.
    unsafe { asm!("ldr {0:w}, [{1}]", out(reg) value, in(reg) address, options(nostack)) };
    value
}

/// Writes a 32-bit register.
#[inline(always)]
pub fn write32(address: usize, value: u32) {
    // SAFETY: as in `read32`.
    unsafe { asm!("str {0:w}, [{1}]", in(reg) value, in(reg) address, options(nostack)) };
}

/// Reads a 64-bit register.
#[inline(always)]
pub fn read64(address: usize) -> u64 {
    let value: u64;
    // SAFETY: as in `read32`.
    unsafe { asm!("ldr {0}, [{1}]", out(reg) value, in(reg) address, options(nostack)) };
    value
}

/// Writes a 64-bit register.
#[inline(always)]
pub fn write64(address: usize, value: u64) {
    // SAFETY: as in `read32`.
    unsafe { asm!("str {0}, [{1}]", in(reg) value, in(reg) address, options(nostack)) };
}

/// Reads a byte.
#[inline(always)]
pub fn read8(address: usize) -> u8 {
    let value: u32;
    // SAFETY: as in `read32`.
    unsafe { asm!("ldrb {0:w}, [{1}]", out(reg) value, in(reg) address, options(nostack)) };
    value as u8
}

/// Writes a byte.
#[inline(always)]
pub fn write8(address: usize, value: u8) {
    // SAFETY: as in `read32`.
    unsafe { asm!("strb {0:w}, [{1}]", in(reg) u32::from(value), in(reg) address, options(nostack)) };
}
