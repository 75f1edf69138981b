//! What a mapping allows and how its memory behaves, and how a descriptor
//! spells that.
//!
//! [`Attributes`] are a memory type and [`Permissions`]. The two are kept
//! apart because they change by different rules: permissions of a live
//! mapping may be rewritten in place, its memory type only by
//! [break-before-make](crate::bbm). Every value is an enum, so there is no
//! way to combine two encodings into a third by accident.
//!
//! # Encoding
//!
//! Lower attributes of a stage 2 block or page descriptor (Arm ARM,
//! "Stage 2 memory region attributes" and "Stage 2 data accesses"):
//!
//! | bits  | field   | here                                             |
//! |-------|---------|--------------------------------------------------|
//! | 5:2   | MemAttr | [`MemoryType`], spelled by [`Fwb`]               |
//! | 7:6   | S2AP    | [`Access`]: bit 6 read, bit 7 write              |
//! | 9:8   | SH      | always inner shareable                           |
//! | 10    | AF      | set: the mapping counts as used                  |
//! | 51    | DBM     | clear until dirty state is tracked               |
//! | 52    | Contig  | clear: entries are never fused                   |
//! | 54:53 | XN      | [`Execute`]: 00 may, 10 never                    |
//! | 58:55 |         | ours, carried along                              |
//!
//! Bit 53 belongs to FEAT_XNX. 00 and 10 mean the same with and without it.
//!
//! The hardware treats Device and Normal Non-cacheable memory as outer
//! shareable whatever SH says, so one value serves all types. It must be at
//! least inner shareable for write-back memory: with non-shareable, a vCPU
//! that moves to another CPU sees stale data.

/// How accesses to the memory behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemoryType {
    /// RAM, write-back cacheable. Without [`Fwb::On`] a guest may still make
    /// it less cacheable with its own tables or by turning its MMU off.
    NormalWriteBack,
    /// RAM that is not cached: buffers of devices that do not snoop.
    NormalNonCacheable,
    /// Registers of a device; a write may be acknowledged early.
    DeviceNGnRE,
    /// Registers of a device; a write is acknowledged by the device itself.
    DeviceNGnRnE,
}

/// Whether HCR_EL2.FWB is set, which changes what MemAttr means.
///
/// With FEAT_S2FWB stage 2 can *force* write-back; without it the weaker of
/// the two stages wins. The setting is one for a whole space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fwb {
    /// Stage 1 and stage 2 types are combined.
    Off,
    /// Stage 2 decides.
    On,
}

/// Which data accesses are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// None: mapped, but every access is a permission fault.
    None,
    /// Loads.
    ReadOnly,
    /// Stores.
    WriteOnly,
    /// Loads and stores.
    ReadWrite,
}

/// Whether instructions may be fetched. A fetch also needs read access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Execute {
    /// Never.
    Never,
    /// At EL1 and at EL0.
    Allowed,
}

/// What a guest may do with the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Permissions {
    /// Data accesses.
    pub access: Access,
    /// Instruction fetches.
    pub execute: Execute,
}

impl Permissions {
    /// Everything.
    pub const ALL: Self = Self { access: Access::ReadWrite, execute: Execute::Allowed };
    /// Loads and stores.
    pub const READ_WRITE: Self = Self { access: Access::ReadWrite, execute: Execute::Never };
    /// Loads and fetches.
    pub const READ_EXECUTE: Self = Self { access: Access::ReadOnly, execute: Execute::Allowed };
    /// Loads.
    pub const READ_ONLY: Self = Self { access: Access::ReadOnly, execute: Execute::Never };
    /// Nothing.
    pub const NONE: Self = Self { access: Access::None, execute: Execute::Never };
}

/// All that a mapping says about its memory besides where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// How accesses behave.
    pub memory: MemoryType,
    /// Which accesses are allowed.
    pub permissions: Permissions,
}

impl Attributes {
    /// A guest's RAM: write-back, everything allowed.
    pub const RAM: Self = Self { memory: MemoryType::NormalWriteBack, permissions: Permissions::ALL };
    /// A device's registers: nGnRE, never executable.
    pub const DEVICE: Self = Self { memory: MemoryType::DeviceNGnRE, permissions: Permissions::READ_WRITE };
}

pub(crate) const MEMATTR_SHIFT: u32 = 2;
pub(crate) const MEMATTR: u64 = 0b1111 << MEMATTR_SHIFT;
const S2AP_READ: u64 = 1 << 6;
const S2AP_WRITE: u64 = 1 << 7;
const SH_INNER: u64 = 0b11 << 8;
pub(crate) const AF: u64 = 1 << 10;
pub(crate) const DBM: u64 = 1 << 51;
pub(crate) const CONTIGUOUS: u64 = 1 << 52;
const XN: u64 = 1 << 54;
const XN_FIELD: u64 = 0b11 << 53;
pub(crate) const SOFTWARE: u64 = 0b1111 << 55;

