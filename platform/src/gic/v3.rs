//! GICv3 and v4 (IHI 0069): distributor and redistributors.
//!
//! The [`Distributor`] is shared; each CPU has its own [`Redistributor`], found by the CPU's affinity among the frames
//! of several ranges. LPIs are not used.

use super::{Active, Priority, banks, bit, offset, quiet, set_active, set_priority, set_trigger};
use crate::{dt::Trigger, intid::IntId, mmio::Registers};

/// IGROUPR: all in group 1; see the parent module for why. Where EL3 exists this is ignored.
const GROUP: u32 = u32::MAX;

/// GICD_CTLR as non-secure software sees it, and with one security state.
mod ctlr {
    /// Group 1 on, in both views, given affinity routing.
    pub(super) const ENABLE_GROUP1: u32 = 1 << 1;
    /// Affinity routing.
    pub(super) const AFFINITY_ROUTING: u32 = 1 << 4;
    /// A write is still taking effect.
    pub(super) const WRITE_PENDING: u32 = 1 << 31;
}

/// The distributor's routing registers, one of 64 bits per SPI.
const IROUTER: usize = 0x6000;

/// Affinity fields of an MPIDR, which is how IROUTER has them too.
const AFFINITY: u64 = 0xff_00ff_ffff;

/// Redistributor registers in RD_base, and where SGI_base is.
mod gicr {
    pub(super) const CTLR: usize = 0x000;
    pub(super) const TYPER: usize = 0x008;
    pub(super) const WAKER: usize = 0x014;
    /// Bytes from RD_base to SGI_base, and the size of each.
    pub(super) const FRAME: usize = 0x1_0000;
    /// CTLR: a write is still taking effect.
    pub(super) const WRITE_PENDING: u32 = 1 << 3;
    /// TYPER: there are two more frames, for virtual LPIs.
    pub(super) const HAS_VLPIS: u64 = 1 << 1;
    /// TYPER: this is the last CPU of its range.
    pub(super) const LAST: u64 = 1 << 4;
    /// WAKER: asleep, and everything behind it asleep.
    pub(super) const PROCESSOR_SLEEP: u32 = 1 << 1;
    pub(super) const CHILDREN_ASLEEP: u32 = 1 << 2;
}

/// A machine's GICv3 distributor.
#[derive(Debug)]
pub struct Distributor {
    registers: Registers,
}

impl Distributor {
    /// The distributor at this block.
    pub const fn new(registers: Registers) -> Self {
        Self { registers }
    }

    /// Sets up what all CPUs share: every shared interrupt off, then the distributor on.
    ///
    /// Affinity routing may be switched on only while all groups are off, and never off again (IHI 0069,
    /// "GICD_CTLR", ARE_NS), so it is left as found until then.
    pub fn init(&self) {
        let gicd = self.registers;
        self.control(gicd.read32(offset::CTLR) & ctlr::AFFINITY_ROUTING);
        self.control(ctlr::AFFINITY_ROUTING);
        for bank in 1..banks(gicd) {
            quiet(gicd, bank, GROUP);
        }
        self.wait_for_write();
        self.control(ctlr::AFFINITY_ROUTING | ctlr::ENABLE_GROUP1);
    }

    /// Enables an SPI and sends it to the CPU with affinity `mpidr`.
    pub fn enable(&self, intid: IntId, mpidr: u64) {
        let gicd = self.registers;
        set_priority(gicd, intid, Priority::Usual);
        gicd.write64(IROUTER + 8 * intid.raw() as usize, mpidr & AFFINITY);
        let (register, mask) = bit(offset::ISENABLER, intid);
        gicd.write32(register, mask);
    }

    /// Disables an SPI.
    pub fn disable(&self, intid: IntId) {
        let (register, mask) = bit(offset::ICENABLER, intid);
        self.registers.write32(register, mask);
        self.wait_for_write();
    }

    /// Sets how an SPI signals; do this before it is enabled.
    pub fn set_trigger(&self, intid: IntId, trigger: Trigger) {
        set_trigger(self.registers, intid, trigger);
    }

    fn control(&self, value: u32) {
        self.registers.write32(offset::CTLR, value);
        self.wait_for_write();
    }

