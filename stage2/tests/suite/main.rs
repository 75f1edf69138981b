//! The behaviour of the crate, as seen through its public face.
//!
//! [`machine`] is the hardware it runs on: table memory and TLBs that forget
//! nothing by themselves. The other modules are claims.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod age;
mod annotations;
mod catalogue;
mod contiguous;
mod dirty;
mod encoding;
mod fault;
mod geometries;
mod guest;
mod kit;
mod machine;
mod mapping;
mod meddle;
mod model;
mod moving;
mod oracle;
mod property;
mod registers;
mod shape_storms;
mod shapes;
mod teeth;
mod threads;
