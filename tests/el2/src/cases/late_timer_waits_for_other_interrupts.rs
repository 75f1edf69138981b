//! EL2's timer, pending together with another interrupt, is taken after it, although its number is lower: a deadline that
//! has always passed already must not keep the others waiting.

use crate::guest::{Guest, STOP};
use crate::kit::{Verdict, ensure};
use hyp::arch::{self, VirtualTimer};
use hyp::boot::Hardware;
use hyp::irq;
use hyp::trap::Leave;

/// CNTV_CTL_EL0: on, not masked.
const ON: u64 = 1;

pub(crate) fn run(hardware: &Hardware) -> Verdict {
    let guest = Guest::new(hardware, &[STOP])?;
    arch::arm_el2_timer(0);
    VirtualTimer { control: ON, compare: 0 }.load(0);
    let settled = arch::counter() + arch::counter_frequency() / 100;
    while arch::counter() < settled {}
    // The guest's timer is what a guest is not left for.
    let first = irq::handle_one(guest.task.vcpu);
    let second = irq::handle_one(guest.task.vcpu);
    arch::disarm_el2_timer();
    drop(guest);
    ensure!(first == Leave::Stay, "EL2's timer came first");
    ensure!(second == Leave::LookAround, "EL2's timer did not come at all");
    Ok(())
}
