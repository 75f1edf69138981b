//! CPU_ON enters at EL1 with all exceptions masked and the MMU off (DEN 0022,
//! "Initial core state"), also if the CPU left otherwise before.
#![expect(unsafe_code, reason = "system registers need assembly")]

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use guest_kit::timer::Timer;
use guest_kit::{Machine, sysreg};

use crate::kit::{Verdict, ensure_eq, on_cpu_1};

static DAIF: AtomicU64 = AtomicU64::new(0);
static SCTLR: AtomicU64 = AtomicU64::new(0);
static LEVEL: AtomicU64 = AtomicU64::new(0);
static TIMER: AtomicU64 = AtomicU64::new(0);

/// MMU, data cache and instruction cache enables that must be clear: M and C.
const MMU_AND_CACHE: u64 = 1 | 1 << 2;

pub(crate) fn run(_: &Machine) -> Verdict {
    for round in 0..2 {
        on_cpu_1(|_| {
            note_state();
            // Left behind for the second round to find gone.
            sysreg::unmask_interrupts();
            Timer::Virtual.arm(u64::MAX);
        })?;
        ensure_eq!(DAIF.load(Ordering::Relaxed), 0x3c0, "DAIF in round {round}");
        ensure_eq!(SCTLR.load(Ordering::Relaxed) & MMU_AND_CACHE, 0, "SCTLR_EL1.{{M,C}} in round {round}");
        ensure_eq!(LEVEL.load(Ordering::Relaxed) >> 2, 1, "exception level in round {round}");
        ensure_eq!(TIMER.load(Ordering::Relaxed) & 1, 0, "CNTV_CTL_EL0.ENABLE in round {round}");
    }
    Ok(())
}

fn note_state() {
    let (daif, sctlr): (u64, u64);
    // SAFETY: reading them has no effect.
    unsafe { asm!("mrs {}, daif", "mrs {}, sctlr_el1", out(reg) daif, out(reg) sctlr, options(nostack)) };
    DAIF.store(daif, Ordering::Relaxed);
    SCTLR.store(sctlr, Ordering::Relaxed);
    LEVEL.store(sysreg::currentel(), Ordering::Relaxed);
    TIMER.store(sysreg::cntv_ctl(), Ordering::Relaxed);
}
