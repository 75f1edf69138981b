//! The vectors: interrupts go to the program, faults become values.
//!
//! [`catch`] runs a piece of code and returns the synchronous exception it
//! took, if any; the faulting instruction is skipped. An exception that nobody
//! expected is printed and ends the program.
#![expect(unsafe_code, reason = "exception vectors are assembly that calls into Rust")]

use core::arch::{asm, global_asm};
use core::fmt;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence};

use crate::{cpus, gic};

/// The registers of the interrupted code, as the vectors store them.
#[repr(C)]
struct Frame {
    x: [u64; 31],
    elr: u64,
    spsr: u64,
    padding: u64,
}

const _: () = assert!(size_of::<Frame>() == 272, "the vectors' stack pointer stays 16-byte aligned");

// Sixteen slots that differ in their number only: save, call
// `guest_kit_exception(slot, frame)`, restore, return. Everything but FP/SIMD
// is kept; compiled code does not use FP/SIMD (softfloat target).
global_asm!(
    ".macro vectors_slot number",
    "    .balign 0x80",
    "    sub     sp, sp, #{size}",
    "    stp     x0, x1, [sp]",
    "    mov     x0, #\\number",
    "    b       vectors_common",
    ".endm",
    ".section .text.vectors, \"ax\"",
    ".balign 0x800",
    ".global guest_kit_vectors",
    "guest_kit_vectors:",
    ".irp number, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
    "    vectors_slot \\number",
    ".endr",
    "    .balign 0x80",
    "vectors_common:",
    "    stp     x2, x3, [sp, #16]",
    "    stp     x4, x5, [sp, #32]",
    "    stp     x6, x7, [sp, #48]",
    "    stp     x8, x9, [sp, #64]",
    "    stp     x10, x11, [sp, #80]",
    "    stp     x12, x13, [sp, #96]",
    "    stp     x14, x15, [sp, #112]",
    "    stp     x16, x17, [sp, #128]",
    "    stp     x18, x19, [sp, #144]",
    "    stp     x20, x21, [sp, #160]",
    "    stp     x22, x23, [sp, #176]",
    "    stp     x24, x25, [sp, #192]",
    "    stp     x26, x27, [sp, #208]",
    "    stp     x28, x29, [sp, #224]",
    "    mrs     x1, elr_el1",
    "    stp     x30, x1, [sp, #240]",
    "    mrs     x1, spsr_el1",
    "    str     x1, [sp, #{spsr}]",
    "    mov     x1, sp",
    "    bl      guest_kit_exception",
    "    ldr     x1, [sp, #{spsr}]",
    "    msr     spsr_el1, x1",
    "    ldp     x30, x1, [sp, #240]",
    "    msr     elr_el1, x1",
    "    ldp     x28, x29, [sp, #224]",
    "    ldp     x26, x27, [sp, #208]",
    "    ldp     x24, x25, [sp, #192]",
    "    ldp     x22, x23, [sp, #176]",
    "    ldp     x20, x21, [sp, #160]",
    "    ldp     x18, x19, [sp, #144]",
    "    ldp     x16, x17, [sp, #128]",
    "    ldp     x14, x15, [sp, #112]",
    "    ldp     x12, x13, [sp, #96]",
    "    ldp     x10, x11, [sp, #80]",
    "    ldp     x8, x9, [sp, #64]",
    "    ldp     x6, x7, [sp, #48]",
    "    ldp     x4, x5, [sp, #32]",
    "    ldp     x2, x3, [sp, #16]",
    "    ldp     x0, x1, [sp]",
    "    add     sp, sp, #{size}",
    "    eret",
    size = const size_of::<Frame>(),
    spsr = const offset_of!(Frame, spsr),
);

/// "Current EL with SPx", synchronous and IRQ: the two slots a program uses.
const SLOT_SYNCHRONOUS: u64 = 4;
const SLOT_IRQ: u64 = 5;

/// A synchronous exception that [`catch`] caught.
#[derive(Clone, Copy)]
pub struct Fault {
    /// ESR_EL1.
    pub syndrome: u64,
    /// FAR_EL1, meaningful for aborts.
    pub address: u64,
    /// ELR_EL1: the instruction that faulted.
    pub instruction: u64,
}

