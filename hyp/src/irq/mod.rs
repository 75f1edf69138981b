//! Physical interrupts: the machine's GIC as EL2 uses it.
//!
//! EL2 takes five kinds: the kick (an SGI between CPUs), the guest's virtual
//! timer, EL2's own timer, the maintenance interrupt of the virtual interface,
//! and devices that EL2 drives (the console). It runs with interrupts masked,
//! so one is taken either because it ended a guest's run ([`handle_one`]) or
//! because an idle CPU woke up ([`handle_pending`]).
//!
//! [`Controller`] is the machine's GIC; guests get the same version, because
//! their CPU interface is the machine's virtual one.

mod list_registers;
mod numbers;

pub use list_registers::VirtualInterface;

use crate::arch;
use crate::percpu::{self, PER_CPU};
use crate::terminal;
use crate::trap::Leave;
use crate::vcpu::{Attention, Vcpu};
use crate::vcpu_set::VcpuSet;
use crate::vgic::Version;
use crate::vtimer::VTIMER;
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};
pub use list_registers::MachineListRegs;
use numbers::{EL2_TIMER, KICK, MAINTENANCE};
pub use numbers::{Elsewhere, check};
use platform::board::Region;
use platform::board::{Board, GicInfo, MAX_REDISTRIBUTORS};
use platform::gic::v3::Redistributor;
use platform::gic::{Active, Priority, v2, v3};
use platform::intid::IntId;
use platform::mmio::Registers;
use spin::Once;

/// One frame of a redistributor.
const FRAME: u64 = 0x1_0000;

/// INTIDs from here on are special: nothing was pending.
const SPECIAL: u32 = 1020;

/// The machine's interrupt controller.
enum Controller {
    V2(v2::Gic),
    V3 { distributor: v3::Distributor, frames: Frames },
}

impl Controller {
    fn as_v2(&self) -> Option<&v2::Gic> {
        match self {
            Self::V2(gic) => Some(gic),
            Self::V3 { .. } => None,
        }
    }
}

static CONTROLLER: Once<Controller> = Once::new();

/// The console's INTID, 0 if it has none.
static CONSOLE_INTID: AtomicU32 = AtomicU32::new(0);

/// Why the interrupt controller can't be used.
#[derive(Clone, Copy, Debug)]
pub enum NoController {
    /// The device tree has none that we know.
    Missing,
    /// It is a GICv2 without the virtualisation registers (GICH, GICV).
    NoVirtualisation,
    /// It has an interrupt that EL2 takes at another number than ours.
    Interrupt(Elsewhere),
    /// Its registers can't be mapped.
    Map(arch::MapError),
}

impl fmt::Display for NoController {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str(
                "the device tree has no interrupt controller that Entresol knows (arm,gic-v3, arm,gic-400, \
                 arm,cortex-a15-gic)",
            ),
            Self::NoVirtualisation => f.write_str(
                "the GICv2 in the device tree has no virtualisation registers: its `reg` needs four ranges",
            ),
            Self::Interrupt(elsewhere) => elsewhere.fmt(f),
            Self::Map(error) => error.fmt(f),
        }
    }
}

/// Sets up what all CPUs share, on the first CPU.
pub fn init(board: &Board<'_>) -> Result<Version, NoController> {
    check(board).map_err(NoController::Interrupt)?;
    let (controller, version) = match board.gic.as_ref().ok_or(NoController::Missing)? {
        GicInfo::V3 { dist, redists, stride, .. } => {
            let distributor = v3::Distributor::new(map(*dist)?);
            distributor.init();
            let frames = Frames { ranges: redists.clone(), stride: *stride };
            (Controller::V3 { distributor, frames }, Version::V3)
        }
        GicInfo::V2 { hyp, .. } if hyp.size == 0 => return Err(NoController::NoVirtualisation),
        GicInfo::V2 { dist, cpu, hyp, .. } => {
            let gic = v2::Gic::new(map(*dist)?, map(*cpu)?, map(*hyp)?);
            gic.init_distributor();
            (Controller::V2(gic), Version::V2)
        }
    };
    CONTROLLER.call_once(|| controller);
    Ok(version)
}

/// This CPU can take no interrupts, and so can do nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoRedistributor;

