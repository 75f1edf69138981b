//! With EOImode set, the end of interrupt drops the priority only: the interrupt
//! stays active and is not taken again until it is deactivated.

use guest_kit::gic::{self, EndMode};
use guest_kit::{Machine, sysreg};

use crate::kit::{Failure, Verdict, ensure, ensure_eq};
use crate::taken::{OTHER_SPI, SPI};

pub(crate) fn run(_: &Machine) -> Verdict {
    gic::enable(SPI);
    gic::enable(OTHER_SPI);
    gic::set_end_mode(EndMode::PriorityDrop);
    let verdict = ensure_separate();
    gic::set_end_mode(EndMode::Both);
    verdict
}

fn ensure_separate() -> Verdict {
    gic::set_pending(SPI);
    sysreg::barrier();
    let taken = gic::acknowledge().ok_or_else(|| Failure::new(format_args!("it was not acknowledged")))?;
    let active = gic::drop_priority(taken);
    ensure!(gic::is_active(SPI), "it is not active after its priority was dropped");
    // Again pending, but active: another one of the same priority is next.
    gic::set_pending(SPI);
    gic::set_pending(OTHER_SPI);
    sysreg::barrier();
    let other = gic::acknowledge();
    let intid = other.as_ref().map(|taken| taken.intid());
    if let Some(other) = other {
        gic::deactivate(gic::drop_priority(other));
    }
    ensure_eq!(intid, Some(OTHER_SPI), "acknowledged while the first is active");
    gic::deactivate(active);
    ensure!(!gic::is_active(SPI), "it is active after deactivation");
    let again = gic::acknowledge();
    let intid = again.as_ref().map(|taken| taken.intid());
    if let Some(again) = again {
        gic::deactivate(gic::drop_priority(again));
    }
    ensure_eq!(intid, Some(SPI), "acknowledged after deactivation");
    Ok(())
}
