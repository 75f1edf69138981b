//! Software sees an interrupt go from pending to active to idle, though a
//! hypervisor may hold it in a list register meanwhile.

use guest_kit::gic::{self, Target};
use guest_kit::timer::Timer;
use guest_kit::{Machine, sysreg};

use crate::kit::{Verdict, ensure, ensure_eq};
use crate::taken::SPI;

pub(crate) fn run(_: &Machine) -> Verdict {
    gic::enable(SPI);
    ensure_life_of("SPI", SPI, || gic::set_pending(SPI))?;
    gic::enable(4);
    ensure_life_of("SGI", 4, || gic::send(4, Target::Cpu(0)))?;
    let timer = Timer::Virtual.intid();
    gic::enable(timer);
    ensure_life_of("virtual timer", timer, || Timer::Virtual.arm(0))
}

/// Interrupts stay masked: the interrupt is acknowledged by hand.
fn ensure_life_of(name: &str, intid: u32, raise: impl FnOnce()) -> Verdict {
    ensure_states(name, intid, "before", [false, false])?;
    ensure_eq!(gic::acknowledge().map(|taken| taken.intid()), None, "{name}: acknowledged before");
    raise();
    sysreg::barrier();
    ensure_states(name, intid, "raised", [true, false])?;
    ensure!(sysreg::isr() & 1 << 7 != 0, "{name}: ISR_EL1.I is clear though it is pending");
    let taken = gic::acknowledge();
    ensure_eq!(taken.as_ref().map(|taken| taken.intid()), Some(intid), "{name}: acknowledged");
    // A level stays pending while its source is raised.
    Timer::Virtual.stop();
    sysreg::barrier();
    ensure_states(name, intid, "acknowledged", [false, true])?;
    if let Some(taken) = taken {
        gic::end(taken);
    }
    ensure_states(name, intid, "ended", [false, false])
}

fn ensure_states(name: &str, intid: u32, when: &str, expected: [bool; 2]) -> Verdict {
    ensure_eq!(
        [gic::is_pending(intid), gic::is_active(intid)],
        expected,
        "{name}, {when}: [pending, active]"
    );
    Ok(())
}
