//! No memory of EL2's is writable and executable, code and constants are read-only, and stacks end at a hole.
//!
//! Two witnesses: the processor, asked for single addresses (AT S1E2R and
//! S1E2W), and a walk over every leaf of the tables that it uses.
#![expect(unsafe_code, reason = "address translation instructions, and tables at physical addresses")]

use crate::kit::{Verdict, ensure, ensure_eq};
use core::arch::asm;
use core::sync::atomic::AtomicU64;
use hyp::arch;
use hyp::boot::Hardware;
use hyp::percpu::MAX_CPUS;

/// Something that is certainly in the image's data.
static DATA: AtomicU64 = AtomicU64::new(1);
/// Something that is certainly among its constants.
static CONSTANT: [u64; 4] = [1, 2, 3, 4];

unsafe extern "C" {
    static __image_start: u8;
}

/// SCTLR_EL2.WXN: what is writable does not execute, whatever its entry says.
const WXN: u64 = 1 << 19;

pub(crate) fn run(_: &Hardware) -> Verdict {
    let code: fn(&Hardware) -> Verdict = run;
    let constant = core::hint::black_box(&CONSTANT);
    ensure_eq!(rights(code as usize), (true, false), "code: readable, writable");
    ensure_eq!(rights(core::ptr::from_ref(constant).addr()), (true, false), "constants: readable, writable");
    ensure_eq!(rights((&raw const DATA).addr()), (true, true), "data: readable, writable");
    for cpu in 0..MAX_CPUS {
        let guard = arch::emergency_stack_end(cpu);
        ensure_eq!(rights(guard - 8), (true, true), "emergency stack of CPU {cpu}: readable, writable");
        ensure_eq!(rights(guard), (false, false), "guard below CPU {cpu}'s stack: readable, writable");
        ensure_eq!(rights(guard + 4096), (true, true), "end of CPU {cpu}'s stack: readable, writable");
    }
    ensure!(control() & WXN != 0, "WXN is off");
    let leaves = walk(root(), 39)?;
    ensure!(leaves > 0, "the walk found no leaf");
    Ok(())
}

/// Whether EL2 may read and write at `address`.
fn rights(address: usize) -> (bool, bool) {
    let (read, write): (u64, u64);
    // SAFETY: AT changes PAR_EL1 only, which no guest owns here.
    unsafe {
        asm!(
            "at s1e2r, {address}", "isb", "mrs {read}, par_el1",
            "at s1e2w, {address}", "isb", "mrs {write}, par_el1",
            address = in(reg) address, read = out(reg) read, write = out(reg) write,
            options(nostack, preserves_flags)
        );
    }
    // PAR_EL1.F: the translation failed.
    (read & 1 == 0, write & 1 == 0)
}

/// Looks at every leaf below `table`, whose entries translate `1 << shift` bytes each; how many there are.
fn walk(table: u64, shift: u32) -> Result<u64, alloc::string::String> {
    const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
    // The tables are in the image, at the same distance from their physical addresses as all of it.
    let image = (&raw const __image_start).addr() as u64;
    let entries = table.wrapping_add(image.wrapping_sub(arch::image_address())) as *const [u64; 512];
    // SAFETY: the root, or a table that an entry in use points to; boot memory is mapped at its link address.
    let entries = unsafe { entries.read_volatile() };
    let mut leaves = 0;
    for (index, &entry) in entries.iter().enumerate().filter(|(_, entry)| **entry & 1 != 0) {
        if shift > 12 && entry & 2 != 0 {
            leaves += walk(entry & ADDRESS, shift - 9)?;
            continue;
        }
        leaves += 1;
        // AP[2] (read-only) and XN of a leaf.
        let (read_only, execute_never) = (entry & 1 << 7 != 0, entry & 1 << 54 != 0);
        ensure!(read_only || execute_never, "entry {index} for {shift} bits: {entry:#x} is both");
    }
    Ok(leaves)
}

/// TTBR0_EL2: the root.
fn root() -> u64 {
    let value: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mrs {}, ttbr0_el2", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value & 0x0000_ffff_ffff_f000
}

/// SCTLR_EL2.
fn control() -> u64 {
    let value: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mrs {}, sctlr_el2", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}
