//! Loads and stores to emulated devices.

use super::Leave;
use crate::arch::{self, FaultRegisters, Gprs};
use crate::exit::{DataAbort, Direction, MmioAccess, fault_ipa};
use crate::guest::layout;
use crate::irq;
use crate::mmio::Width;
use crate::vcpu::{ExitKind, Vcpu};
use crate::vcpu_set::VcpuSet;
use crate::vgic::Version;

/// Does an access to an emulated device. `None` if it is none, if the
/// instruction is one that can't be emulated, or if it names a register that
/// is not in `regs`.
#[inline]
pub fn emulate<R: Gprs>(regs: &mut R, vcpu: &Vcpu, abort: DataAbort, fault: FaultRegisters) -> Option<Leave> {
    let access = abort.mmio(fault_ipa(fault.hpfar, fault.far))?;
    if !abort.status().is_translation() || !access.is_aligned() {
        return None;
    }
    let number = access.register().unwrap_or(31);
    let leave = match access.direction() {
        Direction::Read => {
            // Looked up first: a read may have side effects and must happen once.
            regs.get(number)?;
            let (value, wake) = read(vcpu, access)?;
            regs.set(number, access.loaded(value))?;
            irq::show_or_kick(vcpu, wake)
        }
        Direction::Write => {
            let value = access.stored(regs.get(number)?);
            irq::show_or_kick(vcpu, write(vcpu, access, value)?)
        }
    };
    vcpu.count(ExitKind::Device);
    arch::skip_guest_instruction();
    Some(leave)
}

/// What a device's register reads as, and which vCPUs that concerns. `None`
/// where there is no device.
fn read(vcpu: &Vcpu, access: MmioAccess) -> Option<(u64, VcpuSet)> {
    let (vm, width) = (vcpu.vm, access.width());
    match place(vcpu, access.ipa())? {
        Place::Distributor(offset) => Some((vm.vgic.dist_read(vcpu.index, offset, width), VcpuSet::EMPTY)),
        Place::Redistributor(of, offset) => Some((vm.vgic.redist_read(of, offset, width), VcpuSet::EMPTY)),
        Place::Console(offset) => Some(vm.read_console(offset, width)),
    }
}

fn write(vcpu: &Vcpu, access: MmioAccess, value: u64) -> Option<VcpuSet> {
    let (vm, width) = (vcpu.vm, access.width());
    match place(vcpu, access.ipa())? {
        Place::Distributor(offset) => Some(vm.vgic.dist_write(vcpu.index, offset, width, value)),
        Place::Redistributor(of, offset) => Some(vm.vgic.redist_write(of, offset, width, value)),
        Place::Console(offset) => Some(vm.write_console(offset, width, value)),
    }
}

/// A device of the guest machine, and where in it.
enum Place {
    Distributor(u64),
    /// Of which vCPU.
    Redistributor(usize, u64),
    Console(u64),
}

/// What is at `ipa`. The map is sparse, so this is a short chain of compares,
/// the busiest first.
#[inline]
fn place(vcpu: &Vcpu, ipa: u64) -> Option<Place> {
    let offset = |base: u64| ipa.wrapping_sub(base);
    if offset(layout::GIC_DISTRIBUTOR.base) < layout::GIC_DISTRIBUTOR.size {
        return Some(Place::Distributor(offset(layout::GIC_DISTRIBUTOR.base)));
    }
    if offset(layout::PL011.base) < layout::PL011.size {
        return Some(Place::Console(offset(layout::PL011.base)));
    }
    let frames = offset(layout::GIC_REDISTRIBUTORS.base);
    let frame = (frames / layout::GIC_REDISTRIBUTOR_STRIDE) as usize;
    if frame < vcpu.vm.vcpus().len() && vcpu.vm.vgic.version() == Version::V3 {
        return Some(Place::Redistributor(frame, frames % layout::GIC_REDISTRIBUTOR_STRIDE));
    }
    None
}
