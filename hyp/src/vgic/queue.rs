//! Who gets a list register: the moves between state and list registers.
//!
//! [`Vgic::flush`] is the whole of it: look at every list register in use,
//! then load what is waiting. [`Vgic::deliver`] is the short cut for the one
//! private interrupt that has just come, and falls back to a flush whenever
//! something is unusual. [`Vgic::save`] and [`Vgic::restore`] serve a vCPU
//! switch. The protocol with other CPUs is told in `mod.rs`.
//!
//! [`Home`] is what the home CPU remembers about its list registers.

use core::array;

use platform::intid::IntId;

use super::irq::{self, BANKS, HomeBits, Irq, Lanes};
use super::list_reg::{ListRegs, Lr, MAX_LIST_REGS, Maintenance, State};
use super::sync::{
    AtomicU8, AtomicU16, AtomicU64,
    Ordering::{AcqRel, Relaxed},
};
use super::{VcpuState, Vgic};
use crate::vcpu_set::VcpuSet;

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
    /// again; empty if that is not to be forwarded now.
    images: [AtomicU64; MAX_LIST_REGS],
    /// What each list register in use holds while the vCPU is switched out.
    saved: [AtomicU64; MAX_LIST_REGS],
}

/// What a list register was loaded with.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    pub(super) irq: Irq,
    /// A level-triggered interrupt that is pending because software said so
    /// (ISPENDR) and stays so even when the line drops.
    pub(super) by_software: bool,
}

/// A list register that is looked at in a flush.
struct Refresh {
    /// What was read.
    lr: Lr,
    /// What to write, so far.
    updated: Lr,
    slot: Slot,
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
            saved: array::from_fn(|_| AtomicU64::new(0)),
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
    fn set_slot(&self, index: usize, slot: Slot) {
        self.slots[index % MAX_LIST_REGS].store(slot.to_byte(), Relaxed);
    }

    #[inline]
    fn image(&self, index: usize) -> Lr {
        Lr::from_ich(self.images[index % MAX_LIST_REGS].load(Relaxed))
    }

    #[inline]
    fn set_image(&self, index: usize, lr: Lr) {
        self.images[index % MAX_LIST_REGS].store(lr.to_ich(), Relaxed);
    }

    /// Second half of a claim: `irq` is in list register `index`.
    #[inline]
    fn hold(&self, irq: Irq, index: usize) {
        self.used.set(1 << index);
        self.set_slot(index, Slot { irq, by_software: false });
        if irq.bank() == 0 {
            self.index_of[irq.lane()].store(index as u8, Relaxed);
        }
        self.held[irq.bank()].set(irq.mask());
    }

    #[inline]
    fn let_go(&self, irq: Irq, index: usize) {
        self.used.clear(1 << index);
        self.active[irq.bank()].clear(irq.mask());
        self.held[irq.bank()].clear(irq.mask());
    }

    #[inline]
    pub(super) fn mark_active(&self, irq: Irq) {
        self.active[irq.bank()].set(irq.mask());
    }

    pub(super) fn set_maintenance(&self, wanted: Maintenance) {
        self.maintenance.put(wanted.bits());
    }

    #[inline]
    pub(super) fn maintenance(&self) -> Maintenance {
        Maintenance::from_bits(self.maintenance.get())
    }
}

/// The list registers of a vCPU that was saved.
struct Saved<'a>(&'a Home);

impl ListRegs for Saved<'_> {
    fn count(&self) -> usize {
        MAX_LIST_REGS
    }

    fn read(&self, index: usize) -> Lr {
        Lr::from_ich(self.0.saved[index % MAX_LIST_REGS].load(Relaxed))
    }

    fn write(&mut self, index: usize, lr: Lr) {
        self.0.saved[index % MAX_LIST_REGS].store(lr.to_ich(), Relaxed);
    }

    fn empty_mask(&self) -> u32 {
        0
    }

    /// Restoring the vCPU does that.
    fn maintain(&mut self, _wanted: Maintenance) {}

    /// [`Vgic::save`] has taken it.
    fn take_eoi_count(&mut self) -> u32 {
        0
    }

    /// The physical interrupt is another vCPU's now. That this one owns it no
    /// more is what [`Vgic::owns_physical`] says from here on.
    fn deactivate(&mut self, _physical: IntId) {}
}

