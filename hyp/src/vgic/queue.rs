//! Who gets a list register: the moves between state and list registers.
//!
//! [`Vgic::flush`] is the whole of it: look at every list register in use
//! (`refresh.rs`), then load what is waiting (`load.rs`). [`Vgic::deliver`] is
//! the short cut for the one private interrupt that has just come, and falls
//! back to a flush whenever something is unusual. [`Vgic::save`] and
//! [`Vgic::restore`] serve a vCPU switch.

use core::array;

use platform::intid::IntId;

use super::Vgic;
use super::irq::{self, BANKS, Irq, Lanes};
use super::list_reg::{ListRegs, Lr, Maintenance, State};
use super::load::Cause;
use crate::vcpu_set::VcpuSet;

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
        } else if (state.private.edge.get() | state.home.linked()) & irq.mask() != 0 {
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
    ///
    /// A linked interrupt whose line fell before the guest looked is let go: were
    /// its physical twin left active, the line's next rise would wake nobody.
    pub fn has_deliverable<L: ListRegs>(&self, vcpu: usize, lrs: &mut L) -> bool {
        irq::publish();
        let home = &self.vcpu(vcpu).home;
        let in_list_register = Lanes(home.used()).any(|index| {
            let lr = lrs.read(index as usize);
            let irq = home.slot(index as usize).irq;
            match lr.state() {
                State::Pending => match home.physical(irq) {
                    Some(physical) if !lrs.is_raised(physical) => {
                        // It is private: this names nobody.
                        let _ = self.deactivate(vcpu, index as usize, irq, lrs);
                        false
                    }
                    _ => true,
                },
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
        for index in Lanes(home.used()) {
            let index = index as usize;
            home.set_image(index, lrs.read(index));
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
        for index in Lanes(home.used()) {
            let index = index as usize;
            lrs.write(index, home.image(index));
        }
        if home.maintenance() != Maintenance::NONE {
            lrs.maintain(home.maintenance());
        }
        self.flush(vcpu, lrs)
    }

    /// Drops everything the resident vCPU has in its list registers or active,
    /// for a vCPU that is powered off. Pending interrupts stay pending.
    /// Returns the *other* vCPUs that must look.
    pub fn power_off<L: ListRegs>(&self, vcpu: usize, lrs: &mut L) -> VcpuSet {
        let mut kicks = self.unload(vcpu, lrs);
        let home = &self.vcpu(vcpu).home;
        for index in Lanes(home.used()) {
            let irq = home.slot(index as usize).irq;
            kicks = kicks.union(self.deactivate(vcpu, index as usize, irq, lrs));
        }
        kicks.union(self.forget_spilled(vcpu)).union(self.fill(vcpu, lrs)).without(vcpu)
    }
}

/// The second half of a flush.
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
        let taken = if bank == 0 { self.vcpu(vcpu).home.held(0) } else { self.claimed(bank).get() };
        pending & state.forwardable(self.groups()) & !taken
    }

    /// Loads what is waiting into the free list registers.
    #[inline]
    pub(super) fn fill<L: ListRegs>(&self, vcpu: usize, lrs: &mut L) -> VcpuSet {
        let waiting: [u32; BANKS] = array::from_fn(|bank| self.candidates(vcpu, bank));
        let nothing = waiting.iter().all(|&bank| bank == 0);
        if nothing && self.vcpu(vcpu).home.maintenance() == Maintenance::NONE {
            VcpuSet::EMPTY
        } else {
            self.load_waiting(vcpu, &waiting, lrs)
        }
    }

    /// In no particular order while there is room: the hardware picks the most
    /// urgent.
    #[inline(never)]
    fn load_waiting<L: ListRegs>(&self, vcpu: usize, waiting: &[u32; BANKS], lrs: &mut L) -> VcpuSet {
        let home = &self.vcpu(vcpu).home;
        let mut kicks = VcpuSet::EMPTY;
        for (bank, &waiting) in waiting.iter().enumerate() {
            for lane in Lanes(waiting) {
                let irq = Irq::at(bank, lane);
                if !self.is_routed_to(vcpu, irq) {
                    continue;
                }
                let Some(index) = home.free_index(lrs.count()) else {
                    return kicks.union(self.overflow(vcpu, lrs));
                };
                kicks = kicks.union(self.load(vcpu, irq, index, lrs));
            }
        }
        if home.maintenance() == Maintenance::NONE { kicks } else { kicks.union(self.overflow(vcpu, lrs)) }
    }
}
