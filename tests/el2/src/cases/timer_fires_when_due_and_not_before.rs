//! EL2's timer interrupts once its deadline has come, not before, and only once.

use crate::kit::{Verdict, ensure, ensure_eq};
use core::sync::atomic::Ordering;
use hyp::boot::Hardware;
use hyp::{arch, irq};

pub(crate) fn run(_: &Hardware) -> Verdict {
    take_interrupts();
    let millisecond = arch::counter_frequency() / 1000;
    let deadline = arch::counter() + 20 * millisecond;
    arch::arm_el2_timer(deadline);
    loop {
        let taken = take_interrupts();
        // Looked at after the interrupt was: a moment before the deadline proves that it came too early.
        let now = arch::counter();
        if taken > 0 {
            ensure!(now >= deadline, "it came {} ticks before its deadline", deadline - now);
            ensure_eq!(taken, 1, "interrupts");
            break;
        }
        ensure!(now < deadline + 1000 * millisecond, "it did not come within a second");
    }
    let settled = arch::counter() + 20 * millisecond;
    while arch::counter() < settled {
        ensure_eq!(take_interrupts(), 0, "interrupts afterwards");
    }
    Ok(())
}

/// Takes what is pending; how many there were.
fn take_interrupts() -> u64 {
    let count = || arch::percpu().interrupts.load(Ordering::Relaxed);
    let before = count();
    irq::handle_pending(None);
    count() - before
}
