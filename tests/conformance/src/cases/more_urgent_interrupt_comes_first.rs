//! Of several pending interrupts the most urgent is taken first, whatever the
//! order in which they became pending; equals come in the order of their numbers.

use guest_kit::gic::{self, Target};
use guest_kit::{Machine, sysreg};

use crate::kit::{Verdict, ensure_eq};
use crate::taken::{self, OTHER_SPI, SPI};

pub(crate) fn run(_: &Machine) -> Verdict {
    for (intid, priority) in [(SPI, 0x40), (OTHER_SPI, 0x80), (3, 0x80), (1, 0xc0), (2, 0x20)] {
        gic::enable(intid);
        gic::set_priority(intid, priority);
    }
    gic::send(1, Target::Cpu(0));
    gic::set_pending(OTHER_SPI);
    gic::send(3, Target::Cpu(0));
    gic::set_pending(SPI);
    gic::send(2, Target::Cpu(0));
    sysreg::unmask_interrupts();
    ensure_eq!(taken::settle(0, 5), 5, "interrupts");
    for (place, intid) in [2, SPI, 3, OTHER_SPI, 1].into_iter().enumerate() {
        ensure_eq!(taken::nth(0, place), Some(intid), "interrupt number {place}");
    }
    Ok(())
}
