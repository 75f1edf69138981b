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
//! Attributes of a stage 2 block or page descriptor (Arm ARM, "Stage 2 memory
//! region attributes" and "Stage 2 data accesses"), in the spelling of a
//! [`Format`]:
//!
//! | bits  | field   | here                                                   |
//! |-------|---------|--------------------------------------------------------|
//! | 5:2   | MemAttr | [`MemoryType`], which [`Fwb`] decides how to spell     |
//! | 7:6   | S2AP    | [`Access`]: bit 6 read, bit 7 write                    |
//! | 9:8   | SH      | inner shareable; address bits with FEAT_LPA2           |
//! | 10    | AF      | the mapping was used; new leaves have it set           |
//! | 51    | DBM     | a clean leaf, with [`DirtyState::Hardware`]            |
//! | 52    | Contig  | part of a contiguous set                               |
//! | 54:53 | XN      | [`Execute`]; bit 53 with FEAT_XNX only                 |
//! | 55    |         | ours: what this replaced is still being invalidated    |
//! | 57:56 |         | ours: the [`Generation`](crate::Generation)            |
//! | 58    |         | ours: a clean leaf, with [`DirtyState::WriteProtect`]  |
//!
//! The hardware treats Device and Normal Non-cacheable memory as outer
//! shareable whatever SH says, so one value serves all types. It must be at
//! least inner shareable for write-back memory: with non-shareable, a vCPU
//! that moves to another CPU sees stale data. With FEAT_LPA2 the value comes
//! from VTCR_EL2.SH0, which says the same.
//!
//! # Writable, and written to
//!
//! Bit 7 says two things at once when the writes to a leaf are tracked: a leaf
//! that may be written to, but has not been since somebody last asked, is
//! *clean* and has the bit clear. A mark, DBM or a bit of ours, tells it from
//! a leaf that may not be written to. With DBM the walker sets bit 7 when the
//! guest writes; with our mark the write faults, and software does the same.
//! [`Permissions`] mean what is allowed: a clean leaf counts as writable there.

use crate::format::{AddressFormat, Format};
use crate::vtcr::{DirtyState, Xnx};

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

/// Whether instructions may be fetched. This does not depend on [`Access`]: in
/// AArch64, memory may be executed that can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Execute {
    /// Never.
    Never,
    /// At EL1 and at EL0.
    Allowed,
    /// At EL1 only; needs FEAT_XNX.
    PrivilegedOnly,
    /// At EL0 only; needs FEAT_XNX.
    UnprivilegedOnly,
}

/// What is known of writes to the memory of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dirty {
    /// Writes are not allowed.
    ReadOnly,
    /// Writes are allowed and tracked, and there was none since the leaf was
    /// [cleaned](crate::Leaf::cleaned).
    Clean,
    /// There was a write, or there may have been.
    Dirty,
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
pub(crate) const S2AP_WRITE: u64 = 1 << 7;
const SH_INNER: u64 = 0b11 << 8;
pub(crate) const AF: u64 = 1 << 10;
pub(crate) const DBM: u64 = 1 << 51;
pub(crate) const CONTIGUOUS: u64 = 1 << 52;
const XN_SHIFT: u32 = 53;
const XN: u64 = 0b11 << XN_SHIFT;
/// How many passes in a row have found the leaf old.
pub(crate) const GENERATION_SHIFT: u32 = 56;
pub(crate) const GENERATION: u64 = 0b11 << GENERATION_SHIFT;
/// The bits that the hardware leaves to software: [`GENERATION`] and
/// [`WRITABLE`].
pub(crate) const SOFTWARE: u64 = 0b1111 << 55;
/// What DBM says, where the hardware must not act on it.
const WRITABLE: u64 = 1 << 58;

/// The bits that [`Permissions`] decide.
pub(crate) const PERMISSIONS: u64 = S2AP_READ | S2AP_WRITE | XN;

/// The bit that tells a clean leaf from one that may not be written to.
#[inline]
pub(crate) const fn clean_mark(dirty: DirtyState) -> u64 {
    match dirty {
        DirtyState::WriteProtect => WRITABLE,
        DirtyState::Hardware => DBM,
    }
}

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

impl Access {
    /// Whether stores are allowed.
    #[inline]
    pub const fn allows_writing(self) -> bool {
        matches!(self, Self::WriteOnly | Self::ReadWrite)
    }

    /// What either of them allows.
    const fn union(self, other: Self) -> Self {
        match (self, other) {
            (Self::None, access) | (access, Self::None) => access,
            (Self::ReadOnly, Self::ReadOnly) => Self::ReadOnly,
            (Self::WriteOnly, Self::WriteOnly) => Self::WriteOnly,
            _ => Self::ReadWrite,
        }
    }

    #[inline]
    const fn encode(self) -> u64 {
        match self {
            Self::None => 0,
            Self::ReadOnly => S2AP_READ,
            Self::WriteOnly => S2AP_WRITE,
            Self::ReadWrite => S2AP_READ | S2AP_WRITE,
        }
    }

    #[inline]
    const fn decode(bits: u64, dirty: DirtyState) -> Self {
        match (bits & S2AP_READ != 0, bits & (S2AP_WRITE | clean_mark(dirty)) != 0) {
            (false, false) => Self::None,
            (true, false) => Self::ReadOnly,
            (false, true) => Self::WriteOnly,
            (true, true) => Self::ReadWrite,
        }
    }
}

