//! One descriptor: the 64-bit word, and what it means.
//!
//! [`Descriptor`] is the word as the hardware sees it. It is decoded once,
//! right after it was read, into a [`Pte`]; everything after that is a
//! `match`. Every word a table can hold is in exactly one state:
//!
//! | state     | bit 0 | meaning                                                  |
//! |-----------|-------|----------------------------------------------------------|
//! | EMPTY     | 0     | nothing; all zero                                        |
//! | ANNOTATED | 0     | a value of the caller's instead of a mapping             |
//! | LOCKED    | 0     | one CPU is between break and make                        |
//! | DEAD      | 0     | the table is on its way out; nothing may be installed    |
//! | LEAF      | 1     | memory: a page or a block                                |
//! | TABLE     | 1     | the next level                                           |
//! | SETTLING  | 1     | a TABLE over a block that TLBs may still hold            |
//!
//! # Encoding
//!
//! LEAF and TABLE are the architecture's (Arm ARM, "VMSAv8-64 translation
//! table format descriptors"). The hardware ignores all but bit 0 of the
//! others, so those bits are ours: 3:1 tell the states apart and 63:12 are a
//! payload. A lock also says in bits 9:4 which CPU took it, and DEAD what a
//! leaf was that may have to come back. Bit 10, where a leaf has its access
//! flag, stays zero in all of them: a lock in that place could be taken for a
//! flag by code that sets or clears flags in bulk.
//!
//! SETTLING is a table or a leaf to the hardware, which ignores bit 55 of both,
//! and a lock to this crate: the bit is set while what was replaced in place
//! is not yet invalidated. A table may take a block's place in this way
//! (FEAT_BBM level 2), and a read-only leaf that of another with the same
//! contents.

use core::fmt;

use crate::addr::{Level, PhysAddr};
use crate::format::Format;
use crate::geometry::Granule;
pub use crate::leaf::Leaf;
use crate::leaf::LeafState;
use crate::sync::{AtomicU64, Ordering, const_fn};

pub(crate) const VALID: u64 = 1 << 0;
/// Tells a table (levels 0 to 2) and a page (level 3) from a block.
pub(crate) const TABLE_OR_PAGE: u64 = 1 << 1;
/// Bits 47:12 hold the address of a table, in every format: there are no
/// tables beyond 48 bits. Where leaves have theirs is up to the format.
const TABLE_ADDRESS: u64 = ((1 << 48) - 1) & !0xfff;

const KIND: u64 = 0b111 << 1;
const KIND_LOCKED: u64 = 0b001 << 1;
const KIND_DEAD: u64 = 0b010 << 1;
const KIND_ANNOTATED: u64 = 0b011 << 1;
const PAYLOAD_SHIFT: u32 = 12;
const PAYLOAD: u64 = u64::MAX << PAYLOAD_SHIFT;
const OWNER_SHIFT: u32 = 4;
const OWNER: u64 = (LOCK_OWNERS as u64 - 1) << OWNER_SHIFT;

/// Where a DEAD entry remembers the state of the leaf that was there.
const STATE_SHIFT: u32 = 4;
const STATE: u64 = (LeafState::MASK as u64) << STATE_SHIFT;

/// How many CPUs can be told apart as owners of a lock.
pub const LOCK_OWNERS: u8 = 64;

/// In a valid descriptor: what it replaced may still be in TLBs.
pub(crate) const SETTLING: u64 = 1 << 55;

/// The 64-bit word in an entry of a table.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Descriptor(pub(crate) u64);

impl Descriptor {
    /// The word that maps nothing and says nothing.
    pub const EMPTY: Self = Self(0);

    /// The word as the hardware sees it.
    #[inline]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether the hardware would use it, and so may have cached it.
    #[inline]
    pub const fn is_valid(self) -> bool {
        self.0 & VALID != 0
    }

    /// A valid descriptor that software must wait for.
    #[inline]
    pub(crate) const fn settling(self) -> Self {
        Self(self.0 | SETTLING)
    }

    /// The same for everybody to use.
    #[inline]
    pub(crate) const fn settled(self) -> Self {
        Self(self.0 & !SETTLING)
    }
}

impl fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Descriptor({:#018x})", self.0)
    }
}

