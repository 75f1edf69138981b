//! WFI: the guest has nothing to do.
//!
//! A vCPU that has its physical CPU to itself waits in place: EL2 sleeps in the
//! handler, with everything still in the processor, until there is something to
//! deliver. Where vCPUs share a CPU, its loop decides who runs instead.

use super::{Leave, Next};
use crate::arch;
use crate::exit::Esr;
use crate::irq;
use crate::vcpu::{Attention, ExitKind, Vcpu};

/// Waits without leaving the guest, if nobody else could want this CPU.
#[inline(never)]
pub(super) fn in_place(vcpu: &Vcpu, esr: Esr) -> Leave {
    if arch::percpu().vcpus().len() != 1 {
        return Leave::Synchronous;
    }
    vcpu.count(ExitKind::WaitForInterrupt);
    while !has_something(vcpu) {
        arch::wait_for_interrupt();
        let leave = irq::handle_one(vcpu);
        if leave != Leave::Stay {
            // The guest executes its WFI again when the loop has looked around.
            return leave;
        }
    }
    arch::skip_guest_instruction(esr);
    Leave::Stay
}

/// What a vCPU does whose WFI came to the loop.
pub(super) fn in_loop(vcpu: &Vcpu) -> Next {
    if vcpu.attention().has(Attention::INTERRUPTS) || has_something(vcpu) { Next::Go } else { Next::Wait }
}

/// Whether an interrupt, masked or not, ends a WFI of the resident `vcpu`.
fn has_something(vcpu: &Vcpu) -> bool {
    let vgic = &vcpu.vm.vgic;
    irq::with_list_registers(vgic.version(), |lrs| vgic.has_deliverable(vcpu.index, lrs))
}
