//! HVC and SMC with any function and arguments return or fail; 20,000 of them
//! change nothing that the guest did not ask for.

use guest_kit::psci::{self, hvc, smc};
use guest_kit::{Machine, sysreg};

use crate::kit::{Verdict, ensure_eq};

/// Functions that would end the caller or start something.
const AVOIDED: [u32; 11] = [
    0x8400_0001, // CPU_SUSPEND, SMC32
    psci::CPU_SUSPEND,
    psci::CPU_OFF,
    0x8400_0003, // CPU_ON, SMC32
    psci::CPU_ON,
    psci::SYSTEM_OFF,
    psci::SYSTEM_RESET,
    0x8400_000e, // SYSTEM_SUSPEND, SMC32
    0xc400_000e, // SYSTEM_SUSPEND, SMC64
    0x8400_0012, // SYSTEM_RESET2, SMC32
    0xc400_0012, // SYSTEM_RESET2, SMC64
];

pub(crate) fn run(_: &Machine) -> Verdict {
    let version = hvc(psci::VERSION, [0; 3]);
    // Every standard function near the known ones, then a walk over all.
    for function in (0x8400_0000..0x8400_0040).chain(0xc400_0000..0xc400_0040).chain(0x8000_0000..0x8000_0010)
    {
        call(function, [u64::MAX, 0, u64::MAX]);
    }
    let mut random = sysreg::cntpct() | 1;
    let mut next = || {
        // Xorshift: any sequence that visits much does.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for _ in 0..10_000 {
        let function = next() as u32;
        call(function, [next(), next(), next()]);
        // The same number among the standard services, where functions are.
        call(function & 0xc000_ffff | 0x8400_0000, [next(), next(), next()]);
    }
    ensure_eq!(hvc(psci::VERSION, [0; 3]), version, "PSCI version afterwards");
    Ok(())
}

fn call(function: u32, arguments: [u64; 3]) {
    if !AVOIDED.contains(&function) {
        hvc(function, arguments);
        smc(function, arguments);
    }
}
