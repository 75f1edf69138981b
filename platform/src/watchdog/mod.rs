//! Watchdogs that the firmware left running, found in the tree and kept alive.
//!
//! A boot loader starts one so that a system that never comes up is reset. Guests can't reach it, so EL2 takes the duty
//! over: [`Watchdog::is_running`] asks the device, [`Watchdog::keep_alive`] puts its deadline off. None is started,
//! stopped or reprogrammed here: most can't be stopped, and how long it waits is the choice of whoever started it.
//! Only nodes that are enabled are touched, as with UARTs: registers without a clock can stop the bus.
//!
//! One file per programming model, one table (`Kind::of_node`) from device tree to model. Two of them can also reset
//! the machine; [`crate::reset`] uses the same files.

pub(crate) mod bcm2835_pm;
pub(crate) mod imx2;
mod imx7ulp;
mod sbsa;
mod sp805;

use crate::{
    dt::{Node, Region},
    mmio::{ByteOrder, Registers},
};

use self::{bcm2835_pm::Bcm2835Pm, imx2::Imx2, imx7ulp::Imx7Ulp, sbsa::Sbsa, sp805::Sp805};

/// Which programming model a watchdog has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Power management block of the BCM2835 family (Raspberry Pi up to 4).
    Bcm2835Pm,
    /// NXP i.MX, since the i.MX 21; big-endian on some Layerscapes.
    Imx2(ByteOrder),
    /// NXP i.MX 7ULP, 8ULP, 93 and 95.
    Imx7Ulp,
    /// Generic watchdog of the Server Base System Architecture.
    Sbsa {
        /// Its second block, whose one register puts the deadline off.
        refresh: Region,
    },
    /// Arm SP805.
    Sp805,
}

impl Kind {
    /// The kind that one string of `node`'s `compatible` list means.
    ///
    /// A new watchdog is one line here, one file beside this one and its arms in [`Watchdog`].
    fn of_node(node: &Node<'_, '_>, compatible: &[u8]) -> Option<Self> {
        Some(match compatible {
            b"brcm,bcm2835-pm" | b"brcm,bcm2835-pm-wdt" => Self::Bcm2835Pm,
            b"fsl,imx21-wdt" => Self::Imx2(node.byte_order()),
            b"fsl,imx7ulp-wdt" | b"fsl,imx8ulp-wdt" | b"fsl,imx93-wdt" => Self::Imx7Ulp,
            b"arm,sbsa-gwdt" => {
                Self::Sbsa { refresh: node.region(1).filter(|block| block.size >= sbsa::BLOCK)? }
            }
            b"arm,sp805" => Self::Sp805,
            _ => return None,
        })
    }

    /// Bytes of registers that the driver may access: a shorter `reg` is none of these devices.
    fn block(self) -> u64 {
        match self {
            Self::Bcm2835Pm => bcm2835_pm::BLOCK,
            Self::Imx2(_) => imx2::BLOCK,
            Self::Imx7Ulp => imx7ulp::BLOCK,
            Self::Sbsa { .. } => sbsa::BLOCK,
            Self::Sp805 => sp805::BLOCK,
        }
    }

    /// What a person calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bcm2835Pm => "bcm2835-pm",
            Self::Imx2(_) => "imx2-wdt",
            Self::Imx7Ulp => "imx7ulp-wdt",
            Self::Sbsa { .. } => "sbsa-gwdt",
            Self::Sp805 => "sp805",
        }
    }
}

/// A watchdog as the device tree describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchdogInfo {
    /// Programming model.
    pub kind: Kind,
    /// Its registers.
    pub registers: Region,
}

impl WatchdogInfo {
    /// What `node` describes; `None` if it is no watchdog we know or cannot be reached.
    pub fn from_node(node: &Node<'_, '_>) -> Option<Self> {
        let kind = node.compatible().find_map(|compatible| Kind::of_node(node, compatible))?;
        let registers = node.region(0)?;
        (registers.size >= kind.block()).then_some(Self { kind, registers })
    }
}

/// A watchdog and where its registers are. An enum rather than a trait, as [`crate::uart::Uart`] is: there are no
/// trait objects in this crate.
#[derive(Clone, Copy, Debug)]
pub enum Watchdog {
    /// See [`Kind::Bcm2835Pm`].
    Bcm2835Pm(Bcm2835Pm),
    /// See [`Kind::Imx2`].
    Imx2(Imx2),
    /// See [`Kind::Imx7Ulp`].
    Imx7Ulp(Imx7Ulp),
    /// See [`Kind::Sbsa`].
    Sbsa(Sbsa),
    /// See [`Kind::Sp805`].
    Sp805(Sp805),
}

