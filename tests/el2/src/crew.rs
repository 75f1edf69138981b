//! The other CPUs: each sleeps until it is kicked, takes its interrupts, and does what it was given.
//!
//! Main functions: [`on`], for cases, and [`serve`], where the CPUs live. A
//! slot per CPU goes from idle to given to done and back: the state is what the
//! two sides look at, so that neither ever waits for the other's lock.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use hyp::percpu::MAX_CPUS;
use hyp::{arch, irq};
use spin::Mutex;

/// What another CPU can be given to do.
type Work = fn() -> u64;

const IDLE: u8 = 0;
const GIVEN: u8 = 1;
const DONE: u8 = 2;

/// How long work may take, in seconds: long, since the machine may be a slow emulator's.
const PATIENCE_SECONDS: u64 = 5;

struct Slot {
    state: AtomicU8,
    /// Locked by the side whose turn it is by `state`.
    work: Mutex<Option<Work>>,
    result: AtomicU64,
}

static SLOTS: [Slot; MAX_CPUS] =
    [const { Slot { state: AtomicU8::new(IDLE), work: Mutex::new(None), result: AtomicU64::new(0) } };
        MAX_CPUS];

/// Does `work` on CPU `index` and waits for what it gives; `None` if that takes too long.
pub(crate) fn on(index: usize, work: Work) -> Option<u64> {
    if index == arch::cpu_index() {
        return Some(work());
    }
    let slot = SLOTS.get(index)?;
    *slot.work.lock() = Some(work);
    slot.state.store(GIVEN, Ordering::Release);
    irq::kick(index);
    let deadline = arch::counter() + PATIENCE_SECONDS * arch::counter_frequency();
    while slot.state.load(Ordering::Acquire) != DONE {
        if arch::counter() > deadline {
            return None;
        }
        core::hint::spin_loop();
    }
    slot.state.store(IDLE, Ordering::Relaxed);
    Some(slot.result.load(Ordering::Relaxed))
}

/// Does what this CPU is given, for ever.
pub(crate) fn serve(index: usize) -> ! {
    loop {
        if let Some(slot) = SLOTS.get(index).filter(|slot| slot.state.load(Ordering::Acquire) == GIVEN)
            && let Some(work) = slot.work.lock().take()
        {
            slot.result.store(work(), Ordering::Relaxed);
            slot.state.store(DONE, Ordering::Release);
        }
        // A kick that came since the look above is still pending, so this does not sleep.
        arch::wait_for_interrupt();
        irq::handle_pending(None);
    }
}
