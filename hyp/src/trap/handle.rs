//! Exits that need the whole vCPU: everything the handlers in [`super::entry`]
//! left alone.

use super::inject::{Exception, Interrupted, PstateBits};
use super::smccc::{self, Conduit};
use super::sysreg::register::{ID_AA64MMFR1_EL1, ID_AA64PFR0_EL1, ID_AA64PFR1_EL1};
use super::sysreg::{self, SysReg, SysRegOutcome};
use super::{Leave, system, wait};
use crate::arch::{self, FaultRegisters, Gprs};
use crate::exit::{DataAbort, Direction, Esr, InstructionAbort, Syndrome, SysRegAccess, fault_ipa};
use crate::lifecycle::Ending;
use crate::log::{debug, warn};
use crate::task::Task;
use crate::terminal::say;
use crate::vcpu::{Attention, ExitKind};
use crate::vpsci::{Outcome, PowerState, PoweredVm};
use crate::vtimer::Register;

/// What the vCPU does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It goes on.
    Go,
    /// It waits for an interrupt.
    Wait,
    /// It is off.
    Off,
}

impl PoweredVm for crate::vm::Vm {
    fn power(&self, index: u64) -> Option<&PowerState> {
        self.vcpus().get(usize::try_from(index).ok()?).map(|vcpu| &vcpu.power)
    }

    fn is_ram(&self, ipa: u64) -> bool {
        self.memory.contains(ipa, 4)
    }
}

/// Deals with whatever made the resident `task` leave its guest.
pub fn handle(leave: Leave, task: &mut Task) -> Next {
    match leave {
        Leave::Stay | Leave::LookAround | Leave::MoreRegisters => Next::Go,
        Leave::Synchronous => synchronous(task),
        Leave::SystemError => crash(task, "a system error (SError) while it ran"),
    }
}

fn synchronous(task: &mut Task) -> Next {
    let vcpu = task.vcpu;
    let fault = arch::fault_registers();
    let kind = |kind| vcpu.count(kind);
    match Syndrome::decode(Esr::new(fault.esr)) {
        Syndrome::WaitFor(_) => {
            kind(ExitKind::WaitForInterrupt);
            task.skip_instruction(Esr::new(fault.esr));
            wait::in_loop(vcpu)
        }
        Syndrome::Hvc(immediate) => {
            kind(ExitKind::Hypercall);
            call(task, Conduit::Hvc, immediate)
        }
        Syndrome::Smc(immediate) => {
            kind(ExitKind::Hypercall);
            call(task, Conduit::Smc, immediate)
        }
        Syndrome::SysReg(access) => system_register(task, access),
        Syndrome::DataAbort(abort) => data_abort(task, abort, fault),
        Syndrome::InstructionAbort(abort) => instruction_abort(task, abort, fault),
        Syndrome::IllegalState | Syndrome::PcAlignment | Syndrome::SpAlignment => {
            kind(ExitKind::Other);
            crash(task, "an exception that belongs to EL1 reached EL2")
        }
        // Whatever else is trapped is trapped because the guest's ID registers
        // say that it is not there.
        _ => {
            kind(ExitKind::Other);
            inject(task, Exception::undefined())
        }
    }
}

fn call(task: &mut Task, conduit: Conduit, immediate: u16) -> Next {
    let (vm, vcpu) = (task.vcpu.vm, task.vcpu);
    let at = task.regs.pc;
    if !smccc::is_call(immediate) {
        task.regs.pc = conduit.instruction(at);
        return inject(task, Exception::undefined());
    }
    task.regs.pc = conduit.next(at);
    let [x0, x1, x2, x3, ..] = task.regs.x;
    match smccc::call([x0, x1, x2, x3], vcpu.index as u64, vm) {
        Outcome::Return(value) => {
            if value == u64::MAX {
                debug!("VM {}: call {:#x} is not supported", vm.id, x0);
            }
            task.regs.x[0] = value;
            Next::Go
        }
        Outcome::ReturnFour(values) => {
            for (register, value) in task.regs.x.iter_mut().zip(values) {
                *register = u64::from(value);
            }
            Next::Go
        }
        Outcome::Started(index) => {
            task.regs.x[0] = 0;
            if let Some(started) = vm.vcpus().get(index) {
                started.attend(Attention::LIFECYCLE);
            }
            Next::Go
        }
        Outcome::Standby => {
            task.regs.x[0] = 0;
            wait::in_loop(vcpu)
        }
        Outcome::CpuOff => Next::Off,
        Outcome::SystemOff => end(task, Ending::PowerOff),
        Outcome::SystemReset(_) => end(task, Ending::Reboot),
    }
}

