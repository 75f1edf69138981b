//! One UART for everybody.

pub mod mux;
pub mod ring;
pub mod source;
mod stage;
mod unit;