/// Why [`Vgic::deliver`] and its relatives are called, and so what to leave
/// behind in the state when the interrupt cannot be loaded right away.
#[derive(Clone, Copy)]
pub(super) enum Cause {
    /// An edge: the latch.
    Edge,
    /// A line went high: it is in the state already.
    Line,
    /// A GICv2 SGI from this vCPU: the source and the latch.
    SgiFrom(usize),
}

impl Cause {
    /// A list register for an interrupt that came this way.
    #[inline]
    fn apply_to(self, lr: Lr) -> Lr {
        match self {
            Self::Edge | Self::Line => lr,
            Self::SgiFrom(source) => lr.from_source(source),
        }
    }
}

impl Vgic {
    /// Brings the list registers of `vcpu` in line with the state: folds ended
    /// interrupts back, updates or pulls back what has changed, loads what is
    /// waiting. Returns the *other* vCPUs that must look in turn.
    pub fn flush<L: ListRegs>(&self, vcpu: usize, lrs: &mut L) -> VcpuSet {
        self.refresh(vcpu, lrs).union(self.fill(vcpu, lrs)).without(vcpu)
    }

    /// Makes a private interrupt of the resident vCPU pending and loads it,
    /// without a scan if nothing is unusual: an SGI or edge-triggered PPI as
    /// one edge, a linked PPI as its physical interrupt having been
    /// acknowledged, any other PPI by raising its line (which the caller lowers
    /// with [`Vgic::set_ppi_line`]). Returns the *other* vCPUs that must look.
    ///
    /// SPIs do nothing: they have [`Vgic::set_spi_line`].
    #[inline]
    pub fn deliver<L: ListRegs>(&self, vcpu: usize, intid: IntId, lrs: &mut L) -> VcpuSet {
        let Some(irq) = Irq::from_intid(intid).filter(|irq| irq.bank() == 0) else {
            return VcpuSet::EMPTY;
        };
        let state = self.vcpu(vcpu);
        if self.has_sources(irq) {
            self.load_now(vcpu, irq, Cause::SgiFrom(vcpu), lrs)
        } else if (state.private.edge.get() | state.home.linked.get()) & irq.mask() != 0 {
            self.load_now(vcpu, irq, Cause::Edge, lrs)
        } else {
            state.private.line.set(irq.mask());
            self.load_now(vcpu, irq, Cause::Line, lrs)
        }
    }

    /// Delivers a linked PPI (see [`Vgic::link_ppi`]) whose physical interrupt
    /// EL2 has acknowledged and left active. If the guest cannot take it now,
    /// it waits in the state and the physical interrupt stays active.
    #[inline]
    pub fn deliver_linked<L: ListRegs>(&self, vcpu: usize, intid: IntId, lrs: &mut L) -> VcpuSet {
        match Irq::from_intid(intid) {
            Some(irq) if irq.is_ppi() => self.load_now(vcpu, irq, Cause::Edge, lrs),
            _ => VcpuSet::EMPTY,
        }
    }

    /// Whether the physical interrupt behind a linked PPI is this vCPU's to
    /// finish: delivered and not yet deactivated by the guest. After a switch
    /// to this vCPU, the physical interrupt's active state must be made equal
    /// to this. Exact after [`Vgic::save`], [`Vgic::restore`] or a flush; until
    /// the next of them it may still say yes after the guest's deactivation.
    pub fn owns_physical(&self, vcpu: usize, intid: IntId) -> bool {
        let state = self.vcpu(vcpu);
        Irq::from_intid(intid).is_some_and(|irq| {
            irq.is_ppi() && (state.home.held(0) | state.private.latch.get()) & irq.mask() != 0
        })
    }

