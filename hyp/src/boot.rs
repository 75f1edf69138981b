//! From a CPU with its MMU on to one that runs guests.
//!
//! [`primary`] reads like a table of contents, and so does [`bring_up`], the part
//! of it that needs no guests: the tests at EL2 (`tests/el2`) begin with it too.
//! Which functions CPUs come to is the program's choice ([`program!`](crate::program)).
//!
//! Stages 1 and 2 are before the MMU (`arch/aarch64/early.rs`); here each prints
//! its number, so that a boot that stops says where. A failure says what is
//! missing and what to do about it.

use crate::bundle::Bundle;
use crate::create::{self, Host};
use crate::mem::{heap, pool, regions::FreeMemory};
use crate::run::Loop;
use crate::seed::{Quality, Seeds};
use crate::smp::{self, Team};
use crate::terminal::{self, say};
use crate::vgic::Version;
use crate::{arch, irq, lifecycle, machine, percpu, vm, watchdog};
use core::fmt::Display;
use platform::board::Region;
use platform::board::{Board, GicInfo, Severity};
use platform::reset::Reset;

/// Names what a program on this library does with its CPUs, once they are at the
/// link address on their own stacks: a `fn(device_tree: u64) -> !` for the first
/// one, and a `fn(index: usize) -> !` for each of the others.
#[macro_export]
macro_rules! program {
    ($primary:path, $secondary:path) => {
        #[expect(unsafe_code, reason = "arch calls the program by these two names")]
        mod program {
            #[unsafe(no_mangle)]
            fn program_primary(device_tree: u64) -> ! {
                let primary: fn(u64) -> ! = $primary;
                primary(device_tree)
            }

            #[unsafe(no_mangle)]
            fn program_secondary(index: usize) -> ! {
                let secondary: fn(usize) -> ! = $secondary;
                secondary(index)
            }
        }
    };
}

/// A machine that is up, without guests.
pub struct Hardware {
    /// What its device tree says.
    pub board: Board<'static>,
    /// Its interrupt controller.
    pub gic: Version,
    /// Its CPUs, of which all but the first sleep until [`smp::release`].
    pub team: &'static Team,
}

/// The first CPU. `device_tree` is the physical address that the boot loader gave us.
pub fn primary(device_tree: u64) -> ! {
    let hardware = bring_up(device_tree);
    terminal::stage(6);
    create_vms(&hardware);
    terminal::stage(7);
    terminal::start(&hardware.board);
    start_vms();
    smp::release();
    work(hardware.team, 0)
}

/// Everything before the first guest: console, memory, interrupts, CPUs.
pub fn bring_up(device_tree: u64) -> Hardware {
    heap::init();
    percpu::register(0, arch::mpidr());
    let handoff = arch::handoff();
    open_console(&handoff);
    terminal::stage(3);
    let tree = Region { base: device_tree, size: handoff.dtb_size };
    let board = read_board(tree, handoff.firmware);
    set_reset(&board);
    greet(&board);
    refuse_unusable(&board);
    set_clock(&board);
    watchdog::adopt(&board);
    add_memory(&board, tree);
    terminal::stage(4);
    let gic = irq::init(&board).unwrap_or_else(|error| give_up(error));
    irq::init_cpu().unwrap_or_else(|error| give_up(error));
    terminal::stage(5);
    let team = smp::bring_up(&board, gic);
    say!("{team}");
    Hardware { board, gic, team }
}

/// Every other CPU.
pub fn secondary(index: usize) -> ! {
    let team = join(index);
    work(team, index)
}

/// Everything before this CPU's first guest; the others wait for it.
pub fn join(index: usize) -> &'static Team {
    if let Err(error) = irq::init_cpu() {
        say!("CPU {index}: {error}");
        machine::halt();
    }
    smp::report_and_wait(index)
}

/// Runs guests on this CPU, for ever.
fn work(team: &Team, index: usize) -> ! {
    team.apply_controls(index);
    Loop::of_this_cpu().run()
}

/// Says why there is nothing left to do, and ends the machine.
fn give_up(reason: impl Display) -> ! {
    say!("{reason}");
    machine::power_off()
}

/// The console that `early` found, at its address in the linear map.
fn open_console(handoff: &arch::Handoff) {
    let Some(info) = handoff.console else { return };
    if let Ok(base) = arch::map_device(info.base, platform::uart::BLOCK) {
        terminal::open(&info, arch::registers_at(base));
    }
}

