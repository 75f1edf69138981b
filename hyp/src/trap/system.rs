//! Trapped system registers: the ones that are answered at once.

use super::Leave;
use super::sysreg::SysReg;
use super::sysreg::register::ICC_SGI1R_EL1;
use crate::arch::Gprs;
use crate::exit::{Direction, SysRegAccess};
use crate::irq;
use crate::vcpu::{ExitKind, Vcpu};
use crate::vgic::SgiRegister;

/// Does an access to an ID register or the common SGI register. `None` for any
/// other, and if the access names a register that is not in `regs`.
#[inline]
pub(super) fn emulate<R: Gprs>(regs: &mut R, vcpu: &Vcpu, access: SysRegAccess) -> Option<Leave> {
    let register = SysReg::of(access);
    let number = access.register().unwrap_or(31);
    if let Some(value) = vcpu.vm.ids.read(register) {
        *regs.slot(number)? = value;
    } else if register.is(ICC_SGI1R_EL1) && access.direction() == Direction::Write {
        send_sgi(vcpu, SgiRegister::Sgi1R, regs.get(number)?);
    } else {
        return None;
    }
    vcpu.count(ExitKind::SystemRegister);
    Some(Leave::Stay)
}

/// Sends an SGI to whom `value` names.
#[inline]
pub(super) fn send_sgi(vcpu: &Vcpu, register: SgiRegister, value: u64) {
    let others = irq::with_list_registers(vcpu.vm.vgic.version(), |lrs| {
        vcpu.vm.vgic.write_sgi_register(vcpu.index, register, value, lrs)
    });
    irq::kick_others(vcpu, others);
}
