//! How this machine is switched off or reset.

use crate::board::{Board, Conduit};
use crate::dt::Region;
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
    /// Ticks of 1/65536 s until the watchdog bites. QEMU ignores it and resets at once.
    pub(super) const SOON: u32 = 10;
}

/// Turns of an empty loop after which a reset that did not come will not come.
const PATIENCE: u32 = if cfg!(test) { 1 } else { 100_000_000 };

/// The way to end this machine.
#[derive(Clone, Copy, Debug)]
pub enum Reset {
    /// By firmware.
    Psci(Conduit),
    /// By the Raspberry Pi's power management block.
    Bcm2835Pm(Registers),
}

impl Reset {
    /// How `board` ends: by its firmware, else by its power manager, whose registers `map` provides.
    pub fn of(board: &Board<'_>, map: impl FnOnce(Region) -> Option<Registers>) -> Option<Self> {
        match board.psci {
            Some(conduit) => Some(Self::Psci(conduit)),
            None => board.bcm2835_pm.and_then(map).map(Self::Bcm2835Pm),
        }
    }

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
    for _ in 0..PATIENCE {
        core::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dt::testing::{Blob, TreeBuilder},
        mmio::fake::FakeRegisters,
    };

    fn tree(with_psci: fn(TreeBuilder) -> TreeBuilder) -> Blob {
        with_psci(
            TreeBuilder::new()
                .begin("pm")
                .text("compatible", "brcm,bcm2835-pm")
                .cells("reg", &[0, 0, 0, 0x28]),
        )
        .build()
    }

    #[test]
    fn firmware_comes_before_the_power_manager() {
        let blob =
            tree(|tree| tree.end().begin("psci").text("compatible", "arm,psci-1.0").text("method", "smc"));
        let board = Board::from_dt(&blob).expect("valid tree");
        assert!(matches!(Reset::of(&board, |_| None), Some(Reset::Psci(Conduit::Smc))));
    }

    #[test]
    fn the_power_manager_is_told_to_halt_and_then_reset() {
        let blob = tree(|tree| tree);
        let board = Board::from_dt(&blob).expect("valid tree");
        let mut block = FakeRegisters::new(0x28);
        let registers = block.registers();
        registers.write32(0x1c, 0x5a00_0112);
        Reset::of(&board, |_| Some(registers)).expect("has a power manager").power_off();
        assert_eq!(registers.read32(0x20), 0x5a00_0555);
        assert_eq!(registers.read32(0x1c), 0x5a00_0122);
        assert_eq!(registers.read32(0x24), 0x5a00_000a);
    }
}
