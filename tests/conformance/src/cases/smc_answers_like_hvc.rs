//! PSCI and the SMC Calling Convention answer alike by either conduit.

use guest_kit::Machine;
use guest_kit::psci::{self, hvc, smc};

use crate::kit::{Verdict, ensure, ensure_eq};

pub(crate) fn run(_: &Machine) -> Verdict {
    for function in [psci::VERSION, psci::SMCCC_VERSION, psci::AFFINITY_INFO] {
        ensure_eq!(smc(function, [0; 3]), hvc(function, [0; 3]), "function {function:#x} by SMC");
    }
    let version = hvc(psci::SMCCC_VERSION, [0; 3]);
    ensure!(version >= 0x1_0001, "the SMC Calling Convention is {version:#x}, expected 1.1 or later");
    Ok(())
}
