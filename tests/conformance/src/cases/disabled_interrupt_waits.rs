//! A pending interrupt is not taken while it is disabled, and is once enabled;
//! cleared before that, it is not taken at all.

use guest_kit::{Machine, gic, sysreg};

use crate::kit::{Verdict, ensure_eq};
use crate::taken::{self, SPI};

pub(crate) fn run(_: &Machine) -> Verdict {
    gic::enable(SPI);
    gic::disable(SPI);
    sysreg::unmask_interrupts();
    gic::set_pending(SPI);
    ensure_eq!(taken::settle(0, 0), 0, "interrupts while it is disabled");
    gic::enable(SPI);
    ensure_eq!(taken::settle(0, 1), 1, "interrupts once it is enabled");

    gic::disable(SPI);
    gic::set_pending(SPI);
    gic::clear_pending(SPI);
    gic::enable(SPI);
    ensure_eq!(taken::settle(0, 1), 1, "interrupts after one that was cleared");
    Ok(())
}
