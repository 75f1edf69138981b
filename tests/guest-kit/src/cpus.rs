//! Further CPUs: started by PSCI to run one function, then powered off again.
//!
//! State of CPU `i`, by its owner's steps: 1. CPU 0 stores the work and calls
//! CPU_ON ([`start`]); 2. CPU `i` enters, loads the work, runs it and clears it;
//! 3. it calls CPU_OFF; 4. AFFINITY_INFO says OFF and it may be started again
//! ([`wait_until_off`]). The cleared work is needed to tell 1 from 4: QEMU's own
//! PSCI says OFF for a while after a CPU_ON that succeeded.
#![expect(unsafe_code, reason = "a start address is the address of assembly, and work is kept as a word")]

use core::mem;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::timer::Deadline;
use crate::{gic, psci, sysreg};

/// CPUs that `guest.ld` has stacks for.
pub const MAX: usize = 8;

/// What a started CPU runs, with its index.
pub type Work = fn(usize);

/// What each CPU is to run, as an address; 0 once that is done.
static WORK: [AtomicUsize; MAX] = [const { AtomicUsize::new(0) }; MAX];

unsafe extern "C" {
    fn guest_kit_secondary_entry();
}

/// Index of the CPU that asks.
#[inline(always)]
pub fn this() -> usize {
    sysreg::tpidr_el1() as usize & (MAX - 1)
}

/// Where CPU_ON should send a CPU.
pub fn entry_point() -> u64 {
    guest_kit_secondary_entry as *const () as u64
}

/// Starts CPU `index` on `work`; its interrupt controller interface is ready,
/// its interrupts are masked. Returns PSCI's answer.
pub fn start(index: usize, work: Work) -> i32 {
    let slot = WORK.get(index).expect("the kit has stacks for eight CPUs");
    slot.store(work as usize, Ordering::Relaxed);
    sysreg::barrier();
    let answer = psci::hvc(psci::CPU_ON, [index as u64, entry_point(), index as u64]);
    if answer != psci::status::SUCCESS {
        slot.store(0, Ordering::Relaxed);
    }
    answer
}

/// Waits until CPU `index` is off again; whether it was in time.
pub fn wait_until_off(index: usize) -> bool {
    let is_done = || work_of(index) == 0;
    let is_off = || psci::hvc(psci::AFFINITY_INFO, [index as u64, 0, 0]) == 1;
    let deadline = Deadline::after_ms(3000);
    deadline.wait(is_done) && deadline.wait(is_off)
}

fn work_of(index: usize) -> usize {
    WORK.get(index).map_or(0, |slot| slot.load(Ordering::Acquire))
}

pub(crate) fn run_secondary(index: usize) -> ! {
    let word = work_of(index);
    assert!(word != 0, "CPU {index} was started without work");
    // SAFETY: `start` stored a `Work` there; zero was excluded.
    let work: Work = unsafe { mem::transmute::<usize, Work>(word) };
    gic::init_cpu();
    work(index);
    sysreg::mask_interrupts();
    if let Some(slot) = WORK.get(index) {
        slot.store(0, Ordering::Release);
    }
    psci::cpu_off()
}
