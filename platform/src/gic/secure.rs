//! What EL3 firmware does for the GIC, where there is none.
//!
//! With two security states every interrupt starts out secure, and software
//! below EL3 neither sees nor enables it. Firmware hands the interrupts over by
//! putting them into non-secure group 1 (IHI 0069, IHI 0048: "Interrupt
//! grouping"). A board that enters a kernel at EL3 has no firmware to do it, so
//! [`hand_over`] does, from the one CPU that is up, before it drops to EL2.
//!
//! It runs with the MMU off, at another address than it is linked at: like
//! [`uart::early`](crate::uart::early) it reaches no table of pointers.

use super::offset;
use crate::dt::{Tree, Walk};
use crate::mmio::Registers;

/// GICD_CTLR, secure view of a GICv3: affinity routing for both states, and non-secure group 1.
const V3_CONTROL: u32 = 1 << 5 | 1 << 4 | 1 << 1;
/// GICD_CTLR of a GICv2: groups 0 and 1.
const V2_CONTROL: u32 = 3;
/// GICR_TYPER.
const TYPER: usize = 0x008;
/// GICR_TYPER: two more frames follow, for virtual LPIs.
const HAS_VLPIS: u64 = 1 << 1;
/// GICR_TYPER: the last one of its range.
const LAST: u64 = 1 << 4;
/// GICC_PMR.
const PRIORITY_MASK: usize = 0x004;
/// One frame of a redistributor.
const FRAME: u64 = 0x1_0000;

/// Puts every interrupt of the GIC in the tree `blob` into non-secure group 1. `block` makes registers of a physical
/// address. `None` if there is no such GIC.
pub fn hand_over(blob: &[u8], block: impl Fn(u64) -> Registers) -> Option<()> {
    let tree = Tree::new(blob).ok()?;
    let mut walk = Walk::new(&tree);
    walk.root().ok()?;
    while let Some(node) = walk.advance().ok()? {
        let is = |name: &[u8]| node.compatible().any(|compatible| compatible == name);
        if is(b"arm,gic-v3") {
            let redistributors = node.region(1)?;
            distributor(block(node.region(0)?.base), V3_CONTROL);
            redistributors_of(redistributors.base, redistributors.size, block);
            return Some(());
        }
        if is(b"arm,gic-400") || is(b"arm,cortex-a15-gic") {
            let gicd = block(node.region(0)?.base);
            // The first bank is this CPU's own.
            gicd.write32(offset::IGROUPR, u32::MAX);
            distributor(gicd, V2_CONTROL);
            block(node.region(1)?.base).write32(PRIORITY_MASK, 0xff);
            return Some(());
        }
    }
    None
}

fn distributor(gicd: Registers, control: u32) {
    gicd.write32(offset::CTLR, control);
    let banks = (gicd.read32(offset::TYPER) & 0x1f) as usize + 1;
    for bank in 1..banks {
        gicd.write32(offset::IGROUPR + 4 * bank, u32::MAX);
    }
}

fn redistributors_of(base: u64, size: u64, block: impl Fn(u64) -> Registers) {
    let mut at = 0;
    while at + 2 * FRAME <= size {
        let typer = block(base + at).read64(TYPER);
        block(base + at + FRAME).write32(offset::IGROUPR, u32::MAX);
        if typer & LAST != 0 {
            return;
        }
        at += if typer & HAS_VLPIS != 0 { 4 * FRAME } else { 2 * FRAME };
    }
}

#[cfg(test)]
mod tests {
    use super::hand_over;
    use crate::mmio::fake::FakeRegisters;

    #[test]
    fn a_tree_without_gic_is_left_alone() {
        let mut block = FakeRegisters::new(0x1000);
        let registers = block.registers();
        assert_eq!(hand_over(&[], |_| registers), None);
        assert_eq!(registers.read32(0x84), 0);
    }
}
