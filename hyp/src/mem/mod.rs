//! Physical memory at EL2.
//!
//! [`regions`] works out what is free, [`pool`] hands it out: whole 2 MiB
//! chunks to guests, 4 KiB frames to stage-2 tables. [`tables`] is how the
//! `stage2` crate reaches its tables, [`guest`] how EL2 reads and writes a
//! guest's memory, [`heap`] the small fixed heap for set-up.

pub mod guest;
pub mod heap;
pub mod pool;
pub mod regions;
pub mod tables;
