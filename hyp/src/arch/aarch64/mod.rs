//! The processor: instructions, system registers, assembly.
//!
//! `boot.S` brings a CPU from the boot loader to Rust, `vectors.S` holds the
//! exception vectors and the world switch. Calls go up from here at few named
//! places only: the program's `program_primary` and `program_secondary` once a CPU
//! is up ([`crate::program!`]), the handlers of [`crate::trap`] from the guest's
//! vectors, and [`crate::crash`] from the rest.
#![expect(unsafe_code, reason = "assembly, and the symbols it defines")]

mod barrier;
mod cache;
mod control;
mod early;
mod el1;
mod gic_cpu;
mod mmu;
mod random;
mod sysreg;
mod timer;
mod tlb;

pub use barrier::{
    complete_inner, complete_system, instruction_sync, send_event, wait_for_event, wait_for_interrupt,
};
pub use cache::{clean_invalidate_to_coherency, invalidate_instructions};
pub use control::{
    ForceWriteBack, guest_exception_controls, init_cpu, load_debug, set_guest_mpidr, set_stage2,
    write_guest_exception,
};
pub use early::{Firmware, Handoff, handoff, image_size};
pub use el1::{El1State, PointerAuthentication, Simd, stop_guest_walks};
pub use gic_cpu::{
    VirtualInterface, acknowledge, deactivate, drop_priority, empty_list_registers, ich_hcr,
    init as init_gic_cpu_interface, list_register_count, read_list_register, send_sgi, set_ich_hcr,
    write_list_register,
};
pub use mmu::{
    MapError, linear, map_device, map_memory, map_registers, physical_bytes, registers_at, release_cpu,
    secondary_entry_address,
};
pub use random::random;
pub use timer::{
    VirtualTimer, arm_el2_timer, counter, counter_frequency, disarm_el2_timer, set_counter_frequency,
    virtual_timer_is_raised,
};
pub use tlb::{ThisCpu, flush_all_guests, flush_all_local, flush_stage1_local};

use super::{FastFrame, GuestRegs, WholeFrame};
use crate::crash::{self, FailedFrame};
use crate::exit::Esr;
use crate::percpu::{MAX_CPUS, PerCpu};
use crate::trap::sysreg::id::HostId;
use crate::trap::{self, advance::past_instruction};
use crate::vcpu::Vcpu;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering};
use sysreg::{read, write};

/// Bytes of a CPU's stack.
const STACK: usize = 64 * 1024;
/// Bytes of the stack that a failed CPU reports on.
const EMERGENCY_STACK: usize = 8 * 1024;
/// Unmapped bytes below each of the two: running off a stack faults.
const GUARD: usize = 4096;
/// One CPU's share of the stacks: guard, emergency stack, guard, stack.
const STACK_SLOT: usize = 2 * GUARD + EMERGENCY_STACK + STACK;
/// Tables that boot may take before the frame allocator works.
const BOOT_TABLES: usize = 48;

/// Stacks of all CPUs; mapped in part, by `early`, and never zeroed.
#[repr(C, align(4096))]
struct Stacks(core::cell::UnsafeCell<[[u8; STACK_SLOT]; MAX_CPUS]>);

// SAFETY: each CPU uses its own slot, through its stack pointer only.
unsafe impl Sync for Stacks {}

#[unsafe(link_section = ".stacks")]
static STACKS: Stacks = Stacks(core::cell::UnsafeCell::new([[0; STACK_SLOT]; MAX_CPUS]));

core::arch::global_asm!(
    include_str!("boot.S"),
    early_main = sym early::early_main,
    early_refuse_el1 = sym early::early_refuse_el1,
    early_el3 = sym early::early_el3,
    primary = sym primary,
    secondary = sym secondary,
    mpidrs = sym crate::percpu::MPIDRS,
    max_cpus = const MAX_CPUS,
    stacks = sym STACKS,
    stack_stride = const STACK_SLOT,
    percpu = sym crate::percpu::PER_CPU,
    percpu_stride = const size_of::<PerCpu>(),
    boot_tables = const BOOT_TABLES,
);

core::arch::global_asm!(include_str!("memory.S"));

core::arch::global_asm!(
    include_str!("vectors.S"),
    on_sync = sym on_sync,
    on_sync_whole = sym on_sync_whole,
    more = const crate::trap::Leave::MoreRegisters as u32,
    on_irq = sym on_irq,
    on_serror = sym on_serror,
    failed = sym failed,
    failed_size = const size_of::<FailedFrame>(),
    regs_pc = const offset_of!(GuestRegs, pc),
    percpu_emergency = const offset_of!(PerCpu, emergency_stack),
);

