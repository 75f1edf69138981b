//! The hypervisor.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod bundle;
pub mod console;
pub mod exit;
pub mod guest;
pub mod log;
pub mod mmio;
pub mod trap;
pub mod vcpu_set;
pub mod vgic;
pub mod vpl011;
pub mod vpsci;
