//! What an exit means for the guest: one file per kind of trap.
//!
//! [`entry`] is what the vectors call, [`handle`](handle()) what the vCPU loop calls for
//! the exits that `entry` left alone. They join the rest, which is pure: it takes
//! what the hardware reported and the guest's registers as values and says what
//! to do.
//!
//! - [`advance`]: going on behind an emulated instruction.
//! - [`smccc`]: calls by HVC and SMC.
//! - [`sysreg`]: trapped system registers, and the ID registers of the guest's CPU.
//! - [`controls`]: the trap registers that make `sysreg`'s picture true.
//! - [`inject`]: an exception into the guest, as its CPU would have taken it.

pub mod advance;
pub mod controls;
mod device;
mod entry;
mod handle;
pub mod inject;
pub mod smccc;
pub mod sysreg;
mod system;
mod wait;

pub use entry::Leave;
pub use entry::{on_irq, on_serror, on_sync, on_sync_whole};
pub use handle::{Next, handle};
