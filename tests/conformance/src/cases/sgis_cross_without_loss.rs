//! Two CPUs that send each other SGIs, both at once, lose none: 500 in each
//! direction.

use guest_kit::gic::{self, Target};
use guest_kit::timer::Deadline;
use guest_kit::{Machine, cpus, psci, sysreg};

use crate::kit::{Verdict, ensure, ensure_eq};
use crate::taken;

const SGI: u32 = 13;
const ROUNDS: u32 = 500;
/// By it CPU 1 says that it takes interrupts.
const READY: u32 = 14;

pub(crate) fn run(_: &Machine) -> Verdict {
    gic::enable(SGI);
    sysreg::unmask_interrupts();
    ensure_eq!(cpus::start(1, partner), psci::status::SUCCESS, "CPU_ON");
    ensure!(Deadline::after_ms(1000).wait(|| taken::count(1, READY) == 1), "CPU 1 is not ready");
    let got = exchange(0, 1);
    ensure!(cpus::wait_until_off(1), "CPU 1 did not finish: it got {}", taken::count(1, SGI));
    ensure_eq!([got, taken::count(1, SGI)], [ROUNDS; 2], "SGIs that each CPU got");
    Ok(())
}

fn partner(index: usize) {
    gic::enable(SGI);
    gic::enable(READY);
    sysreg::unmask_interrupts();
    gic::send(READY, Target::Cpu(index));
    exchange(index, 0);
}

/// Sends, and waits until both have taken this round's SGI: a further one would
/// merge with one that is still pending. How many came.
fn exchange(mine: usize, other: usize) -> u32 {
    for round in 1..=ROUNDS {
        gic::send(SGI, Target::Cpu(other));
        if !Deadline::after_ms(1000)
            .wait(|| taken::count(mine, SGI) >= round && taken::count(other, SGI) >= round)
        {
            break;
        }
    }
    taken::count(mine, SGI)
}
