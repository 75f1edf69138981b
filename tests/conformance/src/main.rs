#![no_std]
#![no_main]
guest_kit::program!(main, on_interrupt);
fn main(_: guest_kit::Machine) {}
fn on_interrupt(_: u32) {}
