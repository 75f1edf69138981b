//! Leaves: what a page or block descriptor says, and how it may be changed.
//!
//! A [`Leaf`] is the word itself together with the level and the
//! [`Format`] it is to be read in. Nothing is unpacked: most of what
//! is done to a leaf concerns one or two bits, and the others must come
//! through untouched, since access flag, dirty state and software bits live in
//! the same word and must not get lost.
//!
//! The functions here only compute. To store the result is for
//! [`crate::bbm`], which knows what takes a break.

use core::fmt;

use crate::addr::{Level, PhysAddr};
use crate::age::Generation;
use crate::attr::{self, Attributes, Dirty, Permissions};
use crate::format::Format;
use crate::pte::{Descriptor, SETTLING, TABLE_OR_PAGE, VALID, corrupt};

/// A page or block descriptor, at the level it belongs to.
///
/// Changes keep every bit that they are not about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Leaf {
    bits: u64,
    level: Level,
    format: Format,
}

impl Leaf {
    /// A leaf for `level`; the caller has checked what [`Format::leaf`] checks.
    #[inline]
    pub(crate) const fn new(level: Level, output: PhysAddr, attributes: Attributes, format: Format) -> Self {
        let kind = kind(level);
        let bits = format.addresses().encode(output) | attributes.encode(format) | kind | VALID;
        Self { bits, level, format }
    }

    /// The leaf that `descriptor` was found to be.
    #[inline]
    pub(crate) const fn decoded(descriptor: Descriptor, level: Level, format: Format) -> Self {
        Self { bits: descriptor.bits(), level, format }
    }

    /// The leaf that `descriptor` is at a glance: if it is one, stands for itself
    /// and is settled. What is `None` here may still be a leaf, in a contiguous
    /// set.
    #[inline]
    pub(crate) fn at_a_glance(descriptor: Descriptor, level: Level, format: Format) -> Option<Self> {
        let marks = descriptor.bits() & (VALID | TABLE_OR_PAGE | attr::CONTIGUOUS | SETTLING);
        (marks == VALID | kind(level)).then_some(Self::decoded(descriptor, level, format))
    }

    /// The level the leaf is for, which decides its size.
    #[inline]
    pub const fn level(self) -> Level {
        self.level
    }

    /// Where the memory starts.
    #[inline]
    pub const fn output(self) -> PhysAddr {
        self.format.addresses().decode(self.bits)
    }

    /// How the word is spelt.
    #[inline]
    pub const fn format(self) -> Format {
        self.format
    }

    /// The memory type and permissions. What may be written to counts as
    /// writable even while the hardware does not let it pass, because the leaf
    /// is [clean](Dirty::Clean).
    ///
    /// # Panics
    ///
    /// If the word has attributes that this crate never writes.
    #[inline]
    pub fn attributes(self) -> Attributes {
        match Attributes::decode(self.bits, self.format) {
            Some(attributes) => attributes,
            None => corrupt(self.encode(), self.level),
        }
    }

    /// Whether the access flag is set.
    #[inline]
    pub const fn is_young(self) -> bool {
        self.bits & attr::AF != 0
    }

    /// The same mapping, used.
    #[must_use]
    #[inline]
    pub const fn young(self) -> Self {
        Self { bits: self.bits | attr::AF, ..self }
    }

    /// The same mapping, not used since now.
    #[must_use]
    #[inline]
    pub const fn aged(self) -> Self {
        Self { bits: self.bits & !attr::AF, ..self }
    }

    /// How many passes in a row have found the leaf old.
    #[inline]
    pub const fn generation(self) -> Generation {
        Generation::from_bits(self.bits >> attr::GENERATION_SHIFT)
    }

    /// What a pass makes of the leaf: old, and a generation older if it was
    /// old before, or of the youngest if it was used.
    #[must_use]
    #[inline]
    pub const fn after_pass(self) -> Self {
        let generation = if self.is_young() { Generation::YOUNGEST } else { self.generation().next() };
        self.aged().with_generation(generation)
    }

