//! System registers as functions: those that programs read and write freely.
#![expect(unsafe_code, reason = "system registers need assembly")]

use core::arch::asm;

macro_rules! readable {
    ($($(#[$doc:meta])* $name:ident = $register:literal;)*) => { $(
        $(#[$doc])*
        #[inline(always)]
        pub fn $name() -> u64 {
            let value: u64;
            // SAFETY: reading this register has no effect on memory or control flow.
            unsafe { asm!(concat!("mrs {0}, ", $register), out(reg) value, options(nostack)) };
            value
        }
    )* };
}

macro_rules! writable {
    ($($(#[$doc:meta])* $name:ident = $register:literal;)*) => { $(
        $(#[$doc])*
        #[inline(always)]
        pub fn $name(value: u64) {
            // SAFETY: this register steers interrupts or timers only, whose handlers
            // keep the interrupted context.
            unsafe { asm!(concat!("msr ", $register, ", {0}"), "isb", in(reg) value, options(nostack)) };
        }
    )* };
}

readable! {
    /// Counter frequency in Hz.
    cntfrq = "cntfrq_el0";
    /// Physical count.
    cntpct = "cntpct_el0";
    /// Virtual count.
    cntvct = "cntvct_el0";
    /// Virtual timer control: bit 0 enable, bit 1 mask, bit 2 condition met.
    cntv_ctl = "cntv_ctl_el0";
    /// Physical timer control, as [`cntv_ctl`].
    cntp_ctl = "cntp_ctl_el0";
    /// Exception level, in bits 3:2.
    currentel = "currentel";
    /// Affinity of this CPU.
    mpidr = "mpidr_el1";
    /// Index of this CPU, put there by the start-up code.
    tpidr_el1 = "tpidr_el1";
    /// Acknowledges a group 1 interrupt (GICv3).
    icc_iar1 = "S3_0_C12_C12_0";
    /// Highest pending group 1 interrupt (GICv3).
    icc_hppir1 = "S3_0_C12_C12_2";
    /// Running priority (GICv3).
    icc_rpr = "S3_0_C12_C11_3";
    /// Interrupt Status: bit 7 is a pending IRQ, masked or not.
    isr = "isr_el1";
}

writable! {
    /// Virtual timer control.
    set_cntv_ctl = "cntv_ctl_el0";
    /// Virtual timer compare value.
    set_cntv_cval = "cntv_cval_el0";
    /// Physical timer control.
    set_cntp_ctl = "cntp_ctl_el0";
    /// Physical timer compare value.
    set_cntp_cval = "cntp_cval_el0";
    /// Ends a group 1 interrupt (GICv3).
    set_icc_eoir1 = "S3_0_C12_C12_1";
    /// Priority mask (GICv3).
    set_icc_pmr = "S3_0_C4_C6_0";
    /// System register interface enable (GICv3).
    set_icc_sre = "S3_0_C12_C12_5";
    /// Group 1 enable (GICv3).
    set_icc_igrpen1 = "S3_0_C12_C12_7";
    /// Deactivates an interrupt (GICv3).
    set_icc_dir = "S3_0_C12_C11_1";
    /// CPU interface control (GICv3).
    set_icc_ctlr = "S3_0_C12_C12_4";
    /// Sends group 1 SGIs (GICv3).
    set_icc_sgi1r = "S3_0_C12_C11_5";
}

/// Takes interrupts from here on.
#[inline(always)]
pub fn unmask_interrupts() {
    // SAFETY: the handlers keep the interrupted context.
    unsafe { asm!("msr daifclr, #2", "isb", options(nostack)) };
}

/// Takes no interrupts from here on.
#[inline(always)]
pub fn mask_interrupts() {
    // SAFETY: masking interrupts changes nothing else.
    unsafe { asm!("msr daifset, #2", options(nostack)) };
}

/// Waits until an interrupt is pending, masked or not.
#[inline(always)]
pub fn wait_for_interrupt() {
    // SAFETY: no effect beyond waiting; DSB completes the device writes before it.
    unsafe { asm!("dsb sy", "wfi", options(nostack)) };
}

/// Completes earlier accesses, device writes included.
#[inline(always)]
pub fn barrier() {
    // SAFETY: no effect beyond ordering.
    unsafe { asm!("dsb sy", "isb", options(nostack)) };
}
