//! How descriptors are spelt in one space.
//!
//! The same word means different things in different spaces: the granule and
//! the width of physical addresses decide which levels hold leaves and where
//! in the word an address lies, HCR_EL2.FWB what a memory type is, other
//! features what some further bits are. A [`Format`] is all of that together,
//! and small enough to be carried along by everything that was decoded with
//! it: a [`Leaf`] knows its own format and needs no further argument to say
//! what it maps.
//!
//! # Where an address lies
//!
//! | [`AddressFormat`] | granules      | output address            | shareability    |
//! |-------------------|---------------|---------------------------|-----------------|
//! | `Bits48`          | all           | 47:12                     | SH, bits 9:8    |
//! | `Lpa`             | 64 KiB        | 47:16; 51:48 in bits 15:12 | SH, bits 9:8   |
//! | `Lpa2`            | 4 and 16 KiB  | 49:12; 51:50 in bits 9:8  | VTCR_EL2.SH0    |
//!
//! Table memory lies below 2^48 (see [`TableMemory`](crate::TableMemory)), so
//! the moved bits are zero in table descriptors and VTTBR_EL2, and the address
//! of a table is spelt the same in every format.

use crate::addr::{Level, PhysAddr};
use crate::attr::{Attributes, Execute, Fwb, Permissions};
use crate::geometry::{Geometry, Granule};
use crate::pte::Leaf;
use crate::vtcr::{DirtyState, Features, Xnx};

/// Where in a leaf its output address lies (Arm ARM, "VMSAv8-64 translation
/// table format descriptors").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressFormat {
    /// Up to 48 bits, all in place.
    Bits48,
    /// 52 bits with 64 KiB pages (FEAT_LPA).
    Lpa,
    /// 52 bits with 4 or 16 KiB pages (FEAT_LPA2, VTCR_EL2.DS set).
    Lpa2,
}

/// Bits `high` to `low` of a word.
const fn bits(high: u32, low: u32) -> u64 {
    (u64::MAX >> (63 - high)) & (u64::MAX << low)
}

impl AddressFormat {
    /// All descriptor bits that belong to the address.
    #[inline]
    pub(crate) const fn mask(self) -> u64 {
        match self {
            // For 64 KiB pages, 47:16 and 15:12 with another meaning.
            Self::Bits48 | Self::Lpa => bits(47, 12),
            Self::Lpa2 => bits(49, 12) | bits(9, 8),
        }
    }

    /// The descriptor bits for `address`, which is aligned to a page.
    #[inline]
    pub(crate) const fn encode(self, address: PhysAddr) -> u64 {
        let address = address.bits();
        match self {
            Self::Bits48 => address & bits(47, 12),
            Self::Lpa => address & bits(47, 16) | (address & bits(51, 48)) >> 36,
            Self::Lpa2 => address & bits(49, 12) | (address & bits(51, 50)) >> 42,
        }
    }

    /// The address that these descriptor bits spell.
    #[inline]
    pub(crate) const fn decode(self, descriptor: u64) -> PhysAddr {
        PhysAddr::new(match self {
            Self::Bits48 => descriptor & bits(47, 12),
            Self::Lpa => descriptor & bits(47, 16) | (descriptor & bits(15, 12)) << 36,
            Self::Lpa2 => descriptor & bits(49, 12) | (descriptor & bits(9, 8)) << 42,
        })
    }

    /// The width of the widest address that can be spelt.
    const fn width(self) -> u32 {
        match self {
            Self::Bits48 => 48,
            Self::Lpa | Self::Lpa2 => 52,
        }
    }
}

/// How descriptors are spelt in one space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Format {
    granule: Granule,
    addresses: AddressFormat,
    fwb: Fwb,
    xnx: Xnx,
    dirty: DirtyState,
    /// A bit for each level that may hold leaves: worked out once, as every
    /// leaf that is read is checked against it.
    leaf_levels: u8,
}

impl Format {
    /// The format of a space of this shape on a machine with these features.
    #[inline]
    pub const fn new(geometry: &Geometry, features: Features) -> Self {
        let (granule, addresses) = (geometry.granule(), geometry.addresses());
        let mut leaf_levels = 0;
        let mut level = Some(Level::L0);
        while let Some(here) = level {
            leaf_levels |= (has_leaves(here, granule, addresses) as u8) << here.number();
            level = here.next();
        }
        let Features { fwb, xnx, dirty, .. } = features;
        Self { granule, addresses, fwb, xnx, dirty, leaf_levels }
    }

    /// The page size.
    #[inline]
    pub const fn granule(self) -> Granule {
        self.granule
    }