/// Sets up this CPU's share: its interface, and the private interrupts that
/// EL2 takes. The timer comes after the others: a deadline that has always
/// passed already must not keep a device's interrupt waiting for ever.
pub fn init_cpu() -> Result<(), NoRedistributor> {
    let private = [KICK, EL2_TIMER, MAINTENANCE, VTIMER];
    match controller() {
        Some(Controller::V2(gic)) => {
            gic.init_cpu();
            gic.set_priority(EL2_TIMER, Priority::Late);
            private.iter().for_each(|&intid| gic.enable(intid));
            arch::percpu().gic_target.store(gic.own_target(), Ordering::Relaxed);
        }
        Some(Controller::V3 { frames, .. }) => {
            let redistributor = frames.find(arch::mpidr()).ok_or(NoRedistributor)?;
            redistributor.init();
            redistributor.set_priority(EL2_TIMER, Priority::Late);
            private.iter().for_each(|&intid| redistributor.enable(intid));
            arch::percpu().redistributor.call_once(|| redistributor);
            arch::init_gic_cpu_interface();
        }
        None => {}
    }
    MachineListRegs::new(controller().and_then(Controller::as_v2)).switch_on();
    Ok(())
}

impl fmt::Display for NoRedistributor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the GICv3 in the device tree has no redistributor for it")
    }
}

/// Makes the console's interrupt arrive at this CPU.
pub fn enable_console(intid: IntId) {
    CONSOLE_INTID.store(intid.raw(), Ordering::Relaxed);
    match controller() {
        Some(Controller::V2(gic)) => gic.enable_shared_here(intid),
        Some(Controller::V3 { distributor, .. }) => distributor.enable(intid, arch::mpidr()),
        None => {}
    }
}

/// A block of registers, mapped.
fn map(region: Region) -> Result<Registers, NoController> {
    arch::map_registers(region).map_err(NoController::Map)
}

/// The GICv3 redistributor ranges of the device tree. They can be large; only
/// the frames that are looked at get mapped.
struct Frames {
    ranges: heapless::Vec<Region, MAX_REDISTRIBUTORS>,
    stride: Option<u64>,
}

impl Frames {
    fn find(&self, mpidr: u64) -> Option<Redistributor> {
        self.ranges.iter().find_map(|range| {
            let stride = self.stride.map(|stride| stride as usize);
            let block = |frame: usize| arch::map_registers(Region { base: frame as u64, size: FRAME }).ok();
            Redistributor::find(range.base as usize, range.size as usize, stride, mpidr, block)
        })
    }
}

/// Makes CPU `index` look at what asks for attention.
pub fn kick(index: usize) {
    match controller() {
        Some(Controller::V2(gic)) => {
            let Some(target) = PER_CPU.get(index).map(|cpu| cpu.gic_target.load(Ordering::Relaxed)) else {
                return;
            };
            arch::complete_inner();
            gic.send_sgi(KICK, target);
        }
        Some(Controller::V3 { .. }) => {
            if let Some(mpidr) = percpu::mpidr_of(index) {
                arch::send_sgi(mpidr, KICK.raw());
            }
        }
        None => {}
    }
}

/// Takes the one interrupt that ended a run of `vcpu`. The virtual timer's is
/// by far the most frequent, so it is looked for first.
#[inline]
pub fn handle_one(vcpu: &Vcpu) -> Leave {
    let taken = Taken::acknowledge();
    match taken.intid() {
        Some(intid) if intid == VTIMER => {
            show_timer(vcpu);
            // Only the priority drops: the guest's EOI deactivates.
            taken.drop_priority();
            Leave::Stay
        }
        Some(intid) => handle(taken, intid, Some(vcpu)),
        None => Leave::Stay,
    }
}

/// Takes everything that is pending, on a CPU that just woke up. `resident` is
/// the vCPU in the processor.
pub fn handle_pending(resident: Option<&Vcpu>) {
    loop {
        let taken = Taken::acknowledge();
        let Some(intid) = taken.intid() else { return };
        match (intid, resident) {
            (VTIMER, Some(vcpu)) => {
                show_timer(vcpu);
                vcpu.note(Attention::INTERRUPTS);
                taken.drop_priority();
            }
            (MAINTENANCE, Some(vcpu)) => {
                // Its line stays high until the list registers are looked at.
                vcpu.note(Attention::INTERRUPTS);
                handle(taken, intid, Some(vcpu));
            }
            // What asks for attention stays set: it is what wakes a waiting vCPU.
            _ => {
                handle(taken, intid, None);
            }
        }
    }
}