/// A descriptor, decoded for the level it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pte {
    /// Nothing.
    Empty,
    /// A value of the caller's instead of a mapping.
    Annotated(Annotation),
    /// A CPU is changing the entry; it will be something else in a moment.
    Locked,
    /// The table that holds the entry is being removed.
    Dead,
    /// A page or a block.
    Leaf(Leaf),
    /// A table at the next level.
    Table(TableAddr),
    /// A table or leaf that the hardware uses already and software must wait
    /// for: what it replaced is still being invalidated.
    Settling(Successor),
}

/// What has taken the place of another valid descriptor, without a break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Successor {
    /// A table, in place of a block that said the same.
    Table(TableAddr),
    /// A leaf, in place of another with the same contents.
    Leaf(Leaf),
}

impl Pte {
    /// What `descriptor`, read from a table at `level` of a space with this
    /// format, means.
    ///
    /// # Panics
    ///
    /// If it is a word that this crate never writes: then the table was
    /// overwritten by someone else, and no guest may go on using it.
    #[inline(always)]
    pub fn decode(descriptor: Descriptor, level: Level, format: Format) -> Self {
        let bits = descriptor.0;
        match (bits & VALID != 0, bits & TABLE_OR_PAGE != 0, level) {
            (true, true, Level::L3) => Self::decode_leaf(descriptor, level, format),
            (true, true, Level::L0 | Level::L1 | Level::L2) => {
                let table = TableAddr(PhysAddr::new(bits & TABLE_ADDRESS));
                if !table.is_for(format.granule()) {
                    corrupt(descriptor, level)
                } else if descriptor == table.encode() {
                    Self::Table(table)
                } else if descriptor == table.encode_settling() {
                    Self::Settling(Successor::Table(table))
                } else {
                    corrupt(descriptor, level)
                }
            }
            (true, false, Level::L0 | Level::L1 | Level::L2) if format.allows_leaf(level) => {
                Self::decode_leaf(descriptor, level, format)
            }
            (true, false, _) => corrupt(descriptor, level),
            (false, ..) => match bits & KIND {
                0 if bits == 0 => Self::Empty,
                KIND_LOCKED if bits & !(KIND | OWNER | TABLE_ADDRESS) == 0 => Self::Locked,
                KIND_DEAD if bits & !(KIND | TABLE_ADDRESS) == 0 || bits & !(KIND | STATE) == 0 => Self::Dead,
                KIND_ANNOTATED if bits & !(KIND | PAYLOAD) == 0 => {
                    Self::Annotated(Annotation(bits >> PAYLOAD_SHIFT))
                }
                _ => corrupt(descriptor, level),
            },
        }
    }

    #[inline]
    fn decode_leaf(descriptor: Descriptor, level: Level, format: Format) -> Self {
        let leaf = Leaf::decoded(descriptor.settled(), level, format);
        if descriptor == descriptor.settled() {
            Self::Leaf(leaf)
        } else {
            Self::Settling(Successor::Leaf(leaf))
        }
    }
}

#[cold]
pub(crate) fn corrupt(descriptor: Descriptor, level: Level) -> ! {
    panic!("stage 2 table is corrupt: {descriptor:?} at level {}", level.number())
}

/// A value that stands in an entry instead of a mapping: who owns the page,
/// where its contents went, which device answers there.
///
/// The crate keeps it and gives it no meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Annotation(u64);

impl Annotation {
    /// Bits an annotation has room for.
    pub const BITS: u32 = 64 - PAYLOAD_SHIFT;

    /// An annotation with this value; `None` if it needs more than
    /// [`Self::BITS`] bits.
    #[inline]
    pub const fn new(value: u64) -> Option<Self> {
        if value >> Self::BITS == 0 { Some(Self(value)) } else { None }
    }

    /// The value.
    pub const fn value(self) -> u64 {
        self.0
    }

    #[inline]
    pub(crate) const fn encode(self) -> Descriptor {
        Descriptor(self.0 << PAYLOAD_SHIFT | KIND_ANNOTATED)
    }
}

/// The address of a table that is part of a space.
///
/// Made by allocating a table or by decoding a descriptor, and by nothing
/// else: that is what lets [`crate::table`] trust it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableAddr(PhysAddr);

impl TableAddr {
    /// For a table fresh from the allocator; see [`crate::table`].
    ///
    /// # Panics
    ///
    /// If the address can't be spelt in a table descriptor of every format.
    #[inline]
    pub(crate) const fn allocated(address: PhysAddr) -> Self {
        assert!(address.bits() & !TABLE_ADDRESS == 0, "tables are whole pages below 2^48");
        Self(address)
    }

