//! The console's UART: found by [`early`], described by [`UartInfo`], driven through [`Uart`].
//!
//! The firmware has set baud rate and pins, and no driver here changes that; the two that do not send or receive as
//! QEMU leaves them (Cadence, i.MX) are switched on. What is needed is small: send a byte if there is room, take one
//! if there is one, and interrupts for both.
//!
//! One file per programming model, one table (`Kind::of_compatible`) from device tree to model. All of it may run
//! before the MMU is on, see [`early`].

mod cadence;
pub mod early;
mod imx;
mod lpuart;
mod ns16550;
mod pl011;
pub mod well_known;

use crate::{
    dt::{Node, Trigger, word},
    intid::IntId,
    mmio::Registers,
};

use self::{cadence::Cadence, imx::Imx, lpuart::Lpuart, ns16550::Ns16550, pl011::Pl011};

/// Bytes from [`UartInfo::base`] that a driver may access: what to map.
pub const BLOCK: u64 = 0x100;

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
    /// A new UART is one line here, one file beside this one and its arms in [`Uart`].
    fn of_compatible(compatible: &[u8]) -> Option<Self> {
        Some(match compatible {
            b"arm,pl011" | b"arm,sbsa-uart" => Self::Pl011,
            b"brcm,bcm2835-aux-uart" => Self::Bcm2835Aux,
            b"fsl,imx6q-uart" | b"fsl,imx21-uart" => Self::Imx,
            b"fsl,imx7ulp-lpuart" | b"fsl,imx8qxp-lpuart" => Self::Lpuart,
            b"ns16550" | b"ns16550a" | b"ns16750" | b"fsl,ns16550" | b"snps,dw-apb-uart" => {
                Self::Ns16550(Spacing { width: Width::Byte, shift: 0 })
            }
            b"cdns,uart-r1p8" | b"cdns,uart-r1p12" | b"xlnx,xuartps" => Self::Cadence,
            _ => return None,
        })
    }

    /// What a person calls it; `of_name` knows all but the spacings that no name is for.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pl011 => "pl011",
            Self::Bcm2835Aux => "bcm2835-aux",
            Self::Imx => "imx",
            Self::Lpuart => "lpuart",
            Self::Ns16550(Spacing { width: Width::Byte, .. }) => "ns16550",
            Self::Ns16550(Spacing { width: Width::Word, .. }) => "ns16550-32",
            Self::Cadence => "cadence",
        }
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

/// Whether an interrupt is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// It is.
    Enabled,
    /// It is not.
    Disabled,
}

impl Interrupt {
    /// `register` with the bits of `mask` set or cleared.
    fn apply(self, register: u32, mask: u32) -> u32 {
        match self {
            Self::Enabled => register | mask,
            Self::Disabled => register & !mask,
        }
    }
}

/// A UART and where its registers are. Operations are not synchronised: whoever shares one holds a lock.
#[derive(Clone, Copy, Debug)]
pub enum Uart {
    /// See [`Kind::Pl011`].
    Pl011(Pl011),
    /// See [`Kind::Ns16550`] and [`Kind::Bcm2835Aux`].
    Ns16550(Ns16550),
    /// See [`Kind::Imx`].
    Imx(Imx),
    /// See [`Kind::Lpuart`].
    Lpuart(Lpuart),
    /// See [`Kind::Cadence`].
    Cadence(Cadence),
}

/// Calls the method of whichever driver it is.
macro_rules! driver {
    ($uart:expr, $driver:ident => $call:expr) => {
        match $uart {
            Uart::Pl011($driver) => $call,
            Uart::Ns16550($driver) => $call,
            Uart::Imx($driver) => $call,
            Uart::Lpuart($driver) => $call,
            Uart::Cadence($driver) => $call,
        }
    };
}

impl Uart {
    /// The UART that `info` describes, with its registers ([`BLOCK`] bytes) at `registers`, ready to send.
    pub fn new(info: &UartInfo, registers: Registers) -> Self {
        match info.kind {
            Kind::Pl011 => Self::Pl011(Pl011(registers)),
            Kind::Bcm2835Aux => {
                Self::Ns16550(Ns16550 { registers, spacing: Spacing { width: Width::Word, shift: 2 } })
            }
            Kind::Ns16550(spacing) => Self::Ns16550(Ns16550 { registers, spacing }),
            Kind::Imx => {
                let uart = Imx(registers);
                uart.init();
                Self::Imx(uart)
            }
            Kind::Lpuart => Self::Lpuart(Lpuart(registers)),
            Kind::Cadence => {
                let uart = Cadence(registers);
                uart.init();
                Self::Cadence(uart)
            }
        }
    }

