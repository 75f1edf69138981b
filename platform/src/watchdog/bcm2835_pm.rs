//! Power management of the BCM2835 family (Raspberry Pi up to 4): a watchdog that is also how the machine is reset and
//! switched off. Registers as in the "brcm,bcm2835-pm" binding and its public headers; there is no manual.

use crate::mmio::Registers;

/// Bytes of registers.
pub(crate) const BLOCK: u64 = 0x28;

/// Reset control.
const RSTC: usize = 0x1c;
/// Reset status; the firmware reads here which partition to boot.
const RSTS: usize = 0x20;
/// What the watchdog counts down from, in ticks of 1/65536 s.
const WDOG: usize = 0x24;

/// Every write carries it in the top byte.
const PASSWORD: u32 = 0x5a00_0000;
const VALUE: u32 = 0x00ff_ffff;
/// RSTC: what happens when the count is over, and the value that means a reset of everything.
const RSTC_ACTION: u32 = 0x30;
const RSTC_FULL_RESET: u32 = 0x20;
/// RSTS: "partition 63", for which the boot loader stops instead of booting.
const RSTS_HALT: u32 = 0x555;
/// WDOG: the most it takes, 16 s.
const LONGEST: u32 = 0xf_ffff;
/// WDOG: as good as now.
const SOON: u32 = 10;

/// A BCM2835's power management block.
#[derive(Clone, Copy, Debug)]
pub struct Bcm2835Pm(pub(crate) Registers);

impl Bcm2835Pm {
    pub(super) fn is_running(self) -> bool {
        self.0.read32(RSTC) & RSTC_ACTION == RSTC_FULL_RESET
    }

    /// Only ever on one that runs: QEMU takes the write to RSTC for the reset itself, whatever the count, and so
    /// never has one that runs.
    pub(super) fn keep_alive(self) {
        self.count_down(LONGEST);
    }

    /// Resets the machine, in a moment.
    pub(crate) fn reset(self) {
        self.count_down(SOON);
    }

    /// Resets the machine to a boot loader that then stops.
    pub(crate) fn power_off(self) {
        self.0.write32(RSTS, PASSWORD | self.0.read32(RSTS) & VALUE | RSTS_HALT);
        self.reset();
    }

    fn count_down(self, ticks: u32) {
        self.0.write32(WDOG, PASSWORD | ticks);
        let others = self.0.read32(RSTC) & VALUE & !RSTC_ACTION;
        self.0.write32(RSTC, PASSWORD | others | RSTC_FULL_RESET);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mmio::fake::FakeRegisters;

    #[test]
    fn it_runs_once_a_full_reset_is_what_the_count_ends_in() {
        let mut block = FakeRegisters::new(0x28);
        let registers = block.registers();
        registers.write32(0x1c, 0x0000_0102);
        assert!(!Bcm2835Pm(registers).is_running());
        registers.write32(0x1c, 0x0000_0122);
        assert!(Bcm2835Pm(registers).is_running());
    }

    #[test]
    fn kept_alive_it_counts_from_the_top_and_keeps_its_action() {
        let mut block = FakeRegisters::new(0x28);
        let registers = block.registers();
        registers.write32(0x1c, 0x0000_0122);
        Bcm2835Pm(registers).keep_alive();
        assert_eq!(registers.read32(0x24), 0x5a0f_ffff);
        assert_eq!(registers.read32(0x1c), 0x5a00_0122);
    }

    #[test]
    fn power_off_is_a_halt_and_then_a_reset() {
        let mut block = FakeRegisters::new(0x28);
        let registers = block.registers();
        registers.write32(0x1c, 0x5a00_0112);
        Bcm2835Pm(registers).power_off();
        assert_eq!(registers.read32(0x20), 0x5a00_0555);
        assert_eq!(registers.read32(0x1c), 0x5a00_0122);
        assert_eq!(registers.read32(0x24), 0x5a00_000a);
    }
}
