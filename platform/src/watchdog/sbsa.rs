//! Generic watchdog (Server Base System Architecture, DEN 0029, "Generic Watchdog"): two blocks of registers, one for
//! whoever sets it up and one for whoever keeps it alive.

use crate::mmio::Registers;

/// Bytes of registers, of each block.
pub(super) const BLOCK: u64 = 0x4;

/// Control and status, in the control block.
const WCS: usize = 0x000;
/// Refresh, in the refresh block: any write makes it start over.
const WRR: usize = 0x000;

/// WCS: it runs.
const ENABLE: u32 = 1 << 0;

/// A generic watchdog.
#[derive(Clone, Copy, Debug)]
pub struct Sbsa {
    pub(super) control: Registers,
    pub(super) refresh: Registers,
}

impl Sbsa {
    pub(super) fn is_running(self) -> bool {
        self.control.read32(WCS) & ENABLE != 0
    }

    pub(super) fn keep_alive(self) {
        self.refresh.write32(WRR, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mmio::fake::FakeRegisters;

    #[test]
    fn only_the_refresh_block_is_written() {
        let (mut control, mut refresh) = (FakeRegisters::new(0x10), FakeRegisters::new(0x10));
        let watchdog = Sbsa { control: control.registers(), refresh: refresh.registers() };
        watchdog.refresh.write32(0, 0xffff_ffff);
        assert!(!watchdog.is_running());
        watchdog.control.write32(0, 0x3);
        assert!(watchdog.is_running());
        watchdog.keep_alive();
        assert_eq!((watchdog.control.read32(0), watchdog.refresh.read32(0)), (0x3, 0));
    }
}
