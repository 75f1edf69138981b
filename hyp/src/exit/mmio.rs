//! The one load or store that an emulated device has to answer.
//!
//! [`MmioAccess`] is two machine words, so it travels in registers between the
//! exit and the device; its fields are read out of the syndrome when asked.

use super::{DataAbort, general_purpose};
use crate::mmio::Width;

/// Which way the data goes, seen from the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Into one of the guest's registers.
    Read,
    /// Out of one of the guest's registers.
    Write,
}

/// A guest's load or store at an address where a device lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmioAccess {
    abort: DataAbort,
    ipa: u64,
}

impl MmioAccess {
    /// `abort` has ISV = 1.
    #[inline]
    pub(super) const fn new(abort: DataAbort, ipa: u64) -> Self {
        Self { abort, ipa }
    }

    /// Where.
    #[inline]
    pub const fn ipa(self) -> u64 {
        self.ipa
    }

    /// SAS: how many bytes.
    #[inline]
    pub const fn width(self) -> Width {
        Width::from_sas(self.abort.esr().field(22, 2))
    }

    /// WnR: load or store.
    #[inline]
    pub const fn direction(self) -> Direction {
        self.abort.direction()
    }

    /// SRT: the general-purpose register, `None` for XZR (stores zero, loads nothing).
    #[inline]
    pub const fn register(self) -> Option<u8> {
        general_purpose(self.abort.esr().field(16, 5))
    }

    /// Whether the address is a multiple of the width. Device memory demands it.
    #[inline]
    pub const fn is_aligned(self) -> bool {
        self.ipa & (self.width().bytes() - 1) == 0
    }

    /// What a store sends to the device: the low bytes of the register's value.
    #[inline]
    pub const fn stored(self, register: u64) -> u64 {
        register & self.width().mask()
    }

    /// What a load leaves in the register, given what the device `answered`, which is no wider than
    /// it was asked: as it is, or sign-extended if the instruction asks (SSE), then cut to 32 bits
    /// for a W register (SF).
    #[inline]
    pub const fn loaded(self, answered: u64) -> u64 {
        let esr = self.abort.esr();
        // Plain loads first: they are nearly all, and zero-extended is right for W and X alike.
        if !esr.has(21) {
            return answered;
        }
        let unused = 64 - 8 * self.width().bytes();
        let extended = (((answered << unused) as i64) >> unused) as u64;
        if esr.has(15) { extended } else { extended & 0xffff_ffff }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Esr, Syndrome};
    use super::{Direction, MmioAccess};
    use crate::mmio::Width;

    fn access(bits: u64) -> MmioAccess {
        match Syndrome::decode(Esr::new(bits)) {
            Syndrome::DataAbort(abort) => abort.mmio(0x0900_0018).expect("ISV is set"),
            other => panic!("{other:?}"),
        }
    }

    // LDRB W0, LDRSB X0, LDRSB W0, LDRH W0, LDRSH X0, LDR W0, LDRSW X0, LDR X0 with a level-3 translation fault.
    const LDRB_W: u64 = 0x9300_0007;
    const LDRSB_X: u64 = 0x9320_8007;
    const LDRSB_W: u64 = 0x9320_0007;
    const LDRH_W: u64 = 0x9340_0007;
    const LDRSH_X: u64 = 0x9360_8007;
    const LDR_W: u64 = 0x9380_0007;
    const LDRSW_X: u64 = 0x93a0_8007;
    const LDR_X: u64 = 0x93c0_8007;

    #[test]
    fn width_follows_sas() {
        let widths = [LDRB_W, LDRH_W, LDR_W, LDR_X].map(|bits| access(bits).width());
        assert_eq!(widths, [Width::Byte, Width::Half, Width::Word, Width::Double]);
    }

    #[test]
    fn store_word_from_w5_decodes() {
        // STR W5, [..]: SAS 2, SRT 5, WnR 1.
        let store = access(0x9385_0047);
        assert_eq!((store.register(), store.direction()), (Some(5), Direction::Write));
    }

    #[test]
    fn register_31_is_the_zero_register() {
        assert_eq!(access(0x939f_0047).register(), None);
    }

    #[test]
    fn plain_loads_zero_the_rest() {
        let loaded = [LDRB_W, LDRH_W, LDR_W, LDR_X].map(|bits| {
            let access = access(bits);
            access.loaded(access.width().mask())
        });
        assert_eq!(loaded, [0xff, 0xffff, 0xffff_ffff, u64::MAX]);
    }

    #[test]
    fn signed_loads_into_x_fill_all_bits() {
        let loaded = [LDRSB_X, LDRSH_X, LDRSW_X].map(|bits| access(bits).loaded(0x8000_8080));
        assert_eq!(loaded, [0xffff_ffff_ffff_ff80, 0xffff_ffff_ffff_8080, 0xffff_ffff_8000_8080]);
    }

    #[test]
    fn signed_load_into_w_stops_at_bit_31() {
        assert_eq!(access(LDRSB_W).loaded(0x80), 0x0000_0000_ffff_ff80);
    }

    #[test]
    fn signed_load_of_a_positive_value_stays_positive() {
        assert_eq!(access(LDRSB_X).loaded(0x17f), 0x7f);
    }

    #[test]
    fn store_sends_only_its_width() {
        // STRH W5.
        assert_eq!(access(0x9345_0047).stored(0xdead_beef), 0xbeef);
    }

    #[test]
    fn word_is_aligned_at_every_fourth_byte() {
        let Syndrome::DataAbort(abort) = Syndrome::decode(Esr::new(LDR_W)) else { panic!("class 0x24") };
        let aligned = [0x18, 0x19, 0x1a, 0x1c].map(|ipa| abort.mmio(ipa).map(MmioAccess::is_aligned));
        assert_eq!(aligned, [true, false, false, true].map(Some));
    }

    proptest::proptest! {
        #[test]
        fn loads_agree_with_casts(iss in 0u64..1 << 24, answered: u64) {
            let access = access(0x9300_0000 | iss);
            let (signed, x) = (iss >> 21 & 1 != 0, iss >> 15 & 1 != 0);
            let wide = match (access.width(), signed) {
                (Width::Byte, false) => u64::from(answered as u8),
                (Width::Half, false) => u64::from(answered as u16),
                (Width::Word, false) => u64::from(answered as u32),
                (Width::Byte, true) => answered as i8 as u64,
                (Width::Half, true) => answered as i16 as u64,
                (Width::Word, true) => answered as i32 as u64,
                (Width::Double, _) => answered,
            };
            // Without sign extension the upper half is zero already, whatever SF says.
            let expected = if x || !signed { wide } else { u64::from(wide as u32) };
            // A device answers no wider than it is asked.
            proptest::prop_assert_eq!(access.loaded(answered & access.width().mask()), expected);
        }
    }
}