    /// Where output addresses lie.
    #[inline]
    pub const fn addresses(self) -> AddressFormat {
        self.addresses
    }

    /// Whether stage 2 decides memory types alone.
    #[inline]
    pub const fn fwb(self) -> Fwb {
        self.fwb
    }

    /// Whether EL0 and EL1 can be told apart in who may execute.
    #[inline]
    pub const fn xnx(self) -> Xnx {
        self.xnx
    }

    /// Who notes that a guest wrote to memory.
    #[inline]
    pub const fn dirty_state(self) -> DirtyState {
        self.dirty
    }

    /// Whether a descriptor at `level` may map memory instead of leading to
    /// a table.
    #[inline]
    pub const fn allows_leaf(self, level: Level) -> bool {
        self.leaf_levels >> level.number() & 1 != 0
    }

    /// Whether there are descriptors for these permissions: without FEAT_XNX,
    /// EL0 and EL1 may execute the same.
    #[inline]
    pub const fn allows(self, permissions: Permissions) -> bool {
        match (permissions.execute, self.xnx) {
            (Execute::Never | Execute::Allowed, _) | (_, Xnx::Present) => true,
            (Execute::PrivilegedOnly | Execute::UnprivilegedOnly, Xnx::Absent) => false,
        }
    }

    /// A leaf for an entry at `level` that maps the memory from `output` on.
    ///
    /// `None` if there are no leaves at this level, if `output` is not aligned
    /// to their size or too wide for a descriptor, or if there is no
    /// descriptor for the permissions.
    #[inline]
    pub const fn leaf(self, level: Level, output: PhysAddr, attributes: Attributes) -> Option<Leaf> {
        let fits =
            output.is_aligned(self.granule.span(level)) && output.bits() >> self.addresses.width() == 0;
        if fits && self.allows_leaf(level) && self.allows(attributes.permissions) {
            Some(Leaf::new(level, output, attributes, self))
        } else {
            None
        }
    }
}

/// Whether there are blocks or pages at `level` (Arm ARM,
/// `AArch64.BlockDescSupported`).
const fn has_leaves(level: Level, granule: Granule, addresses: AddressFormat) -> bool {
    match (level, granule) {
        (Level::L3 | Level::L2, _) | (Level::L1, Granule::Kib4) => true,
        (Level::L0, Granule::Kib4) => matches!(addresses, AddressFormat::Lpa2),
        (Level::L1, Granule::Kib16) => matches!(addresses, AddressFormat::Lpa2),
        (Level::L1, Granule::Kib64) => matches!(addresses, AddressFormat::Lpa),
        (Level::L0, Granule::Kib16 | Granule::Kib64) => false,
        #[cfg(stage2_loom)]
        (level, Granule::Tiny) => matches!(level, Level::L1),
    }
}

#[cfg(test)]
mod tests {
    use super::AddressFormat;
    use crate::addr::PhysAddr;

    #[test]
    fn address_in_place_is_bits_47_to_12() {
        assert_eq!(AddressFormat::Bits48.encode(PhysAddr::new(0xffff_ffff_f000)), 0xffff_ffff_f000);
        assert_eq!(AddressFormat::Bits48.mask(), 0xffff_ffff_f000);
    }

    #[test]
    fn lpa_moves_bits_51_to_48_down_to_15_to_12() {
        assert_eq!(AddressFormat::Lpa.encode(PhysAddr::new(0xa_0000_0000_0000)), 0xa000);
        assert_eq!(AddressFormat::Lpa.encode(PhysAddr::new(0xf_ffff_ffff_0000)), 0xffff_ffff_f000);
    }

    #[test]
    fn lpa2_moves_bits_51_to_50_down_to_9_to_8() {
        assert_eq!(AddressFormat::Lpa2.encode(PhysAddr::new(0xc_0000_0000_0000)), 0x300);
        assert_eq!(AddressFormat::Lpa2.encode(PhysAddr::new(0xf_ffff_ffff_f000)), 0x3_ffff_ffff_f300);
        assert_eq!(AddressFormat::Lpa2.mask(), 0x3_ffff_ffff_f300);
    }

    #[test]
    fn every_address_bit_survives_the_round_trip() {
        for (format, low, high) in
            [(AddressFormat::Bits48, 12, 48), (AddressFormat::Lpa, 16, 52), (AddressFormat::Lpa2, 12, 52)]
        {
            for bit in low..high {
                let address = PhysAddr::new(1 << bit);
                assert_eq!(format.encode(address).count_ones(), 1, "{format:?}, bit {bit}");
                assert_eq!(format.decode(format.encode(address)), address, "{format:?}, bit {bit}");
            }
        }
    }
}
