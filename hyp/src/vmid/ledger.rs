//! What tests know about a machine: who uses which VMID on which CPU, and whose
//! translations the TLBs may hold under it.
//!
//! The ledger stands beside the protocol and orders nothing in it: its lock is
//! the standard library's, which loom does not look at.

use super::{Assignment, NUMBER, Tlbs, Vmid, Vmids};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

#[derive(Default)]
struct Entries {
    /// Which VM is in the processor with which VMID, by CPU.
    inside: HashMap<usize, (usize, Vmid)>,
    /// Whose translations TLBs may hold, by VMID.
    cached: HashMap<Vmid, usize>,
    rollovers: usize,
}

/// The record of one machine, which is also the machine's TLBs.
#[derive(Default)]
pub(super) struct Ledger {
    entries: Mutex<Entries>,
}

impl Ledger {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        // A test that panics on purpose may have poisoned it.
        self.entries.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// `cpu` enters a guest of VM number `vm`, and everything is checked that must
    /// hold then.
    pub(super) fn enter<const CPUS: usize>(
        &self,
        vmids: &Vmids<CPUS>,
        cpu: usize,
        vm: usize,
        assignment: &Assignment,
    ) -> Vmid {
        let vmid = vmids.enter(cpu, assignment, self);
        self.record(cpu, vm, vmid);
        vmid
    }

    /// Enters what `cpu` was given in the books.
    pub(super) fn record(&self, cpu: usize, vm: usize, vmid: Vmid) {
        assert_ne!(u64::from(vmid.0) & NUMBER, 0, "VMID 0 is nobody's");
        let mut entries = self.entries();
        entries.inside.insert(cpu, (vm, vmid));
        for (other_cpu, &(other_vm, other_vmid)) in &entries.inside {
            let same_vm = other_vm == vm;
            let same_vmid = other_vmid == vmid;
            assert_eq!(
                same_vm, same_vmid,
                "CPUs {cpu} and {other_cpu} run {vm} and {other_vm} with {vmid:?}"
            );
        }
        let owner = *entries.cached.entry(vmid).or_insert(vm);
        assert_eq!(owner, vm, "TLBs still hold another VM's translations under {vmid:?}");
    }

    /// The guest on `cpu` is out.
    pub(super) fn leave<const CPUS: usize>(&self, vmids: &Vmids<CPUS>, cpu: usize) {
        self.entries().inside.remove(&cpu);
        vmids.leave(cpu);
    }

    /// How often everything was forgotten.
    pub(super) fn rollovers(&self) -> usize {
        self.entries().rollovers
    }
}

impl Tlbs for Ledger {
    fn forget_all_guests(&self) {
        let mut entries = self.entries();
        entries.rollovers += 1;
        // Who runs on meanwhile fills the TLBs again at once.
        entries.cached = entries.inside.values().map(|&(vm, vmid)| (vmid, vm)).collect();
    }

    fn complete_writes(&self) {
        super::sync::fence(super::Ordering::SeqCst);
    }
}
