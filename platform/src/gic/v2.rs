//! GICv2 (IHI 0048): GIC-400 and its like.

use super::{Active, PRIORITIES, PRIORITY, bit, offset};
use crate::intid::IntId;
use crate::mmio::Registers;

/// The distributor's further registers.
mod gicd {
    pub(super) const ITARGETSR: usize = 0x800;
    pub(super) const SGIR: usize = 0xf00;
}

/// CPU interface registers (IHI 0048, "CPU interface register map").
mod gicc {
    pub(super) const CTLR: usize = 0x000;
    pub(super) const PMR: usize = 0x004;
    pub(super) const BPR: usize = 0x008;
    pub(super) const IAR: usize = 0x00c;
    pub(super) const EOIR: usize = 0x010;
    pub(super) const DIR: usize = 0x1000;
    /// CTLR: group 1 on, and EOImode: EOIR only drops the priority.
    pub(super) const ENABLE: u32 = 1;
    pub(super) const EOI_MODE: u32 = 1 << 9;
}

/// Virtual interface control registers (IHI 0048, "GIC virtual interface control register map").
mod gich {
    pub(super) const HCR: usize = 0x000;
    pub(super) const VTR: usize = 0x004;
    pub(super) const VMCR: usize = 0x008;
    pub(super) const ELRSR: usize = 0x030;
    pub(super) const APR: usize = 0x0f0;
    pub(super) const LR: usize = 0x100;
    /// List registers that a 32-bit ELRSR0 covers; no GICv2 was built with more.
    pub(super) const LIST_REGISTERS: usize = 32;
}

/// A machine's GICv2.
#[derive(Debug)]
pub struct Gic {
    distributor: Registers,
    cpu: Registers,
    hypervisor: Registers,
    list_registers: usize,
}

/// What a vCPU has in the virtual interface beside its list registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VirtualInterface {
    vmcr: u32,
    active_priorities: u32,
}

impl Gic {
    /// The GICv2 whose GICD, GICC and GICH are at these blocks.
    pub fn new(distributor: Registers, cpu: Registers, hypervisor: Registers) -> Self {
        let list_registers = (hypervisor.read32(gich::VTR) & 0x3f) as usize + 1;
        Self { distributor, cpu, hypervisor, list_registers: list_registers.min(gich::LIST_REGISTERS) }
    }

    /// Sets up what all CPUs share: everything off and in group 1, then on.
    pub fn init_distributor(&self) {
        let gicd = self.distributor;
        gicd.write32(offset::CTLR, 0);
        // ITLinesNumber: 32 interrupts per step; the first 32 are banked per CPU.
        let lines = (gicd.read32(offset::TYPER) & 0x1f) as usize + 1;
        for bank in 1..lines {
            gicd.write32(offset::ICENABLER + 4 * bank, u32::MAX);
            gicd.write32(offset::ICACTIVER + 4 * bank, u32::MAX);
            gicd.write32(offset::IGROUPR + 4 * bank, u32::MAX);
            for word in 0..8 {
                gicd.write32(offset::IPRIORITYR + 32 * bank + 4 * word, PRIORITIES);
            }
        }
        // As non-secure software sees it, bit 0 is group 1; where there is no
        // other security state, groups 0 and 1 have a bit each.
        gicd.write32(offset::CTLR, 3);
    }

    /// Sets up the CPU that this runs on: private interrupts and CPU interface.
    pub fn init_cpu(&self) {
        let gicd = self.distributor;
        gicd.write32(offset::ICENABLER, u32::MAX);
        gicd.write32(offset::ICACTIVER, u32::MAX);
        gicd.write32(offset::IGROUPR, u32::MAX);
        for word in 0..8 {
            gicd.write32(offset::IPRIORITYR + 4 * word, PRIORITIES);
        }
        self.cpu.write32(gicc::PMR, 0xff);
        self.cpu.write32(gicc::BPR, 0);
        // Bits 0 and 1 are groups 0 and 1 without a security state above us;
        // with one, bit 0 is group 1 and bit 1 is ignored.
        self.cpu.write32(gicc::CTLR, gicc::ENABLE | gicc::ENABLE << 1 | gicc::EOI_MODE);
    }

