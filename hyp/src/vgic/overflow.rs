//! More interrupts than list registers.
//!
//! While some candidate has no list register, three things hold after every
//! flush: nothing that waits is more urgent than anything pending in a list
//! register; at least one list register is pending; and the no-pending
//! maintenance interrupt is on. So the guest always has the most urgent ones
//! to take, and we hear of it when it has taken the last of them.
//!
//! Active interrupts can fill all list registers, by nesting or because the
//! guest deactivates late (EOImode 1). Then the least urgent one is *spilled*:
//! its bit in `active` is set as if the guest had written ISACTIVER, and the
//! hardware counts the guest's deactivations that meet no list register
//! (HCR.EOIcount). It does not say of what, so the most urgent spilled one is
//! taken: right for nested handlers, which end in the order of urgency, and
//! the architecture offers nothing better (IHI 0069, "Maintenance interrupts").
//!
//! Linked interrupts are never spilled (the hardware must see their end), so
//! there must be more list registers than linked PPIs.

use super::Vgic;
use super::irq::{BANKS, Irq, Lanes};
use super::list_reg::{ListRegs, MAX_LIST_REGS, Maintenance, State};
use crate::vcpu_set::VcpuSet;

impl Vgic {
    /// The end of a flush that found more candidates than list registers, or
    /// that follows one that did.
    #[cold]
    #[inline(never)]
    pub(super) fn overflow<L: ListRegs>(&self, vcpu: usize, lrs: &mut L) -> VcpuSet {
        let home = &self.vcpu(vcpu).home;
        let mut kicks = VcpuSet::EMPTY;
        // Each round improves what the list registers hold. Other CPUs could
        // still keep us busy by changing the state, so rounds are counted:
        // whoever changes it kicks us, and the next flush goes on.
        for _ in 0..2 * MAX_LIST_REGS {
            let Some(best) = self.most_urgent_candidate(vcpu) else {
                break;
            };
            if home.free_index(lrs.count()).is_none() {
                kicks = kicks.union(self.make_room(vcpu, best, lrs));
            }
            let Some(index) = home.free_index(lrs.count()) else {
                break;
            };
            kicks = kicks.union(self.load(vcpu, best, index, lrs));
        }
        let mut wanted = Maintenance::NONE;
        if self.most_urgent_candidate(vcpu).is_some() {
            wanted = wanted.union(Maintenance::NO_PENDING);
        }
        if self.reload_spilled(vcpu, lrs) == Spilled::Remain {
            wanted = wanted.union(Maintenance::ENTRY_NOT_PRESENT);
        }
        if wanted != home.maintenance() {
            home.set_maintenance(wanted);
            lrs.maintain(wanted);
        }
        kicks
    }

    /// Frees a list register for `best` if it deserves one.
    fn make_room<L: ListRegs>(&self, vcpu: usize, best: Irq, lrs: &mut L) -> VcpuSet {
        let home = &self.vcpu(vcpu).home;
        let mut least_pending = None;
        let mut least_active = None;
        for index in Lanes(home.used()) {
            let index = index as usize;
            let lr = lrs.read(index);
            let rank = self.rank(vcpu, home.slot(index).irq);
            let least = match lr.state() {
                State::Pending => &mut least_pending,
                _ if home.physical(home.slot(index).irq).is_some() => continue,
                _ => &mut least_active,
            };
            if least.is_none_or(|(least_rank, _, _)| rank > least_rank) {
                *least = Some((rank, index, lr));
            }
        }
        match (least_pending, least_active) {
            (Some((rank, index, lr)), _) => {
                // Equal priorities stay: the hardware would take either first.
                if self.rank(vcpu, best) >> 8 >= rank >> 8 {
                    return VcpuSet::EMPTY;
                }
                self.pull_back(vcpu, index, lr, home.slot(index), lrs)
            }
            (None, Some((_, index, lr))) => {
                let slot = home.slot(index);
                if lr.is_pending() {
                    self.remember_pending(vcpu, lr, slot);
                }
                if !home.maintenance().contains(Maintenance::ENTRY_NOT_PRESENT) {
                    // Counted before there was anything to count.
                    lrs.take_eoi_count();
                }
                // Active in the state first, so that it is at no moment free.
                self.bank(vcpu, slot.irq.bank()).active.set(slot.irq.mask());
                home.spilled[slot.irq.bank()].set(slot.irq.mask());
                self.empty(vcpu, index, slot.irq, lrs)
            }
            (None, None) => VcpuSet::EMPTY,
        }
    }

