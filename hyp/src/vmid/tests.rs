//! The allocator on one thread, with as few VMIDs as it can live with.

use super::ledger::Ledger;
use super::{Assignment, CALLED_IN, GENERATION_ONE, Ordering, Tlbs, Vmid, Vmids};
use proptest::prelude::{Strategy, any, prop, proptest};
use stage2::VmidSize;
use std::cell::Cell;

/// Three CPUs and the four VMIDs that take.
const CPUS: usize = 3;
const LAST: u64 = 4;

/// A machine with as many VMs as anybody wants.
struct Machine {
    vmids: Vmids<CPUS>,
    vms: Vec<Assignment>,
    ledger: Ledger,
}

impl Machine {
    fn new() -> Self {
        let vms = (0..20).map(|_| Assignment::none()).collect();
        Self { vmids: Vmids::with_last(LAST), vms, ledger: Ledger::default() }
    }

    fn enter(&self, cpu: usize, vm: usize) -> Vmid {
        self.ledger.enter(&self.vmids, cpu, vm, &self.vms[vm])
    }

    fn leave(&self, cpu: usize) {
        self.ledger.leave(&self.vmids, cpu);
    }

    /// Each CPU enters the VM with its number.
    fn enter_everywhere(&self) {
        for cpu in 0..CPUS {
            self.enter(cpu, cpu);
        }
    }

    /// Visits VMs on CPU 2 that nobody else uses, until numbers run out.
    fn roll_over(&self) {
        let before = self.ledger.rollovers();
        for vm in (10..20).cycle().take(100) {
            self.enter(2, vm);
            self.leave(2);
            if self.ledger.rollovers() > before {
                return;
            }
        }
        panic!("{LAST} VMIDs never ran out");
    }
}

#[test]
fn first_vmid_is_not_zero() {
    assert_eq!(Machine::new().enter(0, 0).vttbr_bits(), 1 << 48);
}

#[test]
fn vm_that_never_ran_has_no_vmid() {
    assert_eq!(Assignment::none().current(), None);
}

#[test]
fn current_vmid_is_the_one_that_was_entered() {
    let machine = Machine::new();
    let vmid = machine.enter(0, 7);
    assert_eq!(machine.vms[7].current(), Some(vmid));
}

#[test]
fn vm_keeps_its_vmid_while_there_are_enough() {
    let machine = Machine::new();
    let vmid = machine.enter(0, 0);
    machine.enter(0, 1);
    assert_eq!(machine.enter(0, 0), vmid);
    assert_eq!(machine.ledger.rollovers(), 0);
}

#[test]
fn all_cpus_enter_a_vm_with_one_vmid() {
    let machine = Machine::new();
    let vmid = machine.enter(0, 0);
    assert_eq!((machine.enter(1, 0), machine.enter(2, 0)), (vmid, vmid));
}

#[test]
fn sizes_have_all_their_numbers_but_zero() {
    for (size, numbers) in [(VmidSize::Bits8, 0xff_u64), (VmidSize::Bits16, 0xffff)] {
        let vmids: Vmids = Vmids::new(size);
        let ledger = Ledger::default();
        for number in 1..=numbers {
            let vmid = vmids.enter(0, &Assignment::none(), &ledger);
            assert_eq!(vmid.vttbr_bits(), number << 48);
        }
        assert_eq!(ledger.rollovers(), 0);
        vmids.enter(0, &Assignment::none(), &ledger);
        assert_eq!(ledger.rollovers(), 1);
    }
}

#[test]
#[should_panic(expected = "too few VMIDs")]
fn each_cpu_must_be_able_to_reserve_one_and_leave_one() {
    let _ = Vmids::<CPUS>::with_last(CPUS as u64);
}

#[test]
fn rollover_forgets_once_for_all_cpus() {
    let machine = Machine::new();
    machine.enter_everywhere();
    machine.roll_over();
    machine.enter_everywhere();
    assert_eq!(machine.ledger.rollovers(), 1);
}

