//! A load or store where the machine has nothing is a synchronous external abort
//! with the right address; the guest goes on.

use guest_kit::Machine;
use guest_kit::exceptions::{Fault, catch};
use guest_kit::machine::HOLE;
use guest_kit::mmio;

use crate::kit::{Verdict, ensure, ensure_eq};

/// "Synchronous External abort, not on translation table walk" (DDI 0487, ESR_ELx).
const EXTERNAL_ABORT: u64 = 0x10;
/// Syndrome bit WnR: the access was a write.
const WRITE: u64 = 1 << 6;

/// A hole between devices, and one far above any RAM.
const HOLES: [usize; 2] = [HOLE + 8, 0x7_0000_0000];

pub(crate) fn run(_: &Machine) -> Verdict {
    for address in HOLES {
        let read = catch(|| _ = mmio::read32(address));
        ensure_abort(read, address, 0)?;
        let write = catch(|| mmio::write32(address, 1));
        ensure_abort(write, address, WRITE)?;
        let byte = catch(|| _ = mmio::read8(address + 1));
        ensure_abort(byte, address + 1, 0)?;
    }
    Ok(())
}

fn ensure_abort(fault: Option<Fault>, address: usize, direction: u64) -> Verdict {
    ensure!(fault.is_some(), "access to {address:#x} did not fault");
    let Some(fault) = fault else { return Ok(()) };
    ensure!(fault.is_data_abort(), "access to {address:#x}: no data abort: {fault:?}");
    ensure_eq!(fault.status(), EXTERNAL_ABORT, "fault status of {address:#x}");
    ensure_eq!(fault.address, address as u64, "FAR_EL1");
    ensure_eq!(fault.syndrome & WRITE, direction, "WnR of {address:#x}");
    Ok(())
}
