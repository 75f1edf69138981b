//! TLB maintenance as completed sequences (DDI 0487, "TLB maintenance
//! requirements").
//!
//! Stage 2 goes before stage 1, with a DSB between: a combined entry could
//! otherwise be refilled from the old stage-2 entry after the stage-1 half.
#![expect(unsafe_code, reason = "TLB maintenance instructions")]

use core::arch::asm;

/// Everything cached for the current VMID, both stages, on every CPU.
pub fn flush_vmid() {
    // SAFETY: dropping translations only costs walks; the barriers order it
    // after earlier table writes and before whatever follows.
    unsafe { asm!("dsb ishst", "tlbi vmalls12e1is", "dsb ish", "isb", options(nostack, preserves_flags)) };
}

/// One stage-2 page of the current VMID on every CPU.
pub fn flush_ipa(ipa: u64) {
    // SAFETY: as in `flush_vmid`.
    unsafe {
        asm!(
            "dsb ishst", "tlbi ipas2e1is, {page}", "dsb ish", "tlbi vmalle1is", "dsb ish", "isb",
            page = in(reg) ipa >> 12,
            options(nostack, preserves_flags)
        );
    }
}

/// Stage-1 entries of the current VMID on this CPU: two vCPUs of one VM share
/// a VMID and may use one ASID for different things (DDI 0487, VMID).
pub fn flush_stage1_local() {
    // SAFETY: as in `flush_vmid`.
    unsafe {
        asm!("dsb nshst", "tlbi vmalle1", "ic iallu", "dsb nsh", "isb", options(nostack, preserves_flags))
    };
}

/// Every VMID on this CPU: its TLB may hold anything when it comes up.
pub fn flush_all_local() {
    // SAFETY: as in `flush_vmid`.
    unsafe {
        asm!("dsb nshst", "tlbi alle1", "ic iallu", "dsb nsh", "isb", options(nostack, preserves_flags))
    };
}
