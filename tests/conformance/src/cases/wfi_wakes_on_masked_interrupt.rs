//! WFI ends when an interrupt becomes pending, though PSTATE.I masks it; it is
//! taken once unmasked.

use guest_kit::timer::{Timer, ticks};
use guest_kit::{Machine, gic, sysreg};

use crate::kit::{Verdict, ensure, ensure_eq};
use crate::taken;

pub(crate) fn run(_: &Machine) -> Verdict {
    for timer in [Timer::Virtual, Timer::Physical] {
        taken::forget();
        gic::enable(timer.intid());
        let due = timer.now() + ticks(20);
        timer.arm(due);
        // It may end early for reasons of its own, but not sleep on.
        while timer.now() < due {
            sysreg::wait_for_interrupt();
        }
        let late = timer.now() - due;
        ensure!(late < ticks(1000), "{timer:?}: it slept {late} ticks too long");
        ensure_eq!(taken::total(0), 0, "{timer:?}: interrupts taken while masked");
        sysreg::unmask_interrupts();
        ensure_eq!(taken::settle(0, 1), 1, "{timer:?}: interrupts taken once unmasked");
        sysreg::mask_interrupts();
    }
    Ok(())
}
