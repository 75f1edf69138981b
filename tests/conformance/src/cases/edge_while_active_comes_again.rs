//! An interrupt that is raised again between its acknowledgement and its end is
//! active and pending, and is taken once more.

use guest_kit::gic::{self, Target};
use guest_kit::{Machine, sysreg};

use crate::kit::{Verdict, ensure_eq};
use crate::taken::{self, SPI};

const SGI: u32 = 8;

pub(crate) fn run(_: &Machine) -> Verdict {
    ensure_comes_again("SGI", SGI, || gic::send(SGI, Target::Cpu(0)))?;
    ensure_comes_again("SPI", SPI, || gic::set_pending(SPI))
}

fn ensure_comes_again(name: &str, intid: u32, raise: impl Fn()) -> Verdict {
    taken::forget();
    gic::enable(intid);
    raise();
    sysreg::barrier();
    let first = gic::acknowledge();
    ensure_eq!(first.as_ref().map(|taken| taken.intid()), Some(intid), "{name}: acknowledged");
    raise();
    sysreg::barrier();
    ensure_eq!([gic::is_pending(intid), gic::is_active(intid)], [true, true], "{name}: [pending, active]");
    if let Some(first) = first {
        gic::end(first);
    }
    sysreg::unmask_interrupts();
    ensure_eq!(taken::settle(0, 1), 1, "{name}: interrupts after the end of the first");
    sysreg::mask_interrupts();
    Ok(())
}
