//! An SGI to "all but self" reaches every other CPU and not its sender.

use guest_kit::gic::{self, Target};
use guest_kit::timer::Deadline;
use guest_kit::{Machine, cpus, psci, sysreg};

use crate::kit::{Verdict, ensure, ensure_eq};
use crate::taken;

const SGI: u32 = 9;
/// Sent by each listener to itself once it takes interrupts.
const READY: u32 = 10;

pub(crate) fn run(machine: &Machine) -> Verdict {
    gic::enable(SGI);
    sysreg::unmask_interrupts();
    for index in 1..machine.cpus {
        ensure_eq!(cpus::start(index, listen), psci::status::SUCCESS, "CPU_ON of CPU {index}");
    }
    let all_ready = || (1..machine.cpus).all(|index| taken::count(index, READY) == 1);
    ensure!(Deadline::after_ms(1000).wait(all_ready), "the listeners are not ready");
    gic::send(SGI, Target::Others);
    for index in 1..machine.cpus {
        ensure!(cpus::wait_until_off(index), "CPU {index} did not finish");
        ensure_eq!(taken::count(index, SGI), 1, "times that CPU {index} took the SGI");
    }
    ensure_eq!(taken::total(0), 0, "interrupts of the sender");
    Ok(())
}

fn listen(index: usize) {
    gic::enable(SGI);
    gic::enable(READY);
    sysreg::unmask_interrupts();
    gic::send(READY, Target::Cpu(index));
    taken::settle(index, 2);
}