    /// Hands `byte` to the transmitter; `false` if it has no room.
    pub fn try_put(&self, byte: u8) -> bool {
        driver!(self, uart => uart.try_put(byte))
    }

    /// A byte that was received, if one waits.
    pub fn try_get(&self) -> Option<u8> {
        driver!(self, uart => uart.try_get())
    }

    /// Whether received bytes interrupt. The line stays up until all are taken, or until [`Self::acknowledge`], after
    /// which bytes that had been received before do not interrupt again.
    pub fn set_rx_interrupt(&self, interrupt: Interrupt) {
        driver!(self, uart => uart.set_rx_interrupt(interrupt));
    }

    /// Whether room in the transmitter interrupts. A PL011 does so only after its FIFO was filled: fill first, then
    /// enable; disable when there is nothing left to send.
    pub fn set_tx_interrupt(&self, interrupt: Interrupt) {
        driver!(self, uart => uart.set_tx_interrupt(interrupt));
    }

    /// Takes note of an interrupt: call this first, then take what was received and send what waits, so that what
    /// happens meanwhile raises the next one.
    pub fn acknowledge(&self) {
        match self {
            Self::Pl011(uart) => uart.acknowledge(),
            Self::Ns16550(uart) => uart.acknowledge(),
            // Its flags follow the FIFOs by themselves.
            Self::Imx(_) => {}
            Self::Lpuart(uart) => uart.acknowledge(),
            Self::Cadence(uart) => uart.acknowledge(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{dt::testing::TreeBuilder, mmio::fake::FakeRegisters};

    /// What a node with this `compatible` is taken for.
    fn name_of(compatible: &str) -> Option<&'static str> {
        let blob = TreeBuilder::new()
            .begin("chosen")
            .text("stdout-path", "/serial@1000")
            .end()
            .begin("serial@1000")
            .text("compatible", compatible)
            .cells("reg", &[0, 0x1000, 0, 0x1000])
            .build();
        early::find(&blob).map(|info| info.kind.name())
    }

    #[test]
    fn the_uarts_of_the_boards_are_known_by_their_nodes() {
        for (compatible, name) in [
            ("arm,pl011\0arm,primecell", "pl011"),
            ("brcm,bcm2835-aux-uart", "bcm2835-aux"),
            ("fsl,imx8mp-uart\0fsl,imx6q-uart", "imx"),
            ("fsl,imx93-lpuart\0fsl,imx8ulp-lpuart\0fsl,imx7ulp-lpuart", "lpuart"),
            ("fsl,ns16550\0ns16550a", "ns16550"),
            ("xlnx,zynqmp-uart\0cdns,uart-r1p12", "cadence"),
        ] {
            assert_eq!(name_of(compatible), Some(name), "{compatible:?}");
        }
        assert_eq!(name_of("vendor,unknown-uart"), None);
    }

    /// Registers of a UART of `kind`, with its receive interrupt enabled and then disabled: what was written.
    fn receive_interrupt(kind: Kind, register: usize) -> (u32, u32) {
        let mut block = FakeRegisters::new(BLOCK as usize);
        let registers = block.registers();
        let uart = Uart::new(&UartInfo { kind, base: 0, interrupt: None, clock: None }, registers);
        uart.set_rx_interrupt(Interrupt::Enabled);
        let enabled = registers.read32(register);
        uart.set_rx_interrupt(Interrupt::Disabled);
        (enabled, registers.read32(register))
    }

    #[test]
    fn every_kind_has_a_receive_interrupt() {
        let fsl = Kind::Ns16550(Spacing { width: Width::Byte, shift: 0 });
        assert_eq!(receive_interrupt(Kind::Pl011, 0x38), (0x50, 0));
        assert_eq!(receive_interrupt(Kind::Bcm2835Aux, 0x04), (0x5, 0));
        assert_eq!(receive_interrupt(Kind::Imx, 0x8c), (0x1, 0));
        assert_eq!(receive_interrupt(Kind::Lpuart, 0x18), (0x20_0000, 0));
        assert_eq!(receive_interrupt(fsl, 0x00), (0x500, 0));
        // By one register on, by another off.
        assert_eq!(receive_interrupt(Kind::Cadence, 0x08), (0x1, 0x1));
        assert_eq!(receive_interrupt(Kind::Cadence, 0x0c), (0, 0x1));
    }
}