    /// Whether a table of this granule can lie here.
    #[inline]
    const fn is_for(self, granule: Granule) -> bool {
        self.0.is_aligned(granule.page_size())
    }

    /// The table `index` tables further on, within one root.
    #[inline]
    pub(crate) const fn in_root(self, index: usize, granule: Granule) -> Self {
        Self(self.0.plus(index as u64 * granule.page_size()))
    }

    /// Where the table lies.
    #[inline]
    pub const fn address(self) -> PhysAddr {
        self.0
    }

    #[inline]
    pub(crate) const fn encode(self) -> Descriptor {
        Descriptor(self.0.bits() | TABLE_OR_PAGE | VALID)
    }

    /// The descriptor that leads to the table, to be waited for by software
    /// until the invalidation of what was there is complete.
    #[inline]
    pub const fn encode_settling(self) -> Descriptor {
        self.encode().settling()
    }
}

/// LOCKED by the CPU with number `owner`, remembering the table that was
/// there, if one was.
///
/// The lock *owns* what it replaced: its holder finds the table again here.
///
/// # Panics
///
/// If `owner` is not below [`LOCK_OWNERS`].
#[inline]
pub(crate) const fn locked(owner: u8, table: Option<TableAddr>) -> Descriptor {
    assert!(owner < LOCK_OWNERS, "a lock can't name this CPU");
    with_payload(KIND_LOCKED | (owner as u64) << OWNER_SHIFT, table)
}

/// Who holds the lock, if this is one.
#[inline]
pub const fn lock_owner(descriptor: Descriptor) -> Option<u8> {
    if descriptor.0 & (KIND | VALID) == KIND_LOCKED {
        Some(((descriptor.0 & OWNER) >> OWNER_SHIFT) as u8)
    } else {
        None
    }
}

/// DEAD, remembering a table: the child that was there, or the next table in
/// the list of retired ones.
#[inline]
pub(crate) const fn dead(table: Option<TableAddr>) -> Descriptor {
    with_payload(KIND_DEAD, table)
}

/// DEAD, remembering in what state a leaf was that may have to come back.
#[inline]
pub(crate) const fn dead_leaf(state: LeafState) -> Descriptor {
    Descriptor(KIND_DEAD | (state.bits() as u64) << STATE_SHIFT)
}

/// The state that a DEAD entry made by [`dead_leaf`] remembers.
#[inline]
pub(crate) const fn remembered_state(descriptor: Descriptor) -> LeafState {
    LeafState::from_bits(((descriptor.0 & STATE) >> STATE_SHIFT) as u8)
}

#[inline]
const fn with_payload(kind: u64, table: Option<TableAddr>) -> Descriptor {
    match table {
        // A table's address has its low 12 bits clear and is its own payload.
        Some(table) => Descriptor(table.0.bits() | kind),
        None => Descriptor(kind),
    }
}

/// The table that a LOCKED or DEAD descriptor remembers.
///
/// Zero means none. A table at physical address zero is refused when it is
/// allocated, for this reason.
#[inline]
pub(crate) const fn remembered_table(descriptor: Descriptor) -> Option<TableAddr> {
    match descriptor.0 & TABLE_ADDRESS {
        0 => None,
        bits => Some(TableAddr(PhysAddr::new(bits))),
    }
}

/// An entry of a table: a descriptor that other CPUs and the hardware read,
/// and that the hardware may write, at any moment.
#[repr(transparent)]
pub struct AtomicPte(AtomicU64);

impl AtomicPte {
    const_fn! {
        /// An empty entry.
        #[expect(clippy::new_without_default, reason = "an entry exists as part of a table only")]
        #[inline]
        pub fn new() -> Self {
            Self(AtomicU64::new(Descriptor::EMPTY.0))
        }
    }

    /// Reads the entry, once.
    #[inline]
    pub fn load(&self) -> Descriptor {
        // Acquire: pairs with the Release half of the exchange that linked a
        // table, so that whoever sees the link sees the table's contents.
        Descriptor(self.0.load(Ordering::Acquire))
    }

    /// Replaces `old` by `new`; `Err` holds what was there instead.
    ///
    /// Always an exchange, never a plain store: the walker may set the access
    /// flag between our read and our write, and that must not get lost.
    #[inline]
    pub(crate) fn exchange(&self, old: Descriptor, new: Descriptor) -> Result<(), Descriptor> {
        // AcqRel: Release publishes what `new` leads to (see `load`), Acquire
        // orders what follows after a lock that was taken.
        match self.0.compare_exchange(old.0, new.0, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Ok(()),
            Err(found) => Err(Descriptor(found)),
        }
    }

