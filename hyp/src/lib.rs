//! The hypervisor.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod arch;
pub mod boot;
pub mod bundle;
mod commands;
pub mod console;
pub mod crash;
pub mod create;
pub mod exit;
pub mod guest;
pub mod irq;
pub mod lifecycle;
pub mod log;
pub mod machine;
pub mod mem;
pub mod mmio;
pub mod percpu;
pub mod run;
pub mod seed;
pub mod smp;
pub mod task;
pub mod terminal;
pub mod trap;
pub mod vcpu;
pub mod vcpu_set;
pub mod vgic;
pub mod vm;
pub mod vpl011;
pub mod vpsci;
pub mod vtimer;
