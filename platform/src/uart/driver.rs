//! Stand-in.
#![allow(missing_docs)]
use crate::mmio::Registers;
use super::UartInfo;

pub const BLOCK: u64 = 0x1000;
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Interrupt { Enabled, Disabled }
#[derive(Clone, Copy)]
pub struct Uart(Registers);
impl Uart {
    pub fn new(_info: &UartInfo, registers: Registers) -> Self { Self(registers) }
    pub fn try_put(&self, byte: u8) -> bool {
        if self.0.read32(0x18) & 0x20 != 0 { return false; }
        self.0.write32(0, byte.into());
        true
    }
    pub fn try_get(&self) -> Option<u8> {
        if self.0.read32(0x18) & 0x10 != 0 { return None; }
        Some(self.0.read32(0) as u8)
    }
    pub fn init(&self) { self.0.write32(0x30, 0x301); self.0.write32(0x2c, 0x70); }
    pub fn set_rx_interrupt(&self, i: Interrupt) {
        let m = self.0.read32(0x38) & !0x50;
        self.0.write32(0x38, if i == Interrupt::Enabled { m | 0x50 } else { m });
    }
    pub fn set_tx_interrupt(&self, i: Interrupt) {
        let m = self.0.read32(0x38) & !0x20;
        self.0.write32(0x38, if i == Interrupt::Enabled { m | 0x20 } else { m });
    }
}
