//! What EL2 traps and what it lets through: the control registers, written
//! whole, one reason per bit.
#![expect(unsafe_code, reason = "system registers")]

use super::PointerAuthentication;
use super::sysreg::{read, write};
use aarch64_cpu::registers::{CNTHCTL_EL2, HCR_EL2, MDCR_EL2};
use tock_registers::interfaces::Writeable;

/// Sets this CPU's EL2 controls once, at start. Guests share all of them.
pub fn init_cpu() {
    HCR_EL2.write(
        HCR_EL2::VM::Enable // stage 2
            + HCR_EL2::SWIO::SET // a guest's DC ISW also cleans: it can't drop others' data
            + HCR_EL2::PTW::SET // a guest's page tables can't live in a device
            + HCR_EL2::FMO::EnableVirtualFIQ // physical interrupts come to EL2, virtual ones to EL1
            + HCR_EL2::IMO::EnableVirtualIRQ
            + HCR_EL2::AMO::SET
            + HCR_EL2::TWI::SET // WFI gives the CPU to somebody else
            + HCR_EL2::TID3::SET // ID registers show what we can isolate
            + HCR_EL2::TSC::EnableTrapEl1SmcToEl2 // SMC is a hypercall
            + HCR_EL2::TIDCP::SET // implementation-defined registers
            + HCR_EL2::TACR::SET // ACTLR_EL1
            + HCR_EL2::TLOR::SET // limited ordering regions
            + HCR_EL2::TERR::SET // RAS error records
            + HCR_EL2::RW::EL1IsAarch64
            + match PointerAuthentication::of_this_cpu() {
                // The guest owns its keys: let it use them untrapped.
                PointerAuthentication::Present => {
                    HCR_EL2::APK::SET + HCR_EL2::API::SET
                }
                PointerAuthentication::Absent => HCR_EL2::APK::CLEAR + HCR_EL2::API::CLEAR,
            },
    );
    // CPTR_EL2, E2H = 0: SIMD untrapped (TFP clear); SVE (TZ), SME (TSM),
    // trace (TTA) and activity monitors (TAM) trapped. Bits 13, 9, 7:0 are RES1.
    write!("cptr_el2", 1 << 30 | 1 << 20 | 0x33ff);
    // No PMU and no debug hardware for guests yet: every access traps.
    // HPMN must stay at most the number of counters there are.
    let counters = if read!("id_aa64dfr0_el1") >> 8 & 0xf == 0 { 0 } else { read!("pmcr_el0") >> 11 & 0x1f };
    MDCR_EL2.write(
        MDCR_EL2::TDRA::SET
            + MDCR_EL2::TDOSA::SET
            + MDCR_EL2::TDA::SET
            + MDCR_EL2::TTRF::SET
            + MDCR_EL2::TPMS::SET
            + MDCR_EL2::TPM::SET
            + MDCR_EL2::TPMCR::SET
            + MDCR_EL2::HPMN.val(counters),
    );
    write!("hstr_el2", 0);
    // Guests read the counter freely (EL1PCTEN); their physical timer is emulated.
    CNTHCTL_EL2.write(CNTHCTL_EL2::EL1PCTEN::SET);
    write!("vpidr_el2", read!("midr_el1"));
    init_optional();
    disable_guest_timers();
    super::instruction_sync();
    super::flush_all_local();
}

/// Controls that exist only with a feature; firmware may have left anything.
fn init_optional() {
    let mmfr0 = read!("id_aa64mmfr0_el1");
    let mmfr1 = read!("id_aa64mmfr1_el1");
    if mmfr0 >> 56 & 0xf != 0 {
        // FEAT_FGT: no fine-grained trap; what is new and unknown (the "n" bits) stays trapped.
        write!("s3_4_c1_c1_4", 0); // HFGRTR_EL2
        write!("s3_4_c1_c1_5", 0); // HFGWTR_EL2
        write!("s3_4_c1_c1_6", 0); // HFGITR_EL2
        write!("s3_4_c3_c1_4", 0); // HDFGRTR_EL2
        write!("s3_4_c3_c1_5", 0); // HDFGWTR_EL2
    }
    if mmfr1 >> 40 & 0xf != 0 {
        // FEAT_HCX: none of the extensions that it would let through.
        write!("s3_4_c1_c2_2", 0); // HCRX_EL2
    }
}

/// The guest's timers as after reset: off.
fn disable_guest_timers() {
    write!("cntv_ctl_el0", 0);
    write!("cntp_ctl_el0", 0);
    write!("cnthp_ctl_el2", 0);
    write!("cntvoff_el2", 0);
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
