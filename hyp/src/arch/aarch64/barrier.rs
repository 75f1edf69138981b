//! Barriers and events, named by what they are for.
#![expect(unsafe_code, reason = "single barrier instructions")]

use core::arch::asm;

/// Makes earlier system-register writes take effect for what follows (ISB).
pub fn instruction_sync() {
    // SAFETY: a barrier has no effect but ordering.
    unsafe { asm!("isb", options(nostack, preserves_flags)) }
}

/// Waits until earlier accesses and TLB maintenance are complete in the whole
/// inner-shareable domain (DSB ISH).
pub fn complete_inner() {
    // SAFETY: a barrier has no effect but ordering.
    unsafe { asm!("dsb ish", options(nostack, preserves_flags)) }
}

/// Waits until earlier accesses, devices included, are complete (DSB SY).
pub fn complete_system() {
    // SAFETY: a barrier has no effect but ordering.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) }
}

/// Sleeps until an interrupt is pending, masked or not.
pub fn wait_for_interrupt() {
    // SAFETY: the DSB completes what the waker must see; WFI only waits.
    unsafe { asm!("dsb sy", "wfi", options(nostack, preserves_flags)) }
}

/// Sleeps until another CPU sends an event, or for no reason.
pub fn wait_for_event() {
    // SAFETY: a hint.
    unsafe { asm!("wfe", options(nostack, preserves_flags)) }
}

/// Wakes CPUs that wait for an event, after earlier stores are visible.
pub fn send_event() {
    // SAFETY: a barrier and a hint.
    unsafe { asm!("dsb ish", "sev", options(nostack, preserves_flags)) }
}