    #[inline]
    const fn with_generation(self, generation: Generation) -> Self {
        let bits = (generation.passes() as u64) << attr::GENERATION_SHIFT;
        Self { bits: self.bits & !attr::GENERATION | bits, ..self }
    }

    /// What is known of writes. A leaf that is writable and was never cleaned
    /// counts as dirty.
    #[inline]
    pub const fn dirty(self) -> Dirty {
        match (self.bits & attr::S2AP_WRITE != 0, self.bits & self.clean_mark() != 0) {
            (true, _) => Dirty::Dirty,
            (false, true) => Dirty::Clean,
            (false, false) => Dirty::ReadOnly,
        }
    }

    /// The same mapping, not written to since now. Writes that follow make it
    /// dirty again, by hardware or through a fault and [`Self::dirtied`]; but
    /// only those that miss the TLB, so an invalidation comes before anyone
    /// relies on it. A leaf that may not be written to stays as it is.
    #[must_use]
    #[inline]
    pub const fn cleaned(self) -> Self {
        match self.dirty() {
            Dirty::Dirty => Self { bits: self.bits & !attr::S2AP_WRITE | self.clean_mark(), ..self },
            Dirty::Clean | Dirty::ReadOnly => self,
        }
    }

    /// The same mapping, written to: what answers a write fault on a clean
    /// leaf. A leaf that may not be written to stays as it is.
    #[must_use]
    #[inline]
    pub const fn dirtied(self) -> Self {
        match self.dirty() {
            Dirty::Clean => Self { bits: self.bits | attr::S2AP_WRITE, ..self },
            Dirty::Dirty | Dirty::ReadOnly => self,
        }
    }

    /// The same mapping, as young as the younger and dirty if either is: for one
    /// leaf that takes the place of several, and for the members of a
    /// contiguous set, of which the walker may have changed any.
    ///
    /// `other` has the same [`Self::attributes`].
    #[must_use]
    #[inline]
    pub const fn merge_access_state(self, other: Self) -> Self {
        let merged = Self { bits: self.bits | other.bits & attr::AF, ..self };
        let merged = merged.with_generation(self.generation().younger(other.generation()));
        match other.dirty() {
            Dirty::Dirty => merged.dirtied(),
            Dirty::Clean | Dirty::ReadOnly => merged,
        }
    }

    /// The same mapping with other permissions. If it is clean and stays
    /// writable, it stays clean; if it stops being writable, its dirty state
    /// is gone, and it is for the caller to have noted it.
    ///
    /// # Panics
    ///
    /// If the format does not [allow](Format::allows) the permissions.
    #[must_use]
    #[inline]
    pub const fn with_permissions(self, permissions: Permissions) -> Self {
        let bits = self.bits & !attr::PERMISSIONS | permissions.encode(self.format.xnx());
        let bits = match (permissions.access.allows_writing(), self.dirty()) {
            (false, _) => bits & !self.clean_mark(),
            (true, Dirty::Clean) => bits & !attr::S2AP_WRITE,
            (true, Dirty::Dirty | Dirty::ReadOnly) => bits,
        };
        Self { bits, ..self }
    }

    /// Whether the leaf is marked as part of a contiguous set.
    #[inline]
    pub const fn is_contiguous(self) -> bool {
        self.bits & attr::CONTIGUOUS != 0
    }

    /// The same mapping as part of a contiguous set. All members of a
    /// [set](crate::Granule::contiguous_entries) are marked, or none.
    #[must_use]
    #[inline]
    pub const fn with_contiguous(self) -> Self {
        Self { bits: self.bits | attr::CONTIGUOUS, ..self }
    }

    /// The same mapping by itself.
    #[must_use]
    #[inline]
    pub const fn without_contiguous(self) -> Self {
        Self { bits: self.bits & !attr::CONTIGUOUS, ..self }
    }

