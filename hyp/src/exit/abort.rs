//! Aborts from a guest: data and instruction aborts, which fault it was and
//! which intermediate physical address it hit.
//!
//! Two traps wait here. HPFAR_EL2 is written for some faults only
//! ([`DataAbort::reports_ipa`]); and where a stage-1 walk faulted
//! ([`DataAbort::on_walk`]), HPFAR_EL2 holds the page of the guest's own table
//! while FAR_EL2 still holds the address the guest wanted, so the low bits of
//! [`fault_ipa`] then say nothing.

use super::{Direction, Esr, MmioAccess};

/// IPA that a stage-2 fault hit: the page from HPFAR_EL2, the offset from FAR_EL2.
///
/// Only where the abort [reports one](DataAbort::reports_ipa).
#[inline]
pub const fn fault_ipa(hpfar: u64, far: u64) -> u64 {
    // FIPA is HPFAR_EL2[47:4] (47:44 with FEAT_D128, else zero) and holds IPA[55:12].
    (hpfar & 0x0000_ffff_ffff_fff0) << 8 | far & 0xfff
}

/// DFSC and IFSC: what went wrong.
///
/// `level` is the lookup level of the stage that faulted, -1 to 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultStatus {
    /// An address too large for the tables or for TTBR.
    AddressSize {
        /// Lookup level.
        level: i8,
    },
    /// Nothing is mapped there.
    Translation {
        /// Lookup level.
        level: i8,
    },
    /// The access flag is clear.
    AccessFlag {
        /// Lookup level.
        level: i8,
    },
    /// Mapped, but not for this.
    Permission {
        /// Lookup level.
        level: i8,
    },
    /// Synchronous external abort on the access itself.
    External,
    /// Synchronous external abort on a table walk.
    ExternalOnWalk {
        /// Lookup level.
        level: i8,
    },
    /// Memory tag check (FEAT_MTE2).
    TagCheck,
    /// Alignment.
    Alignment,
    /// Two TLB entries match.
    TlbConflict,
    /// An atomic update of a table entry that the memory system lacks.
    UnsupportedAtomicUpdate,
    /// Exclusive, atomic or 64-byte access to memory that does not support it.
    UnsupportedAtomic,
    /// Anything else: parity, granule protection, implementation defined, or new. All six bits.
    Other(u8),
}

impl FaultStatus {
    /// From the six-bit DFSC or IFSC.
    #[inline]
    pub const fn decode(code: u8) -> Self {
        let level = (code & 3) as i8;
        match code & 0x3f {
            0x00..=0x03 => Self::AddressSize { level },
            0x04..=0x07 => Self::Translation { level },
            0x08..=0x0b => Self::AccessFlag { level },
            0x0c..=0x0f => Self::Permission { level },
            0x10 => Self::External,
            0x11 => Self::TagCheck,
            0x13 => Self::ExternalOnWalk { level: -1 },
            0x14..=0x17 => Self::ExternalOnWalk { level },
            0x21 => Self::Alignment,
            0x29 => Self::AddressSize { level: -1 },
            0x2b => Self::Translation { level: -1 },
            0x30 => Self::TlbConflict,
            0x31 => Self::UnsupportedAtomicUpdate,
            0x35 => Self::UnsupportedAtomic,
            other => Self::Other(other),
        }
    }

    /// Whether HPFAR_EL2 was written for this status, a stage-1 walk apart.
    ///
    /// Permission faults are the sore exception (DDI 0487, "HPFAR_EL2"): the address must be asked
    /// for with `AT S1E1R` on FAR_EL2.
    #[inline]
    const fn writes_hpfar(self) -> bool {
        matches!(self, Self::AddressSize { .. } | Self::Translation { .. } | Self::AccessFlag { .. })
    }
}

/// A data abort from a guest: load, store, atomic, or cache maintenance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataAbort(Esr);

impl DataAbort {
    pub(super) const fn new(esr: Esr) -> Self {
        Self(esr)
    }

    /// The whole syndrome.
    #[inline]
    pub const fn esr(self) -> Esr {
        self.0
    }

    /// DFSC: what went wrong.
    #[inline]
    pub const fn status(self) -> FaultStatus {
        FaultStatus::decode(self.0.field(0, 6) as u8)
    }

