//! The trap controls that make `sysreg`'s promises true: what EL2 must write so that
//! everything the guest's ID registers hide is trapped, and everything they show runs.
//!
//! Values are per physical CPU, because a bit may be written only where the CPU has
//! the feature (elsewhere it is RES0 or RES1), and constant once boot is over. The
//! CPU's features come from its own [`HostId`], what is shown from the [`IdView`].
//!
//! Not here: HCR_EL2's routing and translation bits (VM, RW, IMO, ...), which are the
//! vCPU's.

use super::sysreg::SysReg;
use super::sysreg::id::{HostId, IdView};
use super::sysreg::register::{
    ID_AA64DFR0_EL1, ID_AA64ISAR1_EL1, ID_AA64ISAR2_EL1, ID_AA64MMFR0_EL1, ID_AA64MMFR1_EL1, ID_AA64PFR0_EL1,
    ID_AA64PFR1_EL1,
};

/// HCR_EL2 (DDI 0487, "HCR_EL2, Hypervisor Configuration Register").
mod hcr {
    /// Invalidation by set/way also cleans, so that it cannot drop another guest's data.
    pub(super) const SWIO: u64 = 1 << 1;
    /// ID registers, group 3: all that describe features.
    pub(super) const TID3: u64 = 1 << 18;
    /// SMC: a guest never talks to the firmware.
    pub(super) const TSC: u64 = 1 << 19;
    /// Implementation-defined registers.
    pub(super) const TIDCP: u64 = 1 << 20;
    /// ACTLR_EL1.
    pub(super) const TACR: u64 = 1 << 21;
    /// Limited ordering regions.
    pub(super) const TLOR: u64 = 1 << 35;
    /// RAS error records.
    pub(super) const TERR: u64 = 1 << 36;
    /// Does *not* trap the keys of pointer authentication.
    pub(super) const APK: u64 = 1 << 40;
    /// Does *not* trap the instructions of pointer authentication.
    pub(super) const API: u64 = 1 << 41;
    /// GMID_EL1, of memory tagging.
    pub(super) const TID5: u64 = 1 << 58;
}

/// HCRX_EL2.
mod hcrx {
    /// Memory copy and set instructions are *not* undefined at EL1 and EL0.
    pub(super) const MSCEN: u64 = 1 << 11;
}

/// MDCR_EL2.
mod mdcr {
    pub(super) const HPMN: u64 = 0x1f;
    /// PMCR_EL0.
    pub(super) const TPMCR: u64 = 1 << 5;
    /// The other performance monitor registers.
    pub(super) const TPM: u64 = 1 << 6;
    /// Breakpoints, watchpoints, MDSCR_EL1 and the like.
    pub(super) const TDA: u64 = 1 << 9;
    /// OS Lock and power-down registers.
    pub(super) const TDOSA: u64 = 1 << 10;
    /// Debug ROM.
    pub(super) const TDRA: u64 = 1 << 11;
    /// Statistical profiling controls. Its buffer (E2PB = 0) is EL2's, so it traps too.
    pub(super) const TPMS: u64 = 1 << 14;
    /// Trace filters. The trace buffer (E2TB = 0) is EL2's, so it traps too.
    pub(super) const TTRF: u64 = 1 << 19;
}

/// CPTR_EL2 with HCR_EL2.E2H = 0.
mod cptr {
    /// All bits that are RES1: 13, 12, 9 to 0. Of these TSM (12) and TZ (8) are the traps of SME
    /// and SVE where these exist; TFP (10), clear, leaves floating point to the guest.
    pub(super) const RES1: u64 = 0x33ff;
    /// Trace unit.
    pub(super) const TTA: u64 = 1 << 20;
    /// Activity monitors.
    pub(super) const TAM: u64 = 1 << 30;
}

/// CNTHCTL_EL2 with HCR_EL2.E2H = 0: EL1PCTEN lets the guest read the physical counter;
/// EL1PCEN, clear, traps the physical timer, and all of FEAT_ECV stays off.
const CNTHCTL_EL1PCTEN: u64 = 1 << 0;

