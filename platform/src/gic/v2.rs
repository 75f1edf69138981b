//! GICv2 (IHI 0048): GIC-400 and its like.
//!
//! [`Gic`] is shared by all CPUs: the blocks of the CPU interface and the virtual interface are at one address and
//! show each CPU its own, as do the distributor's registers of the private interrupts.

use super::{Active, Priority, banks, bit, offset, quiet, set_active, set_priority, set_trigger};
use crate::{dt::Trigger, intid::IntId, mmio::Registers};

/// IGROUPR: all in group 0; see the parent module for why. Where EL3 exists this is ignored.
const GROUP: u32 = 0;

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
    /// Four words of priorities that count as running.
    pub(super) const APR: usize = 0x0d0;
    pub(super) const DIR: usize = 0x1000;
    /// CTLR: our group on (the same bit is group 1 to non-secure software, and group 0 without security states).
    pub(super) const ENABLE: u32 = 1;
    /// CTLR: EOIR only drops the priority (the same bit in both views).
    pub(super) const EOI_MODE: u32 = 1 << 9;
}

/// Virtual interface control registers (IHI 0048, "Virtual interface control register map").
mod gich {
    pub(super) const HCR: usize = 0x000;
    pub(super) const VTR: usize = 0x004;
    pub(super) const VMCR: usize = 0x008;
    pub(super) const MISR: usize = 0x010;
    pub(super) const EISR: usize = 0x020;
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

    /// Sets up what all CPUs share: every shared interrupt off, then the distributor on.
    pub fn init_distributor(&self) {
        let gicd = self.distributor;
        gicd.write32(offset::CTLR, 0);
        for bank in 1..banks(gicd) {
            quiet(gicd, bank, GROUP);
        }
        // Group 1 to non-secure software, group 0 without security states: ours in both views.
        gicd.write32(offset::CTLR, 1);
    }

    /// Sets up the CPU that this runs on: private interrupts and CPU interface.
    pub fn init_cpu(&self) {
        quiet(self.distributor, 0, GROUP);
        let gicc = self.cpu;
        // What was interrupted before us (a boot loader that did not end its last interrupt) would mask ours.
        for word in 0..4 {
            gicc.write32(gicc::APR + 4 * word, 0);
        }
        gicc.write32(gicc::PMR, 0xff);
        gicc.write32(gicc::BPR, 0);
        gicc.write32(gicc::CTLR, gicc::ENABLE | gicc::EOI_MODE);
    }

    /// Enables a private interrupt on the CPU that this runs on.
    pub fn enable(&self, intid: IntId) {
        let (register, mask) = bit(offset::ISENABLER, intid);
        self.distributor.write32(register, mask);
    }

    /// Disables an interrupt: a shared one, or a private one of the CPU that this runs on.
    pub fn disable(&self, intid: IntId) {
        let (register, mask) = bit(offset::ICENABLER, intid);
        self.distributor.write32(register, mask);
    }

    /// Sets an interrupt's priority: a shared one's, or that of a private one of the CPU that this runs on.
    pub fn set_priority(&self, intid: IntId, priority: Priority) {
        set_priority(self.distributor, intid, priority);
    }

    /// Sets how an interrupt signals; do this before it is enabled.
    pub fn set_trigger(&self, intid: IntId, trigger: Trigger) {
        set_trigger(self.distributor, intid, trigger);
    }

    /// Enables a shared interrupt and sends it to the CPU that this runs on.
    pub fn enable_shared_here(&self, intid: IntId) {
        self.distributor.write8(gicd::ITARGETSR + intid.raw() as usize, self.own_target());
        self.set_priority(intid, Priority::Usual);
        self.enable(intid);
    }

    /// This CPU's bit in target lists: ITARGETSR0 of the banked interrupts reads as it, or as 0 on a GIC for one CPU.
    pub fn own_target(&self) -> u8 {
        match self.distributor.read8(gicd::ITARGETSR) {
            0 => 1,
            target => target,
        }
    }

    /// Sends SGI `intid` to the CPUs in `targets`, one bit each as [`Self::own_target`] gives them.
    pub fn send_sgi(&self, intid: IntId, targets: u8) {
        // TargetListFilter 0: those in the list. NSATT is for secure software.
        self.distributor.write32(gicd::SGIR, u32::from(targets) << 16 | intid.raw() & 0xf);
    }

