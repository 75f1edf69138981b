//! A set of vCPUs of one VM.

/// vCPUs one VM can have: the most that a GICv2 distributor can address.
pub const MAX_VCPUS: usize = 8;

/// Some of a VM's vCPUs, by index. Returned by whatever changes what a vCPU
/// has pending, so that the caller cannot forget to make them look.
#[must_use = "the vCPUs in this set have something to look at: kick them"]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VcpuSet(u8);

impl VcpuSet {
    /// No vCPU.
    pub const EMPTY: Self = Self(0);

    /// Just vCPU `index`.
    pub const fn one(index: usize) -> Self {
        Self(1 << index)
    }

    /// The vCPUs whose bits are set in `bits`.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// One bit per vCPU.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether no vCPU is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether vCPU `index` is in the set.
    pub const fn contains(self, index: usize) -> bool {
        self.0 >> index & 1 != 0
    }

    /// Everything in either set.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without vCPU `index`.
    pub const fn without(self, index: usize) -> Self {
        Self(self.0 & !(1 << index))
    }

    /// The indices in the set, ascending.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..MAX_VCPUS).filter(move |&index| self.contains(index))
    }
}
