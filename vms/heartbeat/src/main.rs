//! The smallest guest worth reading: it prints `heartbeat N` once a second from
//! its virtual timer's interrupt and sleeps in between.
//!
//! This is the "hello, world" of a bare-metal guest. It shows the four things
//! that every guest does: it is entered at EL1 with the MMU off and the device
//! tree's address in x0 (`guest_kit::program!`), sets up its interrupt
//! controller, arms a timer, and waits in WFI for what comes. A hypervisor sees
//! from it: distributor accesses at the start, then one timer interrupt and one
//! WFI a second, and a PL011 access for each character printed. On a board with
//! nothing else to do, the CPU is idle in between.
//!
//! It runs unchanged on QEMU's virt machine, without any hypervisor:
//!
//! ```text
//! qemu-system-aarch64 -M virt -cpu max -nographic -kernel heartbeat
//! ```
//!
//! The console takes single letters:
//!
//! - `q` powers the machine off (PSCI SYSTEM_OFF);
//! - `r` restarts it (PSCI SYSTEM_RESET): the count begins again;
//! - `c` crashes it on purpose: a read where the machine has nothing. The fault
//!   arrives as a data abort, the guest says so and asks for power-off;
//! - `s` makes it spin with interrupts masked, for good: the guest that hangs.
//!
//! What an end means for the virtual machine is the bundle's decision
//! (`on-poweroff`, `on-crash`), not this program's.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest_kit::machine::{HOLE, UART_INTID, VIRTUAL_TIMER_INTID};
use guest_kit::timer::{Timer, ticks};
use guest_kit::{Machine, gic, mmio, println, psci, sysreg, uart};

guest_kit::program!(main, on_interrupt);

/// When the next beat is due, in ticks of the virtual count. Counting from the
/// last due time and not from "now" keeps the beat from drifting.
static NEXT_BEAT: AtomicU64 = AtomicU64::new(0);

/// How many beats there were.
static BEATS: AtomicU64 = AtomicU64::new(0);

fn main(machine: Machine) {
    println!("heartbeat: {} CPU(s), GIC{:?}; q quit, r restart, c crash, s spin", machine.cpus, machine.gic);
    gic::init();
    gic::enable(VIRTUAL_TIMER_INTID);
    gic::enable(UART_INTID);
    uart::enable_interrupt(uart::Cause::Receive);
    NEXT_BEAT.store(Timer::Virtual.now(), Ordering::Relaxed);
    beat();
    sysreg::unmask_interrupts();
    loop {
        sysreg::wait_for_interrupt();
    }
}

/// Called with interrupts masked, on the interrupted stack.
fn on_interrupt(intid: u32) {
    match intid {
        VIRTUAL_TIMER_INTID => beat(),
        UART_INTID => {
            while let Some(key) = uart::take() {
                obey(key);
            }
            uart::clear_interrupt(uart::Cause::Receive);
        }
        _ => println!("heartbeat: interrupt {intid} that nobody asked for"),
    }
}

/// Prints a beat and arms the timer for the next, which also withdraws this one.
fn beat() {
    let count = BEATS.load(Ordering::Relaxed);
    println!("heartbeat {count}");
    BEATS.store(count + 1, Ordering::Relaxed);
    let next = NEXT_BEAT.load(Ordering::Relaxed) + ticks(1000);
    NEXT_BEAT.store(next, Ordering::Relaxed);
    Timer::Virtual.arm(next);
}

fn obey(key: u8) {
    match key {
        b'q' => {
            println!("heartbeat: powering off");
            psci::system_off()
        }
        b'r' => {
            println!("heartbeat: restarting");
            psci::system_reset()
        }
        b'c' => {
            println!("heartbeat: crashing");
            mmio::read32(HOLE);
        }
        b's' => {
            println!("heartbeat: spinning");
            loop {
                core::hint::spin_loop();
            }
        }
        _ => {}
    }
}
