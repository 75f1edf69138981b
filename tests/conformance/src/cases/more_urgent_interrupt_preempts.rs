//! While an interrupt is active, a more urgent one can be acknowledged, and one
//! that is not can only after the end of the first.

use guest_kit::gic::{self, Target};
use guest_kit::{Machine, sysreg};

use crate::kit::{Verdict, ensure_eq};
use crate::taken::SPI;

const LOW: u32 = 2;
const HIGH: u32 = 3;

pub(crate) fn run(_: &Machine) -> Verdict {
    for (intid, priority) in [(SPI, 0x80), (LOW, 0xc0), (HIGH, 0x40)] {
        gic::enable(intid);
        gic::set_priority(intid, priority);
    }
    gic::set_pending(SPI);
    ensure_next("with one pending", Some(SPI))?;
    gic::send(LOW, Target::Cpu(0));
    ensure_next("with a less urgent one pending", None)?;
    gic::send(HIGH, Target::Cpu(0));
    ensure_next("with a more urgent one pending", Some(HIGH))?;
    end(HIGH);
    ensure_next("after the end of the more urgent one", None)?;
    end(SPI);
    ensure_next("after the end of the first", Some(LOW))?;
    end(LOW);
    ensure_next("after the end of all", None)
}

/// Acknowledges by hand, interrupts being masked, and leaves it active.
fn ensure_next(when: &str, expected: Option<u32>) -> Verdict {
    sysreg::barrier();
    let taken = gic::acknowledge().map(|taken| taken.intid());
    ensure_eq!(taken, expected, "acknowledged {when}");
    Ok(())
}

/// SGIs of CPU 0 to itself and SPIs have no sender in their acknowledgement.
fn end(intid: u32) {
    gic::end(gic::Acknowledged::without_sender(intid));
    sysreg::barrier();
}
