//! The measuring guest: what each way out of a guest costs, in instructions.
//!
//! Run it under `-icount shift=0,sleep=off` with a counter of 1 GHz (`-cpu max`
//! has one, other models take `cntfrq=1000000000`). QEMU then advances time by
//! one nanosecond for each instruction, so CNTVCT counts the instructions that
//! guest and hypervisor execute together, and every run gives the same numbers.
//! What hardware would add is invisible: trap latency, slow system registers,
//! cache and TLB misses. Read the figures as the length of the path, not its time.
//!
//! The very same program runs on bare QEMU (EL1 under nothing). That is the
//! column to subtract, and the proof that the program itself measures honestly.
//!
//! # Lines
//!
//! `bench NAME VALUE`, then `bench done` and power-off. All values are
//! instructions; a name that this machine has no use for is left out
//! (`gicr_*` on GICv2, `ipi_*` with one CPU).
//!
//! | name | from .. to |
//! |---|---|
//! | `reset_physical`, `reset_virtual` | count at the guest's first instruction; the virtual count may start with the VM |
//! | `hvc_psci_version`, `smc_psci_version` | x0-x3 set .. result there; 4 of them are the set-up, as in every rival's figure |
//! | `id_register_read`, `actlr_read` | one MRS of ID_AA64MMFR0_EL1, ACTLR_EL1 |
//! | `uart_fr_read`, `gicd_*`, `gicr_*` | one load or store |
//! | `uart_putc` | poll FR until there is room, write DR |
//! | `sgi_self_to_handler` | SGI sent to oneself .. handler's first instruction |
//! | `sgi_self_round` | .. back in the interrupted code, after IAR, EOI and ERET |
//! | `interrupt_acknowledge`, `interrupt_end` | one IAR read, one EOIR write |
//! | `vtimer_to_handler_spinning`, `_wfi` | CVAL .. handler's first instruction |
//! | `wfi_pending` | WFI that has nothing to wait for |
//! | `ipi_to_running`, `ipi_to_wfi` | SGI sent .. first instruction of the other CPU's handler; the sender waits in WFI meanwhile, so both CPUs' work is in it |
//! | `first_touch_4k`, `first_touch_2m` | one store to a page, a 2 MiB block, never used before |
//!
//! # Method
//!
//! Each measurement is assembly between two reads of CNTVCT ([`cost`]), run 8
//! times to warm the path and 32 times more; the least is printed. Two reads in
//! a row differ by 1, the second read itself; that is measured and subtracted,
//! so a bare `mrs` costs 1. The interrupt handler's own time stamps are single
//! instructions too and stay in `sgi_self_round`, which says "round" and not
//! "overhead": compare it with its bare column only.
#![no_std]
#![no_main]

mod access;
mod cost;
mod interrupt;
mod ipi;
mod touch;

use guest_kit::{Machine, entry_counters, gic, println, sysreg};

guest_kit::program!(main, on_interrupt);

fn main(machine: Machine) {
    let entry = entry_counters();
    if sysreg::cntfrq() != 1_000_000_000 {
        println!("note: the counter runs at {} Hz, not 1 GHz: values are ticks", sysreg::cntfrq());
    }
    cost::report("reset_physical", entry.physical);
    cost::report("reset_virtual", entry.virtual_);
    touch::measure();
    gic::init();
    access::measure();
    interrupt::measure();
    if machine.cpus > 1 {
        ipi::measure();
    }
    println!("bench done");
}

/// Measured interrupts go to the vectors of [`interrupt`]; none comes here.
fn on_interrupt(intid: u32) {
    panic!("interrupt {intid} outside a measurement");
}
