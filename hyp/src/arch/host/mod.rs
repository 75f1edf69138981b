//! The processor's twin on a host: the same names, no hardware.
//!
//! It lets everything above `arch` build and be tested where there is no EL2.
//! Barriers and maintenance do nothing, system registers read as on a CPU
//! without features, time is the host's, and there is one CPU. What can't be
//! done without the hardware, running a guest and reaching physical memory, is
//! refused or panics.

use super::GuestRegs;
use crate::exit::Esr;
use crate::percpu::{PER_CPU, PerCpu};
use crate::trap::sysreg::IdView;
use crate::trap::sysreg::debug::HardwareDebug;
use crate::trap::sysreg::id::HostId;
use crate::vcpu::Vcpu;
use core::fmt;
use platform::board::Region;
use platform::mmio::Registers;
use platform::uart::UartInfo;
use stage2::tlbi::{Instruction, Instructions, Stage2Registers};

/// See the target's.
#[derive(Clone, Copy)]
pub struct Handoff {
    /// See the target's.
    pub dtb_size: u64,
    /// See the target's.
    pub console: Option<UartInfo>,
    /// See the target's.
    pub firmware: Firmware,
}

/// See the target's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// See the target's.
    Present,
    /// See the target's.
    Absent,
}

/// See the target's.
#[derive(Clone, Copy, Debug)]
pub struct FaultRegisters {
    /// ESR_EL2.
    pub esr: u64,
    /// FAR_EL2.
    pub far: u64,
    /// HPFAR_EL2.
    pub hpfar: u64,
}

/// See the target's.
#[derive(Clone, Copy, Debug)]
pub struct ThisCpu;

impl Instructions for ThisCpu {
    fn execute(&self, _: Instruction) {}

    fn registers(&self) -> Stage2Registers {
        Stage2Registers { vttbr: 0, vtcr: 0 }
    }

    fn set_registers(&self, _: Stage2Registers) {}
}

/// Physical memory can't be reached from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapError;

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("there is no physical memory under a host test")
    }
}

/// See the target's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PointerAuthentication {
    /// Keys exist.
    Present,
    /// They don't.
    Absent,
}

impl PointerAuthentication {
    /// Absent.
    pub fn of_this_cpu() -> Self {
        Self::Absent
    }
}

/// See the target's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForceWriteBack {
    /// HCR_EL2.FWB is set.
    Yes,
    /// It is clear.
    No,
}

/// The few EL1 registers that are read outside `arch`.
#[derive(Clone, Debug, Default)]
pub struct El1State {
    /// SCTLR_EL1.
    pub sctlr: u64,
    /// VBAR_EL1.
    pub vbar: u64,
    /// ESR_EL1.
    pub esr: u64,
    /// FAR_EL1.
    pub far: u64,
    /// ELR_EL1.
    pub elr: u64,
    /// SPSR_EL1.
    pub spsr: u64,
    /// SP_EL1.
    pub sp_el1: u64,
}

impl El1State {
    /// See the target's.
    pub fn at_reset() -> Self {
        Self { sctlr: 0x30d0_0980, ..Self::default() }
    }

    /// Nothing.
    pub fn save(&mut self, _: PointerAuthentication) {}

    /// Nothing.
    pub fn load(&self, _: PointerAuthentication) {}
}

/// No SIMD registers to keep.
#[derive(Clone)]
pub struct Simd;

impl Default for Simd {
    fn default() -> Self {
        Self::new()
    }
}

impl Simd {
    /// Nothing.
    pub const fn new() -> Self {
        Self
    }

    /// Nothing.
    pub fn save(&mut self) {}

    /// Nothing.
    pub fn load(&self) {}
}

/// See the target's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VirtualTimer {
    /// CNTV_CTL_EL0.
    pub control: u64,
    /// CNTV_CVAL_EL0.
    pub compare: u64,
}

impl VirtualTimer {
    /// A timer that is off.
    pub fn save() -> Self {
        Self::default()
    }

    /// Nothing.
    pub fn load(self, _: u64) {}

    /// See the target's.
    pub fn deadline(self, offset: u64) -> Option<u64> {
        (self.control & 3 == 1).then(|| self.compare.saturating_add(offset))
    }
}

/// No virtual interface.
#[derive(Clone, Copy, Debug, Default)]
pub struct VirtualInterface;

impl VirtualInterface {
    /// Nothing.
    pub fn save(&mut self) {}

    /// Nothing.
    pub fn load(&self) {}
}

/// Functions that do nothing here.
macro_rules! nothing {
    ($($name:ident($($type:ty),*);)*) => {
        $(
            /// Nothing.
            pub fn $name($(_: $type),*) {}
        )*
    };
}