    /// Whether nothing is mapped there, at any level that a 48-bit stage 2 has: one compare, for
    /// the exit path.
    #[inline]
    pub const fn is_unmapped(self) -> bool {
        self.0.field(2, 4) == 1
    }

    /// WnR: whether it was a write. Cache maintenance counts as one.
    #[inline]
    pub const fn direction(self) -> Direction {
        if self.0.has(6) { Direction::Write } else { Direction::Read }
    }

    /// S1PTW: whether the access was the CPU's own, to one of the guest's stage-1 tables.
    #[inline]
    pub const fn on_walk(self) -> bool {
        self.0.has(7)
    }

    /// CM: whether a cache maintenance instruction faulted.
    #[inline]
    pub const fn is_cache_maintenance(self) -> bool {
        self.0.has(8)
    }

    /// EA: an implementation's own word about an external abort.
    #[inline]
    pub const fn external_type(self) -> u8 {
        self.0.field(9, 1) as u8
    }

    /// FnV, inverted: whether FAR_EL2 holds the address. Only an external abort can say no.
    #[inline]
    pub const fn far_is_valid(self) -> bool {
        !self.0.has(10)
    }

    /// AR: whether the access has acquire or release semantics. Only with [`Self::mmio`].
    #[inline]
    pub const fn acquire_release(self) -> bool {
        self.0.has(14)
    }

    /// Whether HPFAR_EL2 holds the page of the faulting IPA.
    #[inline]
    pub const fn reports_ipa(self) -> bool {
        self.on_walk() || self.status().writes_hpfar()
    }

    /// The load or store at `ipa` that a device must answer; `None` where the CPU gives no
    /// instruction syndrome (ISV = 0): pairs, write-back addressing, atomics, SIMD, cache maintenance.
    #[inline]
    pub const fn mmio(self, ipa: u64) -> Option<MmioAccess> {
        if self.0.has(24) { Some(MmioAccess::new(self, ipa)) } else { None }
    }
}

/// An instruction abort from a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstructionAbort(Esr);

impl InstructionAbort {
    pub(super) const fn new(esr: Esr) -> Self {
        Self(esr)
    }

    /// IFSC: what went wrong.
    #[inline]
    pub const fn status(self) -> FaultStatus {
        FaultStatus::decode(self.0.field(0, 6) as u8)
    }

    /// S1PTW: whether the access was the CPU's own, to one of the guest's stage-1 tables.
    #[inline]
    pub const fn on_walk(self) -> bool {
        self.0.has(7)
    }

    /// EA: an implementation's own word about an external abort.
    #[inline]
    pub const fn external_type(self) -> u8 {
        self.0.field(9, 1) as u8
    }

    /// FnV, inverted: whether FAR_EL2 holds the address.
    #[inline]
    pub const fn far_is_valid(self) -> bool {
        !self.0.has(10)
    }

    /// Whether HPFAR_EL2 holds the page of the faulting IPA.
    #[inline]
    pub const fn reports_ipa(self) -> bool {
        self.on_walk() || self.status().writes_hpfar()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Direction, Esr, Syndrome};
    use super::{DataAbort, FaultStatus, fault_ipa};

