//! RAM's first and last words can be used, and behind its end there is nothing.

use guest_kit::Machine;
use guest_kit::exceptions::catch;
use guest_kit::machine::RAM_BASE;
use guest_kit::mmio::{read64, write64};

use crate::kit::{Verdict, ensure, ensure_eq};

const PATTERN: u64 = 0x1122_3344_5566_7788;

pub(crate) fn run(machine: &Machine) -> Verdict {
    let end = RAM_BASE + machine.ram_size as usize;
    ensure!(end > RAM_BASE, "the device tree describes no RAM");
    for address in [RAM_BASE, end - 8] {
        let old = read64(address);
        write64(address, PATTERN);
        let found = read64(address);
        write64(address, old);
        ensure_eq!(found, PATTERN, "word at {address:#x}");
    }
    let fault = catch(|| _ = read64(end));
    ensure!(fault.is_some_and(|fault| fault.is_data_abort()), "reading {end:#x}, the end of RAM: {fault:?}");
    Ok(())
}