    /// Whether the resident vCPU has an interrupt to take, in a list register
    /// or waiting for one. Does not know the guest's priority mask, so it may
    /// say yes where the hardware would not signal; never no where it would.
    pub fn has_deliverable<L: ListRegs>(&self, vcpu: usize, lrs: &L) -> bool {
        irq::publish();
        let home = &self.vcpu(vcpu).home;
        let in_list_register = Lanes(home.used.get()).any(|index| {
            let lr = lrs.read(index as usize);
            let irq = home.slot(index as usize).irq;
            match lr.state() {
                State::Pending => true,
                // The hardware does not signal it before it is deactivated.
                State::Active | State::PendingActive => false,
                // It may have come again since it ended.
                State::Inactive => self.deliverable(vcpu, irq.bank()) & irq.mask() != 0,
            }
        });
        in_list_register || self.has_deliverable_at_rest(vcpu)
    }

    /// The same for a vCPU that was saved. Any CPU may ask.
    pub fn has_deliverable_at_rest(&self, vcpu: usize) -> bool {
        irq::publish();
        (0..BANKS).any(|bank| {
            Lanes(self.candidates(vcpu, bank)).any(|lane| self.is_routed_to(vcpu, Irq::at(bank, lane)))
        })
    }

    /// Takes the resident vCPU's interrupts out of the list registers: pending
    /// ones go back to the state, where another vCPU or a wake-up check finds
    /// them; active ones are kept for [`Vgic::restore`]. Leaves all list
    /// registers empty. Returns the *other* vCPUs that must look.
    pub fn save<L: ListRegs>(&self, vcpu: usize, lrs: &mut L) -> VcpuSet {
        let kicks = self.unload(vcpu, lrs);
        let home = &self.vcpu(vcpu).home;
        for index in Lanes(home.used.get()) {
            let index = index as usize;
            Saved(home).write(index, lrs.read(index));
            lrs.write(index, Lr::EMPTY);
        }
        if home.maintenance() != Maintenance::NONE {
            lrs.maintain(Maintenance::NONE);
        }
        kicks.without(vcpu)
    }

    /// Gives a vCPU that was saved (or never ran) the empty list registers of
    /// this CPU and flushes it. Returns the *other* vCPUs that must look.
    pub fn restore<L: ListRegs>(&self, vcpu: usize, lrs: &mut L) -> VcpuSet {
        let home = &self.vcpu(vcpu).home;
        for index in Lanes(home.used.get()) {
            let index = index as usize;
            lrs.write(index, Saved(home).read(index));
        }
        if home.maintenance() != Maintenance::NONE {
            lrs.maintain(home.maintenance());
        }
        self.flush(vcpu, lrs)
    }

    /// Serves a kick of a vCPU that was saved and is not to run now: others may
    /// wait for it to let go of an active interrupt. For its home CPU. Returns
    /// the *other* vCPUs that must look.
    pub fn flush_at_rest(&self, vcpu: usize) -> VcpuSet {
        self.refresh(vcpu, &mut Saved(&self.vcpu(vcpu).home)).without(vcpu)
    }

    /// Drops everything the resident vCPU has in its list registers or active,
    /// for a vCPU that is powered off. Pending interrupts stay pending.
    /// Returns the *other* vCPUs that must look.
    pub fn power_off<L: ListRegs>(&self, vcpu: usize, lrs: &mut L) -> VcpuSet {
        let mut kicks = self.unload(vcpu, lrs);
        let home = &self.vcpu(vcpu).home;
        for index in Lanes(home.used.get()) {
            let irq = home.slot(index as usize).irq;
            kicks = kicks.union(self.deactivate(vcpu, index as usize, irq, lrs));
        }
        kicks.union(self.forget_spilled(vcpu)).union(self.fill(vcpu, lrs)).without(vcpu)
    }
}

/// The steps of a flush.
impl Vgic {
    /// Interrupts of a bank that wait for a list register, of whichever vCPU
    /// they are routed to.
    #[inline]
    pub(super) fn candidates(&self, vcpu: usize, bank: usize) -> u32 {
        let state = self.bank(vcpu, bank);
        let pending = state.pending();
        // Mostly nothing is, and three loads is all this costs.
        if pending == 0 {
            return 0;
        }
        let taken = if bank == 0 { self.vcpu(vcpu).home.held[0].get() } else { self.claimed(bank).get() };
        pending & state.forwardable(self.groups()) & !taken
    }

