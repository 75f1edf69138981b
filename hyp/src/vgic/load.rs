//! Claims, loads and releases: an interrupt's way into a list register and out.
//!
//! The protocol is the one in `mod.rs`, "The life of an interrupt". The short
//! cut for an interrupt that has just come to the resident vCPU is
//! [`Vgic::load_now`].

use super::home::Slot;
use super::irq::{self, Irq};
use super::list_reg::{ListRegs, Lr, Maintenance, State};
use super::sync::Ordering::{AcqRel, Relaxed};
use super::{VcpuState, Version, Vgic};
use crate::vcpu_set::VcpuSet;

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

/// Into a list register.
impl Vgic {
    /// Claims `irq` and loads it into the free list register `index`, unless
    /// somebody else was faster or it is no longer due.
    pub(super) fn load<L: ListRegs>(&self, vcpu: usize, irq: Irq, index: usize, lrs: &mut L) -> VcpuSet {
        let state = self.vcpu(vcpu);
        if irq.bank() != 0 && self.claimed(irq.bank()).set(irq.mask()) & irq.mask() != 0 {
            // The vCPU that it was routed to before. It will look again.
            return VcpuSet::EMPTY;
        }
        state.home.hold(irq, index);
        irq::publish();
        if self.is_due(vcpu, irq) {
            self.load_held(vcpu, irq, index, lrs)
        } else {
            self.release(vcpu, index, irq)
        }
    }

    /// Whether `irq`, which `vcpu` holds, should be pending there.
    #[inline]
    pub(super) fn is_due(&self, vcpu: usize, irq: Irq) -> bool {
        self.deliverable(vcpu, irq.bank()) & irq.mask() != 0 && self.is_routed_to(vcpu, irq)
    }

    /// Loads `irq`, which is claimed and due, into list register `index`.
    pub(super) fn load_held<L: ListRegs>(&self, vcpu: usize, irq: Irq, index: usize, lrs: &mut L) -> VcpuSet {
        let state = self.vcpu(vcpu);
        let bank = self.bank(vcpu, irq.bank());
        let latched = bank.latch.take(irq.mask());
        if let Some(physical) = state.home.physical(irq)
            && !lrs.is_raised(physical)
        {
            // It fell while it waited for a list register.
            return self.deactivate(vcpu, index, irq, lrs);
        }
        let mut lr = self.list_register_for(vcpu, irq);
        state.home.set_image(index, lr);
        if self.has_sources(irq) {
            let Some(source) = state.take_source(irq) else {
                return self.empty(vcpu, index, irq, lrs);
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
        let physical = self.vcpu(vcpu).home.physical(irq);
        if let (Version::V3, Some(physical)) = (self.version, physical) {
            lr.linked_to(physical)
        } else if physical.is_some() || bank.edge.get() & irq.mask() == 0 {
            lr.with_eoi_maintenance()
        } else {
            lr
        }
    }

    /// What to remember for a held `irq`, whose list register would be `fresh`.
    #[inline]
    pub(super) fn image_of(&self, vcpu: usize, irq: Irq, fresh: Lr) -> Lr {
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
            if home.held(0) & irq.mask() == 0 {
                if self.load_free(vcpu, irq, cause, lrs) {
                    return VcpuSet::EMPTY;
                }
            } else if requests & irq.mask() == 0 {
                // Whoever has changed anything about it since it was loaded has
                // seen the claim and kicked us, and that flush has ended the
                // claim or updated the image. So the image is good; only a
                // request to drop the earlier one must not hit this one.
                let index = home.index_of(irq);
                let image = home.image(index);
                if image.is_pending() && lrs.empty_mask() >> index & 1 != 0 {
                    home.mark_not_active(irq);
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
        let Some(index) = state.home.free_index(lrs.count()) else {
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
}

/// Out of a list register.
impl Vgic {
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