impl Execute {
    /// What either of them allows.
    const fn union(self, other: Self) -> Self {
        match (self, other) {
            (Self::Never, execute) | (execute, Self::Never) => execute,
            (Self::PrivilegedOnly, Self::PrivilegedOnly) => Self::PrivilegedOnly,
            (Self::UnprivilegedOnly, Self::UnprivilegedOnly) => Self::UnprivilegedOnly,
            _ => Self::Allowed,
        }
    }

    /// XN in its place.
    ///
    /// # Panics
    ///
    /// If it takes FEAT_XNX and there is none: CPUs without it would ignore
    /// bit 53 and allow, or forbid, execution at both levels.
    #[inline]
    const fn encode(self, xnx: Xnx) -> u64 {
        let xn: u64 = match (self, xnx) {
            (Self::Allowed, _) => 0b00,
            (Self::UnprivilegedOnly, Xnx::Present) => 0b01,
            (Self::Never, _) => 0b10,
            (Self::PrivilegedOnly, Xnx::Present) => 0b11,
            (Self::PrivilegedOnly | Self::UnprivilegedOnly, Xnx::Absent) => {
                panic!("EL0 and EL1 can't be told apart without FEAT_XNX")
            }
        };
        xn << XN_SHIFT
    }

    /// What these descriptor bits spell, if it is one of ours.
    #[inline]
    const fn decode(bits: u64, xnx: Xnx) -> Option<Self> {
        match ((bits & XN) >> XN_SHIFT, xnx) {
            (0b00, _) => Some(Self::Allowed),
            (0b01, Xnx::Present) => Some(Self::UnprivilegedOnly),
            (0b10, _) => Some(Self::Never),
            (0b11, Xnx::Present) => Some(Self::PrivilegedOnly),
            _ => None,
        }
    }
}

impl Permissions {
    /// What either of them allows.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self { access: self.access.union(other.access), execute: self.execute.union(other.execute) }
    }

    /// S2AP and XN in their places, for a leaf that is not clean.
    #[inline]
    pub(crate) const fn encode(self, xnx: Xnx) -> u64 {
        self.access.encode() | self.execute.encode(xnx)
    }
}

impl Attributes {
    /// All attribute bits of a new leaf. AF is set: whoever maps memory is
    /// about to use it, and a first access must not cost a fault.
    #[inline]
    pub(crate) const fn encode(self, format: Format) -> u64 {
        let shareability = match format.addresses() {
            AddressFormat::Bits48 | AddressFormat::Lpa => SH_INNER,
            AddressFormat::Lpa2 => 0,
        };
        self.memory.encode(format.fwb()) | self.permissions.encode(format.xnx()) | shareability | AF
    }

    /// What the attribute bits of a leaf spell, if this crate wrote them.
    #[inline]
    pub(crate) const fn decode(bits: u64, format: Format) -> Option<Self> {
        let access = Access::decode(bits, format.dirty_state());
        match (MemoryType::decode(bits, format.fwb()), Execute::decode(bits, format.xnx())) {
            (Some(memory), Some(execute)) => {
                Some(Self { memory, permissions: Permissions { access, execute } })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Access, Execute, Fwb, MemoryType};
    use crate::vtcr::{DirtyState, Xnx};

    // Whole leaves in every format are compared with the manual, and go round
    // and back, in `tests/suite/encoding.rs`.

    #[test]
    fn write_back_of_the_other_fwb_setting_is_not_recognised() {
        let memory = MemoryType::NormalWriteBack;
        assert_eq!(MemoryType::decode(memory.encode(Fwb::On), Fwb::Off), None);
        assert_eq!(MemoryType::decode(memory.encode(Fwb::Off), Fwb::On), None);
    }

    #[test]
    fn execution_at_one_level_is_not_recognised_without_xnx() {
        for execute in [Execute::PrivilegedOnly, Execute::UnprivilegedOnly] {
            assert_eq!(Execute::decode(execute.encode(Xnx::Present), Xnx::Absent), None);
        }
    }

    #[test]
    #[should_panic(expected = "without FEAT_XNX")]
    fn execution_at_one_level_is_never_written_without_xnx() {
        let _ = Execute::PrivilegedOnly.encode(Xnx::Absent);
    }

    #[test]
    fn union_allows_what_either_allows_and_no_more() {
        let accesses = [Access::None, Access::ReadOnly, Access::WriteOnly, Access::ReadWrite];
        for one in accesses {
            for other in accesses {
                assert_eq!(one.union(other).encode(), one.encode() | other.encode());
            }
        }
        let at = |execute| match execute {
            Execute::Never => 0b00,
            Execute::UnprivilegedOnly => 0b01,
            Execute::PrivilegedOnly => 0b10,
            Execute::Allowed => 0b11,
        };
        let executes = [Execute::Never, Execute::UnprivilegedOnly, Execute::PrivilegedOnly, Execute::Allowed];
        for one in executes {
            for other in executes {
                assert_eq!(at(one.union(other)), at(one) | at(other));
            }
        }
    }

    #[test]
    fn mark_of_a_clean_leaf_counts_as_permission_to_write() {
        for dirty in [DirtyState::WriteProtect, DirtyState::Hardware] {
            let read = Access::ReadOnly.encode();
            assert_eq!(Access::decode(read | super::clean_mark(dirty), dirty), Access::ReadWrite);
            assert_eq!(Access::decode(read, dirty), Access::ReadOnly);
        }
    }
}
