//! The first instructions: an arm64 Image header, the stack, a cleared `.bss`,
//! the vectors, then `guest_main`; and the same for a CPU that PSCI started.
#![expect(unsafe_code, reason = "start-up code: linker symbols and assembly")]

use core::arch::global_asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::{cpus, machine, psci};

/// Bytes of stack for each CPU; `guest.ld` reserves eight of them.
const STACK_SIZE: u64 = 0x4000;

/// Where the program is linked, counted from the start of RAM.
const TEXT_OFFSET: u64 = 0x20_0000;

// The header is Linux's (Documentation/arch/arm64/booting.rst): its first two
// words are executed, and the first reads the physical counter, so that "from
// reset to the guest's first instruction" counts nothing of ours.
//
// x19, x20: counters at entry; x21: device tree. On return from `guest_main`
// and from a secondary's work the Rust side never comes back here.
global_asm!(
    ".section .head, \"ax\"",
    ".global guest_head",
    "guest_head:",
    "    mrs     x19, cntpct_el0",
    "    b       entry_boot",
    "    .quad   {text_offset}",
    "    .quad   guest_end - guest_head",
    "    .quad   0x2", // little-endian, 4 KiB pages, as low in RAM as possible
    "    .quad   0, 0, 0",
    "    .ascii  \"ARM\\x64\"",
    "    .long   0",
    "",
    ".section .text.entry, \"ax\"",
    "entry_boot:",
    "    mrs     x20, cntvct_el0",
    "    mov     x21, x0",
    "    ldr     x1, =guest_bss_start",
    "    ldr     x2, =guest_bss_end",
    "0:  cmp     x1, x2",
    "    b.hs    1f",
    "    stp     xzr, xzr, [x1], #16",
    "    b       0b",
    "1:  mov     x0, xzr",
    "    bl      entry_cpu",
    "    mov     x0, x21",
    "    mov     x1, x19",
    "    mov     x2, x20",
    "    b       guest_kit_boot",
    "",
    // In: x0 = CPU index, kept. Out: sp, vectors, TPIDR_EL1 = index, and FP/SIMD
    // untrapped for the programs that use it. Clobbers x1, x2.
    "entry_cpu:",
    "    msr     tpidr_el1, x0",
    "    ldr     x1, =guest_stacks",
    "    mov     x2, {stack_size}",
    "    madd    x1, x0, x2, x1",
    "    add     sp, x1, x2",
    "    ldr     x1, =guest_kit_vectors",
    "    msr     vbar_el1, x1",
    "    mov     x1, #(3 << 20)",
    "    msr     cpacr_el1, x1",
    "    isb",
    "    ret",
    "",
    // PSCI starts a CPU here, with x0 = its index as the context argument.
    ".global guest_kit_secondary_entry",
    "guest_kit_secondary_entry:",
    "    bl      entry_cpu",
    "    b       guest_kit_secondary",
    "    .ltorg",
    text_offset = const TEXT_OFFSET,
    stack_size = const STACK_SIZE,
);

/// The counters at the program's very first instructions, in ticks.
#[derive(Clone, Copy)]
pub struct EntryCounters {
    /// CNTPCT_EL0: under a hypervisor that does not offset it, time since reset.
    pub physical: u64,
    /// CNTVCT_EL0, one instruction and a branch later.
    pub virtual_: u64,
}

static ENTRY_PHYSICAL: AtomicU64 = AtomicU64::new(0);
static ENTRY_VIRTUAL: AtomicU64 = AtomicU64::new(0);

/// What the counters showed when the program was entered.
pub fn entry_counters() -> EntryCounters {
    EntryCounters {
        physical: ENTRY_PHYSICAL.load(Ordering::Relaxed),
        virtual_: ENTRY_VIRTUAL.load(Ordering::Relaxed),
    }
}

/// Initialised data: true again only if the loader loaded the program again.
static IS_FRESH: AtomicBool = AtomicBool::new(true);

unsafe extern "Rust" {
    /// The program, named by `program!`.
    safe fn guest_main(machine: machine::Machine);
}

#[unsafe(no_mangle)]
extern "C" fn guest_kit_boot(device_tree: usize, physical: u64, virtual_: u64) -> ! {
    ENTRY_PHYSICAL.store(physical, Ordering::Relaxed);
    ENTRY_VIRTUAL.store(virtual_, Ordering::Relaxed);
    // QEMU leaves x0 clear for an ELF file and the tree at the start of RAM.
    let device_tree = if device_tree == 0 { machine::RAM_BASE } else { device_tree };
    // Plain accesses: exclusives may not work with the MMU off.
    let is_fresh = IS_FRESH.load(Ordering::Relaxed);
    IS_FRESH.store(false, Ordering::Relaxed);
    assert!(is_fresh, "restarted without being loaded again");
    guest_main(machine::discover(device_tree));
    psci::system_off()
}

#[unsafe(no_mangle)]
extern "C" fn guest_kit_secondary(index: usize) -> ! {
    cpus::run_secondary(index)
}