    /// Looks at every list register in use.
    fn refresh<L: ListRegs>(&self, vcpu: usize, lrs: &mut L) -> VcpuSet {
        let home = &self.vcpu(vcpu).home;
        let mut kicks = VcpuSet::EMPTY;
        if home.maintenance().contains(Maintenance::ENTRY_NOT_PRESENT) {
            kicks = self.end_spilled(vcpu, lrs.take_eoi_count());
        }
        for index in Lanes(home.used.get()) {
            let index = index as usize;
            let (lr, slot) = (lrs.read(index), home.slot(index));
            if lr.state() == State::Inactive {
                kicks = kicks.union(self.empty(vcpu, index, slot.irq, lrs));
                continue;
            }
            let fresh = self.list_register_for(vcpu, slot.irq);
            home.set_image(index, self.image_of(vcpu, slot.irq, fresh));
            let updated = lr.with_rank_of(fresh);
            kicks = kicks.union(if lr.is_active() {
                self.refresh_active(vcpu, index, Refresh { lr, updated, slot }, lrs)
            } else {
                self.refresh_pending(vcpu, index, Refresh { lr, updated, slot }, lrs)
            });
        }
        kicks
    }

    fn refresh_pending<L: ListRegs>(
        &self,
        vcpu: usize,
        index: usize,
        Refresh { lr, mut updated, slot }: Refresh,
        lrs: &mut L,
    ) -> VcpuSet {
        let Slot { irq, by_software } = slot;
        let state = self.vcpu(vcpu);
        let bank = self.bank(vcpu, irq.bank());
        if bank.drop_pending.take(irq.mask()) {
            return self.empty(vcpu, index, irq, lrs);
        }
        if !self.is_still_wanted(vcpu, slot) {
            return self.pull_back(vcpu, index, lr, slot, lrs);
        }
        // Not active (any more), so there is nothing that a request could end.
        state.home.active[irq.bank()].clear(irq.mask());
        bank.drop_active.take(irq.mask());
        if bank.latch.get() & irq.mask() != 0 {
            // It has come again before the guest saw it: that is one interrupt.
            bank.latch.clear(irq.mask());
            if self.has_sources(irq) {
                state.forget_source(irq, lr.source());
                if state.has_source(irq) {
                    // From somebody else: that one must wait for its turn.
                    bank.latch.set(irq.mask());
                    updated = updated.with_eoi_maintenance();
                }
            } else if !by_software && !self.is_one_shot(vcpu, irq) {
                // From software, a level now outlives a dropped line.
                state.home.set_slot(index, Slot { irq, by_software: true });
            }
        }
        if updated != lr {
            lrs.write(index, updated);
        }
        VcpuSet::EMPTY
    }

    fn refresh_active<L: ListRegs>(
        &self,
        vcpu: usize,
        index: usize,
        Refresh { lr, mut updated, slot }: Refresh,
        lrs: &mut L,
    ) -> VcpuSet {
        let irq = slot.irq;
        let bank = self.bank(vcpu, irq.bank());
        self.vcpu(vcpu).home.mark_active(irq);
        // The list register has it; two places would need two deactivations.
        bank.active.take(irq.mask());
        if bank.drop_pending.take(irq.mask()) {
            updated = updated.with_state(State::Active);
        }
        if updated.is_pending() && !self.is_still_wanted(vcpu, slot) {
            self.remember_pending(vcpu, updated, slot);
            updated = updated.with_state(State::Active);
        }
        if bank.drop_active.take(irq.mask()) {
            if updated.is_pending() {
                self.remember_pending(vcpu, updated, slot);
            }
            return self.deactivate(vcpu, index, irq, lrs);
        }
        if bank.latch.get() & irq.mask() != 0 && !updated.is_linked() {
            let edge = bank.edge.get() & irq.mask() != 0;
            if !edge || self.has_sources(irq) {
                // It must wait for the deactivation: a line is sampled then,
                // and one list register cannot name two senders.
                updated = updated.with_eoi_maintenance();
            } else if self.is_still_wanted(vcpu, slot) && bank.latch.take(irq.mask()) {
                updated = updated.with_state(State::PendingActive);
            }
        }
        if updated != lr {
            lrs.write(index, updated);
        }
        VcpuSet::EMPTY
    }