    /// The part of this block that entry `index` of a table in its place has
    /// to map; `None` for a page.
    ///
    /// Access flag, dirty state and software bits are inherited. The
    /// contiguous bit is not: it speaks about neighbours.
    #[inline]
    pub(crate) const fn child(self, index: usize) -> Option<Self> {
        let Some(level) = self.level.next() else { return None };
        let offset = index as u64 * self.format.granule().span(level);
        Some(self.moved(level, self.output().plus(offset)))
    }

    /// The block one level up that starts where this leaf does and says the
    /// same; `None` if there are no leaves there, or none that starts there.
    ///
    /// The opposite of a child: together with the leaves that follow, if they
    /// say the same, it can be replaced by this block.
    #[inline]
    pub const fn widened(self) -> Option<Self> {
        let Some(level) = self.level.previous() else { return None };
        if self.format.allows_leaf(level) && self.output().is_aligned(self.format.granule().span(level)) {
            Some(self.moved(level, self.output()))
        } else {
            None
        }
    }

    /// Whether both map the same memory with the same attributes. They may
    /// differ in age, dirty state and contiguity.
    #[must_use]
    #[inline]
    pub(crate) const fn says_the_same(self, other: Self) -> bool {
        let ignored = attr::AF | attr::GENERATION | attr::CONTIGUOUS;
        (self.cleaned().bits ^ other.cleaned().bits) & !ignored == 0
    }

    /// The same mapping of other memory, by itself.
    #[must_use]
    #[inline]
    pub(crate) const fn moved_to(self, output: PhysAddr) -> Self {
        self.moved(self.level, output)
    }

    /// A leaf elsewhere with the same attributes and state.
    const fn moved(self, level: Level, output: PhysAddr) -> Self {
        let addresses = self.format.addresses();
        let kept = self.bits & !(addresses.mask() | TABLE_OR_PAGE | attr::CONTIGUOUS);
        Self { bits: kept | addresses.encode(output) | kind(level), level, ..self }
    }

    /// What leaves that [say the same](Self::says_the_same) may differ in.
    #[inline]
    pub(crate) const fn state(self) -> LeafState {
        let mut bits = 0;
        let mut index = 0;
        while index < self.state_bits().len() {
            if self.bits & self.state_bits()[index] != 0 {
                bits |= 1 << index;
            }
            index += 1;
        }
        LeafState(bits)
    }

    /// The same mapping in the state of another leaf that says the same.
    #[must_use]
    #[inline]
    pub(crate) const fn with_state(self, state: LeafState) -> Self {
        let mut bits = self.bits;
        let mut index = 0;
        while index < self.state_bits().len() {
            let bit = self.state_bits()[index];
            bits = if state.0 & 1 << index != 0 { bits | bit } else { bits & !bit };
            index += 1;
        }
        Self { bits, ..self }
    }

    /// The bits of a word that a [`LeafState`] holds, from its bit 0 on.
    #[inline]
    const fn state_bits(self) -> [u64; LeafState::BITS] {
        const GENERATION: [u64; 2] = [1 << attr::GENERATION_SHIFT, 2 << attr::GENERATION_SHIFT];
        let [low, high] = GENERATION;
        [attr::AF, attr::S2AP_WRITE, self.clean_mark(), attr::CONTIGUOUS, low, high]
    }

    #[inline]
    const fn clean_mark(self) -> u64 {
        attr::clean_mark(self.format.dirty_state())
    }

    /// The word.
    #[inline]
    pub const fn encode(self) -> Descriptor {
        Descriptor(self.bits)
    }
}

/// What leaves that say the same may differ in, packed: age, dirty state and
/// contiguity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeafState(u8);

impl LeafState {
    const BITS: usize = 6;
    /// The bits that one can have.
    pub(crate) const MASK: u8 = (1 << Self::BITS) - 1;

