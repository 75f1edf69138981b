//! Starting and ending VMs.
//!
//! The home CPU of a VM's vCPU 0 does the work, in its loop, a bounded piece
//! at a time ([`Keeper::advance`]): copying tens of megabytes at a stretch
//! would hold up every other vCPU that lives there.

use crate::bundle::manifest::Then;
use crate::guest::image::Segment;
use crate::mem::guest::OutsideMemory;
use crate::terminal::say;
use crate::vm::{State, Vm};
use crate::vpsci::Start;
use crate::{arch, machine};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Bytes copied or zeroed at a stretch: about 100 us on the slowest boards.
const BUDGET: u64 = 128 * 1024;

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ending {
    /// PSCI SYSTEM_OFF.
    PowerOff = 1,
    /// PSCI SYSTEM_RESET or SYSTEM_RESET2.
    Reboot,
    /// The hypervisor can't let it go on; the reason has been printed.
    Crash,
    /// `stop` at the prompt.
    Stop,
    /// `restart` at the prompt.
    Restart,
}

impl Ending {
    pub(crate) fn from_bits(bits: u8) -> Option<Self> {
        [Self::PowerOff, Self::Reboot, Self::Crash, Self::Stop, Self::Restart]
            .into_iter()
            .find(|&ending| ending as u8 == bits)
    }
}

/// What a VM's memory holds when it starts.
#[derive(Debug)]
pub struct Images {
    /// What goes where, in any order.
    pub segments: Vec<Segment<'static>>,
    /// Guest address of the first instruction.
    pub entry: u64,
    /// Guest address of the device tree, which the guest gets in x0.
    pub device_tree: u64,
}

/// VMs that are not off; the machine goes down with the last one.
static ALIVE: AtomicUsize = AtomicUsize::new(0);

/// Starts a VM that is off; from any CPU. `Err` with what it is doing instead.
pub fn start(vm: &Vm) -> Result<(), State> {
    ALIVE.fetch_add(1, Ordering::Relaxed);
    vm.step(State::Off, State::Loading).inspect_err(|_| {
        ALIVE.fetch_sub(1, Ordering::Relaxed);
    })
}

/// Looks after one VM; owned by the home CPU of its vCPU 0.
#[derive(Debug, Default)]
pub struct Keeper {
    segment: usize,
    done: u64,
    restarts: u32,
}

impl Keeper {
    /// Does a piece of whatever the VM's state asks for. `true` if there is more.
    pub fn advance(&mut self, vm: &Vm) -> bool {
        match vm.state() {
            State::Loading => self.load(vm),
            State::Ending if vm.all_parked() => self.finish(vm),
            _ => return false,
        }
        true
    }

    fn load(&mut self, vm: &Vm) {
        match self.load_piece(vm) {
            Ok(true) => {}
            Ok(false) => self.launch(vm),
            Err(error) => {
                // `admit` checks every segment against the memory, so this is a
                // contradiction in our own plan; the VM is the one to stay off.
                (self.segment, self.done) = (0, 0);
                say!("VM {}: not started: {error}", vm.name());
                if vm.step(State::Loading, State::Off).is_ok() {
                    retire();
                }
            }
        }
    }

    /// Copies or zeroes up to [`BUDGET`] bytes. `false` if all is in place.
    fn load_piece(&mut self, vm: &Vm) -> Result<bool, OutsideMemory> {
        let Some(segment) = vm.images.segments.get(self.segment) else { return Ok(false) };
        let length = segment.data.len() as u64;
        let ipa = segment.ipa + self.done;
        let size = if self.done < length {
            let size = BUDGET.min(length - self.done);
            let from = self.done as usize;
            vm.memory.write(ipa, segment.data.get(from..from + size as usize).unwrap_or(&[]))?;
            size
        } else {
            let size = BUDGET.min(length + segment.zeroes - self.done);
            vm.memory.zero(ipa, size)?;
            size
        };
        self.done += size;
        if self.done >= length + segment.zeroes {
            (self.segment, self.done) = (self.segment + 1, 0);
        }
        Ok(true)
    }

    /// Everything is in place: switches vCPU 0 on.
    fn launch(&mut self, vm: &Vm) {
        (self.segment, self.done) = (0, 0);
        arch::invalidate_instructions();
        let Some(first) = vm.vcpus().first() else { return };
        vm.begin_run(arch::counter());
        let start = Start { entry: vm.images.entry, context: vm.images.device_tree };
        // All its vCPUs are off, so nobody can have been faster.
        let _ = first.power.try_turn_on(start);
        if vm.step(State::Loading, State::Running).is_ok() {
            say!("VM {}: started", vm.name());
        }
    }

    /// No vCPU is in a processor any more: puts the VM back to how it was
    /// before its start, and starts it again if the manifest says so.
    fn finish(&mut self, vm: &Vm) {
        let Some(ending) = vm.ending() else { return };
        vm.vcpus().iter().for_each(|vcpu| vcpu.power.turn_off());
        vm.vgic.reset();
        // The virtual GIC keeps its input lines: they are the devices' to lower.
        if vm.console.reset().is_some() {
            vm.kick(vm.show_console_line());
        }
        let policy = &vm.config.policy;
        let (what, then) = match ending {
            Ending::PowerOff => ("powered off", policy.on_poweroff),
            Ending::Reboot => ("rebooted", policy.on_reboot),
            Ending::Crash => ("crashed", policy.on_crash),
            Ending::Stop => ("stopped", Then::Stop),
            Ending::Restart => ("stopped", Then::Restart),
        };
        let counted = matches!(ending, Ending::PowerOff | Ending::Crash);
        self.restarts = if counted { self.restarts.saturating_add(1) } else { 0 };
        let again = then == Then::Restart && self.restarts <= policy.max_restarts;
        match (again, then) {
            (true, _) => say!("VM {}: {what}, starting again", vm.name()),
            (false, Then::Restart) => say!(
                "VM {}: {what}, and stays off: {} restarts in a row (max-restarts)",
                vm.name(),
                policy.max_restarts
            ),
            (false, Then::Stop) => say!("VM {}: {what}", vm.name()),
        }
        let next = if again { State::Loading } else { State::Off };
        if !again {
            // Whoever starts it by hand starts a new row.
            self.restarts = 0;
        }
        if vm.step(State::Ending, next).is_ok() && !again {
            retire();
        }
    }
}

/// One VM less; the last one takes the machine with it.
fn retire() {
    if ALIVE.fetch_sub(1, Ordering::AcqRel) == 1 {
        say!("the last VM is off: powering off");
        machine::power_off();
    }
}

#[cfg(test)]
mod tests;
