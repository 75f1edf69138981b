//! Trapped system registers: the ones that are answered at once.

use super::Leave;
use super::sysreg::register::ICC_SGI1R_EL1;
use super::sysreg::{SgiRegister, SysReg};
use crate::arch::{self, Gprs};
use crate::exit::{Direction, SysRegAccess};
use crate::irq;
use crate::vcpu::{ExitKind, Vcpu};

/// Does an access to an ID register or the common SGI register. `None` for any
/// other, and if the access names a register that is not in `regs`.
#[inline]
pub fn emulate<R: Gprs>(regs: &mut R, vcpu: &Vcpu, access: SysRegAccess) -> Option<Leave> {
    let register = SysReg::of(access);
    let number = access.register().unwrap_or(31);
    let leave = if let Some(value) = vcpu.vm.ids.read(register) {
        regs.set(number, value)?;
        Leave::Stay
    } else if register.is(ICC_SGI1R_EL1) && access.direction() == Direction::Write {
        send_sgi(vcpu, SgiRegister::Group1, regs.get(number)?)
    } else {
        return None;
    };
    vcpu.count(ExitKind::SystemRegister);
    arch::skip_guest_instruction();
    Some(leave)
}

/// Sends an SGI to whom `value` names.
#[inline]
pub fn send_sgi(vcpu: &Vcpu, register: SgiRegister, value: u64) -> Leave {
    irq::show_or_kick(vcpu, vcpu.vm.vgic.send_sgi(vcpu.index, register, value))
}
