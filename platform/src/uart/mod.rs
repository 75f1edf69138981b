//! The console's UART.

pub mod early;
mod driver;
pub use driver::{BLOCK, Interrupt, Uart};

use crate::{
    dt::{Node, Trigger, word},
    intid::IntId,
};

/// Which programming model a UART has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Arm PrimeCell PL011, and its subset in the SBSA.
    Pl011,
    /// The mini-UART of the BCM2835 family.
    Bcm2835Aux,
    /// NXP i.MX UART.
    Imx,
    /// NXP LPUART with 32-bit little-endian registers (i.MX7ULP and later).
    Lpuart,
    /// A 16550 with its many spacings.
    Ns16550(Spacing),
    /// Cadence UART of the Zynq families.
    Cadence,
}

/// How the registers of a 16550 are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spacing {
    /// Access size.
    pub width: Width,
    /// Register `n` is at `n << shift`.
    pub shift: u8,
}

/// Access size of a 16550's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// Single bytes.
    Byte,
    /// 32-bit words.
    Word,
}

impl Kind {
    /// The kind that one string of a `compatible` list means.
    ///
    /// A new UART is one line here, one file beside this one and one arm per operation of [`Uart`](super::Uart).
    fn of_compatible(compatible: &[u8]) -> Option<Self> {
        Some(match compatible {
            b"arm,pl011" | b"arm,sbsa-uart" => Self::Pl011,
            b"brcm,bcm2835-aux-uart" => Self::Bcm2835Aux,
            b"fsl,imx6q-uart" | b"fsl,imx21-uart" => Self::Imx,
            b"fsl,imx7ulp-lpuart" => Self::Lpuart,
            b"ns16550" | b"ns16550a" | b"ns16750" | b"fsl,ns16550" | b"snps,dw-apb-uart" => {
                Self::Ns16550(Spacing { width: Width::Byte, shift: 0 })
            }
            b"cdns,uart-r1p8" | b"cdns,uart-r1p12" | b"xlnx,xuartps" => Self::Cadence,
            _ => return None,
        })
    }

    /// The kind that a person means by `name` on the command line.
    fn of_name(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"pl011" => Self::Pl011,
            b"bcm2835-aux" => Self::Bcm2835Aux,
            b"imx" => Self::Imx,
            b"lpuart" => Self::Lpuart,
            b"ns16550" => Self::Ns16550(Spacing { width: Width::Byte, shift: 0 }),
            b"ns16550-32" => Self::Ns16550(Spacing { width: Width::Word, shift: 2 }),
            b"cadence" => Self::Cadence,
            _ => return None,
        })
    }
}

/// A UART as the device tree (or the command line) describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UartInfo {
    /// Programming model.
    pub kind: Kind,
    /// Physical address of the registers.
    pub base: u64,
    /// Its interrupt at the GIC; `None` if unknown: input must then be polled.
    pub interrupt: Option<(IntId, Trigger)>,
    /// Input clock in Hz where the tree states it. Only a note: the firmware has set the baud rate.
    pub clock: Option<u32>,
}

impl UartInfo {
    /// What `node` describes, without its interrupt; `None` if it is no UART we drive or cannot be reached.
    pub fn from_node(node: &Node<'_, '_>) -> Option<Self> {
        let number = |name| node.property(name).and_then(|value| word(value, 0));
        let mut kind = node.compatible().find_map(Kind::of_compatible)?;
        if let Kind::Ns16550(spacing) = &mut kind {
            spacing.shift = number(b"reg-shift").map_or(0, |shift| (shift & 0x3) as u8);
            if number(b"reg-io-width") == Some(4) {
                spacing.width = Width::Word;
            }
        }
        Some(Self { kind, base: node.region(0)?.base, interrupt: None, clock: number(b"clock-frequency") })
    }
}