    /// Enables a private interrupt on the CPU that this runs on.
    pub fn enable(&self, intid: IntId) {
        let (register, mask) = bit(offset::ISENABLER, intid);
        self.distributor.write32(register, mask);
    }

    /// Enables a shared interrupt and sends it to the CPU that this runs on.
    pub fn enable_shared_here(&self, intid: IntId) {
        self.distributor.write8(gicd::ITARGETSR + intid.raw() as usize, self.own_target());
        self.distributor.write8(offset::IPRIORITYR + intid.raw() as usize, PRIORITY as u8);
        self.enable(intid);
    }

    /// This CPU's bit in target lists: ITARGETSR0 of the banked interrupts reads as it.
    pub fn own_target(&self) -> u8 {
        (self.distributor.read32(gicd::ITARGETSR) & 0xff) as u8
    }

    /// Sends SGI `intid` to the CPUs in `targets`, one bit each as [`Self::own_target`] gives them.
    pub fn send_sgi(&self, intid: IntId, targets: u8) {
        // NSATT is for secure software; group 1 is what non-secure software sends.
        self.distributor.write32(gicd::SGIR, u32::from(targets) << 16 | intid.raw() & 0xf);
    }

    /// Makes a private interrupt of this CPU count as active or not.
    pub fn set_active(&self, intid: IntId, active: Active) {
        let bank = match active {
            Active::Yes => offset::ISACTIVER,
            Active::No => offset::ICACTIVER,
        };
        let (register, mask) = bit(bank, intid);
        self.distributor.write32(register, mask);
    }

    /// Takes the pending interrupt of highest priority: GICC_IAR, raw. The low
    /// ten bits are the INTID, 1020 and above if there is none.
    #[inline]
    pub fn acknowledge(&self) -> u32 {
        self.cpu.read32(gicc::IAR)
    }

    /// Drops the running priority; `taken` is what [`Self::acknowledge`] gave.
    #[inline]
    pub fn drop_priority(&self, taken: u32) {
        self.cpu.write32(gicc::EOIR, taken);
    }

    /// Deactivates an interrupt; `taken` is what [`Self::acknowledge`] gave.
    #[inline]
    pub fn deactivate(&self, taken: u32) {
        self.cpu.write32(gicc::DIR, taken);
    }

    /// How many list registers there are.
    #[inline]
    pub fn list_register_count(&self) -> usize {
        self.list_registers
    }

    /// GICH_LR`index`; 0 for one that is not there.
    #[inline]
    pub fn list_register(&self, index: usize) -> u32 {
        if index < self.list_registers { self.hypervisor.read32(gich::LR + 4 * index) } else { 0 }
    }

    /// Writes GICH_LR`index`, if it is there.
    #[inline]
    pub fn set_list_register(&self, index: usize, value: u32) {
        if index < self.list_registers {
            self.hypervisor.write32(gich::LR + 4 * index, value);
        }
    }

    /// GICH_ELRSR0: bit per list register that is free.
    #[inline]
    pub fn empty_list_registers(&self) -> u32 {
        self.hypervisor.read32(gich::ELRSR)
    }

    /// GICH_HCR.
    pub fn hypervisor_control(&self) -> u32 {
        self.hypervisor.read32(gich::HCR)
    }

    /// Writes GICH_HCR.
    pub fn set_hypervisor_control(&self, value: u32) {
        self.hypervisor.write32(gich::HCR, value);
    }

    /// Reads the rest of the virtual interface.
    pub fn save_virtual_interface(&self) -> VirtualInterface {
        VirtualInterface {
            vmcr: self.hypervisor.read32(gich::VMCR),
            active_priorities: self.hypervisor.read32(gich::APR),
        }
    }

    /// Writes the rest of the virtual interface.
    pub fn load_virtual_interface(&self, state: &VirtualInterface) {
        self.hypervisor.write32(gich::VMCR, state.vmcr);
        self.hypervisor.write32(gich::APR, state.active_priorities);
    }
}
