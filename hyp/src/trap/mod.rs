//! What an exit means for the guest: one file per kind of trap.
//!
//! Everything here is pure: it takes what the hardware reported and the guest's
//! registers as values and says what to do. The vCPU loop does it.
//!
//! - [`advance`]: going on behind an emulated instruction.
//! - [`smccc`]: calls by HVC and SMC.
//! - [`sysreg`]: trapped system registers, and the ID registers of the guest's CPU.
//! - [`controls`]: the trap registers that make `sysreg`'s picture true.
//! - [`inject`]: an exception into the guest, as its CPU would have taken it.

pub mod advance;
pub mod controls;
pub mod inject;
pub mod smccc;
pub mod sysreg;
