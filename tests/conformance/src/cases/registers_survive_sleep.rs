//! WFI keeps every register, however long it takes and whoever runs meanwhile.

use guest_kit::timer::{Timer, ticks};
use guest_kit::{Machine, gic};

use crate::kit::Verdict;
use crate::snapshot::{Results, ensure_kept, exit_with};

exit_with!(sleep, "dsb sy", "wfi");

pub(crate) fn run(_: &Machine) -> Verdict {
    gic::enable(Timer::Virtual.intid());
    for _ in 0..20 {
        Timer::Virtual.arm(Timer::Virtual.now() + ticks(2));
        ensure_kept("wfi", sleep, [0; 2], Results::X0)?;
        Timer::Virtual.stop();
    }
    Ok(())
}
