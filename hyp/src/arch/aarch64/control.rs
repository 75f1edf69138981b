//! What EL2 traps and what it lets through.
//!
//! [`crate::trap::controls`] decides what has to be trapped so that a guest's
//! ID registers tell the truth; here it is written, together with the bits that
//! route interrupts and switch stage 2 on.
#![expect(unsafe_code, reason = "system registers")]

use super::sysreg::{read, write};
use crate::trap::controls::{TrapControls, has_performance_monitors};
use crate::trap::sysreg::IdView;
use crate::trap::sysreg::debug::HardwareDebug;
use crate::trap::sysreg::id::HostId;
use aarch64_cpu::registers::HCR_EL2;
use tock_registers::interfaces::Writeable;

/// Sets this CPU's EL2 controls, once, before its first guest. All guests
/// share them. `force_write_back`: every CPU has FEAT_S2FWB, and stage-2
/// attributes are encoded for it.
pub fn init_cpu(host: &HostId, guest: &IdView, force_write_back: ForceWriteBack) {
    // PMCR_EL0 exists only with an architected PMU.
    let counters = if has_performance_monitors(host) { read!("pmcr_el0") >> 11 & 0x1f } else { 0 };
    let controls = TrapControls::new(host, guest, counters);
    let routing = HCR_EL2::VM::Enable // stage 2
        + HCR_EL2::PTW::SET // a guest's page tables can't live in a device
        + HCR_EL2::FMO::EnableVirtualFIQ // physical interrupts come here, virtual ones to EL1
        + HCR_EL2::IMO::EnableVirtualIRQ
        + HCR_EL2::AMO::SET
        + HCR_EL2::TWI::SET // WFI gives the CPU to somebody else
        + HCR_EL2::RW::EL1IsAarch64
        + match force_write_back {
            ForceWriteBack::Yes => HCR_EL2::FWB.val(1),
            ForceWriteBack::No => HCR_EL2::FWB.val(0),
        };
    HCR_EL2.set(controls.hcr_el2 | u64::from(routing));
    if let Some(hcrx) = controls.hcrx_el2 {
        write!("s3_4_c1_c2_2", hcrx);
    }
    if let Some(traps) = controls.fine_grained_traps {
        write!("s3_4_c1_c1_4", traps); // HFGRTR_EL2
        write!("s3_4_c1_c1_5", traps); // HFGWTR_EL2
        write!("s3_4_c1_c1_6", traps); // HFGITR_EL2
        write!("s3_4_c3_c1_4", traps); // HDFGRTR_EL2
        write!("s3_4_c3_c1_5", traps); // HDFGWTR_EL2
    }
    write!("mdcr_el2", controls.mdcr_el2);
    write!("cptr_el2", controls.cptr_el2);
    write!("cnthctl_el2", controls.cnthctl_el2);
    write!("hstr_el2", controls.hstr_el2);
    write!("vpidr_el2", read!("midr_el1"));
    // The guest's own timers as after reset, and the OS Lock open: the debug
    // registers hold what `load_debug` puts there.
    write!("cntv_ctl_el0", 0);
    write!("cntp_ctl_el0", 0);
    write!("oslar_el1", 0);
    super::instruction_sync();
    super::flush_all_local();
}

/// FEAT_S2FWB: whether stage 2 alone decides cacheability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForceWriteBack {
    /// HCR_EL2.FWB is set.
    Yes,
    /// It is clear, or not there.
    No,
}

/// The stage-2 regime of the vCPU that is about to run. VTTBR carries root and
/// VMID together, so no translation can mix the two.
pub fn set_stage2(vttbr: u64, vtcr: u64) {
    write!("vtcr_el2", vtcr);
    write!("vttbr_el2", vttbr);
    super::instruction_sync();
}

/// What the guest reads as MPIDR_EL1.
pub fn set_guest_mpidr(mpidr: u64) {
    write!("vmpidr_el2", mpidr);
}

/// Loads what a vCPU has armed in the processor's debug registers.
pub fn load_debug(debug: &HardwareDebug<'_>) {
    write!("mdscr_el1", debug.mdscr_el1);
    let Some(([b0, b1], [w0, w1])) = debug.armed else { return };
    write!("dbgbvr0_el1", b0.value);
    write!("dbgbcr0_el1", b0.control);
    write!("dbgbvr1_el1", b1.value);
    write!("dbgbcr1_el1", b1.control);
    write!("dbgwvr0_el1", w0.value);
    write!("dbgwcr0_el1", w0.control);
    write!("dbgwvr1_el1", w1.value);
    write!("dbgwcr1_el1", w1.control);
}

/// EL1's SCTLR_EL1 and VBAR_EL1, of the vCPU in the processor.
pub fn guest_exception_controls() -> (u64, u64) {
    (read!("sctlr_el1"), read!("vbar_el1"))
}

/// Writes what an exception leaves in EL1's registers, of the vCPU in the processor.
pub fn write_guest_exception(elr: u64, spsr: u64, esr: u64, far: Option<u64>) {
    write!("elr_el1", elr);
    write!("spsr_el1", spsr);
    write!("esr_el1", esr);
    if let Some(far) = far {
        write!("far_el1", far);
    }
}
