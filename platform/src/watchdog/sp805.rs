//! Arm Watchdog Module (SP805, DDI 0270). Its first timeout raises an interrupt, its second resets the machine.

use crate::mmio::Registers;

/// Bytes of registers.
pub(super) const BLOCK: u64 = 0xc04;

/// Control.
const CONTROL: usize = 0x008;
/// Interrupt clear: any write also makes the counter start over from what it was loaded with.
const INTERRUPT_CLEAR: usize = 0x00c;
/// Lock: the other registers can be written only after the key.
const LOCK: usize = 0xc00;

/// CONTROL: it counts.
const COUNT: u32 = 1 << 0;
const KEY: u32 = 0x1acc_e551;

/// An SP805.
#[derive(Clone, Copy, Debug)]
pub struct Sp805(pub(super) Registers);

impl Sp805 {
    pub(super) fn is_running(self) -> bool {
        self.0.read32(CONTROL) & COUNT != 0
    }

    pub(super) fn keep_alive(self) {
        self.0.write32(LOCK, KEY);
        self.0.write32(INTERRUPT_CLEAR, 1);
        self.0.write32(LOCK, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mmio::fake::FakeRegisters;

    #[test]
    fn it_runs_while_it_counts() {
        let mut block = FakeRegisters::new(0x1000);
        let registers = block.registers();
        registers.write32(0x008, 0x2);
        assert!(!Sp805(registers).is_running());
        registers.write32(0x008, 0x3);
        assert!(Sp805(registers).is_running());
    }

    #[test]
    fn kept_alive_it_is_locked_again() {
        let mut block = FakeRegisters::new(0x1000);
        let registers = block.registers();
        registers.write32(0xc00, 0xffff_ffff);
        Sp805(registers).keep_alive();
        assert_eq!((registers.read32(0x00c), registers.read32(0xc00)), (1, 0));
    }
}
