//! A jump to where the machine has nothing is an instruction abort there, and
//! the guest can go back.
#![expect(unsafe_code, reason = "a jump to a wild address")]

use core::mem;

use guest_kit::Machine;
use guest_kit::exceptions::catch;
use guest_kit::machine::HOLE;

use crate::kit::{Verdict, ensure, ensure_eq};

const INSTRUCTION_ABORT: u64 = 0x21;

pub(crate) fn run(_: &Machine) -> Verdict {
    // SAFETY: calling it faults on the first fetch, and `catch` returns to the caller.
    let nowhere = unsafe { mem::transmute::<usize, extern "C" fn()>(HOLE) };
    let fault = catch(|| nowhere());
    ensure!(fault.is_some(), "the fetch from {HOLE:#x} did not fault");
    let Some(fault) = fault else { return Ok(()) };
    ensure_eq!(fault.class(), INSTRUCTION_ABORT, "exception class");
    ensure_eq!(fault.instruction, HOLE as u64, "ELR_EL1");
    Ok(())
}
