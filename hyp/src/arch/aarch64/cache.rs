//! Data and instruction cache maintenance by address.
#![expect(unsafe_code, reason = "cache maintenance instructions")]

use super::sysreg::read;
use core::arch::asm;

/// Cleans and invalidates `size` bytes at `address` to the point of coherency:
/// afterwards an observer with caches off sees what was written.
pub fn clean_invalidate_to_coherency(address: usize, size: usize) {
    for line in lines(address, size) {
        // SAFETY: clean and invalidate keeps contents; the range is mapped (the caller just wrote it).
        unsafe { asm!("dc civac, {}", in(reg) line, options(nostack, preserves_flags)) };
    }
    super::complete_system();
}

/// Makes code that was just written visible to instruction fetch on every CPU.
pub fn invalidate_instructions() {
    // SAFETY: dropping cached instructions changes nothing but speed.
    unsafe { asm!("ic ialluis", "dsb ish", "isb", options(nostack, preserves_flags)) };
}

fn lines(address: usize, size: usize) -> impl Iterator<Item = usize> {
    // CTR_EL0.DminLine: log2 of the smallest line in words.
    let line = 4usize << (read!("ctr_el0") >> 16 & 0xf);
    (address & !(line - 1)..address + size).step_by(line)
}
