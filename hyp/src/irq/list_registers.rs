//! The machine's virtual CPU interface: list registers and the state beside them.

use super::{Controller, controller};
use crate::arch;
use crate::vgic::{ListRegs, Lr, Maintenance};
use crate::vtimer::VTIMER;
use platform::gic::v2::{self, VirtualInterface as V2Interface};
use platform::intid::IntId;

/// ICH_HCR_EL2 and GICH_HCR: the interface is on.
const ENABLE: u32 = 1;
/// Maintenance when no list register is pending.
const NO_PENDING: u32 = 1 << 3;
/// Maintenance when the guest ends an interrupt that is in no list register.
const ENTRY_NOT_PRESENT: u32 = 1 << 2;
/// EOIcount.
const EOI_COUNT_SHIFT: u32 = 27;

/// This CPU's list registers: GICv2's are in memory, GICv3's in the processor.
pub struct MachineListRegs(Option<&'static v2::Gic>);

impl MachineListRegs {
    /// Those of the CPU that this runs on; `gic` is the machine's if it is a GICv2.
    #[inline]
    pub(super) fn new(gic: Option<&'static v2::Gic>) -> Self {
        Self(gic)
    }

    /// Empties all of them and switches the interface on, when a CPU comes up.
    pub(super) fn switch_on(&mut self) {
        for index in 0..self.count() {
            self.write(index, Lr::EMPTY);
        }
        self.write_control(ENABLE);
    }

    fn write_control(&self, value: u32) {
        match self.0 {
            Some(gic) => gic.set_hypervisor_control(value),
            None => arch::set_ich_hcr(u64::from(value)),
        }
    }

    fn read_control(&self) -> u32 {
        match self.0 {
            Some(gic) => gic.hypervisor_control(),
            None => arch::ich_hcr() as u32,
        }
    }
}

impl ListRegs for MachineListRegs {
    #[inline]
    fn count(&self) -> usize {
        match self.0 {
            Some(gic) => gic.list_register_count(),
            None => arch::list_register_count(),
        }
    }

    #[inline]
    fn read(&self, index: usize) -> Lr {
        match self.0 {
            Some(gic) => Lr::from_gich(gic.list_register(index)),
            None => Lr::from_ich(arch::read_list_register(index)),
        }
    }

    #[inline]
    fn write(&mut self, index: usize, lr: Lr) {
        match self.0 {
            Some(gic) => gic.set_list_register(index, lr.to_gich()),
            None => arch::write_list_register(index, lr.to_ich()),
        }
    }

    #[inline]
    fn empty_mask(&self) -> u32 {
        match self.0 {
            Some(gic) => gic.empty_list_registers(),
            None => arch::empty_list_registers(),
        }
    }

    fn maintain(&mut self, wanted: Maintenance) {
        let mut value = ENABLE;
        if wanted.contains(Maintenance::NO_PENDING) {
            value |= NO_PENDING;
        }
        if wanted.contains(Maintenance::ENTRY_NOT_PRESENT) {
            value |= ENTRY_NOT_PRESENT;
        }
        self.write_control(value);
    }

    fn take_eoi_count(&mut self) -> u32 {
        let value = self.read_control();
        let count = value >> EOI_COUNT_SHIFT;
        if count != 0 {
            self.write_control(value & !(u32::MAX << EOI_COUNT_SHIFT));
        }
        count
    }

    fn deactivate(&mut self, physical: IntId) {
        match self.0 {
            Some(gic) => gic.deactivate(physical.raw()),
            None => arch::deactivate(physical.raw()),
        }
    }

    #[inline]
    fn is_raised(&self, physical: IntId) -> bool {
        // Of all that is linked, EL2 can look at this one's source.
        physical != VTIMER || arch::virtual_timer_is_raised()
    }
}

/// What the interface holds beside its list registers, of a vCPU that is not
/// in the processor: the guest's masks and running priorities.
#[derive(Clone, Copy, Debug, Default)]
pub struct VirtualInterface {
    v2: V2Interface,
    v3: arch::VirtualInterface,
}

impl VirtualInterface {
    /// Reads it out of the processor.
    pub fn save(&mut self) {
        match controller() {
            Some(Controller::V2(gic)) => self.v2 = gic.save_virtual_interface(),
            _ => self.v3.save(),
        }
    }

    /// Loads it into the processor.
    pub fn load(&self) {
        match controller() {
            Some(Controller::V2(gic)) => gic.load_virtual_interface(&self.v2),
            _ => self.v3.load(),
        }
    }
}
