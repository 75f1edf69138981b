//! An SPI is taken by the CPU it is routed to, also after the route changed.

use guest_kit::gic::{self, Target};
use guest_kit::timer::Deadline;
use guest_kit::{Machine, cpus, psci, sysreg};

use crate::kit::{Verdict, ensure, ensure_eq};
use crate::taken::{self, SPI};

/// CPU 1 says by it that it takes interrupts.
const READY: u32 = 7;

pub(crate) fn run(_: &Machine) -> Verdict {
    gic::enable(SPI);
    sysreg::unmask_interrupts();
    gic::set_pending(SPI);
    ensure_eq!(taken::settle(0, 1), 1, "interrupts of CPU 0 with the route there");
    gic::route(SPI, 1);
    ensure_eq!(cpus::start(1, listen), psci::status::SUCCESS, "CPU_ON");
    ensure!(Deadline::after_ms(1000).wait(|| taken::count(1, READY) == 1), "CPU 1 is not ready");
    gic::set_pending(SPI);
    ensure!(cpus::wait_until_off(1), "CPU 1 did not finish");
    ensure_eq!(taken::count(1, SPI), 1, "times that CPU 1 took it, with the route there");
    ensure_eq!(taken::total(0), 1, "interrupts of CPU 0 with the route away");
    gic::route(SPI, 0);
    gic::set_pending(SPI);
    ensure_eq!(taken::settle(0, 2), 2, "interrupts of CPU 0 with the route back");
    Ok(())
}

fn listen(index: usize) {
    gic::enable(READY);
    sysreg::unmask_interrupts();
    gic::send(READY, Target::Cpu(index));
    taken::settle(index, 2);
}