#[test]
fn vm_in_a_processor_keeps_its_vmid_through_rollovers() {
    let machine = Machine::new();
    let vmid = machine.enter(0, 0);
    for _ in 0..5 {
        machine.roll_over();
        assert_eq!(machine.enter(1, 0), vmid, "on another CPU");
        machine.leave(1);
    }
    assert_eq!(machine.enter(0, 0), vmid, "where it was all the time");
}

/// The vCPU on CPU 0 never comes by again, and its slot stays CALLED_IN through two
/// rollovers: what it has reserved must not be forgotten at the second.
#[test]
fn vm_that_never_leaves_keeps_its_vmid_unasked() {
    let machine = Machine::new();
    let vmid = machine.enter(0, 0);
    machine.roll_over();
    machine.roll_over();
    assert_eq!(machine.enter(0, 0), vmid);
}

/// Two CPUs reserve one id, a third renews it. If only one of them learned the new
/// name, the VM would lose the number at the next rollover that finds the other.
#[test]
fn every_cpu_that_reserved_an_id_learns_its_new_name() {
    let machine = Machine::new();
    let vmid = machine.enter(0, 0);
    assert_eq!(machine.enter(1, 0), vmid);
    machine.roll_over();
    assert_eq!(machine.enter(2, 0), vmid);
    machine.leave(2);
    // CPU 0 is done with it; CPU 1 goes on.
    machine.enter(0, 1);
    machine.leave(0);
    machine.roll_over();
    assert_eq!(machine.enter(2, 0), vmid);
}

#[test]
fn cpu_that_left_its_guest_reserves_nothing() {
    let machine = Machine::new();
    (0..CPUS).for_each(|cpu| {
        machine.enter(cpu, cpu);
        machine.leave(cpu);
    });
    machine.roll_over();
    // The rollover gave out one; nothing but that is in use.
    let numbers: Vec<u64> = (4..7).map(|vm| machine.enter(0, vm).vttbr_bits() >> 48).collect();
    assert_eq!(numbers, [2, 3, 4]);
    assert_eq!(machine.ledger.rollovers(), 1);
}

#[test]
fn rollover_calls_in_every_slot() {
    let machine = Machine::new();
    machine.enter(0, 0);
    machine.roll_over();
    assert_eq!(machine.vmids.active[0].load(Ordering::Relaxed), CALLED_IN);
    assert_eq!(machine.vmids.generation.load(Ordering::Relaxed), 2 * GENERATION_ONE);
}

/// Counts what the TLBs are asked to do.
#[derive(Default)]
struct Counter {
    barriers: Cell<usize>,
    rollovers: Cell<usize>,
}

impl Tlbs for Counter {
    fn forget_all_guests(&self) {
        self.rollovers.set(self.rollovers.get() + 1);
    }

    fn complete_writes(&self) {
        self.barriers.set(self.barriers.get() + 1);
    }
}

#[test]
fn every_entry_has_its_barrier_with_and_without_the_lock() {
    let (vmids, vm, counter) = (Vmids::<CPUS>::with_last(LAST), Assignment::none(), Counter::default());
    vmids.enter(0, &vm, &counter);
    vmids.enter(0, &vm, &counter);
    assert_eq!((counter.barriers.get(), counter.rollovers.get()), (2, 0));
}

/// A CPU enters a VM or, with `None`, leaves the one it has.
fn steps() -> impl Strategy<Value = Vec<(usize, Option<usize>)>> {
    let step = (0..CPUS, (any::<bool>(), 0..8_usize).prop_map(|(enter, vm)| enter.then_some(vm)));
    prop::collection::vec(step, 0..200)
}

proptest! {
    /// Whatever comes: the ledger checks at each entry that no two VMs share a
    /// VMID, that no VM has two, and that no TLB holds another's translations.
    #[test]
    fn vmids_are_never_shared_and_never_stale(steps in steps()) {
        let machine = Machine::new();
        for (cpu, step) in steps {
            match step {
                Some(vm) => _ = machine.enter(cpu, vm),
                None => machine.leave(cpu),
            }
        }
    }
}