impl Watchdog {
    /// The watchdog that `info` describes; `map` gives its registers, or `None` if it can't.
    pub fn new(info: &WatchdogInfo, mut map: impl FnMut(Region) -> Option<Registers>) -> Option<Self> {
        let registers = map(info.registers)?;
        Some(match info.kind {
            Kind::Bcm2835Pm => Self::Bcm2835Pm(Bcm2835Pm(registers)),
            Kind::Imx2(order) => Self::Imx2(Imx2 { registers, order }),
            Kind::Imx7Ulp => Self::Imx7Ulp(Imx7Ulp(registers)),
            Kind::Sbsa { refresh } => Self::Sbsa(Sbsa { control: registers, refresh: map(refresh)? }),
            Kind::Sp805 => Self::Sp805(Sp805(registers)),
        })
    }

    /// Whether it counts down, that is, resets the machine if nobody keeps it from that.
    pub fn is_running(&self) -> bool {
        match self {
            Self::Bcm2835Pm(watchdog) => watchdog.is_running(),
            Self::Imx2(watchdog) => watchdog.is_running(),
            Self::Imx7Ulp(watchdog) => watchdog.is_running(),
            Self::Sbsa(watchdog) => watchdog.is_running(),
            Self::Sp805(watchdog) => watchdog.is_running(),
        }
    }

    /// Makes a running one start over. Call it well within the shortest time that any is set to: half a second.
    pub fn keep_alive(&self) {
        match self {
            Self::Bcm2835Pm(watchdog) => watchdog.keep_alive(),
            Self::Imx2(watchdog) => watchdog.keep_alive(),
            Self::Imx7Ulp(watchdog) => watchdog.keep_alive(),
            Self::Sbsa(watchdog) => watchdog.keep_alive(),
            Self::Sp805(watchdog) => watchdog.keep_alive(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        board::Board,
        dt::testing::{Blob, TreeBuilder},
        mmio::fake::FakeRegisters,
    };

    fn tree(compatible: &str, add: fn(TreeBuilder) -> TreeBuilder) -> Blob {
        let node = TreeBuilder::new().begin("watchdog").text("compatible", compatible);
        add(node).cells("reg", &[0, 0x1000, 0, 0x1000, 0, 0x2000, 0, 0x1000]).build()
    }

    fn kinds(blob: &[u8]) -> std::vec::Vec<Kind> {
        let board = Board::from_dt(blob).expect("valid tree");
        board.watchdogs.iter().map(|watchdog| watchdog.kind).collect()
    }

    #[test]
    fn a_watchdog_is_known_by_any_string_of_its_list() {
        let blob = tree("fsl,imx8mm-wdt\0fsl,imx21-wdt", |node| node);
        assert_eq!(kinds(&blob), [Kind::Imx2(ByteOrder::Little)]);
        let blob = tree("brcm,bcm2711-pm\0brcm,bcm2835-pm-wdt", |node| node);
        assert_eq!(kinds(&blob), [Kind::Bcm2835Pm]);
    }

    #[test]
    fn a_disabled_watchdog_is_left_alone() {
        let blob = tree("arm,sp805\0arm,primecell", |node| node.text("status", "disabled"));
        assert_eq!(kinds(&blob), []);
    }

    #[test]
    fn a_node_with_too_few_registers_is_no_watchdog() {
        let blob = TreeBuilder::new()
            .begin("watchdog")
            .text("compatible", "arm,sp805")
            .cells("reg", &[0, 0x1000, 0, 0x400])
            .build();
        assert_eq!(kinds(&blob), []);
    }

    #[test]
    fn layerscape_has_its_registers_the_other_way_round() {
        let blob = tree("fsl,ls1043a-wdt\0fsl,imx21-wdt", |node| node.bytes("big-endian", &[]));
        assert_eq!(kinds(&blob), [Kind::Imx2(ByteOrder::Big)]);
    }

    #[test]
    fn a_generic_watchdog_needs_both_its_blocks() {
        let blob = tree("arm,sbsa-gwdt", |node| node);
        let expected = Kind::Sbsa { refresh: Region { base: 0x2000, size: 0x1000 } };
        assert_eq!(kinds(&blob), [expected]);
        let mut block = FakeRegisters::new(0x1000);
        let registers = block.registers();
        let info = WatchdogInfo { kind: expected, registers: Region { base: 0x1000, size: 0x1000 } };
        assert!(Watchdog::new(&info, |region| (region.base == 0x1000).then_some(registers)).is_none());
    }
}
