//! The first half of a flush: looking at the list registers in use.
//!
//! What the guest has done to them since is folded back, what others have
//! changed meanwhile is applied, and what is not wanted any more is pulled
//! back. [`Vgic::unload`] goes further and leaves only active ones.

use super::home::Slot;
use super::irq::{self, Irq, Lanes};
use super::list_reg::{ListRegs, Lr, Maintenance, State};
use super::{Version, Vgic};
use crate::vcpu_set::VcpuSet;

/// A list register that is looked at in a flush.
struct Refresh {
    /// What was read.
    lr: Lr,
    /// What to write, so far.
    updated: Lr,
    slot: Slot,
}

impl Vgic {
    /// Looks at every list register in use.
    #[inline]
    pub(super) fn refresh<L: ListRegs>(&self, vcpu: usize, lrs: &mut L) -> VcpuSet {
        let home = &self.vcpu(vcpu).home;
        if home.used() == 0 && home.maintenance() == Maintenance::NONE {
            VcpuSet::EMPTY
        } else {
            self.refresh_used(vcpu, lrs)
        }
    }

    #[inline(never)]
    fn refresh_used<L: ListRegs>(&self, vcpu: usize, lrs: &mut L) -> VcpuSet {
        let home = &self.vcpu(vcpu).home;
        let mut kicks = VcpuSet::EMPTY;
        if home.maintenance().contains(Maintenance::ENTRY_NOT_PRESENT) {
            kicks = self.end_spilled(vcpu, lrs.take_eoi_count());
        }
        for index in Lanes(home.used()) {
            let index = index as usize;
            let (lr, slot) = (lrs.read(index), home.slot(index));
            if lr.state() == State::Inactive {
                // What the hardware has done on GICv3. (An empty one was claimed
                // and never loaded.)
                if self.version == Version::V2
                    && lr != Lr::EMPTY
                    && let Some(physical) = home.physical(slot.irq)
                {
                    lrs.deactivate(physical);
                }
                kicks = kicks.union(self.refresh_ended(vcpu, index, slot.irq, lrs));
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

    /// An interrupt that has ended: if it has come again it stays, else it goes.
    fn refresh_ended<L: ListRegs>(&self, vcpu: usize, index: usize, irq: Irq, lrs: &mut L) -> VcpuSet {
        let home = &self.vcpu(vcpu).home;
        let bank = self.bank(vcpu, irq.bank());
        let mut stays = self.is_due(vcpu, irq);
        if stays {
            // A request that was made before it came again is for the one that
            // has ended, and must be seen if what came is seen.
            irq::publish();
            stays = (bank.drop_pending.get() | bank.drop_active.get()) & irq.mask() == 0;
        }
        if stays {
            home.mark_not_active(irq);
            home.set_slot(index, Slot { irq, by_software: false });
            self.load_held(vcpu, irq, index, lrs)
        } else {
            self.empty(vcpu, index, irq, lrs)
        }
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
        if let Some(physical) = state.home.physical(irq)
            && !lrs.is_raised(physical)
        {
            // The line fell before the guest looked: nothing is pending any more.
            bank.latch.clear(irq.mask());
            return self.deactivate(vcpu, index, irq, lrs);
        }
        if !self.is_still_wanted(vcpu, slot) {
            return self.pull_back(vcpu, index, lr, slot, lrs);
        }
        // Not active (any more), so there is nothing that a request could end.
        state.home.mark_not_active(irq);
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
    pub(super) fn is_one_shot(&self, vcpu: usize, irq: Irq) -> bool {
        let linked = if irq.bank() == 0 { self.vcpu(vcpu).home.linked() } else { 0 };
        (self.bank(vcpu, irq.bank()).edge.get() | linked) & irq.mask() != 0
    }

    /// Ends an active interrupt on the guest's behalf.
    pub(super) fn deactivate<L: ListRegs>(
        &self,
        vcpu: usize,
        index: usize,
        irq: Irq,
        lrs: &mut L,
    ) -> VcpuSet {
        if let Some(physical) = self.vcpu(vcpu).home.physical(irq) {
            lrs.deactivate(physical);
        }
        self.empty(vcpu, index, irq, lrs)
    }

    /// Puts all pending list registers back into the state, so that it is the
    /// whole truth about what is pending; what stays in list registers is
    /// active and nothing else, and marked so. [`Self::fill`] undoes it.
    pub(super) fn unload<L: ListRegs>(&self, vcpu: usize, lrs: &mut L) -> VcpuSet {
        let mut kicks = self.refresh(vcpu, lrs);
        let home = &self.vcpu(vcpu).home;
        for index in Lanes(home.used()) {
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
