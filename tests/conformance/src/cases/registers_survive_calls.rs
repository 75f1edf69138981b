//! HVC and SMC keep every register but x0-x3: SMC Calling Convention 1.1,
//! "Preservation of registers", and all of FP/SIMD.

use guest_kit::machine::Host;
use guest_kit::{Machine, psci};

use crate::kit::Verdict;
use crate::snapshot::{Results, ensure_kept, exit_with};

exit_with!(hvc, "hvc #0");
exit_with!(smc, "smc #0");

pub(crate) fn run(machine: &Machine) -> Verdict {
    let version = u64::from(psci::VERSION);
    ensure_kept("hvc PSCI_VERSION", hvc, [version, 0], Results::X0ToX3)?;
    // CPU 0 asks about itself: the answer is found, not refused.
    ensure_kept("hvc AFFINITY_INFO", hvc, [u64::from(psci::AFFINITY_INFO), 0], Results::X0ToX3)?;
    if machine.host == Host::Nobody {
        return Ok(());
    }
    ensure_kept("hvc, unknown function", hvc, [0xc600_0000, 0], Results::X0ToX3)?;
    ensure_kept("smc PSCI_VERSION", smc, [version, 0], Results::X0ToX3)
}
