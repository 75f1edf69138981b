//! What a vCPU's home CPU remembers about its list registers.
//!
//! [`Home`] says which list register belongs to which interrupt ([`Slot`]), and
//! lets other CPUs see what is held. It is all bookkeeping; what it is for is
//! in `refresh.rs` and `load.rs`.

use core::array;

use platform::intid::IntId;

use super::irq::{BANKS, HomeBits, Irq};
use super::list_reg::{Lr, MAX_LIST_REGS, Maintenance};
use super::sync::{AtomicU8, AtomicU16, AtomicU64, Ordering::Relaxed};

/// One vCPU's list registers, as its home CPU remembers them.
///
/// Only the home CPU writes any of this. `held` and `active` are read by
/// others; the rest is private to the home CPU and moves with the vCPU.
#[derive(Debug)]
pub(super) struct Home {
    /// List registers that belong to an interrupt, even if it has ended.
    used: HomeBits,
    /// Maintenance interrupts asked for: [`Maintenance::bits`].
    maintenance: HomeBits,
    /// Interrupts that are in a list register.
    held: [HomeBits; BANKS],
    /// Those of them that were active when we last looked.
    active: [HomeBits; BANKS],
    /// Active interrupts that had to make room (`overflow.rs`).
    pub(super) spilled: [HomeBits; BANKS],
    /// PPIs with a physical interrupt behind them.
    linked: HomeBits,
    /// The interrupt in each list register: [`Slot`].
    slots: [AtomicU8; MAX_LIST_REGS],
    /// The list register of each held private interrupt.
    index_of: [AtomicU8; 32],
    /// The physical interrupt of each linked PPI.
    physical: [AtomicU16; 16],
    /// What each list register would be loaded with if its interrupt came
    /// again; empty if that is not to be forwarded now. For a vCPU that is
    /// switched out: what the list register held, if that was active.
    images: [AtomicU64; MAX_LIST_REGS],
}

/// What a list register was loaded with.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    pub(super) irq: Irq,
    /// A level-triggered interrupt that is pending because software said so
    /// (ISPENDR) and stays so even when the line drops.
    pub(super) by_software: bool,
}

impl Slot {
    const BY_SOFTWARE: u8 = 1 << 7;

    const fn to_byte(self) -> u8 {
        self.irq.raw() as u8 | if self.by_software { Self::BY_SOFTWARE } else { 0 }
    }

    #[inline]
    const fn from_byte(byte: u8) -> Self {
        Self { irq: Irq::from_byte(byte), by_software: byte & Self::BY_SOFTWARE != 0 }
    }
}

impl Home {
    /// No list register in use, nothing linked.
    pub(super) fn new() -> Self {
        Self {
            used: HomeBits::new(),
            maintenance: HomeBits::new(),
            held: array::from_fn(|_| HomeBits::new()),
            active: array::from_fn(|_| HomeBits::new()),
            spilled: array::from_fn(|_| HomeBits::new()),
            linked: HomeBits::new(),
            slots: array::from_fn(|_| AtomicU8::new(0)),
            index_of: array::from_fn(|_| AtomicU8::new(0)),
            physical: array::from_fn(|_| AtomicU16::new(0)),
            images: array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Forgets everything but the links.
    pub(super) fn reset(&self) {
        self.used.put(0);
        self.maintenance.put(0);
        for words in [&self.held, &self.active, &self.spilled] {
            for word in words {
                word.put(0);
            }
        }
    }

    /// Remembers that PPI `irq` stands for `physical`.
    pub(super) fn link(&self, irq: Irq, physical: IntId) {
        self.physical[irq.lane() % 16].store(physical.raw() as u16, Relaxed);
        self.linked.set(irq.mask());
    }

    /// The physical interrupt behind `irq`, if one was linked.
    #[inline]
    pub(super) fn physical(&self, irq: Irq) -> Option<IntId> {
        if irq.bank() == 0 && self.linked.get() & irq.mask() != 0 {
            IntId::try_new(self.physical[irq.lane() % 16].load(Relaxed) as u32)
        } else {
            None
        }
    }

    /// Linked PPIs.
    #[inline]
    pub(super) fn linked(&self) -> u32 {
        self.linked.get()
    }

    /// Interrupts of bank `bank` that are in a list register, as anyone sees it.
    #[inline]
    pub(super) fn held(&self, bank: usize) -> u32 {
        self.held[bank % BANKS].get()
    }

    /// Those that were active when their home CPU last looked.
    #[inline]
    pub(super) fn active(&self, bank: usize) -> u32 {
        self.active[bank % BANKS].get()
    }

    /// List registers in use.
    #[inline]
    pub(super) fn used(&self) -> u32 {
        self.used.get()
    }

    /// What list register `index` was loaded with.
    #[inline]
    pub(super) fn slot(&self, index: usize) -> Slot {
        Slot::from_byte(self.slots[index % MAX_LIST_REGS].load(Relaxed))
    }

    #[inline]
    pub(super) fn set_slot(&self, index: usize, slot: Slot) {
        self.slots[index % MAX_LIST_REGS].store(slot.to_byte(), Relaxed);
    }

    /// What list register `index` would be loaded with again.
    #[inline]
    pub(super) fn image(&self, index: usize) -> Lr {
        Lr::from_ich(self.images[index % MAX_LIST_REGS].load(Relaxed))
    }

    #[inline]
    pub(super) fn set_image(&self, index: usize, lr: Lr) {
        self.images[index % MAX_LIST_REGS].store(lr.to_ich(), Relaxed);
    }

    /// Second half of a claim: `irq` is in list register `index`.
    #[inline]
    pub(super) fn hold(&self, irq: Irq, index: usize) {
        self.used.set(1 << index);
        self.set_slot(index, Slot { irq, by_software: false });
        if irq.bank() == 0 {
            self.index_of[irq.lane()].store(index as u8, Relaxed);
        }
        self.held[irq.bank()].set(irq.mask());
    }

    /// First half of a release.
    #[inline]
    pub(super) fn let_go(&self, irq: Irq, index: usize) {
        self.used.clear(1 << index);
        self.active[irq.bank()].clear(irq.mask());
        self.held[irq.bank()].clear(irq.mask());
    }

    /// Remembers that `irq` was seen active.
    #[inline]
    pub(super) fn mark_active(&self, irq: Irq) {
        self.active[irq.bank()].set(irq.mask());
    }

    /// Remembers that `irq` was seen not active.
    #[inline]
    pub(super) fn mark_not_active(&self, irq: Irq) {
        self.active[irq.bank()].clear(irq.mask());
    }

    /// The list register of the held private interrupt `irq`.
    #[inline]
    pub(super) fn index_of(&self, irq: Irq) -> usize {
        self.index_of[irq.lane()].load(Relaxed) as usize % MAX_LIST_REGS
    }

    /// The lowest list register, of `count`, that belongs to no interrupt.
    #[inline]
    pub(super) fn free_index(&self, count: usize) -> Option<usize> {
        let index = (!self.used.get()).trailing_zeros() as usize;
        (index < count.min(MAX_LIST_REGS)).then_some(index)
    }

    /// Remembers the maintenance interrupts that were asked for.
    pub(super) fn set_maintenance(&self, wanted: Maintenance) {
        self.maintenance.put(wanted.bits());
    }

    /// The maintenance interrupts that were asked for last.
    #[inline]
    pub(super) fn maintenance(&self) -> Maintenance {
        Maintenance::from_bits(self.maintenance.get())
    }
}
