//! Tests of the virtual GIC as a whole, against a model of the hardware.
//!
//! [`Interface`] is a physical CPU's list registers and the guest's view of
//! them: it acknowledges and ends interrupts as IHI 0069 says, and knows when
//! a maintenance interrupt would come. [`Machine`] is a VM whose vCPUs are all
//! resident, each on a CPU of its own, and whose kicks are served at once.

mod delivery;
mod model;
mod registers_v2;
mod registers_v3;
mod stress;
mod switching;

use super::{Level, ListRegs, Lr, MAX_LIST_REGS, Maintenance, SgiRegister, State, Version, Vgic};
use crate::mmio::Width;
use crate::vcpu_set::VcpuSet;
use platform::intid::IntId;

/// Nothing to acknowledge.
const SPURIOUS: u32 = 1023;

/// What a guest reads from IAR: INTID and, for GICv2 SGIs, the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ack {
    intid: u32,
    source: usize,
}

/// One CPU's virtual CPU interface.
#[derive(Debug)]
struct Interface {
    lrs: Vec<Lr>,
    wanted: Maintenance,
    eoi_count: u32,
    /// Priorities of acknowledged interrupts that were not ended yet.
    running: Vec<u8>,
    /// Physical interrupts deactivated by the guest's EOI or by us.
    deactivated: Vec<IntId>,
}

