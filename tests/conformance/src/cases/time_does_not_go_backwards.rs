//! Both counters only grow, on one CPU and from one to the other, and run at the
//! same rate.

use core::sync::atomic::{AtomicU64, Ordering};

use guest_kit::timer::{Timer, pause_ms};
use guest_kit::{Machine, sysreg};

use crate::kit::{Verdict, ensure, on_cpu_1};

static ON_CPU_1: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

pub(crate) fn run(machine: &Machine) -> Verdict {
    ensure!(sysreg::cntfrq() > 0, "CNTFRQ_EL0 is 0");
    for timer in [Timer::Virtual, Timer::Physical] {
        let mut last = timer.now();
        for _ in 0..10_000 {
            let now = timer.now();
            ensure!(now >= last, "{timer:?}: {now} after {last}");
            last = now;
        }
    }
    let offset = || sysreg::cntpct().wrapping_sub(sysreg::cntvct()) as i64;
    let before = offset();
    pause_ms(50);
    let drift = (offset() - before).unsigned_abs();
    ensure!(drift < sysreg::cntfrq() / 100, "the counters drifted by {drift} ticks in 50 ms");
    if machine.cpus > 1 { ensure_shared() } else { Ok(()) }
}

/// CPU 1's time lies between two of CPU 0's.
fn ensure_shared() -> Verdict {
    let now = || [sysreg::cntvct(), sysreg::cntpct()];
    let before = now();
    on_cpu_1(|_| {
        ON_CPU_1[0].store(sysreg::cntvct(), Ordering::Relaxed);
        ON_CPU_1[1].store(sysreg::cntpct(), Ordering::Relaxed);
    })?;
    let after = now();
    for ((before, after), between) in before.into_iter().zip(after).zip(&ON_CPU_1) {
        let between = between.load(Ordering::Relaxed);
        ensure!(
            (before..=after).contains(&between),
            "CPU 1 has {between}, CPU 0 {before} before and {after} after"
        );
    }
    Ok(())
}
