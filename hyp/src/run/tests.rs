//! The loop's decisions, up to the moment at which it would enter a guest.

use super::{Activity, Loop};
use crate::guest::image::Segment;
use crate::guest::layout::RAM_BASE;
use crate::lifecycle::{self, Ending};
use crate::vcpu::Attention;
use crate::vm::testing::{vm, vm_with};
use crate::vm::{State, Vm};
use crate::vpsci::{Power, Start};
use crate::vtimer::Register;

/// The loop of a CPU on which all vCPUs of these VMs live.
fn cpu(vms: &[&'static Vm]) -> Loop {
    let vcpus: Vec<_> = vms.iter().flat_map(|vm| vm.vcpus()).collect();
    Loop::of(&vcpus, 1)
}

/// Looks after everything that is due, and what that makes due, and so on.
fn settle(cpu: &mut Loop) {
    for _ in 0..20 {
        cpu.look_after();
    }
    assert_eq!(cpu.next_piece, None);
}

/// A CPU with one running VM, beside one that only keeps the machine on.
fn running(vcpus: usize) -> (Loop, &'static Vm) {
    let started = vm(vcpus);
    let mut cpu = cpu(&[started]);
    lifecycle::start(vm(1)).expect("it is off");
    lifecycle::start(started).expect("it is off");
    settle(&mut cpu);
    (cpu, started)
}

/// Switches vCPU 1 on, as vCPU 0 does it.
fn cpu_on(cpu: &mut Loop, vm: &Vm) {
    vm.vcpus()[1].power.try_turn_on(Start { entry: RAM_BASE, context: 7 }).expect("it is off");
    vm.vcpus()[1].attend(Attention::LIFECYCLE);
    settle(cpu);
}

/// Which vCPUs want the CPU.
fn wanting(cpu: &Loop) -> Vec<usize> {
    (0..cpu.tasks.len()).filter(|&index| cpu.wants_cpu(index)).collect()
}

/// What `enter` does before and after the guest runs, the guest having waited for nothing.
fn enter(cpu: &mut Loop, index: usize) {
    cpu.make_resident(index);
    cpu.tasks[index].vcpu.take(Attention::INTERRUPTS);
}

mod lifecycle_of_a_vm {
    use super::*;

    #[test]
    fn a_start_makes_the_first_vcpu_ready() {
        let (cpu, vm) = running(2);
        assert_eq!((wanting(&cpu), vm.vcpus()[0].power.get()), (vec![0], Power::On));
        assert_eq!(cpu.tasks[0].regs.pc, RAM_BASE);
    }

    #[test]
    fn cpu_on_makes_another_one_ready() {
        let (mut cpu, vm) = running(2);
        cpu_on(&mut cpu, vm);
        assert_eq!((wanting(&cpu), cpu.tasks[1].regs.x[0]), (vec![0, 1], 7));
    }

    #[test]
    fn a_pause_lets_nobody_run_and_a_resume_everybody_who_did() {
        let (mut cpu, vm) = running(3);
        cpu_on(&mut cpu, vm);
        enter(&mut cpu, 0);
        vm.step(State::Running, State::Paused).expect("it runs");
        settle(&mut cpu);
        assert_eq!((wanting(&cpu), cpu.resident, vm.all_parked()), (vec![], None, true));
        vm.step(State::Paused, State::Running).expect("it is paused");
        settle(&mut cpu);
        assert_eq!(wanting(&cpu), [0, 1]);
    }

    #[test]
    fn a_vcpu_switched_on_during_a_pause_starts_at_the_resume() {
        let (mut cpu, vm) = running(2);
        vm.step(State::Running, State::Paused).expect("it runs");
        cpu_on(&mut cpu, vm);
        assert_eq!(wanting(&cpu), []);
        vm.step(State::Paused, State::Running).expect("it is paused");
        settle(&mut cpu);
        assert_eq!(wanting(&cpu), [0, 1]);
    }

    #[test]
    fn an_end_puts_everybody_away() {
        let (mut cpu, vm) = running(2);
        cpu_on(&mut cpu, vm);
        enter(&mut cpu, 1);
        vm.end(Ending::Stop).expect("it runs");
        settle(&mut cpu);
        assert_eq!((wanting(&cpu), cpu.resident, vm.state()), (vec![], None, State::Off));
    }

    #[test]
    fn a_restart_out_of_a_pause_does_not_wake_who_ran_before() {
        let (mut cpu, vm) = running(2);
        cpu_on(&mut cpu, vm);
        vm.step(State::Running, State::Paused).expect("it runs");
        settle(&mut cpu);
        vm.end(Ending::Restart).expect("it is paused");
        settle(&mut cpu);
        assert_eq!((vm.state(), wanting(&cpu)), (State::Running, vec![0]));
    }

    #[test]
    fn an_end_before_the_pause_has_taken_effect_is_an_end() {
        let (mut cpu, vm) = running(2);
        vm.step(State::Running, State::Paused).expect("it runs");
        vm.end(Ending::Stop).expect("it is paused");
        settle(&mut cpu);
        assert_eq!(vm.state(), State::Off);
    }
}

mod cpu_off {
    use super::*;

    #[test]
    fn lets_go_of_the_cpu() {
        let (mut cpu, vm) = running(1);
        enter(&mut cpu, 0);
        vm.vcpus()[0].power.turn_off();
        cpu.park(0);
        settle(&mut cpu);
        assert_eq!((wanting(&cpu), cpu.resident, vm.is_parked(0)), (vec![], None, true));
    }

    #[test]
    fn undone_by_another_vcpu_before_the_loop_looks_is_a_start() {
        let (mut cpu, vm) = running(2);
        cpu_on(&mut cpu, vm);
        vm.vcpus()[1].power.turn_off();
        // Here another CPU's vCPU calls CPU_ON, before this loop has parked its vCPU.
        vm.vcpus()[1].power.try_turn_on(Start { entry: RAM_BASE + 8, context: 0 }).expect("it is off");
        vm.vcpus()[1].attend(Attention::LIFECYCLE);
        cpu.park(1);
        settle(&mut cpu);
        assert_eq!((cpu.tasks[1].regs.pc, wanting(&cpu)), (RAM_BASE + 8, vec![0, 1]));
    }

    #[test]
    fn forgets_whose_translations_the_tlb_holds() {
        let (mut cpu, _) = running(1);
        enter(&mut cpu, 0);
        assert_eq!(cpu.last_run, [Some(0)]);
        cpu.park(0);
        assert_eq!(cpu.last_run, [None]);
    }
}

mod pick {
    use super::*;

    #[test]
    fn goes_round() {
        let (mut cpu, vm) = running(2);
        cpu_on(&mut cpu, vm);
        cpu.slice = 0;
        let turns = [(); 4].map(|()| {
            let index = cpu.pick().expect("two want the CPU");
            enter(&mut cpu, index);
            index
        });
        assert_eq!(turns, [0, 1, 0, 1]);
    }

    #[test]
    fn keeps_the_resident_vcpu_during_its_slice() {
        let (mut cpu, vm) = running(2);
        cpu_on(&mut cpu, vm);
        enter(&mut cpu, 1);
        assert_eq!([cpu.pick(), cpu.pick()], [Some(1), Some(1)]);
    }

    #[test]
    fn passes_over_who_waits() {
        let (mut cpu, vm) = running(2);
        cpu_on(&mut cpu, vm);
        enter(&mut cpu, 0);
        cpu.tasks[0].activity = Activity::Waiting;
        assert_eq!(cpu.pick(), Some(1));
    }

    #[test]
    fn finds_who_waited_and_has_an_interrupt() {
        let (mut cpu, vm) = running(1);
        cpu.tasks[0].activity = Activity::Waiting;
        let before = cpu.pick();
        vm.vcpus()[0].attend(Attention::INTERRUPTS);
        assert_eq!((before, cpu.pick()), (None, Some(0)));
    }
}

mod deadline {
    use super::*;

    /// Sets the physical timer of a vCPU, in the past: the counter starts at 0 and only grows.
    fn set_timer(cpu: &mut Loop, index: usize, at: u64) {
        cpu.tasks[index].ptimer.write(Register::Compare, at, 0);
        cpu.tasks[index].ptimer.write(Register::Control, 1, 0);
    }

    #[test]
    fn is_the_end_of_the_slice_while_somebody_else_wants_the_cpu() {
        let (mut cpu, vm) = running(2);
        cpu_on(&mut cpu, vm);
        enter(&mut cpu, 0);
        assert_eq!(cpu.deadline_beside(0), Some(cpu.slice_end));
    }

    #[test]
    fn is_none_for_one_alone() {
        let (mut cpu, _) = running(1);
        enter(&mut cpu, 0);
        assert_eq!(cpu.deadline_beside(0), None);
    }

    #[test]
    fn is_when_a_waiting_neighbour_wakes() {
        let (mut cpu, vm) = running(2);
        cpu_on(&mut cpu, vm);
        cpu.tasks[1].activity = Activity::Waiting;
        set_timer(&mut cpu, 1, u64::MAX - 1);
        assert_eq!(cpu.deadline_beside(0), Some(u64::MAX - 1));
    }

    #[test]
    fn of_a_timer_that_has_fired_is_over() {
        let (mut cpu, _) = running(1);
        set_timer(&mut cpu, 0, 0);
        cpu.look_after();
        assert_eq!(cpu.deadline_beside(0), None);
    }

    #[test]
    fn of_a_paused_neighbour_does_not_count() {
        let (mut cpu, vm) = running(2);
        cpu_on(&mut cpu, vm);
        let neighbour = super::vm(1);
        cpu.tasks.push(crate::task::Task::new(&neighbour.vcpus()[0]));
        cpu.tasks[2].activity = Activity::Waiting;
        set_timer(&mut cpu, 2, 0);
        cpu.tasks[1].activity = Activity::Waiting;
        assert_eq!(cpu.deadline_beside(0), None);
    }

    #[test]
    fn comes_while_a_neighbour_is_being_loaded() {
        let (mut cpu, _) = running(1);
        let data = vec![1; 1 << 20].leak();
        let neighbour = vm_with(1, "", vec![Segment { ipa: RAM_BASE, data, zeroes: 0 }]);
        cpu.tasks.push(crate::task::Task::new(&neighbour.vcpus()[0]));
        lifecycle::start(neighbour).expect("it is off");
        cpu.look_after();
        assert!(cpu.deadline_beside(0).is_some());
    }
}