impl Interface {
    fn new(count: usize) -> Self {
        assert!(count <= MAX_LIST_REGS);
        Self {
            lrs: vec![Lr::EMPTY; count],
            wanted: Maintenance::NONE,
            eoi_count: 0,
            running: Vec::new(),
            deactivated: Vec::new(),
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

    fn ack(&mut self) -> Option<Ack> {
        let best = self.best()?;
        let lr = &mut self.lrs[best];
        *lr = lr.with_state(State::Active);
        self.running.push(lr.priority());
        Some(Ack { intid: lr.intid(), source: if lr.is_linked() { 0 } else { lr.source() } })
    }

    fn iar(&mut self) -> u32 {
        self.ack().map_or(SPURIOUS, |ack| ack.intid)
    }

    /// Priority drop and deactivation (EOImode 0).
    fn eoi(&mut self, intid: u32) {
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
    fn drop_priority(&mut self) {
        let most_urgent = (0..self.running.len()).min_by_key(|&i| self.running[i]);
        self.running.remove(most_urgent.expect("the guest drops what it acknowledged"));
    }

    fn has_maintenance(&self) -> bool {
        let ended = self.lrs.iter().any(|lr| lr.state() == State::Inactive && lr.has_eoi_maintenance());
        let no_pending = self.lrs.iter().all(|lr| lr.state() != State::Pending);
        ended
            || self.wanted.contains(Maintenance::NO_PENDING) && no_pending
            || self.wanted.contains(Maintenance::ENTRY_NOT_PRESENT) && self.eoi_count != 0
    }

    /// The list registers that show something, in order of INTID.
    fn shown(&self) -> Vec<(u32, State)> {
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
}

/// A VM with all its vCPUs resident.
struct Machine {
    vgic: Vgic,
    cpus: Vec<Interface>,
}

impl Machine {
    fn new(version: Version, vcpus: usize) -> Self {
        Self::with_list_regs(version, vcpus, 4)
    }

    fn with_list_regs(version: Version, vcpus: usize, count: usize) -> Self {
        let vgic = Vgic::new(version, vcpus);
        Self { vgic, cpus: (0..vcpus).map(|_| Interface::new(count)).collect() }
    }

    /// A machine whose interrupts are all enabled, of priority 0xa0, and go to
    /// vCPU 0: as an operating system sets it up.
    fn ready(version: Version, vcpus: usize) -> Self {
        let mut machine = Self::new(version, vcpus);
        machine.set_up();
        machine
    }

    fn set_up(&mut self) {
        for vcpu in 0..self.cpus.len() {
            match self.vgic.version {
                Version::V2 => {
                    self.write(vcpu, 0x100, u32::MAX);
                    (0..8).for_each(|n| self.write(vcpu, 0x400 + 4 * n, 0xa0a0_a0a0));
                }
                Version::V3 => {
                    self.write_redist(vcpu, vcpu, 0x1_0100, u32::MAX);
                    (0..8).for_each(|n| self.write_redist(vcpu, vcpu, 0x1_0400 + 4 * n, 0xa0a0_a0a0));
                }
            }
        }
        for n in 1..4 {
            self.write(0, 0x100 + 4 * n, u32::MAX);
        }
        for n in 8..32 {
            self.write(0, 0x400 + 4 * n, 0xa0a0_a0a0);
            self.write(0, 0x800 + 4 * n, 0x0101_0101);
        }
        self.write(0, 0x000, 3);
    }

    /// Serves kicks, as their home CPUs would, until nobody is left to kick.
    fn serve(&mut self, mut kicks: VcpuSet) {
        for _ in 0..100 {
            if kicks.is_empty() {
                return;
            }
            kicks = kicks.iter().fold(VcpuSet::EMPTY, |next, vcpu| next.union(self.flush(vcpu)));
        }
        panic!("kicks never end");
    }

    fn flush(&mut self, vcpu: usize) -> VcpuSet {
        let kicks = self.vgic.flush(vcpu, &mut self.cpus[vcpu]);
        assert!(!kicks.contains(vcpu));
        kicks
    }

    fn serve_maintenance(&mut self) {
        for vcpu in 0..self.cpus.len() {
            for round in 0.. {
                assert!(round < 10, "a storm of maintenance interrupts: {:?}", self.cpus[vcpu]);
                if !self.cpus[vcpu].has_maintenance() {
                    break;
                }
                let kicks = self.flush(vcpu);
                self.serve(kicks);
            }
        }
    }

    fn read(&self, vcpu: usize, offset: u64) -> u32 {
        self.vgic.dist_read(vcpu, offset, Width::Word, &self.cpus[vcpu]) as u32
    }

    fn write(&mut self, vcpu: usize, offset: u64, value: u32) {
        self.write_as(vcpu, offset, Width::Word, value.into());
    }

    fn write_as(&mut self, vcpu: usize, offset: u64, width: Width, value: u64) {
        let kicks = self.vgic.dist_write(vcpu, offset, width, value, &mut self.cpus[vcpu]);
        assert!(!kicks.contains(vcpu));
        self.serve(kicks);
    }

    fn read_redist(&self, vcpu: usize, frame: usize, offset: u64) -> u32 {
        self.vgic.redist_read(vcpu, frame, offset, Width::Word, &self.cpus[vcpu]) as u32
    }

    fn write_redist(&mut self, vcpu: usize, frame: usize, offset: u64, value: u32) {
        let cpu = &mut self.cpus[vcpu];
        let kicks = self.vgic.redist_write(vcpu, frame, offset, Width::Word, value.into(), cpu);
        assert!(!kicks.contains(vcpu));
        self.serve(kicks);
    }

    /// Sends SGI `n` to a mask of vCPUs, the way the version has it.
    fn send(&mut self, from: usize, targets: u8, n: u32) {
        let (cpu, value) = (&mut self.cpus[from], u64::from(n) << 24 | u64::from(targets));
        match self.vgic.version {
            Version::V2 => self.write(from, 0xf00, u32::from(targets) << 16 | n),
            Version::V3 => {
                let kicks = self.vgic.write_sgi_register(from, SgiRegister::Sgi1R, value, cpu);
                self.serve(kicks);
            }
        }
    }

    /// Drives SPI `n`, counted from 0.
    fn line(&mut self, n: u32, level: Level) {
        let kicks = self.vgic.set_spi_line(IntId::spi(n), level);
        self.serve(kicks);
    }

    fn private_line(&mut self, vcpu: usize, n: u32, level: Level) {
        let kicks = self.vgic.set_ppi_line(vcpu, IntId::ppi(n), level);
        self.serve(kicks);
    }

    fn iar(&mut self, vcpu: usize) -> u32 {
        self.cpus[vcpu].iar()
    }

    /// Ends an interrupt and lets maintenance interrupts come.
    fn eoi(&mut self, vcpu: usize, intid: u32) {
        self.cpus[vcpu].eoi(intid);
        self.serve_maintenance();
    }

    fn shown(&self, vcpu: usize) -> Vec<(u32, State)> {
        self.cpus[vcpu].shown()
    }
}

const VERSIONS: [Version; 2] = [Version::V2, Version::V3];
