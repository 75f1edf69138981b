//! NXP i.MX watchdog (i.MX 8M Plus reference manual, "WDOG", memory map; the same since the i.MX 21): 16-bit registers.

use crate::mmio::{ByteOrder, Registers};

/// Bytes of registers.
pub(crate) const BLOCK: u64 = 0x4;

/// Control.
const WCR: usize = 0x0;
/// Service.
const WSR: usize = 0x2;

/// WCR: it runs. Once set it stays set.
const ENABLE: u16 = 1 << 2;
/// WCR: 0 resets the chip.
const NO_INTERNAL_RESET: u16 = 1 << 4;
/// WCR: 0 pulls the line to the board's power supply.
const NO_EXTERNAL_RESET: u16 = 1 << 5;
/// WSR: the two values that, one after the other, make it start over.
const SERVICE: [u16; 2] = [0x5555, 0xaaaa];

/// An i.MX watchdog.
#[derive(Clone, Copy, Debug)]
pub struct Imx2 {
    pub(crate) registers: Registers,
    pub(crate) order: ByteOrder,
}

/// What a watchdog pulls to reset the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The chip's own reset.
    Internal,
    /// The line to the board's power supply (`fsl,ext-reset-output`): a chip reset alone leaves some boards half reset.
    External,
}

impl Imx2 {
    pub(super) fn is_running(self) -> bool {
        self.order.of16(self.registers.read16(WCR)) & ENABLE != 0
    }

    pub(super) fn keep_alive(self) {
        for value in SERVICE {
            self.registers.write16(WSR, self.order.of16(value));
        }
    }

    /// Resets the machine.
    pub(crate) fn reset(self, output: Output) {
        let spared = match output {
            Output::Internal => NO_EXTERNAL_RESET,
            Output::External => NO_INTERNAL_RESET,
        };
        // i.MX 6 erratum ERR004346: two writes within one cycle of the 32 kHz clock are needed, and of three in a
        // row two are.
        for _ in 0..3 {
            self.registers.write16(WCR, self.order.of16(ENABLE | spared));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mmio::fake::FakeRegisters;

    fn with(wcr: u16, order: ByteOrder) -> (FakeRegisters, Imx2) {
        let mut block = FakeRegisters::new(0x10);
        let registers = block.registers();
        registers.write16(WCR, wcr);
        (block, Imx2 { registers, order })
    }

    #[test]
    fn it_runs_once_it_is_enabled() {
        let (_block, watchdog) = with(0x7f30, ByteOrder::Little);
        assert!(!watchdog.is_running());
        let (_block, watchdog) = with(0x7f34, ByteOrder::Little);
        assert!(watchdog.is_running());
    }

    #[test]
    fn a_big_endian_one_is_read_the_other_way_round() {
        let (_block, watchdog) = with(0x347f, ByteOrder::Big);
        assert!(watchdog.is_running());
        watchdog.keep_alive();
        assert_eq!(watchdog.registers.read16(2), 0xaaaa);
    }

    #[test]
    fn keeping_alive_leaves_the_control_register_alone() {
        let (_block, watchdog) = with(0x7f34, ByteOrder::Little);
        watchdog.keep_alive();
        assert_eq!((watchdog.registers.read16(0), watchdog.registers.read16(2)), (0x7f34, 0xaaaa));
    }

    #[test]
    fn reset_pulls_one_of_the_two_lines() {
        let (_block, watchdog) = with(0, ByteOrder::Little);
        watchdog.reset(Output::Internal);
        assert_eq!(watchdog.registers.read16(0), 0x24);
        watchdog.reset(Output::External);
        assert_eq!(watchdog.registers.read16(0), 0x14);
    }
}