    fn wait_for_write(&self) {
        while self.registers.read32(offset::CTLR) & ctlr::WRITE_PENDING != 0 {
            core::hint::spin_loop();
        }
    }
}

/// One CPU's redistributor.
#[derive(Clone, Copy, Debug)]
pub struct Redistributor {
    /// RD_base.
    registers: Registers,
    sgi_base: Registers,
}

impl Redistributor {
    /// The redistributor of the CPU with affinity `mpidr`, in one range of frames at `base`, `size` bytes. `stride`:
    /// bytes from CPU to CPU if the device tree says, else as each one's GICR_TYPER.VLPIS says.
    ///
    /// `block` maps one frame of 64 KiB; `None` if it can't, which ends the search.
    pub fn find(
        base: usize,
        size: usize,
        stride: Option<usize>,
        mpidr: u64,
        block: impl Fn(usize) -> Option<Registers>,
    ) -> Option<Self> {
        let affinity = (mpidr >> 32 & 0xff) << 24 | mpidr & 0xff_ffff;
        let stride = stride.filter(|&stride| stride >= 2 * gicr::FRAME);
        let mut offset = 0usize;
        while offset.checked_add(2 * gicr::FRAME).is_some_and(|end| end <= size) {
            let registers = block(base + offset)?;
            let typer = registers.read64(gicr::TYPER);
            if typer >> 32 == affinity {
                return Some(Self { registers, sgi_base: block(base + offset + gicr::FRAME)? });
            }
            if typer & gicr::LAST != 0 {
                return None;
            }
            let own = if typer & gicr::HAS_VLPIS != 0 { 4 * gicr::FRAME } else { 2 * gicr::FRAME };
            offset = offset.checked_add(stride.unwrap_or(own))?;
        }
        None
    }

    /// Wakes it and sets up the private interrupts: all off.
    pub fn init(&self) {
        let gicr = self.registers;
        gicr.write32(gicr::WAKER, gicr.read32(gicr::WAKER) & !gicr::PROCESSOR_SLEEP);
        while gicr.read32(gicr::WAKER) & gicr::CHILDREN_ASLEEP != 0 {
            core::hint::spin_loop();
        }
        quiet(self.sgi_base, 0, GROUP);
        self.wait_for_write();
    }

    /// Enables an SGI or PPI of this CPU.
    pub fn enable(&self, intid: IntId) {
        let (register, mask) = bit(offset::ISENABLER, intid);
        self.sgi_base.write32(register, mask);
    }

    /// Disables an SGI or PPI of this CPU.
    pub fn disable(&self, intid: IntId) {
        let (register, mask) = bit(offset::ICENABLER, intid);
        self.sgi_base.write32(register, mask);
        self.wait_for_write();
    }

    /// Makes an SGI or PPI of this CPU count as active or not.
    pub fn set_active(&self, intid: IntId, active: Active) {
        set_active(self.sgi_base, intid, active);
    }

    /// Sets the priority of an SGI or PPI of this CPU.
    pub fn set_priority(&self, intid: IntId, priority: Priority) {
        set_priority(self.sgi_base, intid, priority);
    }

