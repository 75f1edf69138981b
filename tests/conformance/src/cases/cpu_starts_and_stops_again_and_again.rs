//! A CPU can be switched off and on any number of times, and AFFINITY_INFO says
//! which it is.

use core::sync::atomic::{AtomicU64, Ordering};

use guest_kit::psci::{self, hvc, status};
use guest_kit::{Machine, cpus};

use crate::kit::{Verdict, ensure, ensure_eq};

static RUNS: AtomicU64 = AtomicU64::new(0);
const ROUNDS: u64 = 50;

/// AFFINITY_INFO's answers.
const ON: i32 = 0;
const OFF: i32 = 1;

pub(crate) fn run(_: &Machine) -> Verdict {
    let info = |cpu| hvc(psci::AFFINITY_INFO, [cpu, 0, 0]);
    RUNS.store(0, Ordering::Relaxed);
    ensure_eq!(info(0), ON, "AFFINITY_INFO of the caller");
    for round in 0..ROUNDS {
        ensure_eq!(info(1), OFF, "AFFINITY_INFO before round {round}");
        let answer = cpus::start(1, |_| RUNS.store(RUNS.load(Ordering::Relaxed) + 1, Ordering::Relaxed));
        ensure_eq!(answer, status::SUCCESS, "CPU_ON in round {round}");
        ensure!(cpus::wait_until_off(1), "CPU 1 did not stop in round {round}");
    }
    ensure_eq!(RUNS.load(Ordering::Relaxed), ROUNDS, "times that CPU 1 ran");
    Ok(())
}