/// What one physical CPU's trap registers must hold while guests run on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrapControls {
    /// Bits of HCR_EL2, to be combined with the vCPU's own.
    pub hcr_el2: u64,
    /// HCRX_EL2; `None` on a CPU without FEAT_HCX.
    pub hcrx_el2: Option<u64>,
    /// MDCR_EL2.
    pub mdcr_el2: u64,
    /// CPTR_EL2.
    pub cptr_el2: u64,
    /// CNTHCTL_EL2.
    pub cnthctl_el2: u64,
    /// HSTR_EL2.
    pub hstr_el2: u64,
    /// HFGRTR_EL2, HFGWTR_EL2, HFGITR_EL2, HDFGRTR_EL2 and HDFGWTR_EL2 alike, which come out of
    /// reset unknown; `None` on a CPU without FEAT_FGT.
    pub fine_grained_traps: Option<u64>,
}

impl TrapControls {
    /// For the CPU that `host` describes and guests that see `guest`. `event_counters` is that CPU's
    /// PMCR_EL0.N, which MDCR_EL2.HPMN must not exceed; zero unless [`has_performance_monitors`].
    pub const fn new(host: &HostId, guest: &IdView, event_counters: u64) -> Self {
        Self {
            hcr_el2: hcr_el2(host, guest),
            hcrx_el2: if has(host, ID_AA64MMFR1_EL1, 40) { Some(hcrx_el2(guest)) } else { None },
            mdcr_el2: mdcr_el2(host, event_counters),
            cptr_el2: cptr::RES1
                | when(has(host, ID_AA64DFR0_EL1, 4), cptr::TTA)
                | when(has(host, ID_AA64PFR0_EL1, 44), cptr::TAM),
            cnthctl_el2: CNTHCTL_EL1PCTEN,
            // Only AArch32 at EL1 would have anything left to trap.
            hstr_el2: 0,
            // Traps named in the positive are off, those named in the negative (nTPIDR2_EL0,
            // nPIR_EL1, nGCS_EL1, ...) are on: exactly the features that no guest is shown.
            fine_grained_traps: if has(host, ID_AA64MMFR0_EL1, 56) { Some(0) } else { None },
        }
    }
}

const fn hcr_el2(host: &HostId, guest: &IdView) -> u64 {
    hcr::SWIO
        | hcr::TID3
        | hcr::TSC
        | hcr::TIDCP
        | hcr::TACR
        | when(has(host, ID_AA64MMFR1_EL1, 16), hcr::TLOR)
        | when(has(host, ID_AA64PFR0_EL1, 28), hcr::TERR)
        // FEAT_MTE2: the instructions alone (1) bring no register.
        | when(host.get(ID_AA64PFR1_EL1) >> 8 & 0xf >= 2, hcr::TID5)
        | when(shows_pointer_authentication(guest), hcr::APK | hcr::API)
}

const fn hcrx_el2(guest: &IdView) -> u64 {
    when(guest.get(ID_AA64ISAR2_EL1) >> 16 & 0xf != 0, hcrx::MSCEN)
}

const fn mdcr_el2(host: &HostId, event_counters: u64) -> u64 {
    mdcr::TDA
        | mdcr::TDOSA
        | mdcr::TDRA
        | when(has_performance_monitors(host), mdcr::TPM | mdcr::TPMCR | event_counters & mdcr::HPMN)
        | when(has(host, ID_AA64DFR0_EL1, 32), mdcr::TPMS)
        | when(has(host, ID_AA64DFR0_EL1, 40), mdcr::TTRF)
}

/// FEAT_PMUv3: whether the CPU has PMCR_EL0. PMUVer = 0xf is somebody's own PMU, in the
/// implementation-defined space, which traps as a whole.
pub const fn has_performance_monitors(host: &HostId) -> bool {
    !matches!(host.get(ID_AA64DFR0_EL1) >> 8 & 0xf, 0 | 0xf)
}

/// Whether guests see any of the algorithms of pointer authentication: APA, API or APA3.
const fn shows_pointer_authentication(guest: &IdView) -> bool {
    guest.get(ID_AA64ISAR1_EL1) & 0xff0 != 0 || guest.get(ID_AA64ISAR2_EL1) & 0xf000 != 0
}

