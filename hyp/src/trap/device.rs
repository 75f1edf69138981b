//! Loads and stores to emulated devices.

use super::Leave;
use crate::arch::{FaultRegisters, Gprs};
use crate::exit::{DataAbort, Direction, FaultStatus, MmioAccess, fault_ipa};
use crate::guest::layout;
use crate::irq;
use crate::terminal;
use crate::vcpu::{ExitKind, Vcpu};
use crate::vcpu_set::VcpuSet;
use crate::vgic::Version;

/// Does an access to an emulated device. `None` if it is none, if the
/// instruction is one that can't be emulated, or if it names a register that
/// is not in `regs`.
#[inline]
pub(super) fn emulate<R: Gprs>(
    regs: &mut R,
    vcpu: &Vcpu,
    abort: DataAbort,
    fault: FaultRegisters,
) -> Option<Leave> {
    let access = abort.mmio(fault_ipa(fault.hpfar, fault.far))?;
    if !matches!(abort.status(), FaultStatus::Translation { .. }) || !access.is_aligned() {
        return None;
    }
    let number = access.register().unwrap_or(31);
    let (others, leave) = match access.direction() {
        Direction::Read => {
            // Looked up first: a read may have side effects and must happen once.
            regs.get(number)?;
            let (value, others) = read(vcpu, access)?;
            regs.set(number, access.loaded(value))?;
            (others, Leave::Stay)
        }
        Direction::Write => write(vcpu, access, access.stored(regs.get(number)?))?,
    };
    vcpu.count(ExitKind::Device);
    Some(irq::kick_others(vcpu, others).or(leave))
}

/// What a device's register reads as, and which other vCPUs that concerns.
/// `None` where there is no device.
fn read(vcpu: &Vcpu, access: MmioAccess) -> Option<(u64, VcpuSet)> {
    let (vm, me, width) = (vcpu.vm, vcpu.index, access.width());
    Some(match place(vcpu, access.ipa())? {
        Place::Distributor(offset) => {
            (irq::with_list_registers(|lrs| vm.vgic.dist_read(me, offset, width, lrs)), VcpuSet::EMPTY)
        }
        Place::Redistributor(of, offset) => {
            (irq::with_list_registers(|lrs| vm.vgic.redist_read(me, of, offset, width, lrs)), VcpuSet::EMPTY)
        }
        Place::Console(offset) => {
            let reading = vm.console.read(offset, width);
            (reading.value, console_line(vcpu, reading.line.is_some()))
        }
    })
}

/// Does a write to a device; which other vCPUs that concerns, and whether this
/// CPU's loop has more to do because of it.
fn write(vcpu: &Vcpu, access: MmioAccess, value: u64) -> Option<(VcpuSet, Leave)> {
    let (vm, me, width) = (vcpu.vm, vcpu.index, access.width());
    let mut leave = Leave::Stay;
    let others = match place(vcpu, access.ipa())? {
        Place::Distributor(offset) => {
            irq::with_list_registers(|lrs| vm.vgic.dist_write(me, offset, width, value, lrs))
        }
        Place::Redistributor(of, offset) => {
            irq::with_list_registers(|lrs| vm.vgic.redist_write(me, of, offset, width, value, lrs))
        }
        Place::Console(offset) => {
            let effects = vm.console.write(offset, width, value);
            if effects.queued {
                leave = terminal::guest_wrote(vm.id);
            }
            console_line(vcpu, effects.line.is_some())
        }
    };
    Some((others, leave))
}

/// The console's interrupt line has changed: shows it to this vCPU if it is the
/// one that gets it.
fn console_line(vcpu: &Vcpu, changed: bool) -> VcpuSet {
    if !changed {
        return VcpuSet::EMPTY;
    }
    let wake = vcpu.vm.show_console_line();
    if wake.contains(vcpu.index) {
        irq::show_interrupts(vcpu);
    }
    wake.without(vcpu.index)
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
    let offset = ipa.wrapping_sub(layout::GICD_BASE);
    if offset < layout::GICD_SIZE {
        return Some(Place::Distributor(offset));
    }
    let offset = ipa.wrapping_sub(layout::UART_BASE);
    if offset < layout::UART_SIZE {
        return Some(Place::Console(offset));
    }
    let offset = ipa.wrapping_sub(layout::GICR_BASE);
    let frame = (offset / layout::GICR_STRIDE) as usize;
    if frame < vcpu.vm.vcpus().len() && vcpu.vm.vgic.version() == Version::V3 {
        return Some(Place::Redistributor(frame, offset % layout::GICR_STRIDE));
    }
    None
}
