//! A console with room to transmit raises its interrupt when that is enabled,
//! and not before; it falls silent when disabled.

use guest_kit::machine::UART_INTID;
use guest_kit::{Machine, gic, sysreg, uart};

use crate::kit::{Verdict, ensure, ensure_eq};
use crate::taken;

pub(crate) fn run(_: &Machine) -> Verdict {
    gic::enable(UART_INTID);
    sysreg::unmask_interrupts();
    // The interrupt is raised by a FIFO that empties: this claim's name has just
    // gone through it.
    ensure_eq!(taken::settle(0, 0), 0, "interrupts before it was enabled");
    ensure!(uart::is_raised(uart::Cause::Transmit), "UARTRIS does not show the empty FIFO");
    uart::enable_interrupt(uart::Cause::Transmit);
    // The handler disables it.
    ensure_eq!(taken::settle(0, 1), 1, "interrupts once enabled");
    ensure_eq!(taken::count(0, UART_INTID), 1, "interrupts of the console");
    Ok(())
}