nothing! {
    complete_inner();
    complete_system();
    instruction_sync();
    send_event();
    wait_for_event();
    wait_for_interrupt();
    clean_invalidate_to_coherency(usize, usize);
    invalidate_instructions();
    init_cpu(&HostId, &IdView, ForceWriteBack);
    load_debug(&HardwareDebug<'_>);
    set_counter_frequency(u32);
    set_guest_mpidr(u64);
    set_stage2(u64, u64);
    stop_guest_walks();
    write_guest_exception(u64, u64, u64, Option<u64>);
    init_gic_cpu_interface();
    drop_priority(u32);
    deactivate(u32);
    send_sgi(u64, u32);
    set_ich_hcr(u64);
    write_list_register(usize, u64);
    arm_el2_timer(u64);
    disarm_el2_timer();
    flush_all_guests();
    flush_all_local();
    flush_stage1_local();
    skip_guest_instruction(Esr);
}

/// Functions that return a fixed value here.
macro_rules! fixed {
    ($($name:ident($($type:ty),*) -> $result:ty = $value:expr;)*) => {
        $(
            /// A fixed value.
            pub fn $name($(_: $type),*) -> $result { $value }
        )*
    };
}

fixed! {
    acknowledge() -> u32 = 1023;
    empty_list_registers() -> u32 = 0xf;
    list_register_count() -> usize = 4;
    read_list_register(usize) -> u64 = 0;
    ich_hcr() -> u64 = 0;
    counter_frequency() -> u64 = 1_000_000_000;
    virtual_timer_is_raised() -> bool = false;
    guest_exception_controls() -> (u64, u64) = (0, 0);
    exit_syndrome() -> u64 = 0;
    fault_page() -> u64 = 0;
    fault_address() -> u64 = 0;
    fault_registers() -> FaultRegisters = FaultRegisters { esr: 0, far: 0, hpfar: 0 };
    guest_pc() -> u64 = 0;
    guest_pstate() -> u64 = 0;
    host_id() -> HostId = HostId::read_with(|_| 0);
    random() -> Option<u64> = None;
    cpu_index() -> usize = 0;
    midr() -> u64 = 0;
    mpidr() -> u64 = 0;
    emergency_stack_end(usize) -> usize = 0;
    handoff() -> Handoff = Handoff { dtb_size: 0, console: None, firmware: Firmware::Present };
    image_address() -> u64 = 0;
    image_size() -> u64 = 0;
    secondary_entry_address() -> u64 = 0;
    stack_pointer() -> u64 = 0;
    map_memory(u64, u64) -> Result<usize, MapError> = Err(MapError);
    map_device(u64, u64) -> Result<usize, MapError> = Err(MapError);
    map_registers(Region) -> Result<Registers, MapError> = Err(MapError);
    release_cpu(u64, u64) -> Result<(), MapError> = Err(MapError);
    percpu() -> &'static PerCpu = &PER_CPU[0];
}

/// Time, from any fixed point.
pub fn counter() -> u64 {
    use core::sync::atomic::{AtomicU64, Ordering};
    static TICKS: AtomicU64 = AtomicU64::new(0);
    TICKS.fetch_add(1, Ordering::Relaxed)
}

/// There is no stack to walk.
pub fn code_addresses(_: u64) -> impl Iterator<Item = u64> {
    core::iter::empty()
}

/// Physical addresses as they are.
pub const fn linear(address: u64) -> usize {
    address as usize
}

/// Panics: no register block is mapped.
pub fn registers_at(_: usize) -> Registers {
    panic!("no device registers under a host test")
}

/// Panics: no physical memory is mapped.
pub fn physical_bytes(_: Region) -> &'static [u8] {
    panic!("no physical memory under a host test")
}

/// Panics: there is no EL2 to run a guest on.
pub fn run_guest(_: &mut GuestRegs, _: &Vcpu) -> u32 {
    panic!("no guest can run under a host test")
}

/// See the target's.
///
/// # Safety
///
/// See the target's.
#[expect(unsafe_code, reason = "the same contract as on the target")]
pub unsafe fn clear_page(page: *mut u8) {
    // SAFETY: the caller's contract.
    unsafe { page.write_bytes(0, 4096) }
}

/// See the target's.
///
/// # Safety
///
/// See the target's.
#[expect(unsafe_code, reason = "the same contract as on the target")]
pub unsafe fn clear(to: *mut u8, size: usize) {
    // SAFETY: the caller's contract.
    unsafe { to.write_bytes(0, size) }
}

/// See the target's.
///
/// # Safety
///
/// See the target's.
#[expect(unsafe_code, reason = "the same contract as on the target")]
pub unsafe fn copy_to(to: *mut u8, bytes: &[u8]) {
    // SAFETY: the caller's contract.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) }
}
