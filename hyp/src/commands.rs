//! What the commands of the hypervisor's prompt do.

use crate::console::prompt::Command;
use crate::console::source::VmIndex;
use crate::lifecycle::{self, Ending};
use crate::terminal::say;
use crate::vcpu::{Attention, ExitKind, Vcpu};
use crate::vm::{self, State, Vm};
use crate::{arch, machine};

/// Does what somebody asked for.
pub(crate) fn obey(command: Command) {
    match command {
        Command::List => vm::all().iter().for_each(|vm| list(vm)),
        Command::Start(vm) => with(vm, |vm| tell(vm, lifecycle::start(vm))),
        Command::Stop(vm) => with(vm, |vm| tell(vm, vm.end(Ending::Stop))),
        Command::Restart(vm) => with(vm, |vm| tell(vm, vm.end(Ending::Restart))),
        Command::Pause(vm) => with(vm, |vm| tell(vm, vm.step(State::Running, State::Paused))),
        Command::Resume(vm) => with(vm, resume),
        Command::Regs(vm, vcpu) => {
            with(vm, |vm| each_vcpu(vm, vcpu, |vcpu| vcpu.attend(Attention::REPORT)));
        }
        Command::Exits(vm, vcpu) => with(vm, |vm| each_vcpu(vm, vcpu, exits)),
        Command::PowerOff => machine::power_off(),
        Command::Reboot => machine::reset(),
    }
}

fn with(index: VmIndex, act: impl FnOnce(&'static Vm)) {
    if let Some(vm) = vm::all().get(index.index()) {
        act(vm);
    }
}

fn list(vm: &Vm) {
    let vcpus = vm.vcpus();
    let mut homes = heapless::String::<64>::new();
    for vcpu in vcpus {
        // Eight CPU numbers of two digits fit.
        let _ = core::fmt::write(&mut homes, format_args!(" {}", vcpu.home));
    }
    say!(
        "{:>2} {:<16} {:<8} {} MiB, {} vCPUs on CPUs{homes}",
        vm.id,
        vm.name(),
        vm.state().name(),
        vm.memory.size() >> 20,
        vcpus.len()
    );
}

/// If a VM can't do what was asked for: what it is doing instead.
fn tell(vm: &Vm, result: Result<(), State>) {
    if let Err(state) = result {
        say!("VM {} is {}", vm.name(), state.name());
    }
}

/// Guest time stood still while the VM was paused.
fn resume(vm: &'static Vm) {
    if vm.state() == State::Paused && !vm.all_parked() {
        say!("VM {} is still being paused", vm.name());
        return;
    }
    if vm.state() == State::Paused {
        vm.skip_pause(arch::counter());
    }
    tell(vm, vm.step(State::Paused, State::Running));
}

fn each_vcpu(vm: &'static Vm, which: Option<usize>, mut act: impl FnMut(&'static Vcpu)) {
    match which {
        None => vm.vcpus().iter().for_each(act),
        Some(index) => match vm.vcpus().get(index) {
            Some(vcpu) => act(vcpu),
            None => say!("VM {} has no vCPU {index}", vm.name()),
        },
    }
}

fn exits(vcpu: &Vcpu) {
    say!("VM {}: vCPU {} on CPU {}:", vcpu.vm.name(), vcpu.index, vcpu.home);
    for (kind, name) in ExitKind::NAMES {
        say!("  {:>12} {name}", vcpu.exits(kind));
    }
}