    /// Whether a held interrupt that is pending should stay where it is.
    #[inline]
    fn is_still_wanted(&self, vcpu: usize, slot: Slot) -> bool {
        let Slot { irq, by_software } = slot;
        let bank = self.bank(vcpu, irq.bank());
        // An edge was consumed when it was loaded; a level must still be there.
        let remembered = by_software || self.is_one_shot(vcpu, irq);
        bank.forwardable(self.groups()) & irq.mask() != 0
            && (remembered || bank.pending() & irq.mask() != 0)
            && self.is_routed_to(vcpu, irq)
    }

    /// Whether being loaded uses up what made `irq` pending: edges, and linked
    /// interrupts, whose physical twin stays active until the guest is done.
    #[inline]
    fn is_one_shot(&self, vcpu: usize, irq: Irq) -> bool {
        let linked = if irq.bank() == 0 { self.vcpu(vcpu).home.linked.get() } else { 0 };
        (self.bank(vcpu, irq.bank()).edge.get() | linked) & irq.mask() != 0
    }

    /// Puts the pending half of a list register back into the state.
    pub(super) fn remember_pending(&self, vcpu: usize, lr: Lr, slot: Slot) {
        let Slot { irq, by_software } = slot;
        if self.has_sources(irq) {
            self.vcpu(vcpu).add_source(irq, lr.source());
        }
        if by_software || self.is_one_shot(vcpu, irq) {
            self.bank(vcpu, irq.bank()).latch.set(irq.mask());
        }
    }

    /// Takes a pending interrupt out of its list register.
    pub(super) fn pull_back<L: ListRegs>(
        &self,
        vcpu: usize,
        index: usize,
        lr: Lr,
        slot: Slot,
        lrs: &mut L,
    ) -> VcpuSet {
        self.remember_pending(vcpu, lr, slot);
        self.empty(vcpu, index, slot.irq, lrs)
    }

    /// Ends an active interrupt on the guest's behalf.
    fn deactivate<L: ListRegs>(&self, vcpu: usize, index: usize, irq: Irq, lrs: &mut L) -> VcpuSet {
        if let Some(physical) = lrs.read(index).physical() {
            lrs.deactivate(physical);
        }
        self.empty(vcpu, index, irq, lrs)
    }

    /// Frees a list register and releases its interrupt.
    pub(super) fn empty<L: ListRegs>(&self, vcpu: usize, index: usize, irq: Irq, lrs: &mut L) -> VcpuSet {
        lrs.write(index, Lr::EMPTY);
        self.release(vcpu, index, irq)
    }

    /// Gives up the claim on `irq`, then looks whether it is due elsewhere.
    fn release(&self, vcpu: usize, index: usize, irq: Irq) -> VcpuSet {
        let bank = self.bank(vcpu, irq.bank());
        self.vcpu(vcpu).home.let_go(irq, index);
        if irq.bank() != 0 {
            self.claimed(irq.bank()).clear(irq.mask());
        }
        irq::publish();
        // After the claim: requests are made before the claim is read, so one
        // made to us is seen here and does not hit the next holder.
        bank.drop_pending.take(irq.mask());
        bank.drop_active.take(irq.mask());
        if irq.bank() == 0 {
            return VcpuSet::EMPTY;
        }
        self.targets(irq.bank(), self.deliverable(vcpu, irq.bank()) & irq.mask())
    }

    /// Loads what is waiting into the free list registers. In no particular
    /// order while there is room: the hardware picks the most urgent.
    pub(super) fn fill<L: ListRegs>(&self, vcpu: usize, lrs: &mut L) -> VcpuSet {
        let home = &self.vcpu(vcpu).home;
        let mut kicks = VcpuSet::EMPTY;
        for bank in 0..BANKS {
            for lane in Lanes(self.candidates(vcpu, bank)) {
                let irq = Irq::at(bank, lane);
                if !self.is_routed_to(vcpu, irq) {
                    continue;
                }
                let Some(index) = free_index(home, lrs) else {
                    return kicks.union(self.overflow(vcpu, lrs));
                };
                kicks = kicks.union(self.load(vcpu, irq, index, lrs));
            }
        }
        if home.maintenance() == Maintenance::NONE { kicks } else { kicks.union(self.overflow(vcpu, lrs)) }
    }

