//! One UART for everybody.

pub mod frames;
pub mod input;
pub mod mux;
pub mod prompt;
pub mod ring;
pub mod source;
mod stage;
mod unit;