/// Physical address of the image, once boot.S has told us.
static IMAGE: AtomicU64 = AtomicU64::new(0);

unsafe extern "Rust" {
    /// What the program does with the first CPU; `program!` defines it.
    safe fn program_primary(device_tree: u64) -> !;
    /// What it does with every other CPU.
    safe fn program_secondary(index: usize) -> !;
}

/// The first CPU, at the link address, on its stack.
extern "C" fn primary(device_tree: u64, image: u64) -> ! {
    IMAGE.store(image, Ordering::Relaxed);
    program_primary(device_tree)
}

/// Any other CPU, likewise.
extern "C" fn secondary(index: usize) -> ! {
    program_secondary(index)
}

/// Physical address of the image.
pub fn image_address() -> u64 {
    IMAGE.load(Ordering::Relaxed)
}

/// What the vectors call: the C side of the functions in `trap` and `crash`.
macro_rules! upcalls {
    ($($name:ident($frame:ty) => $to:path;)*) => {
        $(extern "C" fn $name(frame: &mut $frame, vcpu: &Vcpu) -> u32 { $to(frame, vcpu) })*
    };
}

upcalls! {
    on_sync(FastFrame) => trap::on_sync;
    on_sync_whole(WholeFrame) => trap::on_sync_whole;
    on_irq(FastFrame) => trap::on_irq;
    on_serror(FastFrame) => trap::on_serror;
}

extern "C" fn failed(slot: u64, frame: &FailedFrame) -> ! {
    crash::el2_failed(slot, frame)
}

unsafe extern "C" {
    fn guest_enter(regs: *mut GuestRegs, vcpu: *const ()) -> u32;
    fn copy_blocks(to: *mut u8, from: *const u8, blocks: usize);
    fn zero_page(page: *mut u8);
}

/// Runs the resident vCPU until a handler in [`crate::trap`] asks to leave the
/// guest; returns what that handler returned.
///
/// The caller has loaded everything else that is this vCPU's (EL1 state, stage
/// 2, timer, virtual interface): see [`crate::task`].
pub fn run_guest(regs: &mut GuestRegs, vcpu: &Vcpu) -> u32 {
    // SAFETY: `regs` outlives the call and is written by nobody else during
    // it; the guest cannot reach EL2's memory (stage 2).
    unsafe { guest_enter(regs, core::ptr::from_ref(vcpu).cast()) }
}

/// Zeroes a page of 4 KiB.
///
/// # Safety
///
/// `page` is writable, aligned, and nothing in Rust refers to it.
pub unsafe fn clear_page(page: *mut u8) {
    // SAFETY: the caller's contract.
    unsafe { zero_page(page) }
}

/// Zeroes `size` bytes at `to`, page-wise as far as alignment allows.
///
/// # Safety
///
/// `to` is writable for `size` bytes that nothing in Rust refers to.
pub unsafe fn clear(to: *mut u8, size: usize) {
    let head = to.align_offset(4096).min(size);
    let pages = (size - head) / 4096;
    // SAFETY: within the range (contract).
    unsafe { to.write_bytes(0, head) };
    for page in 0..pages {
        // SAFETY: as above.
        let page = unsafe { to.add(head + page * 4096) };
        // SAFETY: a whole page of the range.
        unsafe { clear_page(page) };
    }
    let done = head + pages * 4096;
    // SAFETY: as above.
    let tail = unsafe { to.add(done) };
    // SAFETY: as above.
    unsafe { tail.write_bytes(0, size - done) };
}

/// Copies `bytes` to `to`, block-wise as far as alignment allows.
///
/// # Safety
///
/// `to` must be writable for `bytes.len()` bytes that nothing in Rust refers to.
pub unsafe fn copy_to(to: *mut u8, bytes: &[u8]) {
    let aligned = to.addr().is_multiple_of(16) && bytes.as_ptr().addr().is_multiple_of(16);
    let blocks = if aligned { bytes.len() / 128 } else { 0 };
    if blocks > 0 {
        // SAFETY: both ranges hold `blocks * 128` bytes and are aligned.
        unsafe { copy_blocks(to, bytes.as_ptr(), blocks) };
    }
    let rest = &bytes[blocks * 128..];
    // SAFETY: `to` has room for the rest behind the blocks (contract).
    let to = unsafe { to.add(blocks * 128) };
    // SAFETY: as above; a Rust slice and memory that nothing refers to don't overlap.
    unsafe { core::ptr::copy_nonoverlapping(rest.as_ptr(), to, rest.len()) };
}

