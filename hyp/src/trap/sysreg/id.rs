//! The ID registers of a guest's CPU.
//!
//! At boot every CPU's ID registers are read ([`HostId`]); once, [`IdView::new`]
//! takes the least that all CPUs have, applies [`FIELDS`](super::fields::FIELDS)
//! to it and keeps the result as a table. A trapped read then is one load.
//!
//! The ID space is Op0 = 3, Op1 = 0, CRn = 0, CRm 1 to 7 (DDI 0487, HCR_EL2.TID3).
//! What the architecture has not allocated there reads as zero, and so does here
//! what [`FIELDS`](super::fields::FIELDS) does not mention. MIDR_EL1, MPIDR_EL1 and
//! REVIDR_EL1, with CRm = 0, do not trap: VPIDR_EL2 and VMPIDR_EL2 answer.

use super::fields::{FIELDS, Policy};
use super::register::{ID_PFR0_EL1, SysReg};
use crate::vgic::Version;

/// Places in the ID space, CRm 0 to 7 by Op2; the eight of CRm = 0 stay unused.
const SPACE: usize = 64;

/// Place of an ID register in a table.
#[inline]
const fn place(register: SysReg) -> usize {
    ((register.crm() << 3 | register.op2()) & 63) as usize
}

/// The ID registers of one physical CPU, as far as [`FIELDS`] speaks of them.
#[derive(Clone, Copy)]
pub struct HostId([u64; SPACE]);

impl HostId {
    /// Reads this CPU's registers: `read` is asked for each one that matters, at least once.
    pub fn read_with(mut read: impl FnMut(SysReg) -> u64) -> Self {
        let mut values = [0; SPACE];
        for rule in &RULES {
            values[place(rule.register)] = read(rule.register);
        }
        Self(values)
    }

    /// The value of `register`; zero if [`FIELDS`] does not speak of it.
    pub const fn get(&self, register: SysReg) -> u64 {
        self.0[place(register)]
    }
}

/// What a machine's guests have in common, beyond its CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestShape {
    /// Bits of a guest's physical addresses, as VTCR_EL2 is set up for.
    pub ipa_bits: u32,
    /// The interrupt controller that guests see.
    pub gic: Version,
}

/// The ID registers that guests of this machine see.
#[derive(Clone)]
pub struct IdView([u64; SPACE]);

impl IdView {
    /// What guests of `shape` see on a machine of these `cpus`.
    pub fn new(cpus: &[HostId], shape: GuestShape) -> Self {
        let mut values = [0; SPACE];
        for rule in &RULES {
            values[place(rule.register)] |= rule.value(cpus, shape);
        }
        Self(values)
    }

    /// The guest's value of `register`, `None` outside the ID space.
    #[inline]
    pub const fn read(&self, register: SysReg) -> Option<u64> {
        // CRm = 0 does not trap and CRm above 7 is not ID space; one comparison serves both.
        const ID_SPACE: SysReg = ID_PFR0_EL1.group();
        if register.group().is(ID_SPACE) && register.crm().wrapping_sub(1) < 7 {
            Some(self.0[place(register)])
        } else {
            None
        }
    }

    /// The guest's value of an ID register; zero outside the ID space.
    pub const fn get(&self, register: SysReg) -> u64 {
        match self.read(register) {
            Some(value) => value,
            None => 0,
        }
    }
}

/// One row of [`FIELDS`] without its prose, which thus stays out of the image.
#[derive(Clone, Copy)]
struct Rule {
    register: SysReg,
    shift: u8,
    width: u8,
    policy: Policy,
}

static RULES: [Rule; FIELDS.len()] = {
    let mut rules =
        [Rule { register: ID_PFR0_EL1, shift: 0, width: 0, policy: Policy::Absent }; FIELDS.len()];
    let mut row = 0;
    while row < FIELDS.len() {
        let field = FIELDS[row];
        assert!(field.register.group().is(ID_PFR0_EL1.group()), "not in the ID space");
        rules[row] =
            Rule { register: field.register, shift: field.shift, width: field.width, policy: field.policy };
        row += 1;
    }
    rules
};

impl Rule {
    /// This field as guests see it, in its place.
    fn value(&self, cpus: &[HostId], shape: GuestShape) -> u64 {
        let least = || least(self.fields(cpus, self.shift));
        let least_signed = || least_signed(self.fields(cpus, self.shift));
        let field = match self.policy {
            Policy::Keep => least(),
            Policy::KeepSigned => least_signed(),
            Policy::Cap(most) => least().min(most),
            Policy::CapSigned(most) => min_signed(least_signed(), most),
            Policy::KeepEach => return self.each(cpus),
            Policy::Fixed(value) => value,
            Policy::Absent => 0,
            Policy::PhysicalRange => least().min(parange(shape.ipa_bits)),
            Policy::GicSystemRegisters => u8::from(shape.gic == Version::V3),
        };
        u64::from(field) << self.shift
    }