    fn data(bits: u64) -> DataAbort {
        match Syndrome::decode(Esr::new(bits)) {
            Syndrome::DataAbort(abort) => abort,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn fault_ipa_joins_page_and_offset() {
        assert_eq!(fault_ipa(0x0000_0000_0009_0000, 0xffff_8000_0123_4018), 0x0900_0018);
    }

    #[test]
    fn fault_ipa_drops_the_non_secure_bit() {
        assert_eq!(fault_ipa(0x8000_0000_0040_0000, 0), 0x4000_0000);
    }

    #[test]
    fn fault_ipa_reaches_fifty_two_bits() {
        assert_eq!(fault_ipa(0x0000_0fff_ffff_fff0, 0xfff), 0x000f_ffff_ffff_ffff);
    }

    #[test]
    fn translation_fault_at_level_three() {
        assert_eq!(data(0x9200_0007).status(), FaultStatus::Translation { level: 3 });
    }

    #[test]
    fn access_flag_fault_as_qemu_reports_it() {
        // DFSC 0x0b, as seen on every CPU model with VTCR_EL2.HA = 0.
        assert_eq!(data(0x9200_000b).status(), FaultStatus::AccessFlag { level: 3 });
    }

    #[test]
    fn level_minus_one_is_below_zero() {
        let codes = [0x29, 0x2b, 0x13].map(FaultStatus::decode);
        assert_eq!(
            codes,
            [
                FaultStatus::AddressSize { level: -1 },
                FaultStatus::Translation { level: -1 },
                FaultStatus::ExternalOnWalk { level: -1 },
            ]
        );
    }

    #[test]
    fn unknown_status_keeps_its_bits() {
        assert_eq!(FaultStatus::decode(0x3e), FaultStatus::Other(0x3e));
    }

    #[test]
    fn write_is_told_from_read() {
        assert_eq!(
            [data(0x9200_004f), data(0x9200_000f)].map(DataAbort::direction),
            [Direction::Write, Direction::Read]
        );
    }

    #[test]
    fn permission_fault_reports_no_ipa() {
        assert!(!data(0x9200_004f).reports_ipa());
    }

    #[test]
    fn permission_fault_on_a_walk_reports_its_ipa() {
        assert!(data(0x9200_008f).reports_ipa());
    }

    #[test]
    fn translation_fault_reports_its_ipa() {
        assert!(data(0x9200_0006).reports_ipa());
    }

    #[test]
    fn cache_maintenance_is_seen() {
        assert!(data(0x9200_0147).is_cache_maintenance());
    }

    #[test]
    fn external_abort_may_lack_an_address() {
        assert!(!data(0x9200_0410).far_is_valid());
    }

    #[test]
    fn abort_without_syndrome_is_no_mmio() {
        assert_eq!(data(0x9200_0046).mmio(0x0900_0000), None);
    }

    #[test]
    fn instruction_abort_decodes_its_status() {
        let Syndrome::InstructionAbort(abort) = Syndrome::decode(Esr::new(0x8200_0006)) else {
            panic!("class 0x20 is an instruction abort");
        };
        assert_eq!(abort.status(), FaultStatus::Translation { level: 2 });
    }

    #[test]
    fn every_status_has_its_code() {
        use FaultStatus::{
            AccessFlag, AddressSize, Alignment, External, ExternalOnWalk, Other, Permission, TagCheck,
            TlbConflict, Translation, UnsupportedAtomic, UnsupportedAtomicUpdate,
        };
        // DDI 0487, "ISS encoding for an exception from a Data Abort", field DFSC.
        for code in 0..64 {
            let expected = match (code, code as i8 % 4) {
                (0..=3, level) => AddressSize { level },
                (4..=7, level) => Translation { level },
                (8..=11, level) => AccessFlag { level },
                (12..=15, level) => Permission { level },
                (16, _) => External,
                (17, _) => TagCheck,
                (19, _) => ExternalOnWalk { level: -1 },
                (20..=23, level) => ExternalOnWalk { level },
                (33, _) => Alignment,
                (41, _) => AddressSize { level: -1 },
                (43, _) => Translation { level: -1 },
                (48, _) => TlbConflict,
                (49, _) => UnsupportedAtomicUpdate,
                (53, _) => UnsupportedAtomic,
                (other, _) => Other(other),
            };
            assert_eq!(data(0x9200_0000 | u64::from(code)).status(), expected, "{code:#x}");
        }
    }

    #[test]
    fn acquire_load_and_external_type_are_seen() {
        let abort = data(0x9380_4210);
        assert_eq!((abort.acquire_release(), abort.external_type()), (true, 1));
    }

    #[test]
    fn instruction_abort_has_the_bits_of_a_data_abort() {
        // EA, FnV, S1PTW one at a time.
        let seen =
            [0x8200_0210, 0x8200_0410, 0x8200_008f].map(|bits| match Syndrome::decode(Esr::new(bits)) {
                Syndrome::InstructionAbort(abort) => {
                    (abort.external_type(), abort.far_is_valid(), abort.on_walk(), abort.reports_ipa())
                }
                other => panic!("{other:?}"),
            });
        assert_eq!(seen, [(1, true, false, false), (0, false, false, false), (0, true, true, true)]);
    }
}