/// Whether the four-bit field at `shift` of the CPU's own `register` is not zero.
const fn has(host: &HostId, register: SysReg, shift: u32) -> bool {
    host.get(register) >> shift & 0xf != 0
}

/// `bits` under a condition.
const fn when(condition: bool, bits: u64) -> u64 {
    if condition { bits } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::super::sysreg::id::{GuestShape, HostId, IdView};
    use super::super::sysreg::register::*;
    use super::TrapControls;
    use crate::vgic::Version;

    /// Controls of a machine whose every CPU has `values`, and zeros otherwise.
    fn controls(values: &[(SysReg, u64)], event_counters: u64) -> TrapControls {
        let host = HostId::read_with(|wanted| {
            values.iter().find(|(register, _)| *register == wanted).map_or(0, |(_, value)| *value)
        });
        let guest = IdView::new(&[host], GuestShape { ipa_bits: 40, gic: Version::V3 });
        TrapControls::new(&host, &guest, event_counters)
    }

    #[test]
    fn armv8_0_cpu_gets_no_newer_bit() {
        // Cortex-A72: debug, six counters, no trace by system registers.
        let seen = controls(&[(ID_AA64PFR0_EL1, 0x2222), (ID_AA64DFR0_EL1, 0x1030_5106)], 6);
        let expected = TrapControls {
            hcr_el2: 0x003c_0002,
            hcrx_el2: None,
            mdcr_el2: 0x0000_0e66,
            cptr_el2: 0x0000_33ff,
            cnthctl_el2: 1,
            hstr_el2: 0,
            fine_grained_traps: None,
        };
        assert_eq!(seen, expected);
    }

    #[test]
    fn hidden_features_of_a_new_cpu_are_trapped() {
        let pfr0 = (ID_AA64PFR0_EL1, 1 << 44 | 1 << 28);
        let pfr1 = (ID_AA64PFR1_EL1, 3 << 8);
        let dfr0 = (ID_AA64DFR0_EL1, 1 << 40 | 1 << 32 | 1 << 4);
        let mmfr1 = (ID_AA64MMFR1_EL1, 1 << 16);
        let seen = controls(&[pfr0, pfr1, dfr0, mmfr1], 0);
        assert_eq!(
            (seen.hcr_el2, seen.mdcr_el2, seen.cptr_el2),
            (0x0400_0018_003c_0002, 0x0008_4e00, 0x4010_33ff)
        );
    }

    #[test]
    fn performance_monitors_of_the_architecture_are_trapped() {
        let mdcr = [0, 1, 0xf].map(|version| controls(&[(ID_AA64DFR0_EL1, version << 8)], 0x3f).mdcr_el2);
        assert_eq!(mdcr, [0xe00, 0xe7f, 0xe00]);
    }

    #[test]
    fn tag_instructions_alone_bring_no_trap() {
        let hcr = [1, 2].map(|version| controls(&[(ID_AA64PFR1_EL1, version << 8)], 0).hcr_el2 >> 58);
        assert_eq!(hcr, [0, 1]);
    }

    #[test]
    fn pointer_authentication_runs_where_it_is_shown() {
        let api = controls(&[(ID_AA64ISAR1_EL1, 0x0100_0050 << 4)], 0).hcr_el2;
        let apa3 = controls(&[(ID_AA64ISAR2_EL1, 0x5000)], 0).hcr_el2;
        assert_eq!([api >> 40, apa3 >> 40], [3, 3]);
    }

    #[test]
    fn memory_copies_run_where_they_are_shown() {
        let hcrx =
            |mops: u64| controls(&[(ID_AA64MMFR1_EL1, 1 << 40), (ID_AA64ISAR2_EL1, mops << 16)], 0).hcrx_el2;
        assert_eq!([hcrx(0), hcrx(1)], [Some(0), Some(0x800)]);
    }

    #[test]
    fn fine_grained_traps_are_written_where_they_exist() {
        assert_eq!(controls(&[(ID_AA64MMFR0_EL1, 1 << 56)], 0).fine_grained_traps, Some(0));
    }
}
