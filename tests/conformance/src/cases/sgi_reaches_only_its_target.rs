//! An SGI sent to one CPU is taken there, once, and nowhere else.

use guest_kit::gic::{self, Target};
use guest_kit::{Machine, cpus, sysreg};

use crate::kit::{Verdict, ensure_eq, on_cpu_1};
use crate::taken;

const SGI: u32 = 5;

pub(crate) fn run(_: &Machine) -> Verdict {
    gic::enable(SGI);
    sysreg::unmask_interrupts();
    gic::send(SGI, Target::Cpu(0));
    ensure_eq!(taken::settle(0, 1), 1, "interrupts of CPU 0 after its own SGI");
    ensure_eq!(taken::count(0, SGI), 1, "times that CPU 0 took the SGI");

    // Now CPU 1 listens, and CPU 0 sends to it.
    ensure_eq!(cpus::start(1, listen), guest_kit::psci::status::SUCCESS, "CPU_ON");
    guest_kit::timer::Deadline::after_ms(1000).wait(|| taken::count(1, READY) == 1);
    gic::send(SGI, Target::Cpu(1));
    cpus::wait_until_off(1);
    ensure_eq!(taken::count(1, SGI), 1, "times that CPU 1 took the SGI");
    ensure_eq!(taken::total(0), 1, "interrupts of CPU 0 after the SGI to CPU 1");

    // And the other way round.
    on_cpu_1(|_| gic::send(SGI, Target::Cpu(0)))?;
    ensure_eq!(taken::settle(0, 2), 2, "interrupts of CPU 0 after the SGI from CPU 1");
    Ok(())
}

/// The SGI by which CPU 1 tells itself, and so CPU 0, that it takes interrupts.
const READY: u32 = 6;

fn listen(_: usize) {
    gic::enable(SGI);
    gic::enable(READY);
    sysreg::unmask_interrupts();
    gic::send(READY, Target::Cpu(1));
    taken::settle(1, 2);
}
