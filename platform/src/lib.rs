//! The board: device tree to facts, and drivers for what EL2 itself drives.
#![no_std]

pub mod intid;