    fn wait_for_write(&self) {
        while self.registers.read32(gicr::CTLR) & gicr::WRITE_PENDING != 0 {
            core::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mmio::fake::FakeRegisters;

    const PAIR: usize = 0x2_0000;

    /// Four redistributors in one range, for affinities 0, 1, 0x100 and 0x1_0000_0100 (Aff3 = 1).
    fn frames() -> FakeRegisters {
        let mut frames = FakeRegisters::new(4 * PAIR);
        for (index, affinity) in [0, 1, 0x100, 0x0100_0100].into_iter().enumerate() {
            frames.registers().write64(index * PAIR + 0x8, affinity << 32);
        }
        frames
    }

    /// Which of `count` frame pairs is the CPU's, `stride` apart.
    fn find(frames: &mut FakeRegisters, count: usize, stride: Option<usize>, mpidr: u64) -> Option<usize> {
        let mut found = None;
        let all = frames.registers();
        let redistributor =
            Redistributor::find(0, count * PAIR, stride, mpidr, |address| Some(all.skip(address)))?;
        redistributor.enable(IntId::sgi(3));
        for index in 0..4 {
            if all.read32(index * PAIR + 0x1_0100) == 8 {
                found = Some(index);
            }
        }
        found
    }

    #[test]
    fn a_frame_is_found_by_all_four_affinity_fields() {
        assert_eq!(find(&mut frames(), 4, None, 0x8100_0001), Some(1));
        assert_eq!(find(&mut frames(), 4, None, 0x8000_0100), Some(2));
        assert_eq!(find(&mut frames(), 4, None, 0x1_8000_0100), Some(3));
    }

    #[test]
    fn the_search_ends_with_the_range() {
        assert_eq!(find(&mut frames(), 2, None, 0x100), None);
    }

    #[test]
    fn the_search_ends_with_the_last_frame() {
        let mut frames = frames();
        frames.registers().write64(PAIR + 0x8, 1 << 32 | 1 << 4);
        assert_eq!(find(&mut frames, 4, None, 0x100), None);
    }

    #[test]
    fn frames_for_virtual_lpis_are_passed_over() {
        let mut frames = frames();
        frames.registers().write64(0x8, 1 << 1);
        frames.registers().write64(PAIR + 0x8, 0x100 << 32);
        assert_eq!(find(&mut frames, 4, None, 0x100), Some(2));
    }

    #[test]
    fn the_trees_stride_wins() {
        assert_eq!(find(&mut frames(), 4, Some(2 * PAIR), 1), None);
        assert_eq!(find(&mut frames(), 4, Some(2 * PAIR), 0x100), Some(2));
    }

    #[test]
    fn a_stride_that_is_too_small_is_ignored() {
        assert_eq!(find(&mut frames(), 4, Some(8), 0x100), Some(2));
    }

    #[test]
    fn a_redistributor_is_awake_with_its_interrupts_off() {
        let mut frames = frames();
        let all = frames.registers();
        all.write32(0x14, 0x2);
        let redistributor =
            Redistributor::find(0, PAIR, None, 0, |address| Some(all.skip(address))).expect("is there");
        redistributor.init();
        assert_eq!(all.read32(0x14), 0);
        assert_eq!((all.read32(0x1_0180), all.read32(0x1_0080)), (u32::MAX, u32::MAX));
        assert_eq!((all.read32(0x1_0400), all.read32(0x1_041c)), (0x8080_8080, 0x8080_8080));
    }

    #[test]
    fn a_private_interrupt_that_may_be_late_is_below_its_neighbours() {
        let mut block = FakeRegisters::new(PAIR);
        let (registers, sgi_base) = (block.registers(), block.registers().skip(gicr::FRAME));
        let redistributor = Redistributor { registers, sgi_base };
        redistributor.init();
        redistributor.set_priority(IntId::ppi(10), Priority::Late);
        assert_eq!(sgi_base.read32(0x418), 0x80a0_8080);
    }

    #[test]
    fn a_private_interrupt_is_made_active_in_its_own_frame() {
        let mut frames = frames();
        let all = frames.registers();
        let redistributor =
            Redistributor::find(0, 4 * PAIR, None, 1, |address| Some(all.skip(address))).expect("is there");
        redistributor.set_active(IntId::ppi(11), Active::Yes);
        assert_eq!(all.read32(PAIR + 0x1_0300), 1 << 27);
    }

    #[test]
    fn the_distributor_is_on_with_affinity_routing() {
        let mut block = FakeRegisters::new(0x1_0000);
        block.registers().write32(offset::TYPER, 31);
        Distributor::new(block.registers()).init();
        let gicd = block.registers();
        assert_eq!(gicd.read32(0x000), 0x12);
        assert_eq!((gicd.read32(0x180), gicd.read32(0x184), gicd.read32(0x1fc)), (0, u32::MAX, u32::MAX));
    }

    #[test]
    fn a_shared_interrupt_is_routed_by_affinity() {
        let mut block = FakeRegisters::new(0x1_0000);
        Distributor::new(block.registers()).enable(IntId::spi(1), 0x1_8100_0203);
        let gicd = block.registers();
        assert_eq!(gicd.read64(0x6108), 0x1_0000_0203);
        assert_eq!((gicd.read8(0x421), gicd.read32(0x104)), (0x80, 0x2));
    }
}
