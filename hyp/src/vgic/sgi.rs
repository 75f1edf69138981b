//! Software-generated interrupts: who a write sends which SGI to.
//!
//! GICv3 guests write ICC_SGI1R_EL1 and its relatives (trapped system
//! registers, [`Vgic::write_sgi_register`]); GICv2 guests write GICD_SGIR
//! (`dist.rs`). An SGI to the sender itself, the usual case after "all but
//! me", goes straight into a list register.

use super::Vgic;
use super::irq::{Irq, Lanes};
use super::list_reg::ListRegs;
use super::load::Cause;
use crate::vcpu_set::VcpuSet;

/// The system register that a GICv3 guest wrote to send an SGI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SgiRegister {
    /// ICC_SGI0R_EL1: reaches group 0 interrupts only.
    Sgi0R,
    /// ICC_SGI1R_EL1: reaches interrupts of either group.
    Sgi1R,
    /// ICC_ASGI1R_EL1: with one security state, the same as ICC_SGI0R_EL1.
    Asgi1R,
}

/// Fields of ICC_SGI<n>R_EL1 (IHI 0069): all but SGI number and Aff0 list.
const EVERYONE_ELSE: u64 = 1 << 40;
/// Aff3, RS, Aff2 and Aff1: our vCPUs have zero in all of them, and Aff0
/// below 16.
const ELSEWHERE: u64 = 0x00ff_f0ff_00ff_0000;

/// Whom a write of `value` to ICC_SGI<n>R_EL1 by `from` targets.
#[inline]
fn targets_of_system_register(value: u64, from: usize, everyone: VcpuSet) -> VcpuSet {
    if value & EVERYONE_ELSE != 0 {
        everyone.without(from)
    } else if value & ELSEWHERE != 0 {
        VcpuSet::EMPTY
    } else {
        VcpuSet::from_bits(value as u8 & everyone.bits())
    }
}

/// Whom a write of `value` to GICD_SGIR by `from` targets (IHI 0048).
#[inline]
fn targets_of_sgir(value: u32, from: usize, everyone: VcpuSet) -> VcpuSet {
    match value >> 24 & 3 {
        0 => VcpuSet::from_bits((value >> 16) as u8 & everyone.bits()),
        1 => everyone.without(from),
        2 => VcpuSet::one(from),
        _ => VcpuSet::EMPTY,
    }
}

impl Vgic {
    /// vCPU `from`, resident here, wrote `value` to one of the GICv3 SGI
    /// registers. Returns the *other* vCPUs that must look.
    #[inline]
    pub fn write_sgi_register<L: ListRegs>(
        &self,
        from: usize,
        register: SgiRegister,
        value: u64,
        lrs: &mut L,
    ) -> VcpuSet {
        let mut targets = targets_of_system_register(value, from, self.everyone);
        let irq = Irq::at(0, (value >> 24 & 0xf) as u32);
        if register != SgiRegister::Sgi1R {
            targets = self.those_with_group_zero(targets, irq);
        }
        self.send(from, targets, irq, lrs)
    }

    /// vCPU `from`, resident here, wrote `value` to GICD_SGIR.
    pub(super) fn write_sgir<L: ListRegs>(&self, from: usize, value: u32, lrs: &mut L) -> VcpuSet {
        let targets = targets_of_sgir(value, from, self.everyone);
        self.send(from, targets, Irq::at(0, value & 0xf), lrs)
    }

    #[inline]
    fn send<L: ListRegs>(&self, from: usize, targets: VcpuSet, irq: Irq, lrs: &mut L) -> VcpuSet {
        let mut kicks = VcpuSet::EMPTY;
        for target in Lanes(u32::from(targets.without(from).bits())) {
            kicks = kicks.union(self.send_to(target as usize, from, irq));
        }
        if targets.contains(from) {
            let cause = if self.has_sources(irq) { Cause::SgiFrom(from) } else { Cause::Edge };
            kicks = kicks.union(self.load_now(from, irq, cause, lrs));
        }
        kicks
    }

    /// Makes an SGI pending on a vCPU that may be running elsewhere.
    #[inline]
    fn send_to(&self, target: usize, from: usize, irq: Irq) -> VcpuSet {
        let state = self.vcpu(target);
        if self.has_sources(irq) {
            state.add_source(irq, from);
        }
        state.private.latch.set(irq.mask());
        self.observers(target, 0, irq.mask())
    }

    fn those_with_group_zero(&self, targets: VcpuSet, irq: Irq) -> VcpuSet {
        targets.iter().fold(VcpuSet::EMPTY, |some, vcpu| {
            let in_group_one = self.vcpu(vcpu).private.group.get() & irq.mask() != 0;
            if in_group_one { some } else { some.union(VcpuSet::one(vcpu)) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{targets_of_sgir, targets_of_system_register};
    use crate::vcpu_set::VcpuSet;

    const FOUR: VcpuSet = VcpuSet::from_bits(0b1111);

    #[test]
    fn system_register_targets_are_decoded() {
        let table = [
            (0x0000_0000_0100_0005, 0b0101, "a list"),
            (0x0000_0000_0100_00f5, 0b0101, "a list with vCPUs that do not exist"),
            (0x0000_0100_0100_0001, 0b1101, "all but me; the list is ignored"),
            (0x0000_0000_0101_0005, 0, "another Aff1"),
            (0x0000_0001_0100_0005, 0, "another Aff2"),
            (0x0001_0000_0100_0005, 0, "another Aff3"),
            (0x0000_1000_0100_0005, 0, "Aff0 of 16 and more"),
        ];
        for (value, targets, what) in table {
            assert_eq!(targets_of_system_register(value, 1, FOUR).bits(), targets, "{what}");
        }
    }

    #[test]
    fn sgir_targets_are_decoded() {
        let table = [
            (0x00f5_0003, 0b0101, "a list with vCPUs that do not exist"),
            (0x0101_0003, 0b1101, "all but me"),
            (0x0201_0003, 0b0010, "only me"),
            (0x030f_0003, 0, "reserved filter"),
        ];
        for (value, targets, what) in table {
            assert_eq!(targets_of_sgir(value, 1, FOUR).bits(), targets, "{what}");
        }
    }
}
