//! Addresses as types, so that a guest's address can't be used where the
//! machine's is meant.
//!
//! [`Ipa`] is what stage 2 translates *from*: the address a guest believes to
//! be physical. [`PhysAddr`] is what it translates *to*. Neither converts into
//! the other, and neither comes from a plain integer without a check. The
//! single place where a [`PhysAddr`] becomes something that can be read is
//! [`TableMemory::resolve`](crate::table::TableMemory::resolve).
//!
//! [`IpaRange`] is half open, never empty and never wraps, so the code that
//! walks one has no corner cases left to think about. [`Level`] numbers the
//! steps of a walk as the architecture does: the last is 3.

use core::fmt;

/// Widest address either type can hold, in bits.
///
/// No space is this wide: the widest has 52 bits. The room above lets the
/// exclusive end of a range at the very top be an address as well, even if the
/// range is what a whole level 0 table of 16 KiB pages could translate.
pub const ADDRESS_BITS: u32 = 60;

/// Gives an address type its checked constructors and its arithmetic.
///
/// Both address types need the same few functions and nothing that mixes the
/// two, which is why this is a macro and not a trait over both.
macro_rules! address_type {
    ($name:ident) => {
        impl $name {
            /// The address with this value; for constants.
            ///
            /// # Panics
            ///
            /// If the value needs more than [`ADDRESS_BITS`] bits. Use
            /// [`Self::try_new`] for anything a guest or a file chose.
            #[inline]
            pub const fn new(bits: u64) -> Self {
                match Self::try_new(bits) {
                    Some(address) => address,
                    None => panic!("an address has at most 60 bits"),
                }
            }

            /// The address with this value, or `None` if it needs more than
            /// [`ADDRESS_BITS`] bits.
            #[inline]
            pub const fn try_new(bits: u64) -> Option<Self> {
                if bits >> ADDRESS_BITS == 0 { Some(Self(bits)) } else { None }
            }

            /// The address as a number, for registers and descriptors.
            #[inline]
            pub const fn bits(self) -> u64 {
                self.0
            }

            /// Whether the address is a multiple of `size`, a power of two.
            #[inline]
            pub const fn is_aligned(self, size: u64) -> bool {
                self.0 & (size - 1) == 0
            }

            /// The nearest multiple of `size`, a power of two, at or below.
            #[inline]
            pub const fn align_down(self, size: u64) -> Self {
                Self(self.0 & !(size - 1))
            }

            /// The address `offset` bytes further up, if there is one.
            #[inline]
            pub const fn checked_add(self, offset: u64) -> Option<Self> {
                match self.0.checked_add(offset) {
                    Some(bits) => Self::try_new(bits),
                    None => None,
                }
            }

            /// How many bytes this address lies above `base`, if it does.
            #[inline]
            pub const fn offset_from(self, base: Self) -> Option<u64> {
                self.0.checked_sub(base.0)
            }

            /// The address `offset` bytes further up, for offsets that stay
            /// within a space whose size was checked when it was made.
            #[inline]
            pub(crate) const fn plus(self, offset: u64) -> Self {
                Self(self.0 + offset)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:#x})", stringify!($name), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

/// An intermediate physical address: physical in the guest's eyes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ipa(u64);
address_type!(Ipa);

/// A physical address of the machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhysAddr(u64);
address_type!(PhysAddr);

/// A half-open range of intermediate physical addresses, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpaRange {
    start: Ipa,
    end: Ipa,
}

impl IpaRange {
    /// The `size` bytes from `start`; `None` if there are none or they do not
    /// fit below the largest address.
    #[inline]
    pub const fn new(start: Ipa, size: u64) -> Option<Self> {
        match start.checked_add(size) {
            Some(end) if size != 0 => Some(Self { start, end }),
            _ => None,
        }
    }

    /// The bytes from `start` up to but not including `end`; `None` if there
    /// are none.
    #[inline]
    pub const fn between(start: Ipa, end: Ipa) -> Option<Self> {
        if start.0 < end.0 { Some(Self { start, end }) } else { None }
    }

    /// The `size` bytes that an entry or a table at `start` translates: known
    /// not to be empty and to end within the space.
    #[inline]
    pub(crate) const fn of_entry(start: Ipa, size: u64) -> Self {
        Self { start, end: start.plus(size) }
    }

    /// The first address.
    #[inline]
    pub const fn start(self) -> Ipa {
        self.start
    }

    /// One past the last address.
    #[inline]
    pub const fn end(self) -> Ipa {
        self.end
    }

    /// The number of bytes, at least one.
    #[inline]
    pub const fn size(self) -> u64 {
        self.end.0 - self.start.0
    }

    /// Whether `ipa` lies inside.
    #[inline]
    pub const fn contains(self, ipa: Ipa) -> bool {
        self.start.0 <= ipa.0 && ipa.0 < self.end.0
    }

    /// Whether every address of `other` lies inside.
    #[inline]
    pub const fn covers(self, other: Self) -> bool {
        self.start.0 <= other.start.0 && other.end.0 <= self.end.0
    }

    /// The smallest range that covers both.
    pub fn hull(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }

    /// The addresses that both ranges have, if any.
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::between(self.start.max(other.start), self.end.min(other.end))
    }
}

impl fmt::Display for IpaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

/// A level of lookup: 0 is nearest the root, 3 holds pages.
///
/// The architecture has a level -1 as well. It serves stage 1 only: at stage 2,
/// sixteen tables side by side at level 0 translate all of 52 bits.
///
/// Not ordered on purpose: "greater" would be read as both "larger entries"
/// and "larger number".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// 512 GiB to an entry with 4 KiB pages, 128 TiB with 16 KiB pages; does
    /// not exist with 64 KiB pages.
    L0,
    /// 1 GiB, 64 GiB or 4 TiB to an entry, by the size of pages.
    L1,
    /// 2 MiB, 32 MiB or 512 MiB to an entry.
    L2,
    /// One page to an entry.
    L3,
}

impl Level {
    /// How many there are.
    pub(crate) const COUNT: usize = 4;

    /// The architecture's number, which is also the one in a level hint.
    #[inline]
    pub const fn number(self) -> u32 {
        match self {
            Self::L0 => 0,
            Self::L1 => 1,
            Self::L2 => 2,
            Self::L3 => 3,
        }
    }

    /// The level that a table descriptor at this one leads to.
    #[inline]
    pub const fn next(self) -> Option<Self> {
        match self {
            Self::L0 => Some(Self::L1),
            Self::L1 => Some(Self::L2),
            Self::L2 => Some(Self::L3),
            Self::L3 => None,
        }
    }

    /// The level whose table descriptors lead to this one.
    #[inline]
    pub const fn previous(self) -> Option<Self> {
        match self {
            Self::L0 => None,
            Self::L1 => Some(Self::L0),
            Self::L2 => Some(Self::L1),
            Self::L3 => Some(Self::L2),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
mod tests {
    use super::{ADDRESS_BITS, Ipa, IpaRange, Level, PhysAddr};

    const TOP: u64 = (1 << ADDRESS_BITS) - 1;

    #[test]
    fn address_holds_60_bits_and_no_more() {
        assert_eq!(Ipa::try_new(TOP).map(Ipa::bits), Some(TOP));
        assert_eq!(Ipa::try_new(TOP + 1), None);
        assert_eq!(PhysAddr::try_new(u64::MAX), None);
    }

    #[test]
    fn addition_never_leaves_the_type() {
        assert_eq!(Ipa::new(TOP).checked_add(1), None);
        assert_eq!(Ipa::new(TOP).checked_add(u64::MAX), None);
        assert_eq!(Ipa::new(0x1000).checked_add(0x234), Some(Ipa::new(0x1234)));
    }

    #[test]
    fn alignment_rounds_towards_zero() {
        assert_eq!(PhysAddr::new(0x1fff).align_down(0x1000), PhysAddr::new(0x1000));
        assert!(!PhysAddr::new(0x1800).is_aligned(0x1000));
    }

    #[test]
    fn range_is_never_empty() {
        assert_eq!(IpaRange::new(Ipa::new(0x1000), 0), None);
        assert_eq!(IpaRange::between(Ipa::new(0x1000), Ipa::new(0x1000)), None);
    }

    #[test]
    fn range_never_wraps() {
        assert_eq!(IpaRange::new(Ipa::new(TOP), 2), None);
        assert_eq!(IpaRange::new(Ipa::new(0x1000), u64::MAX), None);
    }

    #[test]
    fn range_excludes_its_end() {
        let range = IpaRange::new(Ipa::new(0x1000), 0x1000).unwrap();
        assert!(range.contains(Ipa::new(0x1fff)));
        assert!(!range.contains(Ipa::new(0x2000)));
    }

    #[test]
    fn hull_covers_the_gap_as_well() {
        let low = IpaRange::new(Ipa::new(0), 0x1000).unwrap();
        let high = IpaRange::new(Ipa::new(0x3000), 0x1000).unwrap();
        assert_eq!(high.hull(low), IpaRange::new(Ipa::new(0), 0x4000).unwrap());
    }

    #[test]
    fn next_and_previous_level_undo_each_other() {
        for level in [Level::L0, Level::L1, Level::L2] {
            assert_eq!(level.next().and_then(Level::previous), Some(level));
        }
        assert_eq!((Level::L0.previous(), Level::L3.next()), (None, None));
    }

    #[test]
    fn ranges_that_only_touch_do_not_intersect() {
        let low = IpaRange::new(Ipa::new(0), 0x1000).unwrap();
        let high = IpaRange::new(Ipa::new(0x1000), 0x1000).unwrap();
        assert_eq!(low.intersection(high), None);
    }
}