/// The board's facts from the device tree, or the end.
fn read_board(tree: Region, firmware: arch::Firmware) -> Board<'static> {
    if let Err(error) = arch::map_memory(tree.base, tree.size) {
        give_up(error);
    }
    let mut board = Board::from_dt(arch::physical_bytes(tree)).unwrap_or_else(|error| give_up(error));
    for problem in board.problems() {
        say!("device tree: {problem}");
    }
    if firmware == arch::Firmware::Absent && board.psci.take().is_some() {
        say!("started at EL3: no firmware is there to answer PSCI calls");
    }
    board
}

fn set_reset(board: &Board<'_>) {
    if let Some(reset) = Reset::of(board, |region| arch::map_registers(region).ok()) {
        machine::set_reset(reset);
    }
}

/// Ends here if the device tree lacks something that no guest can do without. What it is has been said.
fn refuse_unusable(board: &Board<'_>) {
    if board.problems().any(|problem| problem.severity() == Severity::Fatal) {
        give_up("this device tree lacks what guests can't do without: see the lines above");
    }
}

/// How fast the counter counts; without that there is no time.
fn set_clock(board: &Board<'_>) {
    if let Some(hz) = board.timer.frequency {
        arch::set_counter_frequency(hz);
    }
    if arch::counter_frequency() == 0 {
        give_up(
            "the counter's frequency is unknown: firmware left CNTFRQ_EL0 at 0, and the device tree's timer node \
             has no clock-frequency",
        );
    }
}

fn greet(board: &Board<'_>) {
    say!("Entresol {} on {}", env!("CARGO_PKG_VERSION"), board.model.unwrap_or("an unnamed board"));
}

/// Everything that the device tree calls memory and nobody uses goes to the pool.
fn add_memory(board: &Board<'_>, tree: Region) {
    let mut free = FreeMemory::of(&board.memory);
    board.reserved.iter().for_each(|&region| free.remove(region));
    free.remove(Region { base: arch::image_address(), size: arch::image_size() });
    free.remove(tree);
    if let Some(bundle) = board.initrd {
        free.remove(bundle);
    }
    for region in free.aligned(pool::CHUNK) {
        match arch::map_memory(region.base, region.size) {
            Ok(_) => pool::add_mapped(region),
            Err(error) => say!("{} MiB of memory left out: {error}", region.size >> 20),
        }
    }
    if pool::free_bytes() == 0 {
        give_up("no free memory: the device tree has no usable memory node");
    }
}

/// Reads the bundle and makes the VMs; without any that can run there is no
/// point in going on.
fn create_vms(hardware: &Hardware) {
    let Hardware { board, gic, team } = hardware;
    let Some(initrd) = board.initrd else {
        give_up(
            "no bundle: pass the file that `cargo xtask pack vms.toml` makes as the initrd (QEMU: -initrd FILE; \
             U-Boot: booti IMAGE ADDRESS:SIZE DTB; Raspberry Pi: initramfs FILE followkernel)",
        );
    };
    if let Err(error) = arch::map_memory(initrd.base, initrd.size) {
        give_up(error);
    }
    let bundle = Bundle::parse(arch::physical_bytes(initrd)).unwrap_or_else(|error| give_up(error));
    let (mut seeds, quality) = Seeds::new(board.rng_seed);
    if quality == Quality::Weak {
        say!(
            "guests get weak random seeds: neither the device tree (/chosen/rng-seed) nor the CPU has better"
        );
    }
    let host = Host {
        ids: &team.ids,
        gic: *gic,
        virtual_interface: match &board.gic {
            Some(GicInfo::V2 { vcpu, .. }) => Some(*vcpu),
            _ => None,
        },
        features: team.features,
        tlb: team.tlb,
        pa_size: team.pa_size,
        cpus: team.cpus,
        timer_hz: board.timer.frequency,
    };
    if create::create_all(&bundle, &host, &mut seeds) == 0 {
        give_up("no VM can run: see above");
    }
}

/// Starts what the manifest starts by itself.
fn start_vms() {
    for vm in vm::all().iter().filter(|vm| vm.config.autostart) {
        // It is off: nobody else could have started it yet.
        let _ = lifecycle::start(vm);
    }
}