/// The bits that [`Permissions`] decide.
pub(crate) const PERMISSIONS: u64 = S2AP_READ | S2AP_WRITE | XN_FIELD;

impl MemoryType {
    /// MemAttr in its place.
    #[inline]
    const fn encode(self, fwb: Fwb) -> u64 {
        let memattr = match (self, fwb) {
            // The only one that differs: outer and inner write-back, or "force
            // write-back".
            (Self::NormalWriteBack, Fwb::Off) => 0b1111,
            (Self::NormalWriteBack, Fwb::On) => 0b0110,
            (Self::NormalNonCacheable, _) => 0b0101,
            (Self::DeviceNGnRE, _) => 0b0001,
            (Self::DeviceNGnRnE, _) => 0b0000,
        };
        memattr << MEMATTR_SHIFT
    }

    /// The type that these descriptor bits spell, if it is one of ours.
    #[inline]
    const fn decode(bits: u64, fwb: Fwb) -> Option<Self> {
        match ((bits & MEMATTR) >> MEMATTR_SHIFT, fwb) {
            (0b1111, Fwb::Off) | (0b0110, Fwb::On) => Some(Self::NormalWriteBack),
            (0b0101, _) => Some(Self::NormalNonCacheable),
            (0b0001, _) => Some(Self::DeviceNGnRE),
            (0b0000, _) => Some(Self::DeviceNGnRnE),
            _ => None,
        }
    }
}

impl Permissions {
    /// S2AP and XN in their places.
    #[inline]
    pub(crate) const fn encode(self) -> u64 {
        let access = match self.access {
            Access::None => 0,
            Access::ReadOnly => S2AP_READ,
            Access::WriteOnly => S2AP_WRITE,
            Access::ReadWrite => S2AP_READ | S2AP_WRITE,
        };
        let execute = match self.execute {
            Execute::Never => XN,
            Execute::Allowed => 0,
        };
        access | execute
    }

    /// The permissions that these descriptor bits spell.
    #[inline]
    const fn decode(bits: u64) -> Self {
        let access = match (bits & S2AP_READ != 0, bits & S2AP_WRITE != 0) {
            (false, false) => Access::None,
            (true, false) => Access::ReadOnly,
            (false, true) => Access::WriteOnly,
            (true, true) => Access::ReadWrite,
        };
        let execute = if bits & XN == 0 { Execute::Allowed } else { Execute::Never };
        Self { access, execute }
    }
}

impl Attributes {
    /// All attribute bits of a new leaf. AF is set: whoever maps memory is
    /// about to use it, and a first access must not cost a fault.
    #[inline]
    pub(crate) const fn encode(self, fwb: Fwb) -> u64 {
        self.memory.encode(fwb) | self.permissions.encode() | SH_INNER | AF
    }

    /// What the attribute bits of a leaf spell, if this crate wrote them.
    #[inline]
    pub(crate) const fn decode(bits: u64, fwb: Fwb) -> Option<Self> {
        match MemoryType::decode(bits, fwb) {
            Some(memory) => Some(Self { memory, permissions: Permissions::decode(bits) }),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Access, Attributes, Execute, Fwb, MemoryType, Permissions};

    const TYPES: [MemoryType; 4] = [
        MemoryType::NormalWriteBack,
        MemoryType::NormalNonCacheable,
        MemoryType::DeviceNGnRE,
        MemoryType::DeviceNGnRnE,
    ];
    const ACCESSES: [Access; 4] = [Access::None, Access::ReadOnly, Access::WriteOnly, Access::ReadWrite];

    #[test]
    fn every_combination_survives_the_round_trip() {
        for fwb in [Fwb::Off, Fwb::On] {
            for memory in TYPES {
                for access in ACCESSES {
                    for execute in [Execute::Never, Execute::Allowed] {
                        let attributes = Attributes { memory, permissions: Permissions { access, execute } };
                        assert_eq!(Attributes::decode(attributes.encode(fwb), fwb), Some(attributes));
                    }
                }
            }
        }
    }

    #[test]
    fn write_back_of_the_other_fwb_setting_is_not_recognised() {
        let forced = Attributes::RAM.encode(Fwb::On);
        assert_eq!(Attributes::decode(forced, Fwb::Off), None);
        let combined = Attributes::RAM.encode(Fwb::Off);
        assert_eq!(Attributes::decode(combined, Fwb::On), None);
    }
}
