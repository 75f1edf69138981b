//! The handlers that vectors.S calls: what an exit costs is decided here.
//!
//! A handler gets the registers that a function may clobber, and the vCPU. It
//! either does what the guest asked and returns [`Leave::Stay`], and the guest
//! goes on some thirty instructions later; or it says why `run_guest` has to
//! return, and [`super::handle`] does the rest with the full register set. None of
//! the frequent ones allocates, formats, or takes a lock that another vCPU may hold
//! for long. What is emulated is written once, over [`Gprs`]: an access through one
//! of x19 to x29, which are not in the fast frame, comes a second time with a
//! frame that has them.

use super::{device, smccc, system, wait};
use crate::arch::{self, FastFrame, Gprs, WholeFrame};
use crate::exit::{DataAbort, Esr, Syndrome, SysRegAccess, fault_ipa};
use crate::irq;
use crate::vcpu::{ExitKind, Vcpu};

/// Why `run_guest` returned, or (`Stay`) that it did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Leave {
    /// The exit is dealt with.
    Stay = 0,
    /// A synchronous exception, not dealt with: ESR_EL2 says which.
    Synchronous,
    /// Dealt with, but something else may want this CPU now.
    LookAround,
    /// A system error interrupt reached EL2.
    SystemError,
    /// Not done yet: come again with x19 to x29. vectors.S sees to that.
    MoreRegisters,
}

impl Leave {
    /// Stays only if both do.
    #[inline]
    pub fn or(self, other: Self) -> Self {
        if self == Self::Stay { other } else { self }
    }

    /// From what `run_guest` returned.
    pub fn from_bits(bits: u32) -> Self {
        match bits {
            1 => Self::Synchronous,
            3 => Self::SystemError,
            _ => Self::LookAround,
        }
    }
}

/// A synchronous exception from the guest. Each kind is a function of its own,
/// called last, so that none pays for the registers that another one needs.
pub fn on_sync(frame: &mut FastFrame, vcpu: &Vcpu) -> u32 {
    let esr = Esr::new(arch::exit_syndrome());
    match Syndrome::decode(esr) {
        Syndrome::Hvc(0) => hypercall(frame, vcpu),
        Syndrome::SysReg(access) => system_register(frame, vcpu, access),
        Syndrome::DataAbort(abort) => data_abort(frame, vcpu, abort),
        Syndrome::WaitFor(_) => wait::in_place(vcpu, esr) as u32,
        _ => Leave::Synchronous as u32,
    }
}

/// The same again for an instruction that names one of x19 to x29.
pub fn on_sync_whole(frame: &mut WholeFrame, vcpu: &Vcpu) -> u32 {
    let esr = Esr::new(arch::exit_syndrome());
    let done = match Syndrome::decode(esr) {
        Syndrome::SysReg(access) => system::emulate(frame, vcpu, access),
        Syndrome::DataAbort(abort) => device::emulate(frame, vcpu, abort, abort_ipa()),
        _ => None,
    };
    finish(done, esr, Leave::Synchronous)
}

/// The one call that needs nothing of its VM.
#[inline(never)]
fn hypercall(frame: &mut FastFrame, vcpu: &Vcpu) -> u32 {
    match (frame.get(0).and_then(smccc::answer_at_once), frame.slot(0)) {
        (Some(answer), Some(x0)) => {
            *x0 = answer;
            vcpu.count(ExitKind::Hypercall);
            Leave::Stay as u32
        }
        _ => Leave::Synchronous as u32,
    }
}

#[inline(never)]
fn system_register(frame: &mut FastFrame, vcpu: &Vcpu, access: SysRegAccess) -> u32 {
    finish(system::emulate(frame, vcpu, access), access.esr(), Leave::MoreRegisters)
}

#[inline(never)]
fn data_abort(frame: &mut FastFrame, vcpu: &Vcpu, abort: DataAbort) -> u32 {
    finish(device::emulate(frame, vcpu, abort, abort_ipa()), abort.esr(), Leave::MoreRegisters)
}

#[inline]
fn abort_ipa() -> u64 {
    fault_ipa(arch::fault_page(), arch::fault_address())
}

/// An emulated instruction is over; one that was not emulated goes `otherwise`.
#[inline]
fn finish(done: Option<Leave>, esr: Esr, otherwise: Leave) -> u32 {
    match done {
        Some(leave) => {
            arch::skip_guest_instruction(esr);
            leave as u32
        }
        None => otherwise as u32,
    }
}

/// A physical interrupt while the guest ran.
pub fn on_irq(_frame: &mut FastFrame, vcpu: &Vcpu) -> u32 {
    vcpu.count(ExitKind::Interrupt);
    irq::handle_one(vcpu) as u32
}

/// A system error: something in the machine failed on the guest's behalf.
pub fn on_serror(_frame: &mut FastFrame, _vcpu: &Vcpu) -> u32 {
    Leave::SystemError as u32
}
