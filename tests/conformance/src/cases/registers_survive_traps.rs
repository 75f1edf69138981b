//! Trapped accesses change their target register and nothing else.

use guest_kit::Machine;
use guest_kit::gic::distributor;
use guest_kit::machine::{GICD, UART};

use crate::kit::Verdict;
use crate::snapshot::{Results, ensure_kept, exit_with};

exit_with!(load, "ldr w0, [x1]");
exit_with!(store, "str w0, [x1]");
exit_with!(id_register, "mrs x0, id_aa64pfr0_el1");
exit_with!(auxiliary_control, "mrs x0, actlr_el1");
exit_with!(set_way, "dc cisw, x0");

pub(crate) fn run(_: &Machine) -> Verdict {
    let at = |address: usize| [0, address as u64];
    ensure_kept("UART FR read", load, at(UART + 0x18), Results::X0)?;
    ensure_kept("UART ICR write", store, at(UART + 0x44), Results::X0)?;
    ensure_kept("GICD_TYPER read", load, at(GICD + distributor::TYPER), Results::X0)?;
    ensure_kept("GICD_ISENABLER write", store, at(GICD + distributor::ISENABLER + 4), Results::X0)?;
    ensure_kept("ID_AA64PFR0_EL1 read", id_register, [0; 2], Results::X0)?;
    ensure_kept("ACTLR_EL1 read", auxiliary_control, [0; 2], Results::X0)?;
    ensure_kept("DC CISW", set_way, [0; 2], Results::X0)
}
