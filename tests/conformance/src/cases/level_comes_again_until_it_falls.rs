//! A timer that stays raised is taken again after each end of interrupt, and no
//! more once it falls.

use guest_kit::timer::Timer;
use guest_kit::{Machine, gic, sysreg};

use crate::kit::{Verdict, ensure_eq};
use crate::taken;

pub(crate) fn run(_: &Machine) -> Verdict {
    sysreg::unmask_interrupts();
    for (round, timer) in [Timer::Virtual, Timer::Physical].into_iter().enumerate() {
        gic::enable(timer.intid());
        taken::leave_raised(4);
        timer.arm(0);
        let expected = 5 * (round as u32 + 1);
        ensure_eq!(taken::settle(0, expected), expected, "{timer:?}: interrupts in all");
    }
    Ok(())
}
