//! The protocol of `vmid.rs` in every interleaving, tried by loom.
//!
//! Two halves: an invalidation against CPUs that enter the VM with a new VMID, and
//! a rollover against CPUs that enter without the lock. Each has *mutants*, the
//! same model with a rule of the protocol broken, which must fail: a mutant that
//! passes would mean that the model shows nothing.
//!
//! `RUSTFLAGS="--cfg hyp_loom" cargo test --release -p hyp --lib vmid::interleave`

use super::ledger::Ledger;
use super::sync::{AtomicU64, Ordering, fence};
use super::{Assignment, CALLED_IN, LEFT, Tlbs, Vmid, Vmids, is_of};
use loom::thread;
use std::sync::Arc;

fn model(body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 100_000;
    builder.preemption_bound.get_or_insert(5);
    builder.check(body);
}

fn dsb() {
    fence(Ordering::SeqCst);
}

fn no_barrier() {}

/// TLBs that remember nothing, on CPUs with this barrier before entry.
struct Barrier(fn());

impl Tlbs for Barrier {
    fn forget_all_guests(&self) {
        dsb();
    }

    fn complete_writes(&self) {
        self.0();
    }
}

const OLD: u64 = 1;
const NEW: u64 = 2;

/// A VM with one descriptor. Its VMID dates from before the last rollover.
struct Guest {
    vmids: Vmids<2>,
    vm: Assignment,
    descriptor: AtomicU64,
}

impl Guest {
    fn new() -> Arc<Self> {
        let (vmids, vm) = (Vmids::with_last(3), Assignment::none());
        let others = [Assignment::none(), Assignment::none(), Assignment::none()];
        let [first, second, last] = &others;
        // The VM gets the last of three VMIDs. The rollover gives the first to
        // another, so the VM will get the second, which is not what it had.
        for other in [first, second, &vm, last] {
            vmids.enter(0, other, &Barrier(dsb));
            vmids.leave(0);
        }
        Arc::new(Self { vmids, vm, descriptor: AtomicU64::new(OLD) })
    }

    /// Enters the VM and walks its table: the VMID, and what a TLB holds then.
    fn enter(&self, cpu: usize, barrier: fn()) -> (Vmid, u64) {
        let vmid = self.vmids.enter(cpu, &self.vm, &Barrier(barrier));
        (vmid, self.descriptor.load(Ordering::Relaxed))
    }

    /// Changes the descriptor: which VMID is invalidated then.
    fn change(&self, barrier: fn()) -> Option<Vmid> {
        self.descriptor.store(NEW, Ordering::Relaxed);
        barrier();
        self.vm.current()
    }
}

/// One CPU changes the tables while `cpus` others enter the VM, each for the
/// first time since the rollover.
fn change_against_entries(cpus: usize, after_change: fn(), before_entry: fn()) {
    change_against(cpus, after_change, move |guest, cpu| guest.enter(cpu, before_entry));
}

fn change_against(
    cpus: usize,
    after_change: fn(),
    enter: impl Fn(&Guest, usize) -> (Vmid, u64) + Copy + Send + Sync + 'static,
) {
    model(move || {
        let guest = Guest::new();
        let entries: Vec<_> = (0..cpus)
            .map(|cpu| {
                let guest = guest.clone();
                thread::spawn(move || enter(&guest, cpu))
            })
            .collect();
        let invalidated = guest.change(after_change);
        for entry in entries {
            let (vmid, descriptor) = entry.join().expect("a CPU that enters");
            assert!(
                descriptor == NEW || invalidated == Some(vmid),
                "a TLB keeps the old descriptor under a VMID that was not invalidated"
            );
        }
    });
}

#[test]
fn invalidation_hits_the_vmid_that_walks_the_old_table() {
    change_against_entries(1, dsb, dsb);
}

/// The second CPU may find the id that the first wrote, and take no lock.
#[test]
fn invalidation_hits_cpus_that_only_read_the_new_id() {
    change_against_entries(2, dsb, dsb);
}

#[test]
#[should_panic(expected = "under a VMID that was not invalidated")]
fn mutant_without_the_barrier_before_entry_is_caught() {
    change_against_entries(1, dsb, no_barrier);
}

#[test]
#[should_panic(expected = "under a VMID that was not invalidated")]
fn mutant_without_the_barrier_after_the_change_is_caught() {
    change_against_entries(1, no_barrier, dsb);
}

