//! CPU `i` has MPIDR affinity `i`, as the device tree says, and is no
//! uniprocessor.

use core::sync::atomic::{AtomicU64, Ordering};

use guest_kit::{Machine, cpus, psci, sysreg};

use crate::kit::{Verdict, ensure, ensure_eq};

static SEEN: AtomicU64 = AtomicU64::new(0);

/// Affinity fields 3, 2, 1 and 0.
const AFFINITY: u64 = 0xff_00ff_ffff;
/// RES1, and "uniprocessor system".
const RES1: u64 = 1 << 31;
const UNIPROCESSOR: u64 = 1 << 30;

pub(crate) fn run(machine: &Machine) -> Verdict {
    ensure_affinity(0, sysreg::mpidr())?;
    for index in 1..machine.cpus {
        let answer = cpus::start(index, |_| SEEN.store(sysreg::mpidr(), Ordering::Relaxed));
        ensure_eq!(answer, psci::status::SUCCESS, "CPU_ON of CPU {index}");
        ensure!(cpus::wait_until_off(index), "CPU {index} did not finish");
        ensure_affinity(index, SEEN.load(Ordering::Relaxed))?;
    }
    Ok(())
}

fn ensure_affinity(index: usize, mpidr: u64) -> Verdict {
    ensure_eq!(mpidr & AFFINITY, index as u64, "affinity of CPU {index}");
    ensure_eq!(mpidr & (RES1 | UNIPROCESSOR), RES1, "MPIDR_EL1 bits 31:30 of CPU {index}");
    Ok(())
}
