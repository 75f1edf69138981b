//! The interrupts that each CPU took: the program's handler only keeps book.
//!
//! Each CPU writes its own row, so plain loads and stores suffice. Level
//! interrupts are quietened at their device, or they would come for ever;
//! [`leave_raised`] lets the timers' come a few times first, and [`repeat`] arms
//! them again.

use core::sync::atomic::{AtomicU32, Ordering};

use guest_kit::machine::{PHYSICAL_TIMER_INTID, UART_INTID, VIRTUAL_TIMER_INTID};
use guest_kit::timer::{Deadline, Timer, pause_ms};
use guest_kit::{cpus, uart};

/// An SPI that no device uses: claims make it pending by software. (On QEMU virt
/// it belongs to the last virtio slot, which is empty.)
pub(crate) const SPI: u32 = 79;
/// Its neighbour, likewise.
pub(crate) const OTHER_SPI: u32 = 78;

/// Every interrupt that a claim may enable.
pub(crate) const USED: [u32; 21] = [
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    10,
    11,
    12,
    13,
    14,
    15,
    VIRTUAL_TIMER_INTID,
    PHYSICAL_TIMER_INTID,
    UART_INTID,
    SPI,
    OTHER_SPI,
];

/// One past the largest INTID that is counted.
const LIMIT: usize = 128;
/// How many interrupts the log of a CPU remembers.
const LOG: usize = 8;

struct Row {
    counts: [AtomicU32; LIMIT],
    total: AtomicU32,
    log: [AtomicU32; LOG],
}

static ROWS: [Row; cpus::MAX] = [const {
    Row {
        counts: [const { AtomicU32::new(0) }; LIMIT],
        total: AtomicU32::new(0),
        log: [const { AtomicU32::new(0) }; LOG],
    }
}; cpus::MAX];

/// How many more timer interrupts are to find their timer still raised.
static LEAVE_RAISED: AtomicU32 = AtomicU32::new(0);

/// How many more timer interrupts are to arm their timer again, and how many
/// ticks ahead.
static REPEATS: AtomicU32 = AtomicU32::new(0);
static PERIOD: AtomicU32 = AtomicU32::new(0);

pub(crate) fn on_interrupt(intid: u32) {
    let row = row(cpus::this());
    if let Some(count) = row.counts.get(intid as usize) {
        increment(count);
    }
    if let Some(entry) = row.log.get(row.total.load(Ordering::Relaxed) as usize) {
        entry.store(intid, Ordering::Relaxed);
    }
    increment(&row.total);
    quieten(intid);
}

fn quieten(intid: u32) {
    let left = LEAVE_RAISED.load(Ordering::Relaxed);
    if left > 0 {
        LEAVE_RAISED.store(left - 1, Ordering::Relaxed);
        return;
    }
    match intid {
        VIRTUAL_TIMER_INTID => stop_or_repeat(Timer::Virtual),
        PHYSICAL_TIMER_INTID => stop_or_repeat(Timer::Physical),
        UART_INTID => uart::disable_interrupt(uart::Cause::Transmit),
        _ => {}
    }
}

fn stop_or_repeat(timer: Timer) {
    let left = REPEATS.load(Ordering::Relaxed);
    if left == 0 {
        timer.stop();
    } else {
        REPEATS.store(left - 1, Ordering::Relaxed);
        timer.arm(timer.now() + u64::from(PERIOD.load(Ordering::Relaxed)));
    }
}

fn increment(counter: &AtomicU32) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

fn row(cpu: usize) -> &'static Row {
    ROWS.get(cpu).expect("the kit has eight CPUs at most")
}

/// How often `cpu` took `intid` in this claim.
pub(crate) fn count(cpu: usize, intid: u32) -> u32 {
    row(cpu).counts.get(intid as usize).map_or(0, |count| count.load(Ordering::Relaxed))
}

/// How many interrupts `cpu` took in this claim.
pub(crate) fn total(cpu: usize) -> u32 {
    row(cpu).total.load(Ordering::Relaxed)
}

/// The interrupt that `cpu` took as number `index`.
pub(crate) fn nth(cpu: usize, index: usize) -> Option<u32> {
    let is_there = index < total(cpu) as usize;
    row(cpu).log.get(index).filter(|_| is_there).map(|entry| entry.load(Ordering::Relaxed))
}

/// Waits up to a second for `cpu` to have taken `wanted` interrupts, then 20 ms
/// more for one too many. Returns the total.
pub(crate) fn settle(cpu: usize, wanted: u32) -> u32 {
    Deadline::after_ms(1000).wait(|| total(cpu) >= wanted);
    pause_ms(20);
    total(cpu)
}

/// Lets the next `times` interrupts of a timer leave it raised.
pub(crate) fn leave_raised(times: u32) {
    LEAVE_RAISED.store(times, Ordering::Relaxed);
}

/// Lets the next `times` interrupts of a timer arm it again, `period` ticks ahead.
pub(crate) fn repeat(times: u32, period: u32) {
    PERIOD.store(period, Ordering::Relaxed);
    REPEATS.store(times, Ordering::Relaxed);
}

/// Forgets everything.
pub(crate) fn forget() {
    REPEATS.store(0, Ordering::Relaxed);
    LEAVE_RAISED.store(0, Ordering::Relaxed);
    for row in &ROWS {
        row.total.store(0, Ordering::Relaxed);
        row.counts.iter().for_each(|count| count.store(0, Ordering::Relaxed));
    }
}
