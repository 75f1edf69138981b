//! A VM's life, in order and with everybody at it at once.

use super::testing::vm;
use super::{State, Vm};
use crate::lifecycle::Ending;
use crate::vcpu::Attention;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A VM that has got as far as running, all vCPUs parked and nobody asked to look.
fn running(vcpus: usize) -> &'static Vm {
    let vm = vm(vcpus);
    vm.step(State::Off, State::Loading).expect("it is off");
    vm.begin_run(0);
    vm.step(State::Loading, State::Running).expect("it is loading");
    look_away(vm);
    vm
}

fn look_away(vm: &Vm) {
    for vcpu in vm.vcpus() {
        vcpu.take(Attention::LIFECYCLE);
    }
}

mod step {
    use super::*;

    #[test]
    fn from_another_state_is_refused_and_says_which_it_is() {
        assert_eq!(vm(1).step(State::Running, State::Paused), Err(State::Off));
    }

    #[test]
    fn makes_every_vcpu_look() {
        let vm = vm(3);
        vm.step(State::Off, State::Loading).expect("it is off");
        assert!(vm.vcpus().iter().all(|vcpu| vcpu.attention().has(Attention::LIFECYCLE)));
    }

    #[test]
    fn that_is_refused_makes_nobody_look() {
        let vm = vm(3);
        let _ = vm.step(State::Running, State::Paused);
        assert!(!vm.vcpus().iter().any(|vcpu| vcpu.attention().has(Attention::LIFECYCLE)));
    }
}

mod end {
    use super::*;

    #[test]
    fn keeps_the_first_reason() {
        let vm = running(1);
        assert_eq!(vm.end(Ending::PowerOff), Ok(()));
        assert_eq!((vm.end(Ending::Crash), vm.ending()), (Err(State::Ending), Some(Ending::PowerOff)));
    }

    #[test]
    fn of_a_paused_vm_works() {
        let vm = running(1);
        vm.step(State::Running, State::Paused).expect("it runs");
        assert_eq!((vm.end(Ending::Stop), vm.state()), (Ok(()), State::Ending));
    }

    #[test]
    fn of_a_vm_that_does_not_run_leaves_no_reason_behind() {
        let vm = vm(1);
        assert_eq!((vm.end(Ending::Stop), vm.ending()), (Err(State::Off), None));
    }

    #[test]
    fn reason_goes_with_the_state() {
        let vm = running(1);
        vm.end(Ending::Restart).expect("it runs");
        vm.step(State::Ending, State::Loading).expect("it is ending");
        assert_eq!((vm.ending(), vm.state()), (None, State::Loading));
    }
}

mod park {
    use super::*;

    #[test]
    fn of_the_last_vcpu_calls_the_keeper() {
        let vm = running(2);
        assert!((0..2).all(|index| vm.unpark(index)));
        let called = [1, 0].map(|index| {
            vm.park(index);
            vm.vcpus()[0].take(Attention::LIFECYCLE)
        });
        assert_eq!((called, vm.all_parked()), ([false, true], true));
    }

    #[test]
    fn is_undone_only_while_the_vm_runs() {
        let vm = running(1);
        vm.step(State::Running, State::Paused).expect("it runs");
        assert_eq!((vm.unpark(0), vm.is_parked(0)), (false, true));
    }
}

mod guest_time {
    use super::*;

    /// Guest time when the counter is at `now`.
    fn guest_time(vm: &Vm, now: u64) -> u64 {
        now.wrapping_sub(vm.counter_offset())
    }

    /// A VM whose only vCPU was parked at some moment from 1000 on; guest time then.
    fn paused() -> (&'static Vm, u64) {
        let vm = running(1);
        assert!(vm.unpark(0));
        vm.step(State::Running, State::Paused).expect("it runs");
        vm.park(0);
        let parked = guest_time(vm, crate::arch::counter());
        (vm, parked)
    }

    #[test]
    fn begins_at_zero() {
        let vm = vm(1);
        vm.begin_run(1000);
        assert_eq!(guest_time(vm, 1000), 0);
    }

