//! From a CPU with its MMU on to one that runs guests.
//!
//! [`primary`] reads like a table of contents. Stages 1 and 2 are before the
//! MMU (`arch/aarch64/early.rs`); here each prints its number on the one line
//! that boot writes, so that a boot that stops says where. A failure says what
//! is missing and what to do about it.

use crate::bundle::Bundle;
use crate::console::{self, say};
use crate::create::{self, Host};
use crate::mem::{heap, pool, regions::FreeMemory};
use crate::run::Loop;
use crate::seed::Seeds;
use crate::smp::{self, Team};
use crate::vgic::Version;
use crate::{arch, irq, lifecycle, machine, percpu, vm};
use core::fmt::Display;
use platform::Region;
use platform::board::{Board, GicInfo};
use platform::mmio::Registers;
use platform::reset::Reset;

/// The first CPU. `device_tree` is the physical address that the boot loader gave us.
pub fn primary(device_tree: u64) -> ! {
    heap::init();
    percpu::register(0, arch::mpidr());
    let handoff = arch::handoff();
    open_console(&handoff);
    console::stage(3);
    let tree = Region { base: device_tree, size: handoff.dtb_size };
    let board = read_board(tree);
    machine::set_reset(&board);
    greet(&board);
    add_memory(&board, tree);
    console::stage(4);
    let gic = irq::init(&board).unwrap_or_else(|error| give_up(error));
    irq::init_cpu();
    console::enable_interrupt(&board);
    console::stage(5);
    let team = smp::bring_up(&board, gic);
    console::stage(6);
    let count = create_vms(&board, gic, &team);
    console::stage(7);
    if count == 0 {
        give_up("no VM can run: see above");
    }
    start_vms();
    smp::release();
    work(&team, 0)
}

/// Every other CPU.
pub fn secondary(index: usize) -> ! {
    irq::init_cpu();
    let team = smp::report_and_wait(index);
    work(team, index)
}

/// Runs guests on this CPU, for ever.
fn work(team: &Team, index: usize) -> ! {
    team.apply_controls(index);
    Loop::new().run()
}

/// Says why there is nothing left to do, and ends the machine.
fn give_up(reason: impl Display) -> ! {
    say!("{reason}");
    machine::power_off()
}

/// The console that `early` found, at its address in the linear map.
fn open_console(handoff: &arch::Handoff) {
    if let Some(info) = handoff.console
        && let Ok(base) = arch::map_device(info.base, platform::uart::BLOCK)
    {
        console::open(&info, registers(base));
    }
}
