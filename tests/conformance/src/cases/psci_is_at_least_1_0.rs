//! PSCI reports version 1.x and FEATURES knows what is there and what is not.

use guest_kit::Machine;
use guest_kit::psci::{self, hvc, status};

use crate::kit::{Verdict, ensure, ensure_eq};

pub(crate) fn run(_: &Machine) -> Verdict {
    let version = hvc(psci::VERSION, [0; 3]);
    ensure_eq!(version >> 16, 1, "major version of PSCI");
    let present = [
        psci::CPU_ON,
        psci::CPU_OFF,
        psci::AFFINITY_INFO,
        psci::SYSTEM_OFF,
        psci::SYSTEM_RESET,
        psci::FEATURES,
    ];
    for function in present {
        let answer = hvc(psci::FEATURES, [u64::from(function), 0, 0]);
        ensure!(answer >= 0, "FEATURES denies {function:#x}: {answer}");
    }
    let absent = hvc(psci::FEATURES, [0x8400_ff00, 0, 0]);
    ensure_eq!(absent, status::NOT_SUPPORTED, "FEATURES of a function that does not exist");
    Ok(())
}