    #[inline]
    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    /// The state with these bits; others are ignored.
    #[inline]
    pub(crate) const fn from_bits(bits: u8) -> Self {
        Self(bits & Self::MASK)
    }
}

/// Bit 1 of a leaf.
const fn kind(level: Level) -> u64 {
    match level {
        Level::L3 => TABLE_OR_PAGE,
        Level::L0 | Level::L1 | Level::L2 => 0,
    }
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Leaf({:#018x} at level {})", self.bits, self.level.number())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
mod tests {
    use super::Leaf;
    use crate::addr::{Level, PhysAddr};
    use crate::attr::{AF, Attributes, CONTIGUOUS, Dirty, PERMISSIONS, Permissions, SOFTWARE};
    use crate::format::Format;
    use crate::geometry::{Geometry, Granule, PaSize};
    use crate::pte::Pte;
    use crate::vtcr::{DirtyState, Features};

    const DBM: u64 = 1 << 51;
    const S2AP_WRITE: u64 = 1 << 7;

    fn format(granule: Granule, pa_size: PaSize, dirty: DirtyState) -> Format {
        Format::new(&Geometry::new(granule, 40, pa_size).unwrap(), Features { dirty, ..Features::BASE })
    }

    /// Both ways to track writes.
    fn formats() -> [Format; 2] {
        [DirtyState::WriteProtect, DirtyState::Hardware]
            .map(|dirty| format(Granule::Kib4, PaSize::Bits48, dirty))
    }

    fn block(format: Format, permissions: Permissions) -> Leaf {
        let attributes = Attributes { permissions, ..Attributes::RAM };
        format.leaf(Level::L1, PhysAddr::new(0x8000_0000), attributes).unwrap()
    }

    /// With every bit set that is kept for others.
    fn marked(leaf: Leaf) -> Leaf {
        Leaf { bits: leaf.bits & !AF | SOFTWARE | CONTIGUOUS, ..leaf }
    }

    #[test]
    fn child_maps_its_share_of_the_block() {
        for format in formats() {
            let child = block(format, Permissions::ALL).child(3).unwrap();
            let expected = format.leaf(Level::L2, PhysAddr::new(0x8060_0000), Attributes::RAM);
            assert_eq!(Some(child), expected);
        }
    }

    #[test]
    fn child_of_a_level_2_block_is_a_page_descriptor() {
        let [format, _] = formats();
        let block = format.leaf(Level::L2, PhysAddr::new(0x20_0000), Attributes::RAM).unwrap();
        let child = block.child(1).unwrap();
        assert_eq!(Pte::decode(child.encode(), Level::L3, format), Pte::Leaf(child));
        assert_eq!(child.output(), PhysAddr::new(0x20_1000));
    }

    #[test]
    fn child_of_a_block_beyond_48_bits_keeps_the_moved_address_bits() {
        for (granule, level) in [(Granule::Kib4, Level::L0), (Granule::Kib64, Level::L1)] {
            let format = format(granule, PaSize::Bits52, DirtyState::WriteProtect);
            let block = format.leaf(level, PhysAddr::new(0xf << 48), Attributes::RAM).unwrap();
            let span = granule.span(level.next().unwrap());
            assert_eq!(block.child(1).unwrap().output(), PhysAddr::new(0xf << 48 | span));
        }
    }

    #[test]
    fn child_inherits_age_dirty_state_and_software_bits_but_not_contiguity() {
        for format in formats() {
            let clean = marked(block(format, Permissions::ALL).cleaned());
            let child = clean.child(0).unwrap();
            assert!(!child.is_young());
            assert_eq!(child.dirty(), Dirty::Clean);
            assert_eq!(child.bits & (SOFTWARE | CONTIGUOUS), SOFTWARE);
        }
    }

    #[test]
    fn page_has_no_children() {
        let [format, _] = formats();
        let page = format.leaf(Level::L3, PhysAddr::new(0x1000), Attributes::RAM).unwrap();
        assert_eq!(page.child(0), None);
    }

    #[test]
    fn widening_the_first_child_gives_back_the_block() {
        for format in formats() {
            let block = block(format, Permissions::ALL).cleaned().aged();
            assert_eq!(block.child(0).unwrap().widened(), Some(block));
        }
    }

    #[test]
    fn widening_a_page_gives_a_block_descriptor() {
        let [format, _] = formats();
        let page = format.leaf(Level::L3, PhysAddr::new(0x20_0000), Attributes::RAM).unwrap();
        let block = format.leaf(Level::L2, PhysAddr::new(0x20_0000), Attributes::RAM);
        assert_eq!(page.widened(), block);
    }

    #[test]
    fn leaf_that_is_not_the_first_child_can_not_be_widened() {
        let [format, _] = formats();
        assert_eq!(block(format, Permissions::ALL).child(1).unwrap().widened(), None);
        let largest = format.leaf(Level::L1, PhysAddr::new(0), Attributes::RAM).unwrap();
        assert_eq!(largest.widened(), None);
    }

    #[test]
    fn new_leaf_counts_as_young_and_dirty() {
        for format in formats() {
            let leaf = block(format, Permissions::ALL);
            assert!(leaf.is_young());
            assert_eq!(leaf.dirty(), Dirty::Dirty);
        }
    }

    #[test]
    fn aging_changes_the_access_flag_only() {
        for format in formats() {
            let leaf = block(format, Permissions::ALL);
            assert_eq!(leaf.aged().bits ^ leaf.bits, 1 << 10);
            assert_eq!(leaf.aged().young(), leaf);
        }
    }

    #[test]
    fn pass_counts_how_often_the_leaf_was_old_and_starts_again_when_it_was_used() {
        for format in formats() {
            let mut leaf = block(format, Permissions::ALL).after_pass();
            assert!(!leaf.is_young());
            for passes in [0, 1, 2, 3, 3] {
                assert_eq!(leaf.generation().passes(), passes);
                leaf = leaf.after_pass();
            }
            assert_eq!(leaf.young().after_pass().generation().passes(), 0);
            assert_eq!(leaf.bits & !SOFTWARE, block(format, Permissions::ALL).aged().bits);
        }
    }

    #[test]
    fn merged_leaf_is_of_the_younger_generation() {
        let [format, _] = formats();
        let younger = block(format, Permissions::ALL).after_pass().after_pass();
        let older = younger.after_pass();
        assert_eq!(older.merge_access_state(younger), younger);
        assert_eq!(younger.merge_access_state(older), younger);
    }

    #[test]
    fn clean_leaf_traps_writes_in_hardware_but_is_writable_by_permission() {
        for format in formats() {
            let leaf = block(format, Permissions::ALL);
            assert_eq!(leaf.cleaned().dirty(), Dirty::Clean);
            assert_eq!(leaf.cleaned().bits & S2AP_WRITE, 0);
            assert_eq!(leaf.cleaned().attributes(), leaf.attributes());
        }
    }

    #[test]
    fn clean_leaf_has_dbm_only_where_the_walker_tracks_writes() {
        let [software, hardware] = formats().map(|format| block(format, Permissions::ALL).cleaned());
        assert_eq!(software.bits & (DBM | SOFTWARE), 1 << 58);
        assert_eq!(hardware.bits & (DBM | SOFTWARE), DBM);
    }

    #[test]
    fn write_by_the_walker_makes_a_clean_leaf_dirty() {
        let [_, hardware] = formats();
        let clean = block(hardware, Permissions::ALL).cleaned();
        let written = Leaf { bits: clean.bits | S2AP_WRITE, ..clean };
        assert_eq!(written.dirty(), Dirty::Dirty);
        assert_eq!(clean.dirtied(), written);
        assert_eq!(written.cleaned(), clean);
    }

    #[test]
    fn read_only_leaf_is_neither_cleaned_nor_dirtied() {
        for format in formats() {
            let leaf = block(format, Permissions::READ_EXECUTE);
            assert_eq!(leaf.dirty(), Dirty::ReadOnly);
            assert_eq!((leaf.cleaned(), leaf.dirtied()), (leaf, leaf));
        }
    }

    #[test]
    fn leaf_comes_back_from_another_and_its_own_state() {
        for format in formats() {
            let leaf = block(format, Permissions::ALL);
            let others = [leaf.aged(), leaf.cleaned(), leaf.cleaned().dirtied(), leaf.with_contiguous()];
            for other in others.into_iter().chain([leaf.after_pass().after_pass()]) {
                assert!(leaf.says_the_same(other));
                assert_ne!(leaf.state(), other.state());
                assert_eq!(leaf.with_state(other.state()), other);
                assert_eq!(other.with_state(leaf.state()), leaf);
            }
        }
    }

    #[test]
    fn leaves_with_other_permissions_memory_or_software_bits_do_not_say_the_same() {
        for format in formats() {
            let leaf = block(format, Permissions::ALL);
            let software = Leaf { bits: leaf.bits | 1 << 55, ..leaf };
            let elsewhere = leaf.moved(leaf.level, PhysAddr::new(0));
            for other in [leaf.with_permissions(Permissions::READ_EXECUTE), software, elsewhere] {
                assert!(!leaf.says_the_same(other));
            }
        }
    }

    #[test]
    fn merged_leaf_is_young_or_dirty_if_one_of_them_is() {
        for format in formats() {
            let old = block(format, Permissions::ALL).cleaned().aged();
            assert_eq!(old.merge_access_state(old), old);
            for other in [old.young(), old.dirtied(), old.young().dirtied()] {
                assert_eq!(old.merge_access_state(other), other);
                assert_eq!(other.merge_access_state(old), other);
            }
        }
    }

    #[test]
    fn merging_never_makes_a_read_only_leaf_writable() {
        for format in formats() {
            let read_only = block(format, Permissions::READ_ONLY);
            let merged = read_only.merge_access_state(block(format, Permissions::ALL));
            assert_eq!(merged.dirty(), Dirty::ReadOnly);
        }
    }

    #[test]
    fn changed_permissions_change_nothing_else() {
        for format in formats() {
            let leaf = marked(block(format, Permissions::READ_ONLY)).with_permissions(Permissions::READ_ONLY);
            let changed = leaf.with_permissions(Permissions::ALL);
            assert_eq!(changed.attributes().permissions, Permissions::ALL);
            assert_eq!((changed.bits ^ leaf.bits) & !PERMISSIONS, 0);
            assert_eq!(changed.with_permissions(Permissions::READ_ONLY), leaf);
        }
    }

    #[test]
    fn clean_leaf_stays_clean_while_it_stays_writable() {
        for format in formats() {
            let clean = block(format, Permissions::ALL).cleaned();
            let changed = clean.with_permissions(Permissions::READ_WRITE);
            assert_eq!(changed.dirty(), Dirty::Clean);
            assert_eq!(changed.attributes().permissions, Permissions::READ_WRITE);
        }
    }

    #[test]
    fn clean_leaf_that_loses_write_permission_is_read_only() {
        for format in formats() {
            let protected =
                block(format, Permissions::ALL).cleaned().with_permissions(Permissions::READ_ONLY);
            assert_eq!(protected.dirty(), Dirty::ReadOnly);
            assert_eq!(protected.attributes().permissions, Permissions::READ_ONLY);
        }
    }

    #[test]
    fn contiguity_is_one_bit() {
        let [format, _] = formats();
        let leaf = block(format, Permissions::ALL);
        assert!(leaf.with_contiguous().is_contiguous() && !leaf.is_contiguous());
        assert_eq!(leaf.with_contiguous().bits ^ leaf.bits, 1 << 52);
        assert_eq!(leaf.with_contiguous().without_contiguous(), leaf);
    }
}