    /// Claims `irq` and loads it into the free list register `index`, unless
    /// somebody else was faster or it is no longer due.
    pub(super) fn load<L: ListRegs>(&self, vcpu: usize, irq: Irq, index: usize, lrs: &mut L) -> VcpuSet {
        let state = self.vcpu(vcpu);
        let bank = self.bank(vcpu, irq.bank());
        if irq.bank() != 0 && self.claimed(irq.bank()).set(irq.mask()) & irq.mask() != 0 {
            // The vCPU that it was routed to before. It will look again.
            return VcpuSet::EMPTY;
        }
        state.home.hold(irq, index);
        irq::publish();
        let due = self.deliverable(vcpu, irq.bank()) & irq.mask() != 0 && self.is_routed_to(vcpu, irq);
        if !due {
            return self.release(vcpu, index, irq);
        }
        let latched = bank.latch.take(irq.mask());
        let mut lr = self.list_register_for(vcpu, irq);
        state.home.set_image(index, lr);
        if self.has_sources(irq) {
            let Some(source) = state.take_source(irq) else {
                return self.release(vcpu, index, irq);
            };
            lr = lr.from_source(source);
            if state.has_source(irq) {
                bank.latch.set(irq.mask());
                lr = lr.with_eoi_maintenance();
            }
        } else if latched && lr.has_eoi_maintenance() {
            state.home.set_slot(index, Slot { irq, by_software: true });
        }
        lrs.write(index, lr);
        VcpuSet::EMPTY
    }

    /// Moves an interrupt that is active in the state into list register
    /// `index`, unless the guest has deactivated it or somebody claimed it.
    pub(super) fn adopt_active<L: ListRegs>(&self, vcpu: usize, irq: Irq, index: usize, lrs: &mut L) {
        if irq.bank() != 0 && self.claimed(irq.bank()).set(irq.mask()) & irq.mask() != 0 {
            return;
        }
        let home = &self.vcpu(vcpu).home;
        home.hold(irq, index);
        home.mark_active(irq);
        self.bank(vcpu, irq.bank()).active.take(irq.mask());
        let lr = self.list_register_for(vcpu, irq);
        home.set_image(index, self.image_of(vcpu, irq, lr));
        lrs.write(index, lr.with_state(State::Active));
    }

    /// A pending list register for `irq` as it is configured now.
    #[inline]
    pub(super) fn list_register_for(&self, vcpu: usize, irq: Irq) -> Lr {
        let bank = self.bank(vcpu, irq.bank());
        let lr = Lr::pending(irq.raw(), bank.priority(irq.lane()))
            .with_group_bit(bank.group.get() >> irq.lane() & 1);
        if let Some(physical) = self.vcpu(vcpu).home.physical(irq) {
            lr.linked_to(physical)
        } else if bank.edge.get() & irq.mask() == 0 {
            lr.with_eoi_maintenance()
        } else {
            lr
        }
    }

    /// What to remember for a held `irq`, whose list register would be `fresh`.
    #[inline]
    fn image_of(&self, vcpu: usize, irq: Irq, fresh: Lr) -> Lr {
        let forwardable = self.bank(vcpu, irq.bank()).forwardable(self.groups());
        if forwardable & irq.mask() == 0 { Lr::EMPTY } else { fresh }
    }

    /// Loads the private interrupt `irq` of the resident vCPU at once if that
    /// takes no thought: its old list register has ended, or one is free.
    #[inline]
    pub(super) fn load_now<L: ListRegs>(&self, vcpu: usize, irq: Irq, cause: Cause, lrs: &mut L) -> VcpuSet {
        let state = self.vcpu(vcpu);
        let (home, bank) = (&state.home, &state.private);
        if home.maintenance() == Maintenance::NONE {
            let requests = bank.drop_pending.get() | bank.drop_active.get();
            if home.held[0].get() & irq.mask() == 0 {
                if self.load_free(vcpu, irq, cause, lrs) {
                    return VcpuSet::EMPTY;
                }
            } else if requests & irq.mask() == 0 {
                // Whoever has changed anything about it since it was loaded has
                // seen the claim and kicked us, and that flush has ended the
                // claim or updated the image. So the image is good; only a
                // request to drop the earlier one must not hit this one.
                let index = home.index_of[irq.lane()].load(Relaxed) as usize % MAX_LIST_REGS;
                let image = home.image(index);
                if image.is_pending() && lrs.empty_mask() >> index & 1 != 0 {
                    lrs.write(index, cause.apply_to(image));
                    return VcpuSet::EMPTY;
                }
            }
        }
        self.load_later(vcpu, irq, cause, lrs)
    }