    /// The four-bit field at `shift`, of every CPU.
    fn fields<'a>(&'a self, cpus: &'a [HostId], shift: u8) -> impl Iterator<Item = u8> + 'a {
        cpus.iter().map(move |cpu| (cpu.get(self.register) >> shift & 0xf) as u8)
    }

    /// The least of every four-bit field in the row's range.
    fn each(&self, cpus: &[HostId]) -> u64 {
        (self.shift..self.shift + self.width)
            .step_by(4)
            .map(|shift| u64::from(least(self.fields(cpus, shift))) << shift)
            .sum()
    }
}

/// The least of unsigned fields; nothing without CPUs.
fn least(fields: impl Iterator<Item = u8>) -> u8 {
    fields.min().unwrap_or(0)
}

/// The least of signed fields, of which -1 (0xf) stands for "absent".
fn least_signed(fields: impl Iterator<Item = u8>) -> u8 {
    fields.reduce(min_signed).unwrap_or(0xf)
}

/// The lesser of two signed four-bit numbers.
fn min_signed(a: u8, b: u8) -> u8 {
    // Flipping the sign bit turns the signed order into the unsigned one.
    if a ^ 8 < b ^ 8 { a } else { b }
}

/// ID_AA64MMFR0_EL1.PARange for the largest size that is at most `bits`.
fn parange(bits: u32) -> u8 {
    match bits {
        0..36 => 0,
        36..40 => 1,
        40..42 => 2,
        42..44 => 3,
        44..48 => 4,
        48..52 => 5,
        _ => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::super::register::*;
    use super::{FIELDS, GuestShape, HostId, IdView, Version};

    const SHAPE: GuestShape = GuestShape { ipa_bits: 40, gic: Version::V3 };

    /// A CPU that has `values` and otherwise zeros.
    fn cpu(values: &[(SysReg, u64)]) -> HostId {
        HostId::read_with(|wanted| {
            values.iter().find(|(register, _)| *register == wanted).map_or(0, |(_, value)| *value)
        })
    }

    /// What guests see of `register` where each CPU holds one of `values`.
    fn seen(register: SysReg, values: &[u64]) -> u64 {
        let cpus: Vec<_> = values.iter().map(|&value| cpu(&[(register, value)])).collect();
        IdView::new(&cpus, SHAPE).get(register)
    }

    #[test]
    fn cortex_a72_keeps_programs_at_el0_and_loses_el2_and_el3() {
        assert_eq!(seen(ID_AA64PFR0_EL1, &[0x0000_2222]), 0x0100_0012);
    }

    #[test]
    fn cortex_a72_shows_debug_without_pmu() {
        assert_eq!(seen(ID_AA64DFR0_EL1, &[0x1030_5106]), 0x0000_00f0_0010_1006);
    }

    #[test]
    fn cortex_a72_keeps_its_cryptography() {
        assert_eq!(seen(ID_AA64ISAR0_EL1, &[0x0001_1120]), 0x0001_1120);
    }

    /// A machine with every feature that QEMU 10.0 has (`-cpu max`, memory tagging on).
    #[test]
    fn cpu_with_everything_is_cut_to_what_is_kept_apart() {
        let rows = [
            (ID_AA64PFR0_EL1, 0x1301_0011_2111_0222, 0x1101_0000_0111_0012),
            (ID_AA64PFR1_EL1, 0x0000_0010_0100_0321, 0x0000_0000_0000_0021),
            (ID_AA64DFR0_EL1, 0x1000_0000_1030_560a, 0x0000_00f0_0010_1006),
            (ID_AA64ISAR0_EL1, 0x1221_1111_1021_2120, 0x1221_1111_1021_2120),
            (ID_AA64ISAR1_EL1, 0x0111_2111_1021_1502, 0x0111_2111_1021_1502),
            (ID_AA64ISAR2_EL1, 0x0000_0000_0011_0012, 0x0000_0000_0011_0010),
            (ID_AA64MMFR0_EL1, 0x2100_0323_1020_1126, 0x0000_0000_0010_0122),
            (ID_AA64MMFR1_EL1, 0x0110_1120_1031_2122, 0x0110_1020_0030_2002),
            (ID_AA64MMFR2_EL1, 0x1221_0111_1201_1011, 0x1001_0011_1001_0011),
            (ID_AA64MMFR3_EL1, 0x1000_0000_0000_0000, 0x0000_0000_0000_0000),
        ];
        let host: Vec<_> = rows.iter().map(|&(register, host, _)| (register, host)).collect();
        let view = IdView::new(&[cpu(&host)], SHAPE);
        for (register, _, guest) in rows {
            assert_eq!(view.get(register), guest, "{register:?}");
        }
    }

    #[test]
    fn physical_range_is_cut_to_the_guests() {
        assert_eq!(seen(ID_AA64MMFR0_EL1, &[0x0000_1124]), 0x0000_0122);
    }

    #[test]
    fn physical_range_never_exceeds_the_cpus() {
        let view = IdView::new(&[cpu(&[(ID_AA64MMFR0_EL1, 1)])], GuestShape { ipa_bits: 52, ..SHAPE });
        assert_eq!(view.get(ID_AA64MMFR0_EL1) & 0xf, 1);
    }

    #[test]
    fn physical_range_rounds_down() {
        let range = |ipa_bits| {
            IdView::new(&[cpu(&[(ID_AA64MMFR0_EL1, 6)])], GuestShape { ipa_bits, ..SHAPE })
                .get(ID_AA64MMFR0_EL1)
        };
        assert_eq!([32, 36, 39, 40, 42, 44, 48, 52].map(range), [0, 1, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn fifty_two_bit_granules_are_cut() {
        // TGran4 = 1, TGran64 = 0, TGran16 = 2.
        assert_eq!(seen(ID_AA64MMFR0_EL1, &[0x1020_0000]), 0x0010_0000);
    }

    #[test]
    fn absent_granule_on_one_cpu_is_absent() {
        assert_eq!(seen(ID_AA64MMFR0_EL1, &[0x0000_0000, 0xff00_0000]), 0xff00_0000);
    }

    #[test]
    fn one_cpu_without_floating_point_hides_it() {
        assert_eq!(seen(ID_AA64PFR0_EL1, &[0x0011_0022, 0x00ff_0022]) & 0x00ff_0000, 0x00ff_0000);
    }

    #[test]
    fn half_precision_needs_every_cpu() {
        assert_eq!(seen(ID_AA64PFR0_EL1, &[0x0011_0022, 0x0000_0022]) & 0x00ff_0000, 0);
    }

    #[test]
    fn least_of_all_cpus_is_seen() {
        assert_eq!(seen(ID_AA64ISAR0_EL1, &[0x0021_1120, 0x0001_2110]), 0x0001_1110);
    }

    #[test]
    fn aarch32_fields_are_compared_one_by_one() {
        assert_eq!(seen(ID_ISAR5_EL1, &[0x0101_1121, 0x0001_2111]), 0x0001_1111);
    }

    #[test]
    fn system_register_interface_belongs_to_gicv3() {
        let gic =
            |gic| IdView::new(&[cpu(&[])], GuestShape { gic, ..SHAPE }).get(ID_AA64PFR0_EL1) >> 24 & 0xf;
        assert_eq!([gic(Version::V2), gic(Version::V3)], [0, 1]);
    }

    #[test]
    fn features_that_are_not_switched_are_hidden() {
        // SVE, AMU, MPAM and RAS, then MTE, SME, NMI and GCS at their highest.
        let pfr0 = seen(ID_AA64PFR0_EL1, &[0x0000_ffff_f022_2222]);
        let pfr1 = seen(ID_AA64PFR1_EL1, &[0xffff_ffff_ffff_ff00]);
        assert_eq!((pfr0 >> 28, pfr1), (0, 0x1_0000_0000));
    }

    #[test]
    fn registers_nobody_decided_on_read_as_zero() {
        let full = HostId([u64::MAX; 64]);
        let view = IdView::new(&[full], SHAPE);
        let zfr0 = SysReg::new(3, 0, 0, 4, 4);
        assert_eq!(view.read(zfr0), Some(0));
    }

    #[test]
    fn bits_nobody_decided_on_read_as_zero() {
        let decided = |register| {
            FIELDS
                .iter()
                .filter(|field| field.register == register)
                .fold(0u64, |bits, field| bits | (u64::MAX >> (64 - u32::from(field.width))) << field.shift)
        };
        let view = IdView::new(&[HostId([u64::MAX; 64])], SHAPE);
        for field in FIELDS {
            let stray = view.get(field.register) & !decided(field.register);
            assert_eq!(stray, 0, "{:?}", field.register);
        }
    }

    #[test]
    fn space_ends_before_midr_and_after_mmfr() {
        let view = IdView::new(&[], SHAPE);
        let outside = [SysReg::new(3, 0, 0, 0, 0), SysReg::new(3, 0, 0, 8, 0), SysReg::new(3, 1, 0, 1, 0)];
        assert_eq!(outside.map(|register| view.read(register)), [None; 3]);
    }

    #[test]
    fn fields_do_not_overlap() {
        let mut decided = [0; 64];
        for field in FIELDS {
            let bits = (u64::MAX >> (64 - u32::from(field.width))) << field.shift;
            let seen: &mut u64 = &mut decided[super::place(field.register)];
            assert_eq!(*seen & bits, 0, "{} of {:?}", field.name, field.register);
            *seen |= bits;
        }
    }
}
