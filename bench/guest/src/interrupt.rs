//! Interrupts to oneself: SGI, virtual timer, and the handler's own two accesses.
//!
//! The handler runs on vectors of its own, so that the first instruction after
//! the exception is a counter read. It saves nothing: interrupts are unmasked
//! only inside the assembly of [`take_interrupt!`], which declares what it uses.
//!
//! | register | in the handler |
//! |---|---|
//! | x13 | in: GICC's address on GICv2, 0 on GICv3 |
//! | x9 | count at the handler's first instruction; before: 0 |
//! | x14, x11 | count before and after the acknowledgement |
//! | x12, x15 | count before and after the end of interrupt |
//! | x10 | what the acknowledgement returned |
#![expect(unsafe_code, reason = "vectors and measured code are assembly")]

use core::arch::{asm, global_asm};

use guest_kit::gic::{self, Version, distributor};
use guest_kit::machine::{GICC, GICD, VIRTUAL_TIMER_INTID};
use guest_kit::{cpus, sysreg};

use crate::cost;

// Every slot but one hands over to the kit's vectors. The timer is switched off
// before the end of interrupt, or its level would raise it again.
global_asm!(
    ".section .text.bench_vectors, \"ax\"",
    ".balign 0x800",
    ".global bench_vectors",
    "bench_vectors:",
    ".irp number, 0, 1, 2, 3, 4",
    "    .balign 0x80",
    "    b       guest_kit_vectors + \\number * 0x80",
    ".endr",
    "    .balign 0x80",
    "    mrs     x9, cntvct_el0",
    "    msr     cntv_ctl_el0, xzr",
    "    cbnz    x13, 2f",
    "    mrs     x14, cntvct_el0",
    "    mrs     x10, S3_0_C12_C12_0", // ICC_IAR1_EL1
    "    mrs     x11, cntvct_el0",
    "    mrs     x12, cntvct_el0",
    "    msr     S3_0_C12_C12_1, x10", // ICC_EOIR1_EL1
    "    mrs     x15, cntvct_el0",
    "    eret",
    "2:  mrs     x14, cntvct_el0",
    "    ldr     w10, [x13, #0xc]", // GICC_IAR
    "    mrs     x11, cntvct_el0",
    "    mrs     x12, cntvct_el0",
    "    str     w10, [x13, #0x10]", // GICC_EOIR
    "    mrs     x15, cntvct_el0",
    "    eret",
    ".irp number, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
    "    .balign 0x80",
    "    b       guest_kit_vectors + \\number * 0x80",
    ".endr",
    "    .balign 0x80",
);

/// Counts of one interrupt, as the table above has them.
pub(crate) struct Stamps {
    /// When it was provoked, or for a timer was due.
    pub(crate) provoked: u64,
    /// Handler's first instruction.
    pub(crate) handler: u64,
    acknowledge: [u64; 2],
    end: [u64; 2],
    /// First instruction after the interrupted code noticed.
    pub(crate) back: u64,
}

/// Unmasks interrupts, runs `$provoke` right after a counter read, then repeats
/// `$wait` until the handler has run.
macro_rules! take_interrupt {
    ($provoke:literal, $wait:literal $(, $($operands:tt)*)?) => {{
        let (provoked, handler, back): (u64, u64, u64);
        let (before_acknowledge, after_acknowledge, before_end, after_end): (u64, u64, u64, u64);
        // SAFETY: on `bench_vectors` the handler changes the declared registers only.
        unsafe {
            core::arch::asm!(
                "mov x9, #0",
                "msr daifclr, #2",
                "mrs {provoked}, cntvct_el0",
                $provoke,
                "3:",
                $wait,
                "cbz x9, 3b",
                "mrs {back}, cntvct_el0",
                "msr daifset, #2",
                provoked = out(reg) provoked,
                back = out(reg) back,
                out("x9") handler,
                out("x10") _,
                out("x14") before_acknowledge,
                out("x11") after_acknowledge,
                out("x12") before_end,
                out("x15") after_end,
                in("x13") $crate::interrupt::cpu_interface(),
                $($($operands)*)?
            )
        };
        $crate::interrupt::Stamps::new(
            [provoked, handler, back],
            [before_acknowledge, after_acknowledge],
            [before_end, after_end],
        )
    }};
}
pub(crate) use take_interrupt;

