//! A model of the hardware that stage 2 is for: CPUs, TLBs, walk caches, and
//! walkers that see stores late and write to tables themselves.
//!
//! [`Machine`] is the memory that a space's tables are made of, and its CPUs
//! ([`Machine::cpu`]) execute the crate's own TLB sequences, instruction by
//! instruction. It never decides what the hardware *does*; it keeps track of
//! all that hardware *may* do, and reports every moment in which that includes
//! something that must not be.
//!
//! * `shape` says what VTCR_EL2 and descriptors mean.
//! * `memory` is what walkers may see in words of memory.
//! * `tlb` is what TLBs may hold; `state` says how it gets there.
//! * `cpu` is barriers and TLBIs, `select` the operands of the latter.
//! * `guest` is what guests and the hardware's own updates do.
//! * `monitor` has the invariants.
//! * `turns` lets several CPUs run operations, and another CPU come in
//!   between any two steps of one.
//! * `rig` is a machine's CPUs and one space, for tests.
//! * `careless` leaves out an instruction, to see that it is missed.
//!
//! # What the model leaves out
//!
//! Accesses by software to tables are sequentially consistent (loom's models
//! are about those). Stage 1 is not modelled beyond the TLB entries that
//! combine it with stage 2. VMIDs don't roll over.

mod careless;
mod cpu;
mod guest;
mod memory;
mod monitor;
pub(crate) mod rig;
mod select;
mod shape;
mod state;
mod tests;
mod tlb;
mod turns;

use std::cell::Cell;
use std::sync::{Mutex, MutexGuard};

use stage2::epoch::Epochs;
use stage2::pte::AtomicPte;
use stage2::table::Store;
use stage2::tlbi::{Completion, Costs, Instruction, Instructions, Platform, Stage2Registers, Support, Tlbi};
use stage2::{PhysAddr, Space, TableMemory};

pub(crate) use careless::Careless;
pub(crate) use guest::Outcome;
pub(crate) use shape::Access;
pub(crate) use turns::{Schedule, Task};

use memory::Words;
use shape::{ALL, Shape};
use state::State;
use turns::{Step, Turns};

/// What a machine is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    pub(crate) cpus: usize,
    /// Bytes of memory for tables.
    pub(crate) table_memory: u64,
    /// FEAT_TTL.
    pub(crate) level_hints: bool,
    /// FEAT_TLBIRANGE.
    pub(crate) range_operations: bool,
    /// The erratum by which a TLBI is complete only after another one.
    pub(crate) repeat: bool,
    /// FEAT_BBM level 2.
    pub(crate) bbm2: bool,
}

impl Config {
    /// Two CPUs with all features and no erratum.
    pub(crate) const FULL: Self = Self {
        cpus: 2,
        table_memory: 1 << 20,
        level_hints: true,
        range_operations: true,
        repeat: false,
        bbm2: false,
    };

    /// What the crate's sequences are told of it.
    pub(crate) fn platform(&self) -> Platform {
        let support = |has| if has { Support::Present } else { Support::Absent };
        Platform {
            range_operations: support(self.range_operations),
            level_hints: support(self.level_hints),
            completion: if self.repeat { Completion::Repeated } else { Completion::Once },
            costs: Costs::TYPICAL,
        }
    }
}

/// How often each instruction was executed, on all CPUs together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) dsb_ishst: usize,
    pub(crate) dsb_ish: usize,
    pub(crate) dsb_nsh: usize,
    pub(crate) isb: usize,
    pub(crate) single: usize,
    pub(crate) range: usize,
    pub(crate) stage1: usize,
    pub(crate) vmid: usize,
    pub(crate) repeat: usize,
}

impl Counts {
    fn tlbi(&mut self, operation: Tlbi) {
        *match operation {
            Tlbi::Ipas2e1(..) => &mut self.single,
            Tlbi::Ripas2e1(..) => &mut self.range,
            Tlbi::Vmalle1(_) => &mut self.stage1,
            Tlbi::Vmalls12e1(_) => &mut self.vmid,
            Tlbi::Repeat => &mut self.repeat,
        } += 1;
    }
}

thread_local! {
    /// The CPU that this thread is.
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// A machine, with table memory and CPUs.
pub(crate) struct Machine {
    words: Words,
    state: Mutex<State>,
    epochs: Epochs,
    turns: Turns,
}

/// One CPU of a machine: what executes instructions.
#[derive(Clone, Copy)]
pub(crate) struct Cpu<'m> {
    machine: &'m Machine,
    number: usize,
}

impl Machine {
    pub(crate) fn new(config: Config) -> Self {
        let state = State::new(config);
        let (words, turns) = (state.memory.words(), Turns::default());
        Self { words, state: Mutex::new(state), epochs: Epochs::new(), turns }
    }