    #[test]
    fn stands_still_from_the_park_to_the_resume() {
        let (vm, parked) = paused();
        vm.skip_pause(1 << 40);
        assert!(guest_time(vm, 1 << 40) <= parked);
    }

    #[test]
    fn never_goes_back_however_late_a_vcpu_was_parked() {
        let vm = running(2);
        assert!(vm.unpark(0) && vm.unpark(1));
        vm.step(State::Running, State::Paused).expect("it runs");
        vm.park(0);
        // vCPU 1 has not looked up yet and still reads the counter.
        let read = guest_time(vm, crate::arch::counter());
        vm.park(1);
        vm.skip_pause(1 << 40);
        assert!(guest_time(vm, 1 << 40) >= read);
    }

    #[test]
    fn stands_still_once_per_pause() {
        let (vm, _) = paused();
        vm.skip_pause(1 << 40);
        let resumed = guest_time(vm, 1 << 40);
        // Paused again before its vCPU had started: nothing was parked since.
        vm.skip_pause(1 << 41);
        assert_eq!(guest_time(vm, 1 << 41), resumed);
    }
}

/// What every home CPU does about its vCPU, as `run.rs` does it, until told to stop.
fn home(vm: &Vm, index: usize, inside: &AtomicUsize, stop: &AtomicBool) {
    let mut is_inside = false;
    while !stop.load(Ordering::Relaxed) {
        if !vm.vcpus()[index].take(Attention::LIFECYCLE) {
            std::thread::yield_now();
            continue;
        }
        match vm.state() {
            State::Running if !is_inside && vm.unpark(index) => {
                inside.fetch_add(1, Ordering::SeqCst);
                is_inside = true;
            }
            State::Ending | State::Paused if is_inside => {
                inside.fetch_sub(1, Ordering::SeqCst);
                is_inside = false;
                vm.park(index);
            }
            _ => {}
        }
    }
}

/// Ends and restarts the VM `rounds` times as its keeper, while `others` do what they
/// like. How many endings there were.
fn keep(vm: &Vm, inside: &AtomicUsize, rounds: usize) -> usize {
    for _ in 0..rounds {
        while !(vm.state() == State::Ending && vm.all_parked()) {
            std::thread::yield_now();
        }
        for _ in 0..50 {
            assert_eq!(inside.load(Ordering::SeqCst), 0, "a vCPU runs in a VM that was put away");
        }
        assert!(vm.ending().is_some());
        vm.step(State::Ending, State::Loading).expect("only the keeper leaves this state");
        vm.step(State::Loading, State::Running).expect("only the keeper leaves this state");
    }
    rounds
}

#[test]
fn nobody_is_inside_while_the_keeper_puts_the_vm_away() {
    const VCPUS: usize = 3;
    const ROUNDS: usize = 400;
    let vm = running(VCPUS);
    vm.vcpus().iter().for_each(|vcpu| vcpu.attend(Attention::LIFECYCLE));
    let (inside, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let ended = AtomicUsize::new(0);
    std::thread::scope(|threads| {
        for index in 0..VCPUS {
            let (inside, stop) = (&inside, &stop);
            threads.spawn(move || home(vm, index, inside, stop));
        }
        for ending in [Ending::Stop, Ending::Crash] {
            let (stop, ended) = (&stop, &ended);
            threads.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    ended.fetch_add(usize::from(vm.end(ending).is_ok()), Ordering::SeqCst);
                    std::thread::yield_now();
                }
            });
        }
        threads.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = vm.step(State::Running, State::Paused);
                std::thread::yield_now();
                let _ = vm.step(State::Paused, State::Running);
            }
        });
        assert_eq!(keep(vm, &inside, ROUNDS), ROUNDS);
        stop.store(true, Ordering::Relaxed);
    });
    // One more may have been asked for after the last round.
    assert!((ROUNDS..=ROUNDS + 1).contains(&ended.load(Ordering::SeqCst)));
}
