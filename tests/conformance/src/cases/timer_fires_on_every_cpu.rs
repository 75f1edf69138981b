//! Each CPU has timers of its own.

use guest_kit::timer::{Timer, ticks};
use guest_kit::{Machine, gic, sysreg};

use crate::kit::{Verdict, ensure_eq, on_cpu_1};
use crate::taken;

pub(crate) fn run(_: &Machine) -> Verdict {
    sysreg::unmask_interrupts();
    gic::enable(Timer::Virtual.intid());
    on_cpu_1(|index| {
        sysreg::unmask_interrupts();
        for timer in [Timer::Virtual, Timer::Physical] {
            gic::enable(timer.intid());
            timer.arm(timer.now() + ticks(5));
        }
        taken::settle(index, 2);
    })?;
    ensure_eq!(taken::count(1, Timer::Virtual.intid()), 1, "virtual timer interrupts of CPU 1");
    ensure_eq!(taken::count(1, Timer::Physical.intid()), 1, "physical timer interrupts of CPU 1");
    ensure_eq!(taken::total(0), 0, "interrupts of CPU 0");
    Ok(())
}