/// Ends the VM's run. The vCPU is parked as soon as its loop looks at the
/// VM's state, before it could execute another instruction.
fn end(task: &Task, ending: Ending) -> Next {
    // Whoever was faster ends or pauses the VM, which parks this vCPU as well.
    let _ = task.vcpu.vm.end(ending);
    Next::Go
}

fn system_register(task: &mut Task, access: SysRegAccess) -> Next {
    let vcpu = task.vcpu;
    vcpu.count(ExitKind::SystemRegister);
    let number = access.register().unwrap_or(31);
    let value = task.regs.get(number).unwrap_or(0);
    match sysreg::emulate(access, value, &vcpu.vm.ids, &mut task.debug) {
        SysRegOutcome::Read(value) => {
            put(task, number, value);
        }
        SysRegOutcome::Written => {}
        SysRegOutcome::Sgi(register) => {
            system::send_sgi(vcpu, register, value);
        }
        SysRegOutcome::Timer(register) => physical_timer(task, access, register, number, value),
        SysRegOutcome::DebugWritten => arch::load_debug(&task.debug.hardware()),
        SysRegOutcome::Undefined => {
            let [op0, op1, crn, crm, op2] = SysReg::of(access).numbers();
            debug!("VM {}: no register s{}_{}_c{}_c{}_{}", vcpu.vm.id, op0, op1, crn, crm, op2);
            return inject(task, Exception::undefined());
        }
    }
    task.skip_instruction(access.esr());
    Next::Go
}

fn physical_timer(task: &mut Task, access: SysRegAccess, register: Register, number: u8, value: u64) {
    let now = arch::counter();
    match access.direction() {
        Direction::Read => {
            let value = task.ptimer.read(register, now);
            put(task, number, value);
        }
        Direction::Write => task.ptimer.write(register, value, now),
    }
    task.check_timers(now);
}

/// Puts a value into a guest's register; the zero register takes nothing.
fn put(task: &mut Task, number: u8, value: u64) {
    if let Some(slot) = task.regs.slot(number) {
        *slot = value;
    }
}

fn data_abort(task: &mut Task, abort: DataAbort, fault: FaultRegisters) -> Next {
    let vcpu = task.vcpu;
    let ipa = fault_ipa(fault.hpfar, fault.far);
    vcpu.count(ExitKind::Other);
    warn!("VM {}: vCPU {}: nothing at {:#x} (pc {:#x})", vcpu.vm.id, vcpu.index, ipa, task.regs.pc);
    inject(task, abort.as_external(fault.far))
}

fn instruction_abort(task: &mut Task, abort: InstructionAbort, fault: FaultRegisters) -> Next {
    task.vcpu.count(ExitKind::Other);
    let (_, vectors) = arch::guest_exception_controls();
    // The handler itself can't be fetched: the guest would fault for ever.
    if task.regs.pc & !0x7ff == vectors & !0x7ff {
        return crash(task, "its exception vectors are not in its memory");
    }
    inject(task, abort.as_external(fault.far))
}

/// Makes the guest take an exception at EL1.
fn inject(task: &mut Task, exception: Exception) -> Next {
    let (sctlr_el1, vbar_el1) = arch::guest_exception_controls();
    let from = Interrupted { pstate: task.regs.pstate, pc: task.regs.pc, vbar_el1, sctlr_el1 };
    // What the processor implements, not what the guest is shown: its PSTATE
    // has those bits in any case.
    let host = arch::host_id();
    let implemented = PstateBits::from_id_registers(
        host.get(ID_AA64PFR0_EL1),
        host.get(ID_AA64PFR1_EL1),
        host.get(ID_AA64MMFR1_EL1),
    );
    let entry = exception.enter(from, implemented);
    arch::write_guest_exception(entry.elr_el1, entry.spsr_el1, entry.esr_el1, entry.far_el1);
    task.regs.pc = entry.pc;
    task.regs.pstate = entry.pstate;
    Next::Go
}

/// The guest can't go on, and it is not the hypervisor's fault: prints why, and
/// ends this VM's run.
fn crash(task: &Task, why: &str) -> Next {
    let fault = arch::fault_registers();
    let (vm, vcpu) = (task.vcpu.vm, task.vcpu);
    say!("VM {}: vCPU {} can't go on: {why}", vm.name(), vcpu.index);
    say!(
        "VM {}: pc {:#x} pstate {:#x} esr_el2 {:#x} far {:#x} ipa {:#x}",
        vm.name(),
        task.regs.pc,
        task.regs.pstate,
        fault.esr,
        fault.far,
        fault_ipa(fault.hpfar, fault.far)
    );
    end(task, Ending::Crash)
}