    /// Makes a private interrupt of this CPU count as active or not.
    pub fn set_active(&self, intid: IntId, active: Active) {
        set_active(self.distributor, intid, active);
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

    /// GICH_EISR0: bit per list register whose interrupt the guest has ended and that asked to tell.
    pub fn ended_list_registers(&self) -> u32 {
        self.hypervisor.read32(gich::EISR)
    }

    /// GICH_MISR: why the maintenance interrupt is pending.
    pub fn maintenance_reasons(&self) -> u32 {
        self.hypervisor.read32(gich::MISR)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mmio::fake::FakeRegisters;

    /// A GIC in arrays.
    struct Fake {
        distributor: FakeRegisters,
        cpu: FakeRegisters,
        hypervisor: FakeRegisters,
    }

    impl Fake {
        /// With 64 interrupts and as many list registers as `vtr` says.
        fn new(vtr: u32) -> Self {
            let mut fake = Self {
                distributor: FakeRegisters::new(0x1000),
                cpu: FakeRegisters::new(0x2000),
                hypervisor: FakeRegisters::new(0x200),
            };
            fake.distributor.registers().write32(offset::TYPER, 1);
            fake.hypervisor.registers().write32(gich::VTR, vtr);
            fake
        }

        fn gic(&mut self) -> Gic {
            Gic::new(self.distributor.registers(), self.cpu.registers(), self.hypervisor.registers())
        }
    }

    #[test]
    fn the_distributor_is_on_with_every_shared_interrupt_off() {
        let mut fake = Fake::new(3);
        fake.gic().init_distributor();
        let gicd = fake.distributor.registers();
        assert_eq!(gicd.read32(0x000), 1);
        assert_eq!((gicd.read32(0x180), gicd.read32(0x184), gicd.read32(0x188)), (0, u32::MAX, 0));
        assert_eq!(
            (gicd.read32(0x41c), gicd.read32(0x420), gicd.read32(0x43c)),
            (0, 0x8080_8080, 0x8080_8080)
        );
    }

    #[test]
    fn an_interrupt_that_may_be_late_is_below_the_others_and_unmasked() {
        let mut fake = Fake::new(3);
        fake.gic().init_cpu();
        fake.gic().set_priority(IntId::ppi(10), Priority::Late);
        let gicd = fake.distributor.registers();
        assert_eq!(gicd.read32(0x418), 0x80a0_8080);
        let mask = fake.cpu.registers().read32(0x004);
        assert!(mask > 0xa0, "priorities below {mask:#x} pass");
    }

    #[test]
    fn interrupts_are_put_in_the_group_that_the_cpu_interface_shows() {
        let mut fake = Fake::new(3);
        fake.distributor.registers().write32(0x080, u32::MAX);
        fake.distributor.registers().write32(0x084, u32::MAX);
        fake.gic().init_distributor();
        fake.gic().init_cpu();
        let gicd = fake.distributor.registers();
        assert_eq!((gicd.read32(0x080), gicd.read32(0x084)), (0, 0));
    }

    #[test]
    fn the_cpu_interface_unmasks_all_and_separates_drop_from_deactivation() {
        let mut fake = Fake::new(3);
        fake.cpu.registers().write32(0xd4, 1 << 16);
        fake.gic().init_cpu();
        let gicc = fake.cpu.registers();
        assert_eq!((gicc.read32(0x000), gicc.read32(0x004), gicc.read32(0x0d4)), (0x201, 0xff, 0));
        fake.gic().drop_priority(0xc07);
        fake.gic().deactivate(0xc07);
        assert_eq!((gicc.read32(0x010), gicc.read32(0x1000)), (0xc07, 0xc07));
    }

    #[test]
    fn a_shared_interrupt_goes_to_the_cpu_that_enables_it() {
        let mut fake = Fake::new(3);
        fake.distributor.registers().write32(0x800, 0x0404_0404);
        fake.gic().enable_shared_here(IntId::spi(1));
        let gicd = fake.distributor.registers();
        assert_eq!((gicd.read8(0x821), gicd.read8(0x421), gicd.read32(0x104)), (0x04, 0x80, 0x2));
    }

    #[test]
    fn the_only_cpu_is_the_first() {
        assert_eq!(Fake::new(3).gic().own_target(), 1);
    }

    #[test]
    fn a_software_interrupt_names_its_targets() {
        let mut fake = Fake::new(3);
        fake.gic().send_sgi(IntId::sgi(5), 0b1010);
        assert_eq!(fake.distributor.registers().read32(0xf00), 0x000a_0005);
    }

    #[test]
    fn the_trigger_is_the_upper_of_two_bits() {
        let mut fake = Fake::new(3);
        fake.gic().set_trigger(IntId::spi(1), Trigger::Edge);
        assert_eq!(fake.distributor.registers().read32(0xc08), 0x8);
        fake.gic().set_trigger(IntId::spi(1), Trigger::Level);
        assert_eq!(fake.distributor.registers().read32(0xc08), 0);
    }

    #[test]
    fn a_private_interrupt_is_made_active_and_inactive_again() {
        let mut fake = Fake::new(3);
        fake.gic().set_active(IntId::ppi(11), Active::Yes);
        fake.gic().set_active(IntId::ppi(10), Active::No);
        let gicd = fake.distributor.registers();
        assert_eq!((gicd.read32(0x300), gicd.read32(0x380)), (1 << 27, 1 << 26));
    }

    #[test]
    fn list_registers_that_are_not_there_are_not_touched() {
        let mut fake = Fake::new(0x9000_0003);
        assert_eq!(fake.gic().list_register_count(), 4);
        fake.gic().set_list_register(3, 0x1234);
        fake.gic().set_list_register(4, 0x5678);
        assert_eq!((fake.gic().list_register(3), fake.gic().list_register(4)), (0x1234, 0));
        assert_eq!(fake.hypervisor.registers().read32(0x110), 0);
    }

    #[test]
    fn what_was_saved_of_the_virtual_interface_is_loaded() {
        let mut fake = Fake::new(3);
        fake.hypervisor.registers().write32(0x008, 0xf81f_0001);
        fake.hypervisor.registers().write32(0x0f0, 0x10);
        let saved = fake.gic().save_virtual_interface();
        fake.gic().load_virtual_interface(&VirtualInterface::default());
        assert_eq!(fake.gic().save_virtual_interface(), VirtualInterface::default());
        fake.gic().load_virtual_interface(&saved);
        assert_eq!(fake.hypervisor.registers().read32(0x008), 0xf81f_0001);
        assert_eq!(fake.hypervisor.registers().read32(0x0f0), 0x10);
    }
}
