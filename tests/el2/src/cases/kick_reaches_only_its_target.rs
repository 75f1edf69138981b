//! A kick arrives at the CPU that it is for, once, and at no other.
//!
//! The other CPUs sleep, and take what wakes them ([`crate::crew::serve`]).

use crate::kit::{Verdict, ensure, ensure_eq};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use hyp::boot::Hardware;
use hyp::percpu::PER_CPU;
use hyp::{arch, irq};

pub(crate) fn run(hardware: &Hardware) -> Verdict {
    let cpus = hardware.board.cpus.len();
    ensure!(cpus > 1, "it needs two CPUs");
    settle();
    for target in 0..cpus {
        let mut expected = taken(cpus);
        if let Some(count) = expected.get_mut(target) {
            *count += 1;
        }
        irq::kick(target);
        let deadline = arch::counter() + arch::counter_frequency();
        while taken(cpus).get(target) != expected.get(target) && arch::counter() < deadline {
            irq::handle_pending(None);
        }
        settle();
        ensure_eq!(taken(cpus), expected, "CPU {target} kicked, interrupts taken by each");
    }
    Ok(())
}

/// How many interrupts each CPU has taken so far.
fn taken(cpus: usize) -> Vec<u64> {
    PER_CPU.iter().take(cpus).map(|cpu| cpu.interrupts.load(Ordering::Relaxed)).collect()
}

/// Time for one interrupt too many.
fn settle() {
    let end = arch::counter() + arch::counter_frequency() / 50;
    while arch::counter() < end {
        irq::handle_pending(None);
    }
}
