//! The end, when it is our own fault: a crash record as plain text.
//!
//! Two ways lead here, a Rust panic and an exception taken *from* EL2. Both
//! print what somebody needs to find the line: the reason, where, which CPU,
//! the registers and the code addresses on the stack, to be resolved against
//! `entresol.elf`. Then the machine is reset. QEMU, told not to reboot, ends with
//! status 0 then; `cargo xtask run` looks for `entresol: CRASH` and fails.

use crate::terminal::crash_writer;
use crate::{arch, machine};
use core::fmt::Write;
use core::sync::atomic::{AtomicBool, Ordering};

/// Registers at an exception from EL2, as vectors.S lays them out.
#[derive(Debug)]
#[repr(C)]
pub struct FailedFrame {
    x: [u64; 31],
    sp: u64,
}

/// What the sixteen vectors are, by slot.
const SLOTS: [&str; 16] = [
    "synchronous exception on SP_EL0",
    "IRQ on SP_EL0",
    "FIQ on SP_EL0",
    "SError on SP_EL0",
    "synchronous exception in EL2",
    "IRQ in EL2, where interrupts are masked",
    "FIQ in EL2, where interrupts are masked",
    "SError in EL2",
    "synchronous exception from a guest",
    "IRQ from a guest",
    "FIQ from a guest",
    "SError from a guest",
    "synchronous exception from AArch32 EL1",
    "IRQ from AArch32 EL1",
    "FIQ from AArch32 EL1",
    "SError from AArch32 EL1",
];

/// Only the first CPU to fail reports; a second failure while reporting stops.
static REPORTING: AtomicBool = AtomicBool::new(false);

/// Called by vectors.S on the emergency stack.
pub fn el2_failed(slot: u64, frame: &FailedFrame) -> ! {
    report(|out| {
        let name = SLOTS.get(slot as usize).copied().unwrap_or("unknown vector");
        let fault = arch::fault_registers();
        writeln!(out, "{name}")?;
        writeln!(out, "  esr {:#018x}  far {:#018x}  pc  {:#018x}", fault.esr, fault.far, arch::guest_pc())?;
        writeln!(out, "  sp  {:#018x}  psr {:#018x}", frame.sp, arch::guest_pstate())?;
        for (row, registers) in frame.x.chunks(4).enumerate() {
            for (column, value) in registers.iter().enumerate() {
                write!(out, "  x{:<2} {value:#018x}", row * 4 + column)?;
            }
            writeln!(out)?;
        }
        write_callers(out, frame.sp)
    })
}

/// Called by the panic handler.
pub fn panicked(info: &core::panic::PanicInfo<'_>) -> ! {
    report(|out| {
        writeln!(out, "{info}")?;
        write_callers(out, arch::stack_pointer())
    })
}

/// The code addresses on the stack: the callers are among them.
fn write_callers(out: &mut dyn Write, sp: u64) -> core::fmt::Result {
    write!(out, "  code addresses on the stack:")?;
    for address in arch::code_addresses(sp) {
        write!(out, " {address:#x}")?;
    }
    writeln!(out)
}

fn report(body: impl FnOnce(&mut dyn Write) -> core::fmt::Result) -> ! {
    if !REPORTING.swap(true, Ordering::AcqRel) {
        let Some(mut out) = crash_writer() else { machine::crash() };
        // Writing to the console can't fail; a formatter that does has nowhere to complain.
        let _ = write!(out, "\nentresol: CRASH on CPU {}: ", arch::cpu_index()).and_then(|()| body(&mut out));
    }
    machine::crash()
}
