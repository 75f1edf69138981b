//! PSCI by HVC (DEN 0022), and SMC Calling Convention calls in general.
#![expect(unsafe_code, reason = "HVC and SMC need assembly")]

use core::arch::asm;

/// PSCI_VERSION.
pub const VERSION: u32 = 0x8400_0000;
/// CPU_SUSPEND, SMC64.
pub const CPU_SUSPEND: u32 = 0xc400_0001;
/// CPU_OFF.
pub const CPU_OFF: u32 = 0x8400_0002;
/// CPU_ON, SMC64.
pub const CPU_ON: u32 = 0xc400_0003;
/// AFFINITY_INFO, SMC64.
pub const AFFINITY_INFO: u32 = 0xc400_0004;
/// SYSTEM_OFF.
pub const SYSTEM_OFF: u32 = 0x8400_0008;
/// SYSTEM_RESET.
pub const SYSTEM_RESET: u32 = 0x8400_0009;
/// PSCI_FEATURES.
pub const FEATURES: u32 = 0x8400_000a;
/// SMCCC_VERSION.
pub const SMCCC_VERSION: u32 = 0x8000_0000;

/// Return codes of PSCI and of the SMC Calling Convention.
pub mod status {
    /// Done.
    pub const SUCCESS: i32 = 0;
    /// No such function.
    pub const NOT_SUPPORTED: i32 = -1;
    /// An argument names nothing that exists.
    pub const INVALID_PARAMETERS: i32 = -2;
    /// The CPU runs already.
    pub const ALREADY_ON: i32 = -4;
}

/// Calls by HVC: function and three arguments, as all of PSCI has. Returns w0.
#[inline(always)]
pub fn hvc(function: u32, arguments: [u64; 3]) -> i32 {
    let [x1, x2, x3] = arguments;
    let result: u64;
    // SAFETY: the convention keeps everything but x0-x3; memory may be read by
    // the CPU that a call starts, hence no `nomem`.
    unsafe {
        asm!("hvc #0", inout("x0") u64::from(function) => result, inout("x1") x1 => _,
             inout("x2") x2 => _, inout("x3") x3 => _, options(nostack));
    }
    result as i32
}

/// As [`hvc`], by SMC.
#[inline(always)]
pub fn smc(function: u32, arguments: [u64; 3]) -> i32 {
    let [x1, x2, x3] = arguments;
    let result: u64;
    // SAFETY: as in `hvc`.
    unsafe {
        asm!("smc #0", inout("x0") u64::from(function) => result, inout("x1") x1 => _,
             inout("x2") x2 => _, inout("x3") x3 => _, options(nostack));
    }
    result as i32
}

/// Powers the machine off.
pub fn system_off() -> ! {
    hvc(SYSTEM_OFF, [0; 3]);
    unreachable!("SYSTEM_OFF does not return");
}

/// Restarts the machine.
pub fn system_reset() -> ! {
    hvc(SYSTEM_RESET, [0; 3]);
    unreachable!("SYSTEM_RESET does not return");
}

/// Powers the calling CPU off.
pub fn cpu_off() -> ! {
    hvc(CPU_OFF, [0; 3]);
    unreachable!("CPU_OFF does not return");
}
