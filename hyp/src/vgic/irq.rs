//! The state of interrupts, one bit per interrupt and property.
//!
//! [`Irq`] is an INTID of this machine, small enough to index without checks.
//! A [`Bank`] holds 32 of them: one per vCPU for the private ones, three per
//! VM for the SPIs. [`Bits`] is one property of a bank, which any CPU may
//! change; [`HomeBits`] is a word that only one vCPU's home CPU changes.
//!
//! **Orderings.** Whoever changes a property then looks at the others to see
//! whether a vCPU must be told. Two CPUs doing that at once (one makes an
//! interrupt pending, the other enables it) must not both see the old value
//! of the other's word. So between the change and the look there is always a
//! [`publish`], a full barrier: of two CPUs that both publish, the later one
//! sees what the earlier one changed. With that, loads need no ordering of
//! their own, and looking costs plain loads.

use core::array;

use platform::intid::IntId;

use super::sync::{
    AtomicU8, AtomicU32, IS_MODEL,
    Ordering::{AcqRel, Relaxed, SeqCst},
    fence,
};

/// Interrupts per [`Bank`].
pub(super) const BANK_SIZE: usize = 32;
/// Banks that a vCPU sees: its private one and those of the SPIs.
pub(super) const BANKS: usize = if IS_MODEL { 2 } else { 4 };
/// Banks of SPIs.
pub(super) const SPI_BANKS: usize = BANKS - 1;
/// SPIs per VM.
pub(super) const SPIS: usize = SPI_BANKS * BANK_SIZE;

/// An interrupt that the virtual GIC implements: below 128.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Irq(u8);

impl Irq {
    const MASK: u32 = (BANKS * BANK_SIZE - 1) as u32;

    /// From an INTID; `None` if this GIC does not have it.
    #[inline]
    pub(super) const fn from_intid(intid: IntId) -> Option<Self> {
        if intid.raw() <= Self::MASK { Some(Self(intid.raw() as u8)) } else { None }
    }

    /// The INTID in the low seven bits of `byte`.
    #[inline]
    pub(super) const fn from_byte(byte: u8) -> Self {
        Self(byte & Self::MASK as u8)
    }

    /// Interrupt `lane` (modulo 32) of bank `bank` (modulo 4).
    #[inline]
    pub(super) const fn at(bank: usize, lane: u32) -> Self {
        Self(((bank as u32 * BANK_SIZE as u32 + lane % BANK_SIZE as u32) & Self::MASK) as u8)
    }

    /// Its bank: 0 is private, 1.. are SPIs.
    #[inline]
    pub(super) const fn bank(self) -> usize {
        (self.0 as u32 & Self::MASK) as usize / BANK_SIZE
    }

    /// Its place in the bank.
    #[inline]
    pub(super) const fn lane(self) -> usize {
        self.0 as usize % BANK_SIZE
    }

    /// Its bit in each of the bank's words.
    #[inline]
    pub(super) const fn mask(self) -> u32 {
        1 << self.lane()
    }

    /// Whether it is a private peripheral interrupt.
    #[inline]
    pub(super) const fn is_ppi(self) -> bool {
        self.0 >= 16 && self.0 < 32
    }

    /// Which SPI it is; private interrupts have none.
    #[inline]
    pub(super) const fn spi(self) -> Option<usize> {
        (self.0 as usize & Self::MASK as usize).checked_sub(BANK_SIZE)
    }

    /// The INTID.
    #[inline]
    pub(super) const fn raw(self) -> u32 {
        self.0 as u32
    }
}

/// Between changing the state and looking at it: makes sure that of any two
/// CPUs that do so at least one sees the other's change.
#[inline]
pub(super) fn publish() {
    fence(SeqCst);
}

/// One property of 32 interrupts, changed by any CPU.
///
/// Changes acquire and release, so that what was written before a bit was set
/// (the sender of an SGI, say) is seen by whoever clears it.
#[derive(Debug)]
pub(super) struct Bits(AtomicU32);

