//! CPU_ON of a CPU that runs is ALREADY_ON, of one that does not exist is
//! INVALID_PARAMETERS, whatever the bits of the affinity are.

use core::sync::atomic::{AtomicU32, Ordering};

use guest_kit::psci::{self, hvc, status};
use guest_kit::timer::Deadline;
use guest_kit::{Machine, cpus};

use crate::kit::{Verdict, ensure, ensure_eq};

/// How far CPU 1 is; CPU 0 writes the odd steps, CPU 1 the one between.
static STEP: AtomicU32 = AtomicU32::new(0);
const ASKED: u32 = 1;
const RUNS: u32 = 2;
const MAY_STOP: u32 = 3;

/// Too high, in other affinity fields, with the bits that MPIDR has but an
/// affinity has not, and all ones.
const NOBODY: [u64; 6] = [0xff, 1 << 8, 1 << 16, 1 << 32, 1 << 31, u64::MAX];

pub(crate) fn run(_: &Machine) -> Verdict {
    let on = |affinity| hvc(psci::CPU_ON, [affinity, cpus::entry_point(), 0]);
    ensure_eq!(on(0), status::ALREADY_ON, "CPU_ON of the caller");
    for affinity in NOBODY {
        ensure_eq!(on(affinity), status::INVALID_PARAMETERS, "CPU_ON of {affinity:#x}");
        let info = hvc(psci::AFFINITY_INFO, [affinity, 0, 0]);
        ensure_eq!(info, status::INVALID_PARAMETERS, "AFFINITY_INFO of {affinity:#x}");
    }
    STEP.store(ASKED, Ordering::Relaxed);
    ensure_eq!(cpus::start(1, stay), status::SUCCESS, "CPU_ON of CPU 1");
    let runs = Deadline::after_ms(1000).wait(|| STEP.load(Ordering::Relaxed) == RUNS);
    let again = on(1);
    STEP.store(MAY_STOP, Ordering::Relaxed);
    ensure!(runs, "CPU 1 did not start");
    ensure_eq!(again, status::ALREADY_ON, "second CPU_ON of CPU 1");
    Ok(())
}

fn stay(_: usize) {
    STEP.store(RUNS, Ordering::Relaxed);
    Deadline::after_ms(1000).wait(|| STEP.load(Ordering::Relaxed) == MAY_STOP);
}
