//! The loop of a physical CPU: whom to run, and until when.
//!
//! It is ordinary code: pick a vCPU, enter it, handle why it left, look after
//! what is due, repeat; with nothing to do, sleep until an interrupt. Picking
//! is a fair round robin with a time slice; the vCPU in the processor keeps it
//! while nobody else wants it.

use crate::arch::{self, PointerAuthentication};
use crate::task::{Activity, Task};
use crate::trap::{self, Leave};
use crate::vcpu::{Attention, Vcpu};
use crate::vm::{self, State};
use crate::vpsci::Power;
use crate::{irq, terminal, watchdog};
use alloc::vec::Vec;

/// Time slices per second, when several vCPUs want one CPU.
const SLICES_PER_SECOND: u64 = 500;

/// Pieces of background work per second (loading a VM's images, mostly) while
/// guests want the CPU. Without a limit to how long it waits, a neighbour that
/// never leaves its guest would hold up a start for ever.
const PIECES_PER_SECOND: u64 = 2000;

/// One physical CPU's loop and the vCPUs that live there.
pub struct Loop {
    tasks: Vec<Task>,
    /// Index of the vCPU in the processor.
    resident: Option<usize>,
    /// Whose stage-1 translations the TLB may hold, per VM: vCPU index.
    last_run: Vec<Option<usize>>,
    slice: u64,
    slice_end: u64,
    /// When the next piece of background work is to be done, if there is one.
    next_piece: Option<u64>,
    timer_armed: bool,
    authentication: PointerAuthentication,
}

impl Loop {
    /// The loop of this CPU.
    pub fn of_this_cpu() -> Self {
        Self::of(arch::percpu().vcpus(), vm::all().len())
    }

