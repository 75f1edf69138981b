//! Everything that is an instruction or a system register.
//!
//! `aarch64/` is the real thing, `host/` a twin with the same names that lets
//! the rest of the hypervisor build and be tested on the machine you sit at.
//! This is where the two part. Elsewhere only `log` and `mem::heap` fork, because a
//! host has a logger-less linker and an allocator of its own, and `main`, which is
//! nothing on a host.

#[cfg(target_os = "none")]
#[path = "aarch64/mod.rs"]
mod imp;
#[cfg(not(target_os = "none"))]
#[path = "host/mod.rs"]
mod imp;

// Plain code, so that the host can test it, but only the target has such tables.
#[cfg(any(target_os = "none", test))]
mod el2_tables;
mod regs;

pub use imp::*;
pub use regs::{FastFrame, Gprs, GuestRegs, WholeFrame};