/// This CPU's per-CPU block.
pub fn percpu() -> &'static PerCpu {
    let block = read!("tpidr_el2") as *const PerCpu;
    // SAFETY: boot.S set TPIDR_EL2 to this CPU's element of PER_CPU before any
    // Rust code could call this.
    unsafe { &*block }
}

/// This CPU's index; 0 so early in boot that there is only one.
pub fn cpu_index() -> usize {
    if read!("tpidr_el2") == 0 { 0 } else { percpu().index() }
}

/// Where CPU `index` puts its last words: one past its emergency stack.
pub fn emergency_stack_end(index: usize) -> usize {
    STACKS.0.get().addr() + index * STACK_SLOT + GUARD + EMERGENCY_STACK
}

/// MPIDR_EL1's affinity fields.
pub fn mpidr() -> u64 {
    read!("mpidr_el1") & 0xff_00ff_ffff
}

/// MIDR_EL1: which core this is.
pub fn midr() -> u64 {
    read!("midr_el1")
}

/// What an exit left in the syndrome registers.
#[derive(Clone, Copy, Debug)]
pub struct FaultRegisters {
    /// ESR_EL2.
    pub esr: u64,
    /// FAR_EL2.
    pub far: u64,
    /// HPFAR_EL2.
    pub hpfar: u64,
}

/// ESR_EL2 alone: enough for most exits.
pub fn exit_syndrome() -> u64 {
    read!("esr_el2")
}

/// HPFAR_EL2: the page of the fault in the guest's physical space.
pub fn fault_page() -> u64 {
    read!("hpfar_el2")
}

/// FAR_EL2: the virtual address of the fault.
pub fn fault_address() -> u64 {
    read!("far_el2")
}

/// Why the guest was left.
pub fn fault_registers() -> FaultRegisters {
    FaultRegisters { esr: read!("esr_el2"), far: read!("far_el2"), hpfar: read!("hpfar_el2") }
}

/// ELR_EL2: during a fast exit, where the guest will go on.
pub fn guest_pc() -> u64 {
    read!("elr_el2")
}

/// SPSR_EL2: during a fast exit, the guest's PSTATE.
pub fn guest_pstate() -> u64 {
    read!("spsr_el2")
}

/// During a fast exit: go on behind the instruction that `syndrome` is about.
#[inline]
pub fn skip_guest_instruction(syndrome: Esr) {
    let (pc, pstate) = past_instruction(read!("elr_el2"), read!("spsr_el2"), syndrome);
    write!("elr_el2", pc);
    write!("spsr_el2", pstate);
}

/// The ID registers of this CPU (Op0 3, Op1 0, CRn 0, CRm 1 to 7). All of
/// these can be read on any CPU: what is not allocated reads as zero.
pub fn host_id() -> HostId {
    macro_rules! id_register {
        ($register:expr; $($crm:literal)*) => {
            id_register!(@ $register; $($crm, 0 $crm, 1 $crm, 2 $crm, 3 $crm, 4 $crm, 5 $crm, 6 $crm, 7)*)
        };
        (@ $register:expr; $($crm:literal, $op2:literal)*) => {
            match $register.numbers() {
                $([3, 0, 0, $crm, $op2] => read!(concat!("s3_0_c0_c", $crm, "_", $op2)),)*
                _ => 0,
            }
        };
    }
    HostId::read_with(|register| id_register!(register; 1 2 3 4 5 6 7))
}

/// Code addresses on the stack from `sp` up, the nearest first. The code keeps
/// no frame pointers (they would cost every exit), so some of them are only
/// leftovers; the chain of callers is among them.
pub fn code_addresses(sp: u64) -> impl Iterator<Item = u64> {
    let slots = STACKS.0.get().addr() as u64;
    let slot_end = slots + ((sp.wrapping_sub(slots)) / STACK_SLOT as u64 + 1) * STACK_SLOT as u64;
    let is_stack = sp >= slots && slot_end <= emergency_stack_end(MAX_CPUS) as u64 + STACK as u64;
    // Below the stack proper lies a guard page: start above it if sp ran into it.
    let start = sp.next_multiple_of(8).max(slot_end.saturating_sub(STACK as u64));
    let end = if is_stack { slot_end } else { start };
    (start..end)
        .step_by(8)
        .map(|address| {
            // SAFETY: an aligned address within the mapped part of a stack.
            unsafe { (address as *const u64).read_volatile() }
        })
        .filter(|&word| early::is_code(word))
        .take(24)
}

/// The stack pointer of the caller, more or less.
pub fn stack_pointer() -> u64 {
    let sp: u64;
    // SAFETY: copies a register.
    unsafe { core::arch::asm!("mov {}, sp", out(reg) sp, options(nomem, nostack, preserves_flags)) };
    sp
}
