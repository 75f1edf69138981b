//! The other CPUs: each waits for work, does it, and hands back a number.
//!
//! Main functions: [`on`], for cases, and [`serve`], where the CPUs live.

use hyp::arch;
use hyp::percpu::MAX_CPUS;
use spin::Mutex;

/// What another CPU can be given to do.
type Work = fn() -> u64;

/// What became of a CPU's work.
#[derive(Clone, Copy)]
enum Slot {
    Idle,
    Given(Work),
    Done(u64),
}

static SLOTS: [Mutex<Slot>; MAX_CPUS] = [const { Mutex::new(Slot::Idle) }; MAX_CPUS];

/// Does `work` on CPU `index` and waits for what it gives; `None` if it takes more than 2 s.
pub(crate) fn on(index: usize, work: Work) -> Option<u64> {
    if index == arch::cpu_index() {
        return Some(work());
    }
    let slot = SLOTS.get(index)?;
    *slot.lock() = Slot::Given(work);
    arch::send_event();
    let deadline = arch::counter() + 2 * arch::counter_frequency();
    while arch::counter() < deadline {
        let mut slot = slot.lock();
        if let Slot::Done(result) = *slot {
            *slot = Slot::Idle;
            return Some(result);
        }
    }
    None
}

/// Does what this CPU is given, for ever.
pub(crate) fn serve(index: usize) -> ! {
    loop {
        let given = SLOTS.get(index).map(|slot| *slot.lock());
        match given {
            Some(Slot::Given(work)) => {
                let result = work();
                if let Some(slot) = SLOTS.get(index) {
                    *slot.lock() = Slot::Done(result);
                }
            }
            _ => arch::wait_for_event(),
        }
    }
}
