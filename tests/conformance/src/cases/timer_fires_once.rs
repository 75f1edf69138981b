//! Each timer raises its interrupt at the time asked for, not before, and once
//! if its handler stops it; so too when that time has passed already.

use guest_kit::timer::{Timer, pause_ms, ticks};
use guest_kit::{Machine, gic, sysreg};

use crate::kit::{Verdict, ensure, ensure_eq};
use crate::taken;

pub(crate) fn run(_: &Machine) -> Verdict {
    sysreg::unmask_interrupts();
    for timer in [Timer::Virtual, Timer::Physical] {
        gic::enable(timer.intid());
        let due = timer.now() + ticks(200);
        timer.arm(due);
        pause_ms(50);
        // On a busy machine the pause may have been far longer.
        let early = taken::count(0, timer.intid());
        ensure!(early == 0 || timer.now() >= due, "{timer:?}: {early} interrupts too early");
        pause_ms(200);
        ensure_eq!(taken::count(0, timer.intid()), 1, "{timer:?}: interrupts when due");
        timer.arm(0);
        pause_ms(50);
        ensure_eq!(taken::count(0, timer.intid()), 2, "{timer:?}: interrupts with one due long ago");
    }
    ensure_eq!(taken::total(0), 4, "interrupts of both timers");
    Ok(())
}
