//! A guest that computes sees its own registers, though other guests may have
//! had the CPU in between: 20 times 20 ms, longer than a time slice.

use guest_kit::Machine;
use guest_kit::timer::{Timer, ticks};

use crate::kit::Verdict;
use crate::snapshot::{Results, ensure_kept, exit_with};

// x1: the virtual count to compute until.
exit_with!(compute, "2:", "mrs x0, cntvct_el0", "cmp x0, x1", "b.lo 2b");

pub(crate) fn run(_: &Machine) -> Verdict {
    for _ in 0..20 {
        ensure_kept("computing", compute, [0, Timer::Virtual.now() + ticks(20)], Results::X0)?;
    }
    Ok(())
}
