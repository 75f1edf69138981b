//! Measuring time: what instructions don't tell, such as what it costs to lock
//! a cache line.
//!
//! Other programs run on the machine too, and can only make things slower. So
//! everybody's work is done in many short rounds, turn and turn about, and the
//! fastest round of each counts.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use stage2::epoch::Participant;
use stage2::{NoTlb, TableMemory as _};

use crate::pool::Pool;
use crate::side::{self, Contender, Cpu};
use crate::work::{Sharing, Work};

/// How often everybody gets a turn.
pub(crate) const ROUNDS: usize = 60;

/// How long a turn takes at least.
const TURN: Duration = Duration::from_millis(2);

/// Nanoseconds for a unit of the work, for each contender.
pub(crate) fn compare(work: &Work) -> [f64; Contender::ALL.len()] {
    let pool = Pool::new(1024);
    let mut sides = Contender::ALL.map(|contender| contender.start(&pool, work.root_level));
    let runs = sides.each_mut().map(|side| {
        (work.prepare)(&mut **side);
        repetitions(|| (work.run)(&mut **side))
    });
    let mut fastest = [Duration::MAX; Contender::ALL.len()];
    for _ in 0..ROUNDS {
        for ((side, runs), fastest) in sides.iter_mut().zip(runs).zip(&mut fastest) {
            let start = Instant::now();
            for _ in 0..runs {
                (work.run)(&mut **side);
            }
            *fastest = start.elapsed().div_f64(f64::from(runs)).min(*fastest);
        }
    }
    fastest.map(|time| time.as_secs_f64() * 1e9 / f64::from(work.units))
}

/// How often `work` must be done to fill a turn.
fn repetitions(mut work: impl FnMut()) -> u32 {
    let (start, mut runs) = (Instant::now(), 0);
    while start.elapsed() < TURN {
        work();
        runs += 1;
    }
    runs
}

/// How much two CPUs get done in a time, as a multiple of what one does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scaling {
    /// Nanoseconds for a unit by one thread that is alone.
    pub(crate) alone: f64,
    /// The same for two threads together: half as much, if neither is in the
    /// other's way.
    pub(crate) together: f64,
}

impl Scaling {
    /// What two threads get done, as a multiple of what one does.
    pub(crate) fn factor(&self) -> f64 {
        self.alone / self.together
    }
}

/// On cache lines of its own, as what belongs to a CPU is.
#[repr(align(128))]
pub(crate) struct Apart<T>(pub(crate) T);

/// Two threads in one space: without a lock, and with one around everything.
pub(crate) fn scale(sharing: &Sharing) -> [Scaling; 2] {
    let pool = Pool::new(1024);
    let space = side::space(&pool, 1);
    let mut cpus = [(); 2].map(|()| Apart(pool.epochs().register().expect("room for a CPU")));
    let lock = Mutex::new(());
    let mut as_first = Cpu { space: &space, cpu: &cpus[0].0, lock: None };
    (sharing.prepare)(&mut as_first);
    let runs = repetitions(|| (sharing.run)(&mut as_first, 0));
    let result = [None, Some(&lock)].map(|lock| {
        let mut fastest = [Duration::MAX; 2];
        for _ in 0..ROUNDS {
            for (fastest, threads) in fastest.iter_mut().zip(1..) {
                let time = run_together(&mut cpus[..threads], |cpu, thread| {
                    let mut cpu = Cpu { space: &space, cpu, lock };
                    for _ in 0..runs {
                        (sharing.run)(&mut cpu, thread);
                    }
                });
                *fastest = time.div_f64(threads as f64).min(*fastest);
            }
        }
        let [alone, together] =
            fastest.map(|time| time.as_secs_f64() * 1e9 / f64::from(runs) / f64::from(sharing.units));
        Scaling { alone, together }
    });
    space.destroy(&NoTlb);
    result
}

/// Does `work` on a thread for each CPU, all from the same moment on, and says
/// when the last was done.
fn run_together<'e>(
    cpus: &mut [Apart<Participant<'e>>],
    work: impl Fn(&Participant<'e>, u64) + Sync,
) -> Duration {
    let threads = cpus.len();
    let (ready, work) = (&AtomicUsize::new(0), &work);
    let times = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for (cpu, number) in cpus.iter_mut().zip(0..) {
            let times = &times;
            scope.spawn(move || {
                ready.fetch_add(1, Ordering::AcqRel);
                while ready.load(Ordering::Acquire) < threads {
                    thread::yield_now();
                }
                let start = Instant::now();
                work(&cpu.0, number);
                let time = (start, Instant::now());
                times.lock().unwrap_or_else(PoisonError::into_inner).push(time);
            });
        }
    });
    let times = times.into_inner().unwrap_or_else(PoisonError::into_inner);
    let start = times.iter().map(|(start, _)| *start).min();
    let end = times.iter().map(|(_, end)| *end).max();
    start.zip(end).map_or(Duration::ZERO, |(start, end)| end - start)
}
