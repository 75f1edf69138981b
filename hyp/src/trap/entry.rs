//! The handlers that vectors.S calls: what an exit costs is decided here.
//!
//! A handler gets the registers that a function may clobber, and the vCPU. It
//! either does what the guest asked and returns [`Leave::Stay`], and the guest
//! goes on some thirty instructions later; or it says why `run_guest` has to
//! return, and [`super::handle`] does the rest with the full register set. No
//! handler allocates, formats, or takes a lock that another vCPU may hold for
//! long. What is emulated is written once, over [`Gprs`]: an access through one
//! of x19 to x29, which are not in the fast frame, comes a second time with a
//! frame that has them.

use super::{device, system, wait};
use crate::arch::{self, FastFrame, Gprs, WholeFrame};
use crate::exit::{Esr, Syndrome, fault_ipa};
use crate::irq;
use crate::vcpu::{ExitKind, Vcpu};
use crate::vpsci;

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

/// A synchronous exception from the guest.
pub(crate) extern "C" fn on_sync(frame: &mut FastFrame, vcpu: &Vcpu) -> u32 {
    let leave = match Syndrome::decode(Esr::new(arch::exit_syndrome())) {
        // The one call that needs nothing of its VM; also what guests measure a
        // hypercall by.
        Syndrome::Hvc(0) if frame.get(0).is_some_and(|function| function as u32 == vpsci::VERSION) => {
            vcpu.count(ExitKind::Hypercall);
            if let Some(x0) = frame.slot(0) {
                *x0 = vpsci::IMPLEMENTED_VERSION;
            }
            Leave::Stay
        }
        Syndrome::WaitFor(_) => wait::in_place(vcpu),
        syndrome => emulate(frame, vcpu, syndrome, Leave::MoreRegisters),
    };
    leave as u32
}

/// The same again, with every register at hand.
pub(crate) extern "C" fn on_sync_whole(frame: &mut WholeFrame, vcpu: &Vcpu) -> u32 {
    let syndrome = Syndrome::decode(Esr::new(arch::exit_syndrome()));
    emulate(frame, vcpu, syndrome, Leave::Synchronous) as u32
}

/// Emulates an instruction, or says `otherwise`.
#[inline]
fn emulate<R: Gprs>(frame: &mut R, vcpu: &Vcpu, syndrome: Syndrome, otherwise: Leave) -> Leave {
    let done = match syndrome {
        Syndrome::SysReg(access) => system::emulate(frame, vcpu, access),
        Syndrome::DataAbort(abort) => {
            device::emulate(frame, vcpu, abort, fault_ipa(arch::fault_page(), arch::fault_address()))
        }
        _ => return Leave::Synchronous,
    };
    match done {
        Some(leave) => {
            arch::skip_guest_instruction();
            leave
        }
        None => otherwise,
    }
}

/// A physical interrupt while the guest ran.
pub(crate) extern "C" fn on_irq(_frame: &mut FastFrame, vcpu: &Vcpu) -> u32 {
    vcpu.count(ExitKind::Interrupt);
    irq::handle_one(vcpu) as u32
}

/// A system error: something in the machine failed on the guest's behalf.
pub(crate) extern "C" fn on_serror(_frame: &mut FastFrame, _vcpu: &Vcpu) -> u32 {
    Leave::SystemError as u32
}
