//! Interrupts between two CPUs.
//!
//! A round: 1. CPU 1 announces itself in `READY` and waits, spinning or in WFI,
//! for the SGI. 2. CPU 0 sees that, gives it time to settle, stamps and sends,
//! and sleeps until its own timer. 3. CPU 1's handler stamps its first
//! instruction; CPU 1 publishes it in `TAKEN`. 4. CPU 0 wakes and subtracts.
//!
//! The sender sleeps because under `-icount` the CPUs run in turns: a sender
//! that spun would add the rest of its turn to the figure. Where a hypervisor
//! does the sleeping, QEMU still lets a part of the turn pass: seen was exactly a
//! quarter or half of the time until the next timer, whatever that was. So each
//! figure is measured with the sender's timer at two distances, one twice the
//! other, and extrapolated to none: `2 * near - far`. On a bare machine both are
//! the same.
#![expect(unsafe_code, reason = "measured code is assembly")]

use core::sync::atomic::{AtomicU64, Ordering};

use guest_kit::timer::{Timer, ticks};
use guest_kit::{cpus, gic, println, sysreg};

use crate::cost;
use crate::interrupt::{take_interrupt, with_vectors};

/// The SGI that is sent.
const SGI: u32 = 1;
/// Rounds of each kind; the least counts.
const ROUNDS: u64 = 16;
/// Ticks until the sender's timer; the other distance is twice that.
const NEAR: u64 = 10_000;

/// Round that CPU 1 waits in, from 1.
static READY: AtomicU64 = AtomicU64::new(0);
/// When CPU 1's handler ran in that round; 0 before.
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// Prints both figures; the second half of the rounds waits in WFI.
pub(crate) fn measure() {
    if cpus::start(1, respond) != 0 {
        println!("note: CPU 1 did not start, no ipi figures");
        return;
    }
    gic::enable(guest_kit::machine::VIRTUAL_TIMER_INTID);
    cost::report("ipi_to_running", extrapolated(1));
    cost::report("ipi_to_wfi", extrapolated(1 + 2 * ROUNDS));
    cpus::wait_until_off(1);
}

/// One figure, from `2 * ROUNDS` rounds beginning with `first`.
fn extrapolated(first: u64) -> u64 {
    let near = (first..first + ROUNDS).map(|round| one_round(round, NEAR)).min();
    let far = (first + ROUNDS..first + 2 * ROUNDS).map(|round| one_round(round, 2 * NEAR)).min();
    (2 * near.unwrap_or(0)).saturating_sub(far.unwrap_or(0))
}

fn one_round(round: u64, distance: u64) -> u64 {
    while READY.load(Ordering::Acquire) != round {
        sleep_ms(1);
    }
    sleep_ms(1);
    Timer::Virtual.arm(Timer::Virtual.now() + distance);
    let sent = sysreg::cntvct();
    gic::send(SGI, gic::Target::Cpu(1));
    while TAKEN.load(Ordering::Acquire) == 0 {
        sysreg::wait_for_interrupt();
    }
    Timer::Virtual.stop();
    let taken = TAKEN.load(Ordering::Relaxed);
    TAKEN.store(0, Ordering::Release);
    taken - sent
}

/// Sleeps with interrupts masked; the pending timer wakes it.
fn sleep_ms(ms: u64) {
    let due = Timer::Virtual.now() + ticks(ms);
    Timer::Virtual.arm(due);
    while Timer::Virtual.now() < due {
        sysreg::wait_for_interrupt();
    }
    Timer::Virtual.stop();
}

/// CPU 1's side.
fn respond(_index: usize) {
    gic::enable(SGI);
    with_vectors(|| {
        for round in 1..4 * ROUNDS + 1 {
            while TAKEN.load(Ordering::Acquire) != 0 {}
            READY.store(round, Ordering::Release);
            let stamps =
                if round <= 2 * ROUNDS { take_interrupt!("", "") } else { take_interrupt!("", "wfi") };
            TAKEN.store(stamps.handler, Ordering::Release);
        }
    });
}
