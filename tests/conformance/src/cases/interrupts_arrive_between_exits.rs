//! A timer interrupt every 100 us is neither lost nor doubled while the CPU
//! leaves the guest all the time for other reasons.

use guest_kit::gic::distributor;
use guest_kit::machine::{GICD, UART};
use guest_kit::psci::{self, hvc};
use guest_kit::timer::{Deadline, Timer};
use guest_kit::{Machine, gic, mmio, sysreg};

use crate::kit::{Verdict, ensure, ensure_eq};
use crate::taken;

const REPEATS: u32 = 1000;

pub(crate) fn run(_: &Machine) -> Verdict {
    let period = sysreg::cntfrq() / 10_000;
    for timer in [Timer::Virtual, Timer::Physical] {
        taken::forget();
        gic::enable(timer.intid());
        taken::repeat(REPEATS, period as u32);
        timer.arm(timer.now() + period);
        sysreg::unmask_interrupts();
        let all_came = Deadline::after_ms(5000).wait(|| {
            hvc(psci::VERSION, [0; 3]);
            mmio::read32(UART + 0x18);
            mmio::write32(GICD + distributor::ISENABLER + 4, 0);
            taken::total(0) > REPEATS
        });
        sysreg::mask_interrupts();
        ensure!(all_came, "{timer:?}: {} interrupts in 5 s", taken::total(0));
        ensure_eq!(taken::settle(0, 0), REPEATS + 1, "{timer:?}: interrupts");
    }
    Ok(())
}