    /// The guest has ended `count` interrupts that were in no list register.
    #[cold]
    pub(super) fn end_spilled(&self, vcpu: usize, count: u32) -> VcpuSet {
        let mut kicks = VcpuSet::EMPTY;
        for _ in 0..count.min(u32::from(u8::MAX)) {
            let Some(irq) = self.most_urgent(vcpu, |bank| self.still_spilled(vcpu, bank)) else {
                break;
            };
            kicks = kicks.union(self.end(vcpu, irq));
        }
        kicks
    }

    /// Ends all spilled interrupts: the vCPU was powered off.
    pub(super) fn forget_spilled(&self, vcpu: usize) -> VcpuSet {
        let mut kicks = VcpuSet::EMPTY;
        for bank in 0..BANKS {
            for lane in Lanes(self.still_spilled(vcpu, bank)) {
                kicks = kicks.union(self.end(vcpu, Irq::at(bank, lane)));
            }
        }
        kicks
    }

    fn end(&self, vcpu: usize, irq: Irq) -> VcpuSet {
        self.vcpu(vcpu).home.spilled[irq.bank()].clear(irq.mask());
        self.bank(vcpu, irq.bank()).active.clear(irq.mask());
        self.observers(vcpu, irq.bank(), irq.mask())
    }

    /// Gives spilled interrupts the list registers that are left over.
    fn reload_spilled<L: ListRegs>(&self, vcpu: usize, lrs: &mut L) -> Spilled {
        let home = &self.vcpu(vcpu).home;
        loop {
            // The sender of a GICv2 SGI is forgotten: it stays where it is.
            let irq = self.most_urgent(vcpu, |bank| {
                let lost = if self.has_sources(Irq::at(bank, 0)) { super::SGI_LANES } else { 0 };
                self.still_spilled(vcpu, bank) & !lost
            });
            let (Some(irq), Some(index)) = (irq, home.free_index(lrs.count())) else {
                break;
            };
            home.spilled[irq.bank()].clear(irq.mask());
            self.adopt_active(vcpu, irq, index, lrs);
        }
        if (0..BANKS).any(|bank| home.spilled[bank].get() != 0) { Spilled::Remain } else { Spilled::None }
    }

    /// Spilled interrupts that the guest has not deactivated by ICACTIVER.
    fn still_spilled(&self, vcpu: usize, bank: usize) -> u32 {
        let spilled = &self.vcpu(vcpu).home.spilled[bank % BANKS];
        let still = spilled.get() & self.bank(vcpu, bank).active.get();
        if still != spilled.get() {
            spilled.put(still);
        }
        still
    }

    /// The most urgent interrupt that waits for a list register of this vCPU.
    fn most_urgent_candidate(&self, vcpu: usize) -> Option<Irq> {
        self.most_urgent(vcpu, |bank| {
            let mut mine = self.candidates(vcpu, bank);
            for lane in Lanes(mine) {
                let irq = Irq::at(bank, lane);
                if !self.is_routed_to(vcpu, irq) {
                    mine &= !irq.mask();
                }
            }
            mine
        })
    }

    /// The most urgent of the interrupts that `select` gives for each bank.
    fn most_urgent(&self, vcpu: usize, select: impl Fn(usize) -> u32) -> Option<Irq> {
        (0..BANKS)
            .flat_map(|bank| Lanes(select(bank)).map(move |lane| Irq::at(bank, lane)))
            .min_by_key(|&irq| self.rank(vcpu, irq))
    }

    /// Orders interrupts by priority, then INTID: the lower, the more urgent.
    fn rank(&self, vcpu: usize, irq: Irq) -> u32 {
        let priority = self.bank(vcpu, irq.bank()).priority(irq.lane());
        u32::from(priority) << 8 | irq.raw()
    }
}

/// Whether active interrupts are left in memory.
#[derive(PartialEq, Eq)]
enum Spilled {
    None,
    Remain,
}
