//! Passes over the access flags: how fast they are, and whether they are in the
//! way of a vCPU that faults.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use stage2::age::{Aging, Tlb};
use stage2::epoch::Participant;
use stage2::{Budget, Cursor, Ipa, IpaRange, NoTlb, Space, Step, TableMemory as _};

use crate::pool::Pool;
use crate::report::{Goal, Row};
use crate::side::{self, Cpu, Side as _};
use crate::time::{Apart, ROUNDS};
use crate::work::SHARED;

/// What is aged: 1 GiB, in pages, for the output suits no block.
const IPA: u64 = 8 << 30;
const SIZE: u64 = 1 << 30;
const OUTPUT: u64 = (64 << 30) + 4096;
const LEAVES: f64 = (SIZE / 4096) as f64;

/// The largest generation: passes after which nothing gets any older.
const GENERATIONS: usize = 3;

/// Entries in a step of a pass, between two of which a CPU would see to other
/// things.
const STEP: Budget = Budget::entries(STEP_ENTRIES);
const STEP_ENTRIES: usize = 4096;

/// The rows of the table.
pub(crate) fn measure() -> Vec<Row> {
    let pool = Pool::new(2048);
    let space = side::space(&pool, 1);
    let cpus = [(); 2].map(|()| Apart(pool.epochs().register().expect("room for a CPU")));
    let mut cpu = Cpu { space: &space, cpu: &cpus[0].0, lock: None };
    let [young, old] = passes(&mut cpu);
    let [alone, beside] = storm(&space, cpus, old);
    space.destroy(&NoTlb);
    let speed = |work: &str, time: Duration| Row {
        work: work.into(),
        value: LEAVES / time.as_secs_f64() / 1e6,
        baseline: None,
        goal: Goal::AtLeast(100.0),
    };
    vec![
        speed("a pass over used pages, millions of leaves/s", young),
        speed("a pass over old pages, millions of leaves/s", old),
        Row {
            work: "map and unmap a page beside a pass, ns".into(),
            value: beside,
            baseline: Some(("no pass".into(), alone)),
            goal: Goal::RatioAtMost(1.1),
        },
    ]
}

/// The fastest pass over leaves that were just used, and over such as can't get
/// any older.
fn passes(cpu: &mut Cpu<'_>) -> [Duration; 2] {
    let mut fastest = [Duration::MAX; 2];
    for _ in 0..ROUNDS {
        cpu.map(IPA, SIZE, OUTPUT);
        let time = || {
            let start = Instant::now();
            pass(cpu.space, cpu.cpu, || ());
            start.elapsed()
        };
        fastest[0] = time().min(fastest[0]);
        for _ in 1..GENERATIONS {
            time();
        }
        fastest[1] = time().min(fastest[1]);
        cpu.unmap(IPA, SIZE);
    }
    fastest
}

/// One pass over everything; `stepped` is called after each step.
fn pass(space: &Space<&Pool>, cpu: &Participant<'_>, mut stepped: impl FnMut()) {
    let range = IpaRange::new(Ipa::new(IPA), SIZE).expect("not empty");
    let (mut cursor, mut seen) = (Cursor::new(range), 0_u64);
    loop {
        let count = |_| seen += 1;
        let step = space.age_step(&cpu.pin(), &mut cursor, Aging::Clear(Tlb::None), STEP, &NoTlb, count);
        stepped();
        if step.expect("the range is inside") == Step::Done {
            break;
        }
    }
    assert_eq!(seen as f64, LEAVES, "every leaf is seen once");
}

/// Nanoseconds to map and unmap a page: while nothing else happens, and while
/// another CPU makes one pass after the other, alone in `alone`.
fn storm<'p>(space: &Space<&'p Pool>, cpus: [Apart<Participant<'p>>; 2], alone: Duration) -> [f64; 2] {
    let [Apart(first), Apart(second)] = cpus;
    let mut cpu = Cpu { space, cpu: &first, lock: None };
    (SHARED.prepare)(&mut cpu);
    cpu.map(IPA, SIZE, OUTPUT);
    let mut round = || {
        let start = Instant::now();
        for _ in 0..64 {
            (SHARED.run)(&mut cpu, 0);
        }
        start.elapsed()
    };
    let mut fastest = [Duration::MAX; 2];
    for _ in 0..ROUNDS {
        fastest[0] = round().min(fastest[0]);
    }
    let steps_in = |time: Duration| time.as_secs_f64() / alone.as_secs_f64() * LEAVES / STEP_ENTRIES as f64;
    let (steps, over) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let (steps, over) = (&steps, &over);
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                pass(space, &second, || {
                    steps.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        let mut rounds = 0;
        while rounds < ROUNDS {
            let before = steps.load(Ordering::Relaxed);
            let time = round();
            let made = steps.load(Ordering::Relaxed) - before;
            // A round in which the other thread did not have its turn proves
            // nothing.
            if made as f64 > 0.7 * steps_in(time) {
                fastest[1] = time.min(fastest[1]);
                rounds += 1;
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    fastest.map(|time| time.as_secs_f64() * 1e9 / 64.0 / f64::from(SHARED.units))
}
