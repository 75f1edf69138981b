//! An HVC or SMC function that does not exist returns NOT_SUPPORTED (-1), in
//! every owner's range, and does not harm the caller.

use guest_kit::Machine;
use guest_kit::psci::{hvc, smc, status};

use crate::kit::{Verdict, ensure_eq};

/// Arm, CPU, SiP, OEM, standard secure, standard hypervisor, vendor hypervisor,
/// trusted application and trusted OS services, then the edges.
const UNKNOWN: [u32; 13] = [
    0x8000_7777,
    0x8100_0000,
    0x8200_0000,
    0x8300_0000,
    0x8400_ff00,
    0x8500_7777,
    0x8600_7777,
    0xb000_0000,
    0xb200_0000,
    0xc400_ff00,
    0xffff_ffff,
    0x0000_0001,
    0x7fff_ffff,
];

pub(crate) fn run(_: &Machine) -> Verdict {
    for function in UNKNOWN {
        ensure_eq!(hvc(function, [0; 3]), status::NOT_SUPPORTED, "hvc {function:#x}");
        ensure_eq!(smc(function, [0; 3]), status::NOT_SUPPORTED, "smc {function:#x}");
    }
    Ok(())
}
