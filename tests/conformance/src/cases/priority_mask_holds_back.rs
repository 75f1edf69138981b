//! An interrupt that is not more urgent than the CPU's priority mask waits, and
//! is taken when the mask is raised.

use guest_kit::{Machine, gic, sysreg};

use crate::kit::{Verdict, ensure_eq};
use crate::taken::{self, OTHER_SPI, SPI};

pub(crate) fn run(_: &Machine) -> Verdict {
    gic::enable(SPI);
    gic::enable(OTHER_SPI);
    gic::set_priority(SPI, 0xa0);
    gic::set_priority(OTHER_SPI, 0x40);
    gic::set_priority_mask(0x80);
    sysreg::unmask_interrupts();
    gic::set_pending(SPI);
    ensure_eq!(taken::settle(0, 0), 0, "interrupts with the mask at 0x80 and the priority at 0xa0");
    gic::set_pending(OTHER_SPI);
    ensure_eq!(taken::settle(0, 1), 1, "interrupts after one with priority 0x40");
    ensure_eq!(taken::nth(0, 0), Some(OTHER_SPI), "the interrupt that the mask let through");
    gic::set_priority_mask(0xff);
    ensure_eq!(taken::settle(0, 2), 2, "interrupts with the mask at 0xff");
    Ok(())
}
