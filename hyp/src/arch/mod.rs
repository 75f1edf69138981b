//! Everything that is an instruction or a system register.
//!
//! `aarch64/` is the real thing, `host/` a twin with the same names that lets
//! the rest of the hypervisor build and be tested on the machine you sit at.
//! This is the one place where the two part; a `cfg(target_os)` elsewhere in
//! `hyp` is a mistake (but for `log`, which forks for its own reason).

#[cfg(target_os = "none")]
#[path = "aarch64/mod.rs"]
mod imp;
#[cfg(not(target_os = "none"))]
#[path = "host/mod.rs"]
mod imp;

mod regs;

pub use imp::*;
pub use regs::{FastFrame, Gprs, GuestRegs, WholeFrame};
