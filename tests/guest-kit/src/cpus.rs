//! Further CPUs: started by PSCI to run one function, then powered off again.
//!
//! State of CPU `i`, by its owner's steps: 1. CPU 0 stores the work and calls
//! CPU_ON ([`start`]); 2. CPU `i` enters, loads the work and runs it; 3. it
//! calls CPU_OFF; 4. AFFINITY_INFO says OFF and it may be started again
//! ([`wait_until_off`]).
#![expect(unsafe_code, reason = "a start address is the address of assembly, and work is kept as a word")]

use core::mem;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::timer::Deadline;
use crate::{gic, psci, sysreg};

/// CPUs that `guest.ld` has stacks for.
pub const MAX: usize = 8;

/// What a started CPU runs, with its index.
pub type Work = fn(usize);

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
    psci::hvc(psci::CPU_ON, [index as u64, entry_point(), index as u64])
}

/// Waits until CPU `index` is off again; whether it was in time.
pub fn wait_until_off(index: usize) -> bool {
    Deadline::after_ms(1000).wait(|| psci::hvc(psci::AFFINITY_INFO, [index as u64, 0, 0]) == 1)
}

pub(crate) fn run_secondary(index: usize) -> ! {
    let word = WORK.get(index).map_or(0, |slot| slot.load(Ordering::Relaxed));
    assert!(word != 0, "CPU {index} was started without work");
    // SAFETY: `start` stored a `Work` there; zero was excluded.
    let work: Work = unsafe { mem::transmute::<usize, Work>(word) };
    gic::init_cpu();
    work(index);
    sysreg::mask_interrupts();
    psci::cpu_off()
}