/// A barrier only where an id was written: not on the CPU that found it.
#[test]
#[should_panic(expected = "under a VMID that was not invalidated")]
fn mutant_without_the_barrier_on_the_path_without_the_lock_is_caught() {
    change_against(2, dsb, |guest, cpu| {
        let Some(id) = guest.vmids.try_enter(cpu, &guest.vm) else { return guest.enter(cpu, dsb) };
        (Vmid::of_id(id), guest.descriptor.load(Ordering::Relaxed))
    });
}

/// Two CPUs, three VMIDs, two of them given out: the third newcomer rolls over.
struct Host {
    vmids: Vmids<2>,
    ledger: Ledger,
    vms: [Assignment; 4],
}

impl Host {
    fn new() -> Arc<Self> {
        let vms = core::array::from_fn(|_| Assignment::none());
        let host = Self { vmids: Vmids::with_last(3), ledger: Ledger::default(), vms };
        host.enter(0, 0);
        host.leave(0);
        host.enter(0, 1);
        host.leave(0);
        Arc::new(host)
    }

    fn enter(&self, cpu: usize, vm: usize) {
        self.ledger.enter(&self.vmids, cpu, vm, &self.vms[vm]);
    }

    fn leave(&self, cpu: usize) {
        self.ledger.leave(&self.vmids, cpu);
    }
}

/// CPU 1 runs through newcomers until VMIDs run out, while CPU 0 does `other`. The
/// ledger looks at every entry.
fn rollover_against(other: fn(&Host)) {
    model(move || {
        let host = Host::new();
        let cpu_1 = thread::spawn({
            let host = host.clone();
            move || {
                host.enter(1, 2);
                host.leave(1);
                host.enter(1, 3);
            }
        });
        other(&host);
        cpu_1.join().expect("CPU 1");
        assert!(host.ledger.rollovers() > 0, "there was no rollover to meet");
    });
}

#[test]
fn rollover_and_an_entry_without_the_lock_meet() {
    rollover_against(|host| host.enter(0, 0));
}

#[test]
fn rollover_and_a_change_of_guests_meet() {
    rollover_against(|host| {
        host.enter(0, 0);
        host.leave(0);
        host.enter(0, 1);
    });
}

#[test]
fn both_cpus_enter_a_vm_around_a_rollover() {
    rollover_against(|host| {
        host.enter(0, 3);
        host.leave(0);
        host.enter(0, 0);
    });
}

/// A VM stays on CPU 0 and comes to CPU 1 after the rollover.
#[test]
fn vm_in_a_processor_keeps_its_vmid() {
    model(|| {
        let host = Host::new();
        let cpu_1 = thread::spawn({
            let host = host.clone();
            move || {
                host.enter(1, 2);
                host.leave(1);
                host.enter(1, 3);
                host.leave(1);
                host.enter(1, 0);
            }
        });
        host.enter(0, 0);
        cpu_1.join().expect("CPU 1");
    });
}

/// An entry without the lock that only stores: a rollover that comes just before
/// has not reserved the id, and gives its number away.
#[test]
#[should_panic(expected = "CPUs 0 and 1 run")]
fn mutant_that_stores_the_active_id_is_caught() {
    rollover_against(|host| {
        let (slot, id) = (host.vmids.slot(0), host.vms[0].id.load(Ordering::Acquire));
        let called_in = slot.load(Ordering::Relaxed) == CALLED_IN;
        if called_in || !is_of(id, host.vmids.generation.load(Ordering::Relaxed)) {
            return host.enter(0, 0);
        }
        slot.store(id, Ordering::Relaxed);
        host.ledger.record(0, 0, Vmid::of_id(id));
    });
}

/// A guest that leaves with a plain store: it hides a rollover that came just before,
/// and the CPU enters the next guest with an id of the old generation.
#[test]
#[should_panic(expected = "CPUs 0 and 1 run")]
fn mutant_that_leaves_over_a_rollover_is_caught() {
    rollover_against(|host| {
        host.enter(0, 0);
        host.leave(0);
        host.vmids.slot(0).store(LEFT, Ordering::Relaxed);
        host.enter(0, 1);
    });
}

/// An entry without the lock that trusts the generation alone, and may read an old
/// one: only the slot tells surely that a rollover has passed this CPU.
#[test]
#[should_panic(expected = "CPUs 0 and 1 run")]
fn mutant_that_trusts_the_generation_it_reads_is_caught() {
    rollover_against(|host| {
        let (slot, id) = (host.vmids.slot(0), host.vms[0].id.load(Ordering::Acquire));
        let before = slot.load(Ordering::Relaxed);
        if !is_of(id, host.vmids.generation.load(Ordering::Relaxed))
            || slot.compare_exchange(before, id, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return host.enter(0, 0);
        }
        host.ledger.record(0, 0, Vmid::of_id(id));
    });
}
