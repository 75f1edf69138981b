//! Reading any of the 32,768 system register encodings gives a value or is
//! undefined, and the guest goes on: nothing stops it, nothing hangs.
#![expect(unsafe_code, reason = "instructions are made and executed")]

use core::arch::asm;
use core::mem;
use core::sync::atomic::{AtomicU32, Ordering};

use guest_kit::Machine;
use guest_kit::exceptions::{Fault, catch};

use crate::kit::{Verdict, ensure};

/// `mrs x0, <register>` with the encoding clear, and `ret`.
const MRS_X0: u32 = 0xd530_0000;
const RET: u32 = 0xd65f_03c0;
/// op0 is 2 or 3, and bit 19 its lower half: 2^15 encodings in bits 19:5.
const ENCODINGS: u32 = 1 << 15;

/// "Trapped MSR, MRS or System instruction": what an own control register does,
/// as CPACR_EL1 for SVE and SME registers.
const TRAPPED_CLASSES: [u64; 3] = [0x18, 0x19, 0x1d];

static CODE: [AtomicU32; 2] = [const { AtomicU32::new(RET) }; 2];

pub(crate) fn run(_: &Machine) -> Verdict {
    for encoding in 0..ENCODINGS {
        let fault = catch(|| execute(MRS_X0 | encoding << 5));
        ensure!(
            fault.is_none_or(|fault| fault.is_undefined() || TRAPPED_CLASSES.contains(&fault.class())),
            "S{}_{}_C{}_C{}_{}: {fault:?}",
            2 + (encoding >> 14),
            encoding >> 11 & 7,
            encoding >> 7 & 15,
            encoding >> 3 & 15,
            encoding & 7
        );
    }
    acknowledge_nothing()
}

/// Executes one instruction that may write x0.
fn execute(instruction: u32) {
    CODE[0].store(instruction, Ordering::Relaxed);
    // SAFETY: cleaning and invalidating changes no data.
    unsafe {
        asm!("dc cvau, {0}", "dsb ish", "ic ivau, {0}", "dsb ish", "isb", in(reg) &CODE, options(nostack))
    };
    // SAFETY: `CODE` holds the instruction and `ret`; memory is executable with the MMU off.
    let code = unsafe { mem::transmute::<*const AtomicU32, extern "C" fn()>(CODE.as_ptr()) };
    code();
}

/// Two of the registers acknowledge an interrupt when read; none was pending.
fn acknowledge_nothing() -> Verdict {
    let pending: Option<Fault> = catch(|| _ = guest_kit::gic::acknowledge());
    ensure!(pending.is_none(), "the interrupt controller is gone: {pending:?}");
    Ok(())
}
