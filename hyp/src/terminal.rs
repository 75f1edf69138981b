//! The machine's console: the one [`Console`], on the UART of this board.
//!
//! [`crate::console`] knows what to show; this file joins it to the UART, to
//! the interrupt controllers of the guests and to the CPUs' loops. [`say!`] is
//! for lines that a person reads: the banner, lifecycle lines, complaints.
//! What only a developer wants goes to [`crate::log`].

use crate::console::port::{Port, Switch};
use crate::console::prompt::Command;
use crate::console::source::{VmIndex, VmSet};
use crate::console::{Console, CrashWriter, Next, Pumped, QUEUES};
use crate::trap::Leave;
use crate::vpl011::Vpl011;
use crate::{arch, commands, irq, vm};
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use platform::board::Board;
use platform::mmio::Registers;
use platform::uart::{Interrupt, Uart, UartInfo};
use spin::Once;

static CONSOLE: Console<'static, Uart> = Console::new(&QUEUES);

/// How often a UART is looked at whose interrupt we don't know: before its
/// smallest FIFO, 16 bytes at 115200 baud, is full or empty.
const POLLS_PER_SECOND: u64 = 1000;

/// When the next look is due; never while the UART interrupts.
static POLL_AT: AtomicU64 = AtomicU64::new(u64::MAX);

/// The UART itself, once it is known.
static UART: Once<Uart> = Once::new();

/// Says a line to whoever is at the console.
macro_rules! say {
    ($($argument:tt)*) => { $crate::terminal::say_line(format_args!($($argument)*)) };
}
pub(crate) use say;

impl Port for Uart {
    fn try_put(&mut self, byte: u8) -> bool {
        Uart::try_put(self, byte)
    }

    fn try_get(&mut self) -> Option<u8> {
        Uart::try_get(self)
    }

    fn set_transmit_interrupt(&mut self, switch: Switch) {
        self.set_tx_interrupt(match switch {
            Switch::On => Interrupt::Enabled,
            Switch::Off => Interrupt::Disabled,
        });
    }
}

/// Opens the console on a UART that firmware has set up.
pub fn open(info: &UartInfo, registers: Registers) {
    let uart = *UART.call_once(|| Uart::new(info, registers));
    CONSOLE.install(uart, arch::counter_frequency());
}

/// A line, see [`say!`].
pub fn say_line(line: fmt::Arguments<'_>) {
    CONSOLE.say(line);
}

/// Boot has come to this stage.
pub fn stage(number: u32) {
    CONSOLE.say(format_args!("boot {number}"));
}

/// From here on the UART interrupts, and the CPUs' loops look after the rest.
/// Log frames flow if the boot arguments ask for them.
pub fn start(board: &Board<'_>) {
    match board.console.and_then(|info| info.interrupt) {
        Some((intid, _)) => {
            irq::enable_console(intid);
            if let Some(uart) = UART.get() {
                uart.set_rx_interrupt(Interrupt::Enabled);
            }
        }
        // The first CPU looks at it instead, see `poll`.
        None if UART.is_completed() => POLL_AT.store(0, Ordering::Relaxed),
        None => {}
    }
    send_log(board);
    CONSOLE.defer();
}

/// Sends log frames, those kept so far first, if the boot arguments ask for
/// them (`entresol.log=defmt`).
pub fn send_log(board: &Board<'_>) {
    if board
        .bootargs
        .is_some_and(|arguments| arguments.split_whitespace().any(|word| word == "entresol.log=defmt"))
    {
        CONSOLE.send_frames();
    }
}

/// Makes a VM known at the console.
pub fn add_vm(id: usize, name: &str) {
    if let Some(index) = VmIndex::new(id) {
        CONSOLE.add_vm(index, name);
    }
}

/// The emulated UART of VM `id`.
pub fn uart(id: usize) -> Option<&'static Vpl011> {
    VmIndex::new(id).map(|index| QUEUES.uart(index))
}

/// VM `id`'s UART has output. Whether this CPU's loop has to look after the rest.
pub fn guest_wrote(id: usize) -> Leave {
    let Some(index) = VmIndex::new(id) else { return Leave::Stay };
    let pumped = CONSOLE.guest_wrote(index, arch::counter());
    after(pumped);
    // A line that has changed asks for the attention of a vCPU. If it lives
    // here nobody kicks it, perhaps not even later (see `vcpu`): this CPU's
    // loop has to look.
    let is_quiet = pumped.changed.is_empty() && !matches!(pumped.next, Next::Now | Next::At(_));
    if is_quiet { Leave::Stay } else { Leave::LookAround }
}

/// The UART interrupted: keys, or room to send.
pub fn interrupt() {
    // Before the data is looked at: what arrives from here on interrupts again.
    if let Some(uart) = UART.get() {
        uart.acknowledge();
    }
    let now = arch::counter();
    after(CONSOLE.transmit_interrupt(now));
    loop {
        let received = CONSOLE.receive(now);
        after(received.pumped);
        let Some(command) = received.command else { return };
        obey(command);
    }
}

/// Pumps if it is time to, and looks for keys if nobody tells us of them.
/// `true` if there is more to do right away.
pub fn poll(now: u64) -> bool {
    if now >= polling_deadline() {
        POLL_AT.store(now + arch::counter_frequency() / POLLS_PER_SECOND, Ordering::Relaxed);
        interrupt();
    }
    CONSOLE.is_due(now) && after(CONSOLE.pump(now))
}

/// When some CPU should call [`poll`], if at some time.
pub fn deadline() -> Option<u64> {
    Some(CONSOLE.deadline().unwrap_or(u64::MAX).min(polling_deadline())).filter(|&at| at != u64::MAX)
}

/// When this CPU looks at a UART without an interrupt: the first CPU does.
fn polling_deadline() -> u64 {
    if arch::cpu_index() == 0 { POLL_AT.load(Ordering::Relaxed) } else { u64::MAX }
}

/// Sends everything that waits, however long it takes.
pub fn flush() {
    CONSOLE.flush(arch::counter());
}

/// The console for a crash record, once.
pub fn crash_writer() -> Option<CrashWriter<Uart>> {
    CONSOLE.crash_writer()
}

/// Applies what a pump changed. `true` if it wants the CPU's loop to come back.
fn after(pumped: Pumped) -> bool {
    apply_lines(pumped.changed);
    pumped.next == Next::Now
}

/// Brings the guests' interrupt controllers in line with their UARTs.
fn apply_lines(changed: VmSet) {
    for vm in vm::all() {
        if VmIndex::new(vm.id).is_some_and(|index| changed.contains(index)) {
            vm.kick(vm.show_console_line());
        }
    }
}

fn obey(command: Command) {
    commands::obey(command);
    CONSOLE.command_done();
}