impl Fault {
    /// Exception class (DDI 0487, ESR_EL1.EC).
    pub fn class(&self) -> u64 {
        self.syndrome >> 26 & 0x3f
    }

    /// Fault status code of an abort.
    pub fn status(&self) -> u64 {
        self.syndrome & 0x3f
    }

    /// Whether the instruction was undefined (EC 0: "unknown reason").
    pub fn is_undefined(&self) -> bool {
        self.class() == 0
    }

    /// Whether this is a data abort taken from the program itself.
    pub fn is_data_abort(&self) -> bool {
        self.class() == 0x25
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { syndrome, address, instruction } = self;
        write!(f, "ESR {syndrome:#x} FAR {address:#x} ELR {instruction:#x}")
    }
}

/// One CPU's expectation; written by that CPU only.
struct Expectation {
    state: AtomicU32,
    syndrome: AtomicU64,
    address: AtomicU64,
    instruction: AtomicU64,
}

const IDLE: u32 = 0;
const ARMED: u32 = 1;
const CAUGHT: u32 = 2;

static EXPECTATIONS: [Expectation; cpus::MAX] = [const {
    Expectation {
        state: AtomicU32::new(IDLE),
        syndrome: AtomicU64::new(0),
        address: AtomicU64::new(0),
        instruction: AtomicU64::new(0),
    }
}; cpus::MAX];

fn expectation() -> &'static Expectation {
    EXPECTATIONS.get(cpus::this()).expect("`this` is below MAX")
}

/// Runs `act` and returns the first synchronous exception it took on this CPU.
///
/// Each faulting instruction is skipped, so what it would have loaded is
/// whatever its target register held. A fault on fetching returns to the caller.
pub fn catch(act: impl FnOnce()) -> Option<Fault> {
    let expectation = expectation();
    expectation.state.store(ARMED, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
    act();
    compiler_fence(Ordering::SeqCst);
    let state = expectation.state.load(Ordering::Relaxed);
    expectation.state.store(IDLE, Ordering::Relaxed);
    (state == CAUGHT).then(|| Fault {
        syndrome: expectation.syndrome.load(Ordering::Relaxed),
        address: expectation.address.load(Ordering::Relaxed),
        instruction: expectation.instruction.load(Ordering::Relaxed),
    })
}

unsafe extern "Rust" {
    /// The program's interrupt function, named by `program!`.
    safe fn guest_interrupt(intid: u32);
}

#[unsafe(no_mangle)]
extern "C" fn guest_kit_exception(slot: u64, frame: &mut Frame) {
    match slot {
        SLOT_SYNCHRONOUS => synchronous(frame),
        SLOT_IRQ => interrupt(),
        _ => panic!("vector {slot} at {:#x}, spsr {:#x}", frame.elr, frame.spsr),
    }
}

fn interrupt() {
    // A spurious acknowledgement needs no end of interrupt.
    if let Some(acknowledged) = gic::acknowledge() {
        guest_interrupt(acknowledged.intid());
        gic::end(acknowledged);
    }
}

fn synchronous(frame: &mut Frame) {
    let (syndrome, address) = fault_registers();
    let fault = Fault { syndrome, address, instruction: frame.elr };
    let expectation = expectation();
    match expectation.state.load(Ordering::Relaxed) {
        IDLE => panic!("unexpected exception: {fault:?}"),
        ARMED => {
            expectation.syndrome.store(fault.syndrome, Ordering::Relaxed);
            expectation.address.store(fault.address, Ordering::Relaxed);
            expectation.instruction.store(fault.instruction, Ordering::Relaxed);
            expectation.state.store(CAUGHT, Ordering::Relaxed);
        }
        _ => {}
    }
    let is_fetch = matches!(fault.class(), 0x20 | 0x21);
    frame.elr = if is_fetch { frame.x[30] } else { frame.elr.wrapping_add(4) };
}

fn fault_registers() -> (u64, u64) {
    let syndrome: u64;
    let address: u64;
    // SAFETY: reading the two registers has no effect.
    unsafe {
        asm!("mrs {0}, esr_el1", "mrs {1}, far_el1", out(reg) syndrome, out(reg) address, options(nostack))
    };
    (syndrome, address)
}
