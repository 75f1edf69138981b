//! How this machine is switched off or reset.

use crate::board::Conduit;
use crate::mmio::Registers;
use crate::psci;

/// BCM2835 power management (Raspberry Pi up to 4; registers as in the
/// firmware's public `bcm2835_pm` device tree binding).
mod bcm2835_pm {
    pub(super) const RSTC: usize = 0x1c;
    pub(super) const RSTS: usize = 0x20;
    pub(super) const WDOG: usize = 0x24;
    /// Every write carries it in the top byte.
    pub(super) const PASSWORD: u32 = 0x5a00_0000;
    pub(super) const FULL_RESET: u32 = 0x20;
    pub(super) const RSTC_WRCFG_CLEAR: u32 = !0x30;
    /// "Partition 63": the boot loader stops instead of booting.
    pub(super) const HALT: u32 = 0x555;
    /// Sixteenths of a millisecond until the watchdog bites.
    pub(super) const SOON: u32 = 10;
}

/// The way to end this machine.
#[derive(Clone, Copy, Debug)]
pub enum Reset {
    /// By firmware.
    Psci(Conduit),
    /// By the Raspberry Pi's power management block.
    Bcm2835Pm(Registers),
}

impl Reset {
    /// Switches the machine off; returns only if that does not work.
    pub fn power_off(&self) {
        match self {
            Self::Psci(conduit) => psci::system_off(*conduit),
            Self::Bcm2835Pm(pm) => {
                let status = pm.read32(bcm2835_pm::RSTS);
                pm.write32(bcm2835_pm::RSTS, bcm2835_pm::PASSWORD | status | bcm2835_pm::HALT);
                full_reset(*pm);
            }
        }
    }

    /// Resets the machine; returns only if that does not work.
    pub fn reset(&self) {
        match self {
            Self::Psci(conduit) => psci::system_reset(*conduit),
            Self::Bcm2835Pm(pm) => full_reset(*pm),
        }
    }
}

fn full_reset(pm: Registers) {
    pm.write32(bcm2835_pm::WDOG, bcm2835_pm::PASSWORD | bcm2835_pm::SOON);
    let control = pm.read32(bcm2835_pm::RSTC) & bcm2835_pm::RSTC_WRCFG_CLEAR & 0x00ff_ffff;
    pm.write32(bcm2835_pm::RSTC, bcm2835_pm::PASSWORD | control | bcm2835_pm::FULL_RESET);
    // It takes a moment on hardware.
    for _ in 0..100_000_000u32 {
        core::hint::spin_loop();
    }
}