    /// A loop for these vCPUs, of some of `vms` VMs.
    fn of(vcpus: &[&'static Vcpu], vms: usize) -> Self {
        Self {
            tasks: vcpus.iter().map(|&vcpu| Task::new(vcpu)).collect(),
            resident: None,
            last_run: (0..vms).map(|_| None).collect(),
            slice: arch::counter_frequency() / SLICES_PER_SECOND,
            slice_end: 0,
            next_piece: None,
            timer_armed: false,
            authentication: PointerAuthentication::of_this_cpu(),
        }
    }

    /// Runs for ever.
    pub fn run(mut self) -> ! {
        loop {
            self.look_after();
            match self.pick() {
                Some(index) => self.enter(index),
                None if self.next_piece.is_some() => {}
                None => self.idle(),
            }
        }
    }

    /// What is due besides running guests.
    fn look_after(&mut self) {
        let now = arch::counter();
        watchdog::poll(now);
        let mut more = terminal::poll(now);
        for index in 0..self.tasks.len() {
            let Some(task) = self.tasks.get_mut(index) else { break };
            task.check_timers(now);
            if let Some(keeper) = &mut task.keeper {
                more |= keeper.advance(task.vcpu.vm);
            }
            let vcpu = task.vcpu;
            if vcpu.take(Attention::REPORT) {
                self.report(index);
            }
            if vcpu.take(Attention::LIFECYCLE) {
                self.follow_lifecycle(index);
            }
        }
        self.next_piece = more.then(|| now + arch::counter_frequency() / PIECES_PER_SECOND);
    }

    /// Brings one vCPU in line with its VM's state and its power state.
    fn follow_lifecycle(&mut self, index: usize) {
        let Some(task) = self.tasks.get_mut(index) else { return };
        let (vm, vcpu) = (task.vcpu.vm, task.vcpu);
        let parked = vm.is_parked(vcpu.index);
        match vm.state() {
            State::Running if parked => {
                if vcpu.power.get() == Power::OnPending {
                    if vm.unpark(vcpu.index) {
                        match vcpu.power.take_start() {
                            Some(start) => task.reset(start.entry, start.context),
                            // Not ready to start yet: who turns it on calls again.
                            None => vm.park(vcpu.index),
                        }
                    }
                } else if task.activity != Activity::Parked && task.run == vm.run() {
                    // Paused and resumed; if that was undone at once, we get called again.
                    let _ = vm.unpark(vcpu.index);
                }
            }
            State::Ending if !parked => self.park(index),
            State::Paused if !parked => {
                if self.resident == Some(index) {
                    task.unload(self.authentication);
                    self.resident = None;
                }
                vm.park(vcpu.index);
            }
            _ => {}
        }
    }

    /// The vCPU is off: forgets its state and says that it let go.
    fn park(&mut self, index: usize) {
        let Some(task) = self.tasks.get_mut(index) else { return };
        if self.resident == Some(index) {
            task.discard();
            self.resident = None;
        }
        task.activity = Activity::Parked;
        // A vCPU that starts again has a TLB without the translations it left.
        if let Some(last) = self.last_run.get_mut(task.vcpu.vm.id) {
            *last = None;
        }
        task.vcpu.vm.park(task.vcpu.index);
    }

    /// Whose turn it is.
    fn pick(&self) -> Option<usize> {
        let first = match self.resident {
            Some(index) if self.wants_cpu(index) && arch::counter() < self.slice_end => return Some(index),
            Some(index) => index + 1,
            None => 0,
        };
        let count = self.tasks.len();
        (first..first + count).map(|index| index % count).find(|&index| self.wants_cpu(index))
    }

    fn wants_cpu(&self, index: usize) -> bool {
        self.tasks.get(index).is_some_and(|task| task.is_ready() && !task.vcpu.vm.is_parked(task.vcpu.index))
    }

    /// Runs a vCPU until something needs this loop.
    fn enter(&mut self, index: usize) {
        self.make_resident(index);
        self.set_timer(earlier(self.deadline_beside(index), deadline_of_board()));
        let Some(task) = self.tasks.get_mut(index) else { return };
        task.activity = Activity::Ready;
        let vcpu = task.vcpu;
        if vcpu.take(Attention::INTERRUPTS) {
            irq::show_interrupts(vcpu);
        }
        let leave = Leave::from_bits(arch::run_guest(&mut task.regs, vcpu));
        match trap::handle(leave, task) {
            trap::Next::Go => {}
            trap::Next::Wait => task.activity = Activity::Waiting,
            trap::Next::Off => self.park(index),
        }
    }

    fn make_resident(&mut self, index: usize) {
        if self.resident == Some(index) {
            return;
        }
        if let Some(before) = self.resident.take().and_then(|before| self.tasks.get_mut(before)) {
            before.unload(self.authentication);
        }
        let Some(task) = self.tasks.get_mut(index) else { return };
        task.load(self.authentication);
        if let Some(last) = self.last_run.get_mut(task.vcpu.vm.id)
            && last.replace(task.vcpu.index) != Some(task.vcpu.index)
        {
            // Two vCPUs of one VM share a VMID but not their translations.
            arch::flush_stage1_local();
        }
        self.resident = Some(index);
        self.slice_end = arch::counter().wrapping_add(self.slice);
    }

    /// The next moment at which this CPU's vCPUs or its background work want it
    /// while `running` runs, if there is one.
    fn deadline_beside(&self, running: usize) -> Option<u64> {
        let own = self.tasks.get(running).and_then(|task| task.ptimer.deadline());
        let mut deadline = earlier(own, self.next_piece);
        if self.tasks.len() > 1 {
            for (index, task) in self.tasks.iter().enumerate().filter(|&(index, _)| index != running) {
                let at = if self.wants_cpu(index) { Some(self.slice_end) } else { task.wake_deadline() };
                deadline = earlier(deadline, at);
            }
        }
        deadline
    }

    fn set_timer(&mut self, deadline: Option<u64>) {
        match deadline {
            Some(deadline) => arch::arm_el2_timer(deadline),
            None if self.timer_armed => arch::disarm_el2_timer(),
            None => {}
        }
        self.timer_armed = deadline.is_some();
    }

    /// Nobody wants the CPU: sleeps until an interrupt. The resident vCPU stays
    /// where it is, so its virtual timer can be what wakes us.
    fn idle(&mut self) {
        let resident = self.resident;
        let tasks = self
            .tasks
            .iter()
            .enumerate()
            .filter_map(|(index, task)| match resident == Some(index) {
                true => task.ptimer.deadline(),
                false => task.wake_deadline(),
            })
            .min();
        self.set_timer(earlier(tasks, deadline_of_board()));
        arch::wait_for_interrupt();
        let vcpu = resident.and_then(|index| self.tasks.get(index)).map(|task| task.vcpu);
        irq::handle_pending(vcpu);
    }

    /// Prints a vCPU's registers, for somebody at the prompt.
    fn report(&mut self, index: usize) {
        let resident = self.resident == Some(index);
        if let Some(task) = self.tasks.get_mut(index) {
            if resident {
                // Out and in again: afterwards the copy in memory is the truth.
                task.unload(self.authentication);
                task.load(self.authentication);
            }
            task.print();
        }
    }
}

/// When what the board needs of this CPU is due, if something is.
fn deadline_of_board() -> Option<u64> {
    earlier(terminal::deadline(), watchdog::deadline())
}

/// The earlier of two moments, if there is one.
fn earlier(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    [one, other].into_iter().flatten().min()
}

#[cfg(test)]
mod tests;
