//! Several CPUs inside the crate at once, one step at a time.
//!
//! Each CPU is a thread, and exactly one of them runs. At every *step* (before
//! and after a store, before an instruction, when a table is looked into, when
//! the CPU waits for another) the running thread asks the [`Schedule`] whether
//! it is to go on or whose turn it is. So a run depends on nothing but the
//! schedule and can be repeated, and "at step n of this operation, that one
//! happens" is a loop over n, for operations that wait for each other too:
//! see [`Schedule::at_every_step`].

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread;

use super::{CURRENT, Machine};

/// Where a CPU is when another one may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is about to look into a table.
    Look,
    BeforeStore,
    AfterStore,
    /// It is about to execute an instruction of a TLB sequence.
    Instruction,
    /// It waits for another CPU to get on.
    Wait,
}

/// Who runs when.
#[derive(Clone, Debug)]
pub(crate) enum Schedule {
    /// The first task runs; at each of these steps, counted over all tasks,
    /// the next task takes over. A task that ends or waits also gives way.
    SwitchAt(Vec<usize>),
    /// At each step, with a chance of one in `rarity`, another task takes
    /// over: pseudorandom, by `seed`.
    Random { seed: u64, rarity: u64 },
}

impl Schedule {
    /// Calls `run` with a schedule that switches at step 0, at step 1, and so
    /// on, until a run ends before its switch. `run` says how many steps there
    /// were. So the second task comes in between any two steps of the first.
    ///
    /// Beyond step 40, only every so many steps are tried: operations get
    /// there by going through all entries of a table.
    pub(crate) fn at_every_step(stride: usize, mut run: impl FnMut(Self) -> usize) {
        let mut step = 0;
        while step < run(Self::SwitchAt(vec![step])) {
            step += if step < 40 { 1 } else { stride };
        }
    }

    /// Whether to give way at step number `step`.
    fn switches(&mut self, step: usize) -> bool {
        match self {
            Self::SwitchAt(steps) => steps.contains(&step),
            Self::Random { seed, rarity } => {
                // The generator of Steele, Lea and Flood: SplitMix.
                *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut mixed = (*seed ^ *seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
                (mixed ^ mixed >> 31).is_multiple_of(*rarity)
            }
        }
    }
}

/// What a CPU is to do.
pub(crate) type Task<'t> = Box<dyn FnOnce() + Send + 't>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Ready,
    /// It found nothing to do until another task gets on.
    Waiting,
    Done,
}

/// A run of several tasks.
struct Run {
    schedule: Schedule,
    tasks: Vec<Status>,
    /// Whose turn it is.
    turn: usize,
    /// Steps of all tasks together.
    steps: usize,
    /// Waits in a row.
    waits: usize,
    /// The first task that panicked: the others just run to their end.
    failed: Option<usize>,
}

/// After this many waits in a row, nobody will ever get on.
const DEADLOCK: usize = 10_000;

/// The turns of a machine's CPUs; without a run, a step does nothing.
#[derive(Default)]
pub(crate) struct Turns {
    run: Mutex<Option<Run>>,
    changed: Condvar,
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, Option<Run>> {
        self.run.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The task of this thread comes to a step.
    pub(crate) fn step(&self, step: Step) {
        let mut guard = self.lock();
        let Some(run) = guard.as_mut() else {
            assert!(step != Step::Wait, "the only CPU waits for another");
            return;
        };
        if run.failed.is_some() {
            assert!(step != Step::Wait, "another task has failed");
            return;
        }
        let me = run.turn;
        let gives_way = run.schedule.switches(run.steps);
        run.steps += 1;
        if step == Step::Wait {
            run.waits += 1;
            assert!(run.waits < DEADLOCK, "everyone waits for someone else");
            run.tasks[me] = Status::Waiting;
        } else {
            run.waits = 0;
            // What this one did may be what others wait for.
            run.tasks
                .iter_mut()
                .filter(|task| **task == Status::Waiting)
                .for_each(|task| *task = Status::Ready);
        }
        if gives_way || step == Step::Wait {
            run.pass_on();
            self.changed.notify_all();
            drop(self.until_turn(guard, me));
        }
    }

    /// Waits until it is the turn of a task.
    fn until_turn<'t>(
        &'t self,
        guard: MutexGuard<'t, Option<Run>>,
        me: usize,
    ) -> MutexGuard<'t, Option<Run>> {
        let others =
            |run: &mut Option<Run>| run.as_ref().is_some_and(|run| run.turn != me && run.failed.is_none());
        self.changed.wait_while(guard, others).unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn done(&self, me: usize, failed: bool) {
        let mut guard = self.lock();
        let run = guard.as_mut().expect("a task is part of a run");
        run.tasks[me] = Status::Done;
        if failed && run.failed.is_none() {
            run.failed = Some(me);
        }
        run.waits = 0;
        if run.turn == me {
            run.pass_on();
        }
        self.changed.notify_all();
    }
}

