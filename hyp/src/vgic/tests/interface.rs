//! A model of one physical CPU's list registers, and of the guest behind them.

use platform::intid::IntId;

use crate::vgic::{ListRegs, Lr, MAX_LIST_REGS, Maintenance, State};

/// Nothing to acknowledge.
pub(super) const SPURIOUS: u32 = 1023;

/// What a guest reads from IAR: INTID and, for GICv2 SGIs, the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ack {
    pub(super) intid: u32,
    pub(super) source: usize,
}

/// One CPU's virtual CPU interface.
#[derive(Debug)]
pub(super) struct Interface {
    pub(super) lrs: Vec<Lr>,
    pub(super) wanted: Maintenance,
    eoi_count: u32,
    /// Priorities of acknowledged interrupts that were not ended yet.
    running: Vec<u8>,
    /// Physical interrupts deactivated by the guest's EOI or by us.
    pub(super) deactivated: Vec<IntId>,
    /// Physical interrupts whose line has fallen.
    pub(super) low: Vec<IntId>,
}

impl Interface {
    pub(super) fn new(count: usize) -> Self {
        assert!(count <= MAX_LIST_REGS);
        Self {
            lrs: vec![Lr::EMPTY; count],
            wanted: Maintenance::NONE,
            eoi_count: 0,
            running: Vec::new(),
            deactivated: Vec::new(),
            low: Vec::new(),
        }
    }

    /// The list register that IAR would acknowledge.
    fn best(&self) -> Option<usize> {
        let running = self.running.iter().copied().min().map_or(0x100, u32::from);
        (0..self.lrs.len())
            .filter(|&i| self.lrs[i].state() == State::Pending)
            .min_by_key(|&i| (self.lrs[i].priority(), self.lrs[i].intid()))
            .filter(|&i| u32::from(self.lrs[i].priority()) < running)
    }

    pub(super) fn ack(&mut self) -> Option<Ack> {
        let best = self.best()?;
        let lr = &mut self.lrs[best];
        *lr = lr.with_state(State::Active);
        self.running.push(lr.priority());
        Some(Ack { intid: lr.intid(), source: if lr.is_linked() { 0 } else { lr.source() } })
    }

    pub(super) fn iar(&mut self) -> u32 {
        self.ack().map_or(SPURIOUS, |ack| ack.intid)
    }

    /// Priority drop and deactivation (EOImode 0).
    pub(super) fn eoi(&mut self, intid: u32) {
        let most_urgent = (0..self.running.len()).min_by_key(|&i| self.running[i]);
        self.running.remove(most_urgent.expect("the guest ends what it acknowledged"));
        self.deactivate_in_list_register(intid);
    }

    /// Deactivation alone (EOImode 1).
    fn deactivate_in_list_register(&mut self, intid: u32) {
        let Some(lr) = self.lrs.iter_mut().find(|lr| lr.is_active() && lr.intid() == intid) else {
            self.eoi_count += 1;
            return;
        };
        if let Some(physical) = lr.physical() {
            self.deactivated.push(physical);
        }
        *lr = lr.with_state(if lr.is_pending() { State::Pending } else { State::Inactive });
    }

    /// Priority drop alone (EOImode 1).
    #[cfg(not(hyp_loom))]
    pub(super) fn drop_priority(&mut self) {
        let most_urgent = (0..self.running.len()).min_by_key(|&i| self.running[i]);
        self.running.remove(most_urgent.expect("the guest drops what it acknowledged"));
    }

    pub(super) fn has_maintenance(&self) -> bool {
        let ended = self.lrs.iter().any(|lr| lr.state() == State::Inactive && lr.has_eoi_maintenance());
        let no_pending = self.lrs.iter().all(|lr| lr.state() != State::Pending);
        ended
            || self.wanted.contains(Maintenance::NO_PENDING) && no_pending
            || self.wanted.contains(Maintenance::ENTRY_NOT_PRESENT) && self.eoi_count != 0
    }

    /// The list registers that show something, in order of INTID.
    pub(super) fn shown(&self) -> Vec<(u32, State)> {
        let mut shown: Vec<_> = self.lrs.iter().map(|lr| (lr.intid(), lr.state())).collect();
        shown.retain(|&(_, state)| state != State::Inactive);
        shown.sort_by_key(|&(intid, _)| intid);
        shown
    }
}

impl ListRegs for Interface {
    fn count(&self) -> usize {
        self.lrs.len()
    }

    fn read(&self, index: usize) -> Lr {
        self.lrs[index]
    }

    fn write(&mut self, index: usize, lr: Lr) {
        assert!(!(lr.is_linked() && lr.state() == State::PendingActive), "not allowed for linked ones");
        let twin = self.lrs.iter().enumerate().find(|&(other, old)| {
            other != index
                && lr.state() != State::Inactive
                && old.state() != State::Inactive
                && old.intid() == lr.intid()
        });
        assert!(twin.is_none(), "one INTID in two list registers is UNPREDICTABLE: {lr:?} {twin:?}");
        self.lrs[index] = lr;
    }

    fn empty_mask(&self) -> u32 {
        let is_empty = |lr: &Lr| lr.state() == State::Inactive && !lr.has_eoi_maintenance();
        self.lrs.iter().enumerate().fold(0, |mask, (i, lr)| mask | u32::from(is_empty(lr)) << i)
    }

    fn maintain(&mut self, wanted: Maintenance) {
        assert_ne!(self.wanted, wanted, "called on changes only");
        self.wanted = wanted;
    }

    fn take_eoi_count(&mut self) -> u32 {
        std::mem::take(&mut self.eoi_count)
    }

    fn deactivate(&mut self, physical: IntId) {
        self.deactivated.push(physical);
    }

    fn is_raised(&self, physical: IntId) -> bool {
        !self.low.contains(&physical)
    }
}
