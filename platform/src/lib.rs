//! The board: device tree to facts, and drivers for what EL2 itself drives.
#![cfg_attr(not(test), no_std)]

pub mod board;
pub mod dt;
pub mod gic;
pub mod intid;
pub mod mmio;
pub mod psci;
pub mod reset;
pub mod uart;

pub use dt::Region;
