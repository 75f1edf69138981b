//! One UART for everybody.

pub mod ring;