impl Bits {
    /// All clear.
    pub(super) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// All 32.
    #[inline]
    pub(super) fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }

    /// Sets those in `mask`; returns which were set before.
    #[inline]
    pub(super) fn set(&self, mask: u32) -> u32 {
        self.0.fetch_or(mask, AcqRel)
    }

    /// Clears those in `mask`; returns which were set before.
    #[inline]
    pub(super) fn clear(&self, mask: u32) -> u32 {
        self.0.fetch_and(!mask, AcqRel)
    }

    /// Replaces all 32 (reset, and registers that are written whole).
    #[inline]
    pub(super) fn replace(&self, value: u32) -> u32 {
        self.0.swap(value, AcqRel)
    }

    /// Clears `mask` if it is set, and says whether it was. Mostly it is not,
    /// and a load is all this costs.
    #[inline]
    pub(super) fn take(&self, mask: u32) -> bool {
        self.get() & mask != 0 && self.clear(mask) & mask != 0
    }
}

/// A word that only the home CPU of one vCPU changes, and others may read.
#[derive(Debug)]
pub(super) struct HomeBits(AtomicU32);

impl HomeBits {
    /// All clear.
    pub(super) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// The word.
    #[inline]
    pub(super) fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }

    /// Replaces the word. Home CPU only.
    #[inline]
    pub(super) fn put(&self, value: u32) {
        self.0.store(value, Relaxed);
    }

    /// Sets bits. Home CPU only: a load and a store, not an exclusive pair.
    #[inline]
    pub(super) fn set(&self, mask: u32) {
        self.put(self.get() | mask);
    }

    /// Clears bits. Home CPU only.
    #[inline]
    pub(super) fn clear(&self, mask: u32) {
        self.put(self.get() & !mask);
    }
}

/// 32 interrupts. Exactly one cache line on the machines we run on.
#[repr(C, align(64))]
#[derive(Debug)]
pub(super) struct Bank {
    /// Forwarding enabled (ISENABLER).
    pub(super) enabled: Bits,
    /// Pending, remembered: an edge, an SGI, a write to ISPENDR, or a linked
    /// hardware interrupt. Moves into the list register when it is loaded.
    pub(super) latch: Bits,
    /// Level of the input line, driven by a device.
    pub(super) line: Bits,
    /// Edge-triggered (ICFGR).
    pub(super) edge: Bits,
    /// In group 1.
    pub(super) group: Bits,
    /// Active, and in no list register: written so by the guest, or spilled.
    pub(super) active: Bits,
    /// Request to whoever has it in a list register: no longer pending.
    pub(super) drop_pending: Bits,
    /// Request to whoever has it in a list register: no longer active.
    pub(super) drop_active: Bits,
    priority: [AtomicU8; BANK_SIZE],
}

#[cfg(not(all(test, hyp_loom)))]
const _: () = assert!(size_of::<Bank>() == 64);

/// Priority bits that the virtual CPU interfaces of all our machines keep
/// (ICH_VTR_EL2.PRIbits = 5, GICH_LR.Priority is 5 bits wide).
const PRIORITY_MASK: u8 = 0xf8;

impl Bank {
    /// Everything zero; call [`Self::reset`] before use.
    pub(super) fn new() -> Self {
        Self {
            enabled: Bits::new(),
            latch: Bits::new(),
            line: Bits::new(),
            edge: Bits::new(),
            group: Bits::new(),
            active: Bits::new(),
            drop_pending: Bits::new(),
            drop_active: Bits::new(),
            priority: array::from_fn(|_| AtomicU8::new(0)),
        }
    }

    /// Power-on state; `edge` and `group` as the GIC version has them. Input
    /// lines belong to the devices and keep their level.
    pub(super) fn reset(&self, edge: u32, group: u32) {
        self.edge.replace(edge);
        self.group.replace(group);
        for word in [&self.enabled, &self.latch, &self.active, &self.drop_pending, &self.drop_active] {
            word.replace(0);
        }
        for priority in &self.priority {
            priority.store(0, Relaxed);
        }
    }

    /// Which of the 32 a GIC without list registers would call pending.
    #[inline]
    pub(super) fn pending(&self) -> u32 {
        self.latch.get() | self.line.get() & !self.edge.get()
    }

