//! How this machine is switched off or reset.
//!
//! Firmware comes first, if there is any (PSCI). Then, in the order of the tree, whatever device of the board can do it:
//! all of them are kept, because firmware that has no answer for its board just returns.
//!
//! One file per programming model, one table (`Kind::of_node`) from device tree to model; the two that are watchdogs
//! as well live in [`crate::watchdog`].

mod snvs;
mod syscon;

use heapless::Vec;

use crate::{
    board::{Board, Conduit, MAX_RESETS},
    dt::{Node, Region},
    mmio::{ByteOrder, Registers},
    psci,
    watchdog::{
        bcm2835_pm::{self, Bcm2835Pm},
        imx2::{self, Imx2},
    },
};

use self::snvs::Snvs;

pub use self::syscon::{Action, Write};
pub(crate) use self::syscon::{Block, Regmap};
pub use crate::watchdog::imx2::Output;

/// Turns of an empty loop after which an end that did not come will not come.
const PATIENCE: u32 = if cfg!(test) { 1 } else { 100_000_000 };

/// Which programming model a way to end the machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Power management block of the BCM2835 family (Raspberry Pi up to 4): resets and switches off.
    Bcm2835Pm,
    /// NXP i.MX watchdog: resets.
    Imx2(Output, ByteOrder),
    /// NXP i.MX secure non-volatile storage: switches off.
    Snvs,
    /// A register of some system controller, and what is to be written there.
    Syscon(Write),
}

impl Kind {
    /// The kind that one string of `node`'s `compatible` list means.
    ///
    /// A new way is one line here, one file beside this one and its arms in [`Way`].
    fn of_node(node: &Node<'_, '_>, compatible: &[u8]) -> Option<Self> {
        Some(match compatible {
            b"brcm,bcm2835-pm" | b"brcm,bcm2835-pm-wdt" => Self::Bcm2835Pm,
            b"fsl,imx21-wdt" => {
                let is_external = node.property(b"fsl,ext-reset-output").is_some();
                let output = if is_external { Output::External } else { Output::Internal };
                Self::Imx2(output, node.byte_order())
            }
            b"fsl,sec-v4.0-mon" if snvs::is_of_imx(node) => Self::Snvs,
            b"syscon-reboot" => Self::Syscon(Write::from_node(node, Action::Reset)?),
            b"syscon-poweroff" => Self::Syscon(Write::from_node(node, Action::PowerOff)?),
            _ => return None,
        })
    }

    /// Bytes of registers that the driver may access: a shorter `reg` is none of these devices.
    fn block(self) -> u64 {
        match self {
            Self::Bcm2835Pm => bcm2835_pm::BLOCK,
            Self::Imx2(..) => imx2::BLOCK,
            Self::Snvs => snvs::BLOCK,
            Self::Syscon(write) => write.block(),
        }
    }

    /// What a person calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bcm2835Pm => "bcm2835-pm",
            Self::Imx2(..) => "imx2-wdt",
            Self::Snvs => "imx-snvs",
            Self::Syscon(_) => "syscon",
        }
    }

    /// Whether it can reset the machine.
    pub fn can_reset(self) -> bool {
        match self {
            Self::Bcm2835Pm | Self::Imx2(..) => true,
            Self::Snvs => false,
            Self::Syscon(write) => write.action == Action::Reset,
        }
    }

    /// Whether it can switch the machine off.
    pub fn can_power_off(self) -> bool {
        match self {
            Self::Bcm2835Pm | Self::Snvs => true,
            Self::Imx2(..) => false,
            Self::Syscon(write) => write.action == Action::PowerOff,
        }
    }
}

/// A way to end the machine as the device tree describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResetInfo {
    /// Programming model.
    pub kind: Kind,
    /// Its registers.
    pub registers: Region,
}

impl ResetInfo {
    /// What `node` describes, and where its registers are if they are another node's; `None` if it is no way we know.
    pub(crate) fn from_node(node: &Node<'_, '_>) -> Option<(Kind, Regmap)> {
        let kind = node.compatible().find_map(|compatible| Kind::of_node(node, compatible))?;
        let regmap = match kind {
            Kind::Syscon(_) => Regmap::from_node(node)?,
            _ => Regmap::Here(Block::of_node(node)?),
        };
        Some((kind, regmap))
    }

    /// `kind` with its registers in `block`; `None` if they are too few.
    pub(crate) fn new(kind: Kind, block: Block) -> Option<Self> {
        let kind = match kind {
            Kind::Syscon(write) => Kind::Syscon(write.within(block)),
            other => other,
        };
        (block.region.size >= kind.block()).then_some(Self { kind, registers: block.region })
    }
}

/// One way to end a machine.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// By firmware.
    Psci(Conduit),
    /// See [`Kind::Bcm2835Pm`].
    Bcm2835Pm(Bcm2835Pm),
    /// See [`Kind::Imx2`].
    Imx2(Imx2, Output),
    /// See [`Kind::Snvs`].
    Snvs(Snvs),
    /// See [`Kind::Syscon`].
    Syscon(Registers, Write),
}

impl Way {
    fn new(info: &ResetInfo, registers: Registers) -> Self {
        match info.kind {
            Kind::Bcm2835Pm => Self::Bcm2835Pm(Bcm2835Pm(registers)),
            Kind::Imx2(output, order) => Self::Imx2(Imx2 { registers, order }, output),
            Kind::Snvs => Self::Snvs(Snvs(registers)),
            Kind::Syscon(write) => Self::Syscon(registers, write),
        }
    }

    fn power_off(&self) {
        match self {
            Self::Psci(conduit) => psci::system_off(*conduit),
            Self::Bcm2835Pm(pm) => pm.power_off(),
            Self::Snvs(snvs) => snvs.power_off(),
            Self::Syscon(registers, write) if write.action == Action::PowerOff => write.perform(*registers),
            Self::Imx2(..) | Self::Syscon(..) => return,
        }
        wait();
    }

    fn reset(&self) {
        match self {
            Self::Psci(conduit) => psci::system_reset(*conduit),
            Self::Bcm2835Pm(pm) => pm.reset(),
            Self::Imx2(watchdog, output) => watchdog.reset(*output),
            Self::Syscon(registers, write) if write.action == Action::Reset => write.perform(*registers),
            Self::Snvs(_) | Self::Syscon(..) => return,
        }
        wait();
    }
}

/// All ways to end this machine, the best first.
#[derive(Clone, Debug)]
pub struct Reset(Vec<Way, { MAX_RESETS + 1 }>);

impl Reset {
    /// How `board` ends: by its firmware, else by its devices, whose registers `map` provides. `None` if there is no way.
    pub fn of(board: &Board<'_>, mut map: impl FnMut(Region) -> Option<Registers>) -> Option<Self> {
        let firmware = board.psci.map(Way::Psci);
        let devices = board
            .resets
            .iter()
            .filter_map(|info| map(info.registers).map(|registers| Way::new(info, registers)));
        let ways: Vec<Way, { MAX_RESETS + 1 }> = firmware.into_iter().chain(devices).collect();
        (!ways.is_empty()).then_some(Self(ways))
    }

    /// Switches the machine off; returns only if no way works.
    pub fn power_off(&self) {
        self.0.iter().for_each(Way::power_off);
    }

    /// Resets the machine; returns only if no way works.
    pub fn reset(&self) {
        self.0.iter().for_each(Way::reset);
    }
}

/// It takes a moment on hardware.
fn wait() {
    for _ in 0..PATIENCE {
        core::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests;
