//! What a small bare-metal guest needs and nothing more: it is entered like a
//! kernel (EL1, MMU off, x0 = device tree) on QEMU virt's machine or on the
//! machine that Entresol shows its guests, which is the same one.
//!
//! A program says `guest_kit::program!(main, on_interrupt)`, links with
//! `guest.ld` (see any program's `build.rs`) and finds here: `print!` and
//! `println!` on the console ([`uart`]), faults as values
//! ([`exceptions::catch`]), the interrupt controller of either version
//! ([`gic`]), the two timers ([`timer`]), PSCI ([`psci`]) and further CPUs
//! ([`cpus`]).
//!
//! Nothing here uses a hypervisor's code, so that a misunderstanding in the
//! one is not mirrored in the other, and nothing needs a hypervisor: every
//! program also runs on bare QEMU, which is how its expectations are checked.
//!
//! The MMU stays off. All memory then behaves as Device memory: accesses must
//! be aligned (the softfloat target is built that way) and exclusives are not
//! guaranteed to work, so shared state uses plain atomic loads and stores, each
//! word with a single writer. Only CPU 0 prints.
#![no_std]

pub mod cpus;
mod entry;
pub mod exceptions;
pub mod gic;
pub mod machine;
pub mod mmio;
pub mod psci;
pub mod sysreg;
pub mod timer;
pub mod uart;

pub use entry::{EntryCounters, entry_counters};
pub use machine::Machine;

/// Makes `main: fn(Machine)` the program and `on_interrupt: fn(u32)` what is
/// called with each acknowledged INTID, before its end-of-interrupt, on any CPU.
///
/// When `main` returns, the machine is powered off.
#[macro_export]
macro_rules! program {
    ($main:ident, $on_interrupt:ident) => {
        #[expect(unsafe_code, reason = "the kit calls the program by these two names")]
        mod guest_program {
            #[unsafe(no_mangle)]
            fn guest_main(machine: $crate::Machine) {
                let main: fn($crate::Machine) = super::$main;
                main(machine)
            }

            #[unsafe(no_mangle)]
            fn guest_interrupt(intid: u32) {
                let on_interrupt: fn(u32) = super::$on_interrupt;
                on_interrupt(intid)
            }
        }
    };
}

/// Prints to the console.
#[macro_export]
macro_rules! print {
    ($($argument:tt)*) => { $crate::uart::print(format_args!($($argument)*)) };
}

/// Prints a line to the console.
#[macro_export]
macro_rules! println {
    () => { $crate::uart::print(format_args!("\n")) };
    ($($argument:tt)*) => {
        $crate::uart::print(format_args!("{}\n", format_args!($($argument)*)))
    };
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    println!("guest {info}");
    psci::system_off()
}
