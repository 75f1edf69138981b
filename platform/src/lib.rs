//! The board: device tree to facts, and drivers for what EL2 itself drives.
//!
//! Nothing about a board is compiled in. What the boot loader passes decides, in two steps:
//!
//! 1. Before the MMU is on, [`uart::early`] finds the console in the device tree, so that whatever goes wrong from
//!    there on can be said.
//! 2. Then [`board::Board::from_dt`] reads the tree once and keeps the facts: memory, CPUs and how to start them,
//!    interrupt controller, timer, console, firmware. What is missing becomes a [`board::Problem`] with the node to
//!    blame and what to do about it.
//!
//! | module | what |
//! |---|---|
//! | [`dt`] | the device tree as nodes, bounds-checked; adds to the `fdt` crate what a boot needs |
//! | [`board`] | the facts |
//! | [`mmio`] | device registers: every access of every driver goes through here |
//! | [`uart`] | the consoles: one file per programming model |
//! | [`gic`] | GICv2 and GICv3, as far as they are in memory |
//! | [`psci`] | calls to firmware |
//! | [`reset`] | how the machine ends |
//! | [`watchdog`] | what resets it unless somebody prevents that |
//! | [`intid`] | interrupt numbers |
//!
//! No policy and no notion of a virtual machine; no allocation; `unsafe` only in `mmio` (registers live at
//! addresses), `dt::words` (one cast) and `psci` (two instructions). System registers belong to `hyp::arch`.
//!
//! A new board needs no code here unless it brings a new UART, interrupt controller or way to be reset. A UART is one
//! file and one line in the table of `uart::Kind`, and so are a way to be reset (`reset::Kind`) and a watchdog
//! (`watchdog::Kind`).
#![cfg_attr(not(test), no_std)]

pub mod board;
pub mod dt;
pub mod gic;
pub mod intid;
pub mod mmio;
pub mod psci;
pub mod reset;
pub mod uart;
pub mod watchdog;

pub use dt::Region;