impl Stamps {
    /// From the counts that `take_interrupt!` collects.
    pub(crate) fn new([provoked, handler, back]: [u64; 3], acknowledge: [u64; 2], end: [u64; 2]) -> Self {
        Self { provoked, handler, acknowledge, end, back }
    }
}

unsafe extern "C" {
    static bench_vectors: [u8; 0];
    static guest_kit_vectors: [u8; 0];
}

/// What the handler finds in x13.
pub(crate) fn cpu_interface() -> usize {
    match gic::version() {
        Version::V2 => GICC,
        Version::V3 => 0,
    }
}

/// Runs `act` with this CPU's interrupts going to the measuring handler.
pub(crate) fn with_vectors(act: impl FnOnce()) {
    set_vectors(&raw const bench_vectors as u64);
    act();
    set_vectors(&raw const guest_kit_vectors as u64);
}

fn set_vectors(table: u64) {
    // SAFETY: both tables are complete and handle every exception.
    unsafe { asm!("msr vbar_el1, {}", "isb", in(reg) table) };
}

/// Prints all measurements that one CPU makes alone.
pub(crate) fn measure() {
    gic::enable(0);
    gic::enable(VIRTUAL_TIMER_INTID);
    with_vectors(|| {
        software_generated();
        timer();
        waiting_for_nothing();
    });
    gic::disable(VIRTUAL_TIMER_INTID);
}

fn software_generated() {
    let overhead = cost::overhead();
    let least_of = |interval: fn(&Stamps) -> u64| cost::least(|| interval(&sgi_to_self())) - overhead;
    cost::report("sgi_self_to_handler", least_of(|stamps| stamps.handler - stamps.provoked));
    cost::report("sgi_self_round", least_of(|stamps| stamps.back - stamps.provoked));
    cost::report("interrupt_acknowledge", least_of(|stamps| stamps.acknowledge[1] - stamps.acknowledge[0]));
    cost::report("interrupt_end", least_of(|stamps| stamps.end[1] - stamps.end[0]));
}

fn sgi_to_self() -> Stamps {
    match gic::version() {
        Version::V2 => take_interrupt!("str {value:w}, [{sgir}]", "",
            value = in(reg) 1u64 << (16 + cpus::this()), sgir = in(reg) GICD + distributor::SGIR),
        Version::V3 => take_interrupt!("msr S3_0_C12_C11_5, {value}", "", // ICC_SGI1R_EL1
            value = in(reg) 1u64 << cpus::this()),
    }
}

/// Ticks until the timer is due: enough for the path to settle into waiting, and
/// for a console that sends the line before a millisecond later. An interrupt
/// that was held up by that and came before the WFI would never end it.
const AHEAD: u64 = 3_000_000;

fn timer() {
    let latency = |stamps: Stamps, due: u64| stamps.handler - due;
    let spinning = cost::least(|| {
        let due = arm();
        latency(take_interrupt!("", ""), due)
    });
    let from_wfi = cost::least(|| {
        let due = arm();
        latency(take_interrupt!("", "wfi"), due)
    });
    cost::report("vtimer_to_handler_spinning", spinning);
    cost::report("vtimer_to_handler_wfi", from_wfi);
}

fn arm() -> u64 {
    let due = sysreg::cntvct() + AHEAD;
    sysreg::set_cntv_cval(due);
    sysreg::set_cntv_ctl(1);
    due
}

/// WFI while an interrupt is pending and masked: it returns at once.
fn waiting_for_nothing() {
    gic::send(0, gic::Target::Cpu(cpus::this()));
    cost::measure("wfi_pending", || cost::count!(["wfi"]));
    // Takes the interrupt, so that nothing is left behind.
    take_interrupt!("", "");
}