    /// The CPU with this number.
    pub(crate) fn cpu(&self, number: usize) -> Cpu<'_> {
        assert!(number < self.state().cpus.len(), "there is no CPU {number}");
        Cpu { machine: self, number }
    }

    /// What the machine is like.
    pub(crate) fn config(&self) -> Config {
        self.state().config
    }

    /// Gives `space` a VMID, and lets its guest run on all CPUs.
    pub(crate) fn start<M: TableMemory>(&self, space: &Space<M>, vmid: u64) -> Stage2Registers {
        let registers = Stage2Registers { vttbr: vmid << 48 | space.root().bits(), vtcr: space.vtcr() };
        let mut state = self.state();
        state.attach(vmid, space.root().bits(), Shape::new(space.vtcr()));
        state.run(vmid, ALL);
        state.cpus.iter_mut().for_each(|cpu| cpu.load(registers));
        registers
    }

    /// Stops the guest of a VMID everywhere: nobody walks for it any more,
    /// but TLBs keep what they have.
    pub(crate) fn stop(&self, vmid: u64) {
        let mut state = self.state();
        state.run(vmid, 0);
        let nobody = Stage2Registers { vttbr: 0, vtcr: 0 };
        for cpu in 0..state.cpus.len() {
            if state.current(cpu) == Some(vmid) {
                state.cpus[cpu].load(nobody);
            }
        }
    }

    /// Makes a space current on a CPU, as entering its guest there does.
    pub(crate) fn enter(&self, cpu: usize, registers: Stage2Registers) {
        self.state().cpus[cpu].load(registers);
    }

    /// Lets this many more allocations succeed.
    pub(crate) fn allow_allocations(&self, count: usize) {
        self.state().allocations_left = count;
    }

    /// Bytes of table memory that are in use.
    pub(crate) fn in_use(&self) -> u64 {
        self.state().memory.in_use()
    }

    /// The instructions since the last call.
    pub(crate) fn take_counts(&self) -> Counts {
        std::mem::take(&mut self.state().counts)
    }

    /// What went wrong since the last call.
    pub(crate) fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut self.state().violations)
    }

    /// What went wrong since the last call, now that no operation runs.
    pub(crate) fn rest(&self) -> Vec<String> {
        self.state().check_rest();
        self.take_violations()
    }

    /// Notes something that a test found to be wrong.
    pub(crate) fn complain(&self, what: &str) {
        self.state().violation(what.to_string());
    }

    /// Fails the test if a rule was broken or anything is left undone.
    #[track_caller]
    pub(crate) fn check(&self) {
        assert_eq!(self.rest(), Vec::<String>::new());
    }

    /// Physical memory goes to someone else.
    pub(crate) fn reuse(&self, start: u64, size: u64) {
        self.state().check_unreachable(start, start + size);
    }

    /// Physical memory is copied, and will be again if it is written to.
    pub(crate) fn copy(&self, start: u64, size: u64) {
        self.state().check_clean(start, start + size);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that failed has poisoned it; the others' messages matter more.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Cpu<'_> {
    /// It comes from its guest into the hypervisor.
    fn trap(self) {
        self.machine.state().cpus[self.number].trap();
    }
}

impl Instructions for Cpu<'_> {
    fn execute(&self, instruction: Instruction) {
        self.machine.turns.step(Step::Instruction);
        self.machine.state().execute(self.number, instruction);
    }

    fn registers(&self) -> Stage2Registers {
        self.machine.state().cpus[self.number].registers.expect("no space was entered on this CPU")
    }

    fn set_registers(&self, registers: Stage2Registers) {
        self.machine.turns.step(Step::Instruction);
        self.machine.state().set_registers(self.number, registers);
    }
}

// SAFETY: 1. Blocks are handed out once until they are freed, and zeroed when
// they are. 2. Blocks are aligned to their size from an aligned base. 3. The
// words live as long as the machine, and are reached through this one vector.
// 4. `epochs` never changes.
#[expect(unsafe_code, reason = "the promises of `TableMemory`, and one cast")]
unsafe impl TableMemory for Machine {
    fn allocate(&self, bytes: u64) -> Option<PhysAddr> {
        let mut state = self.state();
        state.allocations_left = state.allocations_left.checked_sub(1)?;
        state.memory.allocate(bytes).map(PhysAddr::new)
    }

    unsafe fn free(&self, address: PhysAddr, bytes: u64) {
        self.state().freed(address.bits(), bytes);
    }

    unsafe fn resolve(&self, address: PhysAddr, entries: usize) -> &[AtomicPte] {
        self.turns.step(Step::Look);
        let allocated = self.state().memory.is_allocated(address.bits(), 8 * entries as u64);
        assert!(allocated, "{address} is used as a table and is not allocated");
        let first = memory::index(address.bits());
        let words: *const [std::sync::atomic::AtomicU64] = &raw const self.words[first..first + entries];
        // SAFETY: an `AtomicPte` is an `AtomicU64` and nothing else
        // (repr(transparent)), and the slice lives as long as `self`.
        unsafe { &*(words as *const [AtomicPte]) }
    }

    fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    fn relax(&self) {
        self.turns.step(Step::Wait);
    }

    fn storing(&self) {
        self.turns.step(Step::BeforeStore);
    }

    fn stored(&self, store: Store) {
        let Store { ipa, level, new, .. } = store;
        self.state().stored(CURRENT.get(), ipa.bits(), level.number() as usize, new.bits());
        self.turns.step(Step::AfterStore);
    }
}
