//! A CPU that sleeps in WFI wakes for an SGI from another, a hundred times over.

use core::sync::atomic::{AtomicU32, Ordering};

use guest_kit::gic::{self, Target};
use guest_kit::timer::Deadline;
use guest_kit::{Machine, cpus, psci, sysreg};

use crate::kit::{Verdict, ensure, ensure_eq};
use crate::taken;

const SGI: u32 = 11;
const ROUNDS: u32 = 100;

/// Rounds that CPU 1 is ready for; written by CPU 1.
static READY: AtomicU32 = AtomicU32::new(0);

pub(crate) fn run(_: &Machine) -> Verdict {
    READY.store(0, Ordering::Relaxed);
    ensure_eq!(cpus::start(1, sleep), psci::status::SUCCESS, "CPU_ON");
    for round in 1..=ROUNDS {
        let ready = Deadline::after_ms(1000).wait(|| READY.load(Ordering::Acquire) == round);
        ensure!(ready, "CPU 1 did not wake for SGI {}", round - 1);
        gic::send(SGI, Target::Cpu(1));
    }
    ensure!(cpus::wait_until_off(1), "CPU 1 did not finish");
    ensure_eq!(taken::count(1, SGI), ROUNDS, "SGIs taken");
    Ok(())
}

fn sleep(index: usize) {
    gic::enable(SGI);
    for round in 1..=ROUNDS {
        READY.store(round, Ordering::Release);
        // Masked between the test and WFI: the SGI cannot be taken unseen.
        while taken::count(index, SGI) < round {
            sysreg::wait_for_interrupt();
            sysreg::unmask_interrupts();
            sysreg::mask_interrupts();
        }
    }
}
