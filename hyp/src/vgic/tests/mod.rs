//! Tests of the virtual GIC as a whole, against a model of the hardware.
//!
//! [`interface::Interface`] is a physical CPU's list registers and the guest's
//! view of them: it acknowledges and ends interrupts as IHI 0069 says, and
//! knows when a maintenance interrupt would come. Most tests are in `machine`;
//! `interleave` holds the models that loom runs instead.

mod interface;
#[cfg(hyp_loom)]
mod interleave;
#[cfg(not(hyp_loom))]
mod machine;
