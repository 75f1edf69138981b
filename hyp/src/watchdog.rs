//! The board's watchdogs, kept alive.
//!
//! Firmware may have left one running, so that a system that never comes up is reset; guests can't reach it. [`adopt`]
//! takes over those that run, none is ever started or stopped. The first CPU's loop keeps them alive, between guests and
//! when it wakes up ([`deadline`], [`poll`]): a loop that hangs is then what a watchdog is for. A guest that spins does not
//! matter, EL2's timer gets the CPU back. A machine that was halted for good is reset by its watchdog in the end.

use crate::arch;
use crate::terminal::say;
use core::sync::atomic::{AtomicU64, Ordering};
use platform::board::{Board, MAX_WATCHDOGS};
use platform::watchdog::Watchdog;
use spin::Once;

/// The shortest time that any of them can be set to is half a second.
const TIMES_PER_SECOND: u64 = 4;

/// Those that run.
static RUNNING: Once<heapless::Vec<Watchdog, MAX_WATCHDOGS>> = Once::new();

/// When they are due; never while there are none.
static DUE: AtomicU64 = AtomicU64::new(u64::MAX);

/// Takes over those of `board` that run, once the counter's frequency is known.
pub fn adopt(board: &Board<'_>) {
    let mut running = heapless::Vec::new();
    for info in &board.watchdogs {
        let watchdog = Watchdog::new(info, |region| arch::map_registers(region).ok());
        if let Some(watchdog) = watchdog.filter(Watchdog::is_running) {
            say!("watchdog {} at {:#x} is running: kept alive", info.kind.name(), info.registers.base);
            // There is room: the board has as many at most.
            let _ = running.push(watchdog);
        }
    }
    if !running.is_empty() {
        RUNNING.call_once(|| running);
        keep_alive(arch::counter());
    }
}

/// Keeps them alive if that is due at `now`. For the first CPU, whenever it has the time, and when [`deadline`] has come.
pub fn poll(now: u64) {
    if is_due(now, DUE.load(Ordering::Relaxed), arch::cpu_index()) {
        keep_alive(now);
    }
}

/// When this CPU should call [`poll`], if at some time.
pub fn deadline() -> Option<u64> {
    deadline_on(arch::cpu_index(), DUE.load(Ordering::Relaxed))
}

fn keep_alive(now: u64) {
    RUNNING.get().into_iter().flatten().for_each(Watchdog::keep_alive);
    // Relaxed: only the first CPU acts on it.
    DUE.store(now.saturating_add(arch::counter_frequency() / TIMES_PER_SECOND), Ordering::Relaxed);
}

fn is_due(now: u64, due: u64, cpu: usize) -> bool {
    deadline_on(cpu, due).is_some_and(|deadline| now >= deadline)
}

/// One CPU is enough, and it must be one that always has a loop.
fn deadline_on(cpu: usize, due: u64) -> Option<u64> {
    (cpu == 0 && due != u64::MAX).then_some(due)
}

#[cfg(test)]
mod tests {
    use super::{deadline_on, is_due};

    #[test]
    fn without_a_running_one_there_is_no_deadline() {
        assert_eq!(deadline_on(0, u64::MAX), None);
        assert!(!is_due(u64::MAX, u64::MAX, 0));
    }

    #[test]
    fn it_is_due_at_its_deadline_and_not_before() {
        assert!(!is_due(99, 100, 0));
        assert!(is_due(100, 100, 0));
    }

    #[test]
    fn only_the_first_cpu_wakes_up_for_it() {
        assert_eq!((deadline_on(0, 100), deadline_on(1, 100)), (Some(100), None));
    }
}