/// Everything but the virtual timer. `running` is the vCPU whose run it ended.
fn handle(taken: Taken, intid: IntId, running: Option<&Vcpu>) -> Leave {
    arch::percpu().interrupts.fetch_add(1, Ordering::Relaxed);
    taken.drop_priority();
    let leave = match (intid, running) {
        (MAINTENANCE, Some(vcpu)) => {
            show_interrupts(vcpu);
            Leave::Stay
        }
        // The common kick: an interrupt for the vCPU that was running. If it is
        // all that asks for attention here, there is nothing to look around for.
        (KICK, Some(vcpu))
            if arch::percpu().vcpus().len() == 1 && vcpu.attention() == Attention::INTERRUPTS =>
        {
            if vcpu.take(Attention::INTERRUPTS) {
                show_interrupts(vcpu);
            }
            Leave::Stay
        }
        (EL2_TIMER, _) => {
            arch::disarm_el2_timer();
            Leave::LookAround
        }
        (intid, _) if intid.raw() == CONSOLE_INTID.load(Ordering::Relaxed) => {
            terminal::interrupt();
            Leave::LookAround
        }
        _ => Leave::LookAround,
    };
    taken.deactivate();
    leave
}

/// Shows the guest its virtual timer's interrupt, linked to the physical one.
#[inline]
fn show_timer(vcpu: &Vcpu) {
    let others = with_list_registers(vcpu.vm.vgic.version(), |lrs| {
        vcpu.vm.vgic.deliver_linked(vcpu.index, VTIMER, lrs)
    });
    kick_others(vcpu, others);
}

/// Brings the list registers of the resident `vcpu` up to date.
pub fn show_interrupts(vcpu: &Vcpu) {
    let others = with_list_registers(vcpu.vm.vgic.version(), |lrs| vcpu.vm.vgic.flush(vcpu.index, lrs));
    kick_others(vcpu, others);
}

/// After something that `vcpu`, which is resident, did: the vCPUs in `others`
/// have to look at their interrupts.
#[inline]
pub fn kick_others(vcpu: &Vcpu, others: VcpuSet) {
    if !others.is_empty() {
        kick_some(vcpu, others);
    }
}

#[inline(never)]
fn kick_some(vcpu: &Vcpu, others: VcpuSet) {
    vcpu.vm.kick(others);
}

/// Makes the virtual timer's physical interrupt count as active on this CPU,
/// or not: it must exactly while the resident guest has not finished with it.
/// It does before the timer is loaded, or another guest is entered.
pub fn set_timer_active(active: Active) {
    match controller() {
        Some(Controller::V2(gic)) => gic.set_active(VTIMER, active),
        Some(Controller::V3 { .. }) => {
            if let Some(redistributor) = arch::percpu().redistributor.get() {
                redistributor.set_active(VTIMER, active);
            }
        }
        None => {}
    }
    // The controller's answer has come: it knows.
    arch::complete_system();
}

/// Calls `act` with this CPU's list registers, those of a GIC of `version`.
#[inline]
pub fn with_list_registers<T>(version: Version, act: impl FnOnce(&mut MachineListRegs) -> T) -> T {
    let gic = match version {
        Version::V3 => None,
        Version::V2 => controller().and_then(Controller::as_v2),
    };
    act(&mut MachineListRegs::new(gic))
}

#[inline]
fn controller() -> Option<&'static Controller> {
    CONTROLLER.get()
}

/// An acknowledged interrupt: the raw value that ending it wants back.
struct Taken(u32);

impl Taken {
    #[inline]
    fn acknowledge() -> Self {
        Self(match controller() {
            Some(Controller::V3 { .. }) => arch::acknowledge(),
            Some(Controller::V2(gic)) => gic.acknowledge(),
            None => SPECIAL,
        })
    }

    /// `None` if nothing was pending.
    #[inline]
    fn intid(&self) -> Option<IntId> {
        // GICv2 has the sender of an SGI above bit 10.
        IntId::try_new(self.0 & 0x3ff)
    }

    #[inline]
    fn drop_priority(&self) {
        match controller() {
            Some(Controller::V3 { .. }) => arch::drop_priority(self.0),
            Some(Controller::V2(gic)) => gic.drop_priority(self.0),
            None => {}
        }
    }

    fn deactivate(&self) {
        match controller() {
            Some(Controller::V3 { .. }) => arch::deactivate(self.0),
            Some(Controller::V2(gic)) => gic.deactivate(self.0),
            None => {}
        }
    }
}