    /// Writes an entry that nobody but the caller may change now, the walker
    /// included.
    #[inline]
    pub(crate) fn replace(&self, new: Descriptor) {
        // Release: publishes what `new` leads to, as `exchange` does.
        self.0.store(new.0, Ordering::Release);
    }

    /// Writes the entry of a table that nobody else can reach.
    #[inline]
    pub(crate) fn fill(&self, new: Descriptor) {
        // Relaxed: the exchange that links the table publishes this.
        self.0.store(new.0, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::{
        Annotation, Descriptor, LOCK_OWNERS, Pte, Successor, TableAddr, dead, lock_owner, locked,
        remembered_table,
    };
    use crate::addr::{Level, PhysAddr};
    use crate::attr::{AF, Attributes};
    use crate::format::Format;
    use crate::geometry::{Geometry, Granule, PaSize};
    use crate::vtcr::Features;

    const LEVELS: [Level; 4] = [Level::L0, Level::L1, Level::L2, Level::L3];

    fn format(granule: Granule, pa_size: PaSize) -> Format {
        Format::new(&Geometry::new(granule, 40, pa_size).unwrap(), Features::BASE)
    }

    /// What `descriptor` is in every format and at every level.
    fn readings(descriptor: Descriptor) -> Vec<Pte> {
        let mut readings = Vec::new();
        for granule in [Granule::Kib4, Granule::Kib16, Granule::Kib64] {
            for pa_size in [PaSize::Bits48, PaSize::Bits52] {
                readings.extend(LEVELS.map(|level| Pte::decode(descriptor, level, format(granule, pa_size))));
            }
        }
        readings
    }

    /// A table where one of any granule may lie.
    fn any_table() -> impl Strategy<Value = TableAddr> {
        (1..1u64 << 32).prop_map(|index| TableAddr::allocated(PhysAddr::new(index << 16)))
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_annotation_reads_back_as_itself_and_nothing_else(value in 0..1u64 << Annotation::BITS) {
            let annotation = Annotation::new(value).unwrap();
            let descriptor = annotation.encode();
            prop_assert!(!descriptor.is_valid());
            prop_assert_eq!(lock_owner(descriptor), None);
            prop_assert_eq!(annotation.value(), value);
            for reading in readings(descriptor) {
                prop_assert_eq!(reading, Pte::Annotated(annotation));
            }
        }

        #[test]
        fn every_lock_names_its_owner_and_remembers_its_table(
            owner in 0..LOCK_OWNERS,
            table in prop::option::of(any_table()),
        ) {
            let descriptor = locked(owner, table);
            prop_assert!(!descriptor.is_valid());
            prop_assert_eq!(lock_owner(descriptor), Some(owner));
            prop_assert_eq!(remembered_table(descriptor), table);
            for reading in readings(descriptor) {
                prop_assert_eq!(reading, Pte::Locked);
            }
        }

        #[test]
        fn every_dead_entry_remembers_its_table(table in prop::option::of(any_table())) {
            let descriptor = dead(table);
            prop_assert!(!descriptor.is_valid());
            prop_assert_eq!(lock_owner(descriptor), None);
            prop_assert_eq!(remembered_table(descriptor), table);
            for reading in readings(descriptor) {
                prop_assert_eq!(reading, Pte::Dead);
            }
        }

        #[test]
        fn every_table_is_a_table_above_level_3_whether_settling_or_not(table in any_table()) {
            for granule in [Granule::Kib4, Granule::Kib16, Granule::Kib64] {
                let format = format(granule, PaSize::Bits52);
                for level in [Level::L0, Level::L1, Level::L2] {
                    prop_assert_eq!(Pte::decode(table.encode(), level, format), Pte::Table(table));
                    let settling = Pte::decode(table.encode_settling(), level, format);
                    prop_assert_eq!(settling, Pte::Settling(Successor::Table(table)));
                }
            }
            prop_assert_eq!(lock_owner(table.encode()), None);
        }
    }

    #[test]
    fn empty_is_zero_at_every_level() {
        assert_eq!(Descriptor::EMPTY.bits(), 0);
        assert!(readings(Descriptor::EMPTY).into_iter().all(|reading| reading == Pte::Empty));
    }

    #[test]
    fn invalid_states_keep_clear_of_the_access_flag() {
        let table = TableAddr::allocated(PhysAddr::new(0xffff_ffff_f000));
        let widest = Annotation::new((1 << Annotation::BITS) - 1).unwrap();
        for descriptor in [locked(LOCK_OWNERS - 1, Some(table)), dead(Some(table)), widest.encode()] {
            assert_eq!(descriptor.bits() & AF, 0, "{descriptor:?}");
        }
    }

    #[test]
    fn annotation_wider_than_its_room_is_refused() {
        assert_eq!(Annotation::new(1 << Annotation::BITS), None);
    }

    #[test]
    #[should_panic(expected = "can't name")]
    fn lock_owner_beyond_its_room_is_refused() {
        let _ = locked(LOCK_OWNERS, None);
    }

    #[test]
    fn table_descriptor_is_its_address_and_0b11() {
        let table = TableAddr::allocated(PhysAddr::new(0x1_0000_1000));
        assert_eq!(table.encode().bits(), 0x1_0000_1003);
    }

    #[test]
    fn settling_table_differs_from_a_table_in_bit_55_only() {
        let table = TableAddr::allocated(PhysAddr::new(0x1_0000_1000));
        assert_eq!(table.encode_settling().bits() ^ table.encode().bits(), 1 << 55);
    }

    #[test]
    fn settling_leaf_differs_from_a_leaf_in_bit_55_only() {
        let format = format(Granule::Kib4, PaSize::Bits48);
        for level in [Level::L1, Level::L2, Level::L3] {
            let leaf = format.leaf(level, PhysAddr::new(0x4000_0000), Attributes::RAM).unwrap();
            let settling = leaf.encode().settling();
            assert_eq!(settling.bits() ^ leaf.encode().bits(), 1 << 55);
            assert_eq!(Pte::decode(settling, level, format), Pte::Settling(Successor::Leaf(leaf)));
            assert_eq!(Pte::decode(settling.settled(), level, format), Pte::Leaf(leaf));
        }
    }

    #[test]
    #[should_panic(expected = "below 2^48")]
    fn table_beyond_48_bits_is_refused() {
        let _ = TableAddr::allocated(PhysAddr::new(1 << 48));
    }

    #[test]
    fn tables_of_a_root_lie_one_page_apart() {
        let root = TableAddr::allocated(PhysAddr::new(0x1_0000_0000));
        assert_eq!(root.in_root(3, Granule::Kib4).address(), PhysAddr::new(0x1_0000_3000));
        assert_eq!(root.in_root(3, Granule::Kib64).address(), PhysAddr::new(0x1_0003_0000));
    }

    #[test]
    #[should_panic(expected = "corrupt")]
    fn table_that_is_not_aligned_for_its_granule_is_corruption() {
        // With 64 KiB pages, bit 12 is bit 48 of the address.
        let table = TableAddr::allocated(PhysAddr::new(0x1_0000_1000));
        let _ = Pte::decode(table.encode(), Level::L2, format(Granule::Kib64, PaSize::Bits52));
    }

    #[test]
    fn stray_bit_in_any_state_is_corruption() {
        let table = TableAddr::allocated(PhysAddr::new(0x1000));
        let annotation = Annotation::new(1).unwrap();
        for (descriptor, bits) in [
            (table.encode(), [2, 10, 48, 60]),
            (locked(0, Some(table)), [10, 11, 48, 63]),
            (dead(Some(table)), [4, 11, 48, 63]),
            (annotation.encode(), [4, 9, 10, 11]),
        ] {
            for bit in bits {
                let stray = Descriptor(descriptor.0 | 1 << bit);
                let format = format(Granule::Kib4, PaSize::Bits48);
                let reading = std::panic::catch_unwind(|| Pte::decode(stray, Level::L2, format));
                assert!(reading.is_err(), "{stray:?} reads as {reading:?}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "corrupt")]
    fn level_0_block_without_lpa2_is_corruption() {
        let _ = Pte::decode(Descriptor(0x4000_0401), Level::L0, format(Granule::Kib4, PaSize::Bits48));
    }

    #[test]
    #[should_panic(expected = "corrupt")]
    fn block_at_level_3_is_corruption() {
        let _ = Pte::decode(Descriptor(0x4000_0401), Level::L3, format(Granule::Kib4, PaSize::Bits48));
    }

    #[test]
    #[should_panic(expected = "corrupt")]
    fn invalid_word_of_no_kind_is_corruption() {
        let _ = Pte::decode(Descriptor(0x4000_0000), Level::L2, format(Granule::Kib4, PaSize::Bits48));
    }
}