    /// Claims `irq` and loads it into a list register that nobody uses, if
    /// there is one and the guest wants it.
    fn load_free<L: ListRegs>(&self, vcpu: usize, irq: Irq, cause: Cause, lrs: &mut L) -> bool {
        let state = self.vcpu(vcpu);
        let Some(index) = free_index(&state.home, lrs) else {
            return false;
        };
        state.home.hold(irq, index);
        irq::publish();
        if state.private.forwardable(self.groups()) & irq.mask() == 0 {
            // The flush that comes now finds an ended interrupt and lets go.
            return false;
        }
        let lr = self.list_register_for(vcpu, irq);
        state.home.set_image(index, lr);
        lrs.write(index, cause.apply_to(lr));
        true
    }

    /// The long way round for [`Self::load_now`].
    #[inline(never)]
    fn load_later<L: ListRegs>(&self, vcpu: usize, irq: Irq, cause: Cause, lrs: &mut L) -> VcpuSet {
        let state = self.vcpu(vcpu);
        if let Cause::SgiFrom(source) = cause {
            state.add_source(irq, source);
        }
        if !matches!(cause, Cause::Line) {
            state.private.latch.set(irq.mask());
        }
        self.flush(vcpu, lrs)
    }

    /// Puts all pending list registers back into the state, so that it is the
    /// whole truth about what is pending; what stays in list registers is
    /// active and nothing else, and marked so. [`Self::fill`] undoes it.
    pub(super) fn unload<L: ListRegs>(&self, vcpu: usize, lrs: &mut L) -> VcpuSet {
        let mut kicks = self.refresh(vcpu, lrs);
        let home = &self.vcpu(vcpu).home;
        for index in Lanes(home.used.get()) {
            let index = index as usize;
            let (lr, slot) = (lrs.read(index), home.slot(index));
            if !lr.is_active() {
                kicks = kicks.union(self.pull_back(vcpu, index, lr, slot, lrs));
            } else if lr.is_pending() {
                self.remember_pending(vcpu, lr, slot);
                lrs.write(index, lr.with_state(State::Active));
            }
        }
        kicks
    }
}

/// The lowest list register that belongs to no interrupt.
#[inline]
pub(super) fn free_index<L: ListRegs>(home: &Home, lrs: &L) -> Option<usize> {
    let index = (!home.used.get()).trailing_zeros() as usize;
    (index < lrs.count().min(MAX_LIST_REGS)).then_some(index)
}

/// GICv2: who sent an SGI. A sender adds itself, *then* sets the latch; the
/// receiver clears the latch, then looks, so a sender is never overlooked.
impl VcpuState {
    /// Remembers that `source` has sent `irq`.
    pub(super) fn add_source(&self, irq: Irq, source: usize) {
        self.sources[irq.lane() % 16].fetch_or(1u8.wrapping_shl(source as u32), AcqRel);
    }

    /// Forgets that `source` has sent `irq`.
    pub(super) fn forget_source(&self, irq: Irq, source: usize) {
        self.sources[irq.lane() % 16].fetch_and(!1u8.wrapping_shl(source as u32), AcqRel);
    }

    /// Who has sent `irq`, one bit per vCPU.
    pub(super) fn sources(&self, irq: Irq) -> u8 {
        self.sources[irq.lane() % 16].load(Relaxed)
    }

    /// Whether anybody has sent `irq`.
    pub(super) fn has_source(&self, irq: Irq) -> bool {
        self.sources(irq) != 0
    }

    /// The lowest vCPU that has sent `irq`, which is thereby forgotten.
    fn take_source(&self, irq: Irq) -> Option<usize> {
        let sources = self.sources(irq);
        let source = sources.trailing_zeros() as usize;
        self.forget_source(irq, source);
        (sources != 0).then_some(source)
    }
}
