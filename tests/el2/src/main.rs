//! The tests at EL2: the hypervisor's library on a processor, without VMs of anybody's.
//!
//! The program boots as the image does (same entry code, same linker script,
//! [`hyp::boot::bring_up`]), and where the image would make VMs it runs the
//! cases of [`cases::ALL`], one after the other, on the first CPU. The others
//! do what a case gives them to do ([`crew`]).
//!
//! For each case it prints its verdict, at the end how many there were of each,
//! and powers the machine off:
//!
//! ```text
//! test pages_are_writable_or_executable ... ok
//! test kick_reaches_only_its_target ... FAILED: CPU 3 took 1, expected 0
//! 1 passed, 1 failed
//! ```
//!
//! Whoever runs it fails the run if the last line is missing, if nothing
//! passed, or if no verdict comes for too long. What a case logs (`defmt`) is
//! sent as frames, so that the log is under test as well.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod cases;
#[cfg(target_os = "none")]
mod crew;
#[cfg(target_os = "none")]
mod guest;
#[cfg(target_os = "none")]
mod kit;

#[cfg(target_os = "none")]
mod start {
    use crate::{cases, crew, kit};
    use hyp::{boot, machine, smp, terminal};

    hyp::program!(super::primary, super::secondary);

    /// The first CPU.
    fn primary(device_tree: u64) -> ! {
        let hardware = boot::bring_up(device_tree);
        terminal::send_log(&hardware.board);
        hardware.team.apply_controls(0);
        smp::release();
        kit::run_all(cases::ALL, &hardware);
        machine::power_off()
    }

    /// Every other CPU.
    fn secondary(index: usize) -> ! {
        boot::join(index).apply_controls(index);
        crew::serve(index)
    }

    #[panic_handler]
    fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
        kit::report_panic(info);
        hyp::crash::panicked(info)
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("these tests run at EL2 of an Arm machine: `cargo xtask test --only el2`");
}
