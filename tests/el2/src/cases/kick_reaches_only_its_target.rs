//! A kick arrives at the CPU that it is for, once, and at no other.

use crate::crew;
use crate::kit::{Verdict, ensure, ensure_eq};
use core::sync::atomic::Ordering;
use hyp::boot::Hardware;
use hyp::{arch, irq};

pub(crate) fn run(hardware: &Hardware) -> Verdict {
    let cpus = hardware.board.cpus.len();
    ensure!(cpus > 1, "it needs two CPUs");
    for cpu in 0..cpus {
        ensure!(crew::on(cpu, take_for_a_moment).is_some(), "CPU {cpu} does not answer");
    }
    for target in 0..cpus {
        irq::kick(target);
        for cpu in 0..cpus {
            let expected = u64::from(cpu == target);
            ensure_eq!(crew::on(cpu, take_for_a_moment), Some(expected), "CPU {target} kicked, CPU {cpu} took");
        }
    }
    Ok(())
}

/// Takes the interrupts of 10 ms; how many there were.
fn take_for_a_moment() -> u64 {
    let count = || arch::percpu().interrupts.load(Ordering::Relaxed);
    let (before, end) = (count(), arch::counter() + arch::counter_frequency() / 100);
    while arch::counter() < end {
        irq::handle_pending(None);
    }
    count() - before
}
