//! CPU_SUSPEND to standby returns SUCCESS once an interrupt is pending, taken or
//! not.

use guest_kit::psci::{self, hvc, status};
use guest_kit::timer::{Timer, ticks};
use guest_kit::{Machine, gic};

use crate::kit::{Verdict, ensure, ensure_eq};

pub(crate) fn run(_: &Machine) -> Verdict {
    gic::enable(Timer::Virtual.intid());
    let due = Timer::Virtual.now() + ticks(10);
    Timer::Virtual.arm(due);
    let answer = hvc(psci::CPU_SUSPEND, [0; 3]);
    let now = Timer::Virtual.now();
    ensure_eq!(answer, status::SUCCESS, "CPU_SUSPEND");
    ensure!(now >= due, "it woke {} ticks before the timer", due - now);
    Ok(())
}
