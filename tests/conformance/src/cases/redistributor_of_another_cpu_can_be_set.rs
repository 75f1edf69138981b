//! A CPU may enable another one's SGI in that CPU's redistributor; if it is
//! pending there, it is taken at once.

use guest_kit::gic::{self, Target, distributor};
use guest_kit::timer::{Deadline, pause_ms};
use guest_kit::{Machine, cpus, mmio, psci, sysreg};

use crate::kit::{Verdict, ensure, ensure_eq};
use crate::taken;

const SGI: u32 = 5;
const READY: u32 = 6;
/// From a redistributor's first frame to the one with SGIs and PPIs.
const SGI_FRAME: usize = 0x1_0000;

pub(crate) fn run(_: &Machine) -> Verdict {
    ensure_eq!(cpus::start(1, listen), psci::status::SUCCESS, "CPU_ON");
    ensure!(Deadline::after_ms(1000).wait(|| taken::count(1, READY) == 1), "CPU 1 is not ready");
    let frame = gic::redistributor(1) + SGI_FRAME;
    gic::send(SGI, Target::Cpu(1));
    pause_ms(20);
    ensure_eq!(taken::count(1, SGI), 0, "times that CPU 1 took the SGI while disabled");
    ensure_eq!(mmio::read32(frame + distributor::ISPENDR) >> SGI & 1, 1, "pending bit of CPU 1's SGI");
    mmio::write32(frame + distributor::ISENABLER, 1 << SGI);
    ensure!(cpus::wait_until_off(1), "CPU 1 did not finish");
    ensure_eq!(taken::count(1, SGI), 1, "times that CPU 1 took the SGI once enabled");
    mmio::write32(frame + distributor::ICENABLER, 1 << SGI);
    Ok(())
}

fn listen(index: usize) {
    gic::disable(SGI);
    gic::enable(READY);
    sysreg::unmask_interrupts();
    gic::send(READY, Target::Cpu(index));
    taken::settle(index, 2);
}
