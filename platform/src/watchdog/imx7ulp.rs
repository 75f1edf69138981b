//! NXP watchdog of the i.MX 7ULP, 8ULP, 93 and 95 (i.MX 93 reference manual, "WDOG", memory map).

use crate::mmio::Registers;

/// Bytes of registers.
pub(super) const BLOCK: u64 = 0x10;

/// Control and status.
const CS: usize = 0x0;
/// Counter; what is written there is a command.
const CNT: usize = 0x4;

/// CS: it runs.
const ENABLE: u32 = 1 << 7;
/// CS: commands are one word instead of two halfwords.
const WHOLE_COMMANDS: u32 = 1 << 13;
/// The command that makes it start over, and its halves in the order in which they are written.
const REFRESH: u32 = 0xb480_a602;
const REFRESH_HALVES: [u16; 2] = [0xa602, 0xb480];

/// An i.MX 7ULP's watchdog.
#[derive(Clone, Copy, Debug)]
pub struct Imx7Ulp(pub(super) Registers);

impl Imx7Ulp {
    pub(super) fn is_running(self) -> bool {
        self.0.read32(CS) & ENABLE != 0
    }

    pub(super) fn keep_alive(self) {
        if self.0.read32(CS) & WHOLE_COMMANDS != 0 {
            self.0.write32(CNT, REFRESH);
        } else {
            REFRESH_HALVES.into_iter().for_each(|half| self.0.write16(CNT, half));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mmio::fake::FakeRegisters;

    fn with(control: u32) -> (FakeRegisters, Imx7Ulp) {
        let mut block = FakeRegisters::new(0x10);
        let registers = block.registers();
        registers.write32(0, control);
        (block, Imx7Ulp(registers))
    }

    #[test]
    fn it_runs_once_it_is_enabled() {
        let (_block, watchdog) = with(0x2900);
        assert!(!watchdog.is_running());
        let (_block, watchdog) = with(0x2980);
        assert!(watchdog.is_running());
    }

    #[test]
    fn the_command_is_as_wide_as_the_control_register_says() {
        let (_block, watchdog) = with(0x2980);
        watchdog.keep_alive();
        assert_eq!(watchdog.0.read32(4), 0xb480_a602);
        let (_block, watchdog) = with(0x0980);
        watchdog.keep_alive();
        assert_eq!(watchdog.0.read32(4), 0xb480);
    }
}