    /// Which of the 32 may be forwarded while `groups` are on.
    #[inline]
    pub(super) fn forwardable(&self, groups: Groups) -> u32 {
        self.enabled.get() & groups.select(self.group.get()) & !self.active.get()
    }

    /// Priority of interrupt `lane` (modulo 32); lower is more urgent.
    #[inline]
    pub(super) fn priority(&self, lane: usize) -> u8 {
        // Relaxed: a single value; whoever writes it tells the owner after.
        self.priority[lane % BANK_SIZE].load(Relaxed)
    }

    /// Sets the priority of interrupt `lane` (modulo 32).
    #[inline]
    pub(super) fn set_priority(&self, lane: usize, priority: u8) {
        self.priority[lane % BANK_SIZE].store(priority & PRIORITY_MASK, Relaxed);
    }
}

/// Which interrupt groups the distributor forwards (GICD_CTLR bits 0 and 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Groups(u32);

impl Groups {
    /// From GICD_CTLR.
    #[inline]
    pub(super) const fn from_ctlr(ctlr: u32) -> Self {
        Self(ctlr & 3)
    }

    /// Whether both are on, the usual case.
    #[inline]
    pub(super) const fn are_all_on(self) -> bool {
        self.0 == 3
    }

    /// Which interrupts are in a group that is on, given who is in group 1.
    #[inline]
    pub(super) const fn select(self, group_one: u32) -> u32 {
        let zero_on = (self.0 & 1).wrapping_neg();
        let one_on = (self.0 >> 1).wrapping_neg();
        !group_one & zero_on | group_one & one_on
    }
}

/// The numbers of the bits set in a word, ascending.
pub(super) struct Lanes(pub(super) u32);

impl Iterator for Lanes {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        if self.0 == 0 {
            return None;
        }
        let lane = self.0.trailing_zeros();
        self.0 &= self.0 - 1;
        Some(lane)
    }
}

#[cfg(test)]
mod tests {
    use super::{Bank, Bits, Groups, Irq, Lanes};
    use platform::intid::IntId;

    #[test]
    fn an_irq_knows_its_place() {
        let irq = Irq::from_intid(IntId::spi(33)).expect("65 is below 128");
        assert_eq!((irq.bank(), irq.lane(), irq.mask(), irq.spi()), (2, 1, 2, Some(33)));
        assert_eq!(Irq::at(2, 1), irq);
        assert_eq!(Irq::from_intid(IntId::ppi(11)).and_then(Irq::spi), None);
        assert_eq!(Irq::from_intid(IntId::spi(96)), None);
    }

    #[test]
    fn level_interrupts_follow_their_line_and_edges_do_not() {
        let bank = Bank::new();
        bank.edge.set(0b01);
        bank.line.set(0b11);
        assert_eq!(bank.pending(), 0b10);
        bank.latch.set(0b01);
        assert_eq!(bank.pending(), 0b11);
    }

    #[test]
    fn forwarding_needs_enable_and_group_and_no_active() {
        let bank = Bank::new();
        bank.enabled.set(0b1111);
        bank.group.set(0b0011);
        bank.active.set(0b0001);
        assert_eq!(bank.forwardable(Groups::from_ctlr(0)), 0);
        assert_eq!(bank.forwardable(Groups::from_ctlr(1)), 0b1100);
        assert_eq!(bank.forwardable(Groups::from_ctlr(2)), 0b0010);
        assert_eq!(bank.forwardable(Groups::from_ctlr(3)), 0b1110);
    }

    #[test]
    fn priorities_keep_five_bits() {
        let bank = Bank::new();
        bank.set_priority(31, 0xff);
        assert_eq!((bank.priority(31), bank.priority(30)), (0xf8, 0));
    }

    #[test]
    fn take_tells_whether_the_bit_was_there() {
        let bits = Bits::new();
        bits.set(4);
        assert!(!bits.take(2));
        assert!(bits.take(4));
        assert!(!bits.take(4));
    }

    #[test]
    fn lanes_ascend() {
        assert!(Lanes(0x8000_0011).eq([0, 4, 31]));
    }
}