impl Run {
    /// Gives the turn to the next task that is ready, or else waits.
    fn pass_on(&mut self) {
        let others = (1..=self.tasks.len()).map(|offset| (self.turn + offset) % self.tasks.len());
        let next = |status| others.clone().find(|&task| self.tasks[task] == status);
        if let Some(next) = next(Status::Ready).or_else(|| next(Status::Waiting)) {
            self.turn = next;
        }
    }
}

impl Machine {
    /// Runs tasks on CPUs 0, 1 and so on, by turns; the first begins. Returns
    /// the number of steps.
    pub(crate) fn run(&self, schedule: Schedule, tasks: Vec<Task<'_>>) -> usize {
        let count = tasks.len();
        let run =
            Run { schedule, tasks: vec![Status::Ready; count], turn: 0, steps: 0, waits: 0, failed: None };
        assert!(self.turns.lock().replace(run).is_none(), "a run within a run");
        let mut results = thread::scope(|scope| {
            let tasks = tasks.into_iter().enumerate().map(|(me, task)| {
                scope.spawn(move || {
                    CURRENT.set(me);
                    drop(self.turns.until_turn(self.turns.lock(), me));
                    let result = panic::catch_unwind(AssertUnwindSafe(task));
                    self.turns.done(me, result.is_err());
                    result
                })
            });
            let threads: Vec<_> = tasks.collect();
            threads.into_iter().map(|thread| thread.join().and_then(|result| result)).collect::<Vec<_>>()
        });
        let run = self.turns.lock().take().expect("it was there all the time");
        if let Some(first) = run.failed
            && let Err(payload) = results.swap_remove(first)
        {
            panic::resume_unwind(payload);
        }
        run.steps
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::{Schedule, Step, Task};
    use crate::model::{Config, Machine};

    /// Two tasks that add one to a number by reading and, a step later,
    /// writing. Returns the sum and the steps.
    fn race(schedule: Schedule) -> (usize, usize) {
        let machine = Machine::new(Config::FULL);
        let sum = AtomicUsize::new(0);
        let add = || {
            machine.turns.step(Step::Look);
            let read = sum.load(Ordering::Relaxed);
            machine.turns.step(Step::BeforeStore);
            sum.store(read + 1, Ordering::Relaxed);
            machine.turns.step(Step::AfterStore);
        };
        let steps = machine.run(schedule, vec![Box::new(add) as Task<'_>, Box::new(add)]);
        (sum.into_inner(), steps)
    }

    #[test]
    fn switch_between_read_and_write_loses_an_addition() {
        let mut sums = Vec::new();
        Schedule::at_every_step(1, |schedule| {
            let (sum, steps) = race(schedule);
            sums.push(sum);
            steps
        });
        // At the first task's steps, at the second's, and after the last.
        assert_eq!(sums, [2, 1, 2, 2, 2, 2, 2]);
    }

    #[test]
    fn random_schedule_depends_on_its_seed_alone() {
        let run = |seed| race(Schedule::Random { seed, rarity: 2 }).0;
        assert!((0..20).all(|seed| run(seed) == run(seed)));
        assert!((0..20).any(|seed| run(seed) == 1) && (0..20).any(|seed| run(seed) == 2));
    }

    #[test]
    fn task_that_waits_lets_the_other_get_on() {
        let machine = Machine::new(Config::FULL);
        let done = AtomicUsize::new(0);
        let waits = || {
            while done.load(Ordering::Relaxed) == 0 {
                machine.turns.step(Step::Wait);
            }
        };
        let works = || {
            machine.turns.step(Step::AfterStore);
            done.store(1, Ordering::Relaxed);
        };
        machine.run(Schedule::SwitchAt(vec![]), vec![Box::new(waits) as Task<'_>, Box::new(works)]);
    }

    #[test]
    #[should_panic(expected = "everyone waits for someone else")]
    fn deadlock_is_noticed() {
        let machine = Machine::new(Config::FULL);
        let waits = || loop {
            machine.turns.step(Step::Wait);
        };
        machine.run(Schedule::SwitchAt(vec![]), vec![Box::new(waits) as Task<'_>, Box::new(waits)]);
    }
}
