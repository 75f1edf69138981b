//! Sixteen SGIs pending at once, more than any GIC has list registers, are all
//! taken, once each.

use guest_kit::gic::{self, Target};
use guest_kit::{Machine, sysreg};

use crate::kit::{Verdict, ensure_eq};
use crate::taken;

pub(crate) fn run(_: &Machine) -> Verdict {
    for intid in 0..16 {
        gic::enable(intid);
        gic::send(intid, Target::Cpu(0));
    }
    sysreg::unmask_interrupts();
    ensure_eq!(taken::settle(0, 16), 16, "interrupts");
    for intid in 0..16 {
        ensure_eq!(taken::count(0, intid), 1, "times that SGI {intid} was taken");
    }
    Ok(())
}
