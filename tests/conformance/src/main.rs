//! The conformance guest: what every guest may rely on, one claim after the other.
//!
//! It runs under the hypervisor, and unchanged on bare QEMU (command line
//! `bare`), where the same claims must hold: that is how the claims themselves
//! are checked. What only a hypervisor promises is skipped there.
//!
//! For each claim in `cases/` it prints its name and then its verdict, and at the
//! end how many there were of each:
//!
//! ```text
//! running sgi_reaches_only_its_target
//! test sgi_reaches_only_its_target ... ok
//! running hole_access_is_data_abort
//! test hole_access_is_data_abort ... FAILED: read of 0xb000000 did not fault
//! test cpus_have_their_affinity ... skipped: needs 2 CPUs
//! 34 passed, 1 failed
//! ```
//!
//! Then it powers off. Whoever runs it fails the run if the last line is missing
//! (the guest died), if nothing passed, or after a deadline: claims limit their
//! waits, but a CPU that never leaves WFI or an exit can't.
#![no_std]
#![no_main]

mod cases;
mod kit;
mod snapshot;
mod taken;

use guest_kit::{Machine, gic, println};
use taken::on_interrupt;

guest_kit::program!(main, on_interrupt);

fn main(machine: Machine) {
    gic::init();
    println!("conformance: {} CPU(s), GIC{:?}, host {:?}", machine.cpus, machine.gic, machine.host);
    let (mut passed, mut failed) = (0, 0);
    for case in cases::ALL {
        match kit::run(case, &machine) {
            kit::Outcome::Passed => passed += 1,
            kit::Outcome::Failed => failed += 1,
            kit::Outcome::Skipped => {}
        }
    }
    println!("{passed} passed, {failed} failed");
}
