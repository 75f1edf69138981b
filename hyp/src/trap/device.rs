//! Loads and stores to emulated devices.

use super::Leave;
use crate::arch::Gprs;
use crate::exit::{DataAbort, Direction};
use crate::guest::layout::{GICD_BASE, GICR_BASE, GICR_STRIDE, UART_BASE, UART_SIZE};
use crate::irq;
use crate::mmio::Width;
use crate::terminal;
use crate::vcpu::{ExitKind, Vcpu};
use crate::vcpu_set::VcpuSet;
use crate::vgic::Version;

/// Does an access to an emulated device at `ipa`. `None`, and nothing done, if
/// there is no device, if the instruction is one that can't be emulated, or if
/// it names a register that is not in `regs`.
#[inline]
pub(super) fn emulate<R: Gprs>(regs: &mut R, vcpu: &Vcpu, abort: DataAbort, ipa: u64) -> Option<Leave> {
    let access = abort.mmio(ipa)?;
    if !abort.is_unmapped() || !access.is_aligned() {
        return None;
    }
    let (width, number) = (access.width(), access.register().unwrap_or(31));
    match access.direction() {
        Direction::Read => {
            // Found first: a read may have side effects and must happen once.
            let slot = regs.slot(number)?;
            let (vgic, me) = (&vcpu.vm.vgic, vcpu.index);
            let value = match place(vcpu, ipa)? {
                Place::Distributor(offset) => {
                    irq::with_list_registers(vgic.version(), |lrs| vgic.dist_read(me, offset, width, lrs))
                }
                Place::Redistributor(of, offset) => irq::with_list_registers(vgic.version(), |lrs| {
                    vgic.redist_read(me, of, offset, width, lrs)
                }),
                Place::Console(offset) => {
                    let reading = vcpu.vm.console.read(offset, width);
                    if reading.line.is_some() {
                        console_line(vcpu);
                    }
                    reading.value
                }
            };
            *slot = access.loaded(value);
            vcpu.count(ExitKind::Device);
            Some(Leave::Stay)
        }
        Direction::Write => {
            let value = access.stored(regs.get(number)?);
            vcpu.count(ExitKind::Device);
            write(vcpu, ipa, width, value)
        }
    }
}

/// Where an access goes. The map is sparse, so this is a short chain of
/// compares, the busiest device first.
enum Place {
    /// The distributor, and where in it.
    Distributor(u64),
    /// A redistributor: of which vCPU, and where in it.
    Redistributor(usize, u64),
    /// The UART, and where in it.
    Console(u64),
}

#[inline]
fn place(vcpu: &Vcpu, ipa: u64) -> Option<Place> {
    let vgic = &vcpu.vm.vgic;
    // The GIC's frames and the UART's lie on 64 KiB.
    let (block, offset) = (ipa & !0xffff, ipa & 0xffff);
    if block == GICD_BASE {
        return Some(Place::Distributor(offset));
    }
    let in_frames = ipa.wrapping_sub(GICR_BASE);
    let frame = (in_frames / GICR_STRIDE) as usize;
    if frame < vgic.vcpu_count() && vgic.version() == Version::V3 {
        return Some(Place::Redistributor(frame, in_frames % GICR_STRIDE));
    }
    (block == UART_BASE && offset < UART_SIZE).then_some(Place::Console(offset))
}

/// Does a write to a device; `None` where there is none.
#[inline(never)]
fn write(vcpu: &Vcpu, ipa: u64, width: Width, value: u64) -> Option<Leave> {
    let (vgic, me) = (&vcpu.vm.vgic, vcpu.index);
    let others = match place(vcpu, ipa)? {
        Place::Distributor(offset) => {
            irq::with_list_registers(vgic.version(), |lrs| vgic.dist_write(me, offset, width, value, lrs))
        }
        Place::Redistributor(of, offset) => irq::with_list_registers(vgic.version(), |lrs| {
            vgic.redist_write(me, of, offset, width, value, lrs)
        }),
        Place::Console(offset) => return Some(write_console(vcpu, offset, width, value)),
    };
    irq::kick_others(vcpu, others);
    Some(Leave::Stay)
}

#[inline(never)]
fn write_console(vcpu: &Vcpu, offset: u64, width: Width, value: u64) -> Leave {
    let effects = vcpu.vm.console.write(offset, width, value);
    if effects.line.is_some() {
        console_line(vcpu);
    }
    if effects.queued { terminal::guest_wrote(vcpu.vm.id) } else { Leave::Stay }
}

/// The console's interrupt line has changed: shows it to this vCPU if it is
/// the one that gets it, and calls whoever else does.
#[inline(never)]
fn console_line(vcpu: &Vcpu) {
    let wake: VcpuSet = vcpu.vm.show_console_line();
    if wake.contains(vcpu.index) {
        irq::show_interrupts(vcpu);
    }
    irq::kick_others(vcpu, wake.without(vcpu.index));
}
