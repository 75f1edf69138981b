//! Mistakes that others made in TLB maintenance, made here once more.
//!
//! Each test does what some system's code did and shows that the machine
//! notices, and that the crate's own sequences don't do it.

use stage2::tlbi::operand::{IpaOperand, RangeOperand, Units};
use stage2::tlbi::{Instruction, Instructions, Reach, Scope, Tlbi};
use stage2::{Ipa, Level, Maintenance, Permissions, Pte, Stale};

use crate::model::rig::{Rig, range};
use crate::model::{Access, Config, Cpu, Machine, Outcome};

use Instruction::{DsbIsh, DsbIshst, DsbNsh, Isb};

const PAGE: u64 = 0x1000;
const MIB2: u64 = 0x20_0000;
const RAM: u64 = 0x4000_0000;
const ALL_CPUS: Scope = Scope::InnerShareable;

/// Whether the maintenance that `forget` does on CPU 0, after pages of two
/// tables were write-protected, is enough to be at rest.
fn suffices(forget: impl Fn(&Rig<'_>, Cpu<'_>)) -> bool {
    let machine = Machine::new(Config::FULL);
    let rig = Rig::new(&machine);
    rig.cpu(0).map(range(PAGE, 2 * MIB2), RAM).unwrap();
    let cpu = rig.cpu(0);
    let guard = cpu.pin();
    for ipa in [PAGE, 2 * PAGE, MIB2 + PAGE] {
        let entry = rig.space.entry(&guard, Ipa::new(ipa)).unwrap();
        let Pte::Leaf(leaf) = entry.pte() else { panic!("there is a page") };
        entry.try_update(leaf.with_permissions(Permissions::READ_ONLY)).unwrap();
    }
    forget(&rig, machine.cpu(0));
    machine.rest().is_empty()
}

fn execute<const N: usize>(cpu: Cpu<'_>, instructions: [Instruction; N]) {
    instructions.into_iter().for_each(|instruction| cpu.execute(instruction));
}

/// The sequence around these operations.
fn around(cpu: Cpu<'_>, operations: impl IntoIterator<Item = Tlbi>) {
    cpu.execute(DsbIshst);
    operations.into_iter().for_each(|operation| cpu.execute(Instruction::Tlbi(operation)));
    execute(cpu, [DsbIsh, Instruction::Tlbi(Tlbi::Vmalle1(ALL_CPUS)), DsbIsh, Isb]);
}

fn single(operand: IpaOperand) -> Tlbi {
    Tlbi::Ipas2e1(ALL_CPUS, Reach::LastLevel, operand)
}

fn units(rig: &Rig<'_>) -> Units {
    Units::new(rig.space.format())
}

#[test]
fn the_right_operations_suffice() {
    let pages = [PAGE, 2 * PAGE, MIB2 + PAGE].map(|ipa| single(IpaOperand::new(Ipa::new(ipa))));
    assert!(suffices(|_, cpu| around(cpu, pages)));
    assert!(suffices(|rig, _| rig.cpu(0).maintenance.invalidate(range(0, 2 * MIB2), Stale::AnyLeaves)));
}

/// C10: KVM passed an uninitialised level on as a hint when it lost a race.
#[test]
fn c10_relaxing_a_page_takes_no_more_than_two_faults() {
    let machine = Machine::new(Config::FULL);
    let rig = Rig::new(&machine);
    rig.cpu(0).map(range(0, PAGE), RAM).unwrap();
    rig.cpu(0).protect(range(0, PAGE), Permissions::READ_ONLY).unwrap();
    let relax = |number| {
        let cpu = rig.cpu(number);
        let guard = cpu.pin();
        let entry = rig.space.entry(&guard, Ipa::new(0)).unwrap();
        let Pte::Leaf(leaf) = entry.pte() else { panic!("there is a page") };
        let (level, range) = (entry.level(), entry.range());
        entry.try_update(leaf.with_permissions(Permissions::ALL)).unwrap();
        cpu.maintenance.invalidate_local(range, Stale::Leaves(level));
    };
    let write = |cpu| machine.outcomes(cpu, 1, 0, Access::Write);
    assert_eq!(write(0), [Outcome::PermissionFault]);
    relax(0);
    assert_eq!(write(0), [Outcome::Reaches(RAM)]);
    // The other CPU still holds the tighter entry, faults once, and is done.
    assert!(write(1).contains(&Outcome::PermissionFault));
    relax(1);
    assert_eq!(write(1), [Outcome::Reaches(RAM)]);
}

/// C15: level 0 meant "unknown" until a hint of level 0 got a meaning.
#[test]
fn c15_level_0_is_not_unknown() {
    // The granule and level 0, as a hint, spelt by hand.
    let machine = Machine::new(Config::FULL);
    let rig = Rig::new(&machine);
    let unknown = IpaOperand::with_level(Ipa::new(PAGE), Level::L0, units(&rig));
    assert_eq!(unknown, IpaOperand::new(Ipa::new(PAGE)), "without LPA2 the crate never hints level 0");
    let wrong = [PAGE, 2 * PAGE, MIB2 + PAGE];
    assert!(!suffices(|rig, cpu| {
        around(cpu, wrong.map(|ipa| single(IpaOperand::with_level(Ipa::new(ipa), Level::L1, units(rig)))));
    }));
}

/// C16: registers of EL1&0 were changed with walks in flight.
#[test]
fn c16_walks_end_before_registers_change() {
    let machine = Machine::new(Config::FULL);
    let [mine, other] = [1, 2].map(|vmid| Rig::with_vmid(&machine, vmid));
    other.enter(0);
    mine.cpu(0).maintenance.invalidate(range(0, PAGE), Stale::AnyLeaves);
    machine.check();
    // A barrier for stores is not enough.
    let cpu = machine.cpu(0);
    cpu.trap();
    cpu.execute(DsbIshst);
    cpu.set_registers(cpu.registers());
    assert_ne!(machine.take_violations(), Vec::<String>::new());
}

/// C64: Hafnium's range started in the middle of the block it was for.
#[test]
fn c64_range_for_a_block_starts_at_the_block() {
    let machine = Machine::new(Config::FULL);
    let rig = Rig::new(&machine);
    rig.cpu(0).map(range(0, 4 * MIB2), RAM).unwrap();
    // An unmap that starts and ends in the middle of blocks.
    rig.cpu(0).unmap(range(MIB2 / 2, 3 * MIB2)).unwrap();
    rig.finish();
}

/// C68: Hafnium's loop over a range ended after its first page.
#[test]
fn c68_every_page_of_a_range_is_invalidated() {
    assert!(!suffices(|_, cpu| around(cpu, [single(IpaOperand::new(Ipa::new(PAGE)))])));
    for config in [Config::FULL, Config { range_operations: false, ..Config::FULL }] {
        for pages in 1..70 {
            let machine = Machine::new(config);
            let rig = Rig::new(&machine);
            rig.cpu(0).map(range(PAGE, pages * PAGE), RAM).unwrap();
            rig.cpu(0).protect(range(PAGE, pages * PAGE), Permissions::READ_ONLY).unwrap();
            machine.check();
        }
    }
}

/// C68: and its VMID was not the one it was asked for.
#[test]
fn c68_foreign_vmid_is_invalidated_as_asked() {
    let machine = Machine::new(Config::FULL);
    let [mine, other] = [1, 2].map(|vmid| Rig::with_vmid(&machine, vmid));
    mine.cpu(0).map(range(0, PAGE), RAM).unwrap();
    other.cpu(0).map(range(0, PAGE), RAM + MIB2).unwrap();
    other.enter(0);
    mine.cpu(0).protect(range(0, PAGE), Permissions::READ_ONLY).unwrap();
    machine.check();
    assert_eq!(machine.outcomes(1, 2, 0, Access::Write), [Outcome::Reaches(RAM + MIB2)]);
}

/// C72: Bao passed the address itself where 4 KiB units are meant.
#[test]
fn c72_address_that_is_not_shifted_is_noticed() {
    let pages = [PAGE, 2 * PAGE, MIB2 + PAGE].map(|ipa| single(IpaOperand::new(Ipa::new(ipa << 12))));
    assert!(!suffices(|_, cpu| around(cpu, pages)));
}

/// C72: Bao aimed at the space of the CPU that happened to execute it.
#[test]
fn c72_operation_for_the_wrong_space_is_noticed() {
    assert!(!suffices(|rig, cpu| {
        let other = Rig::with_vmid(rig.machine, 2);
        other.enter(0);
        around(cpu, [Tlbi::Vmalls12e1(ALL_CPUS)]);
    }));
}

/// C72, C74: no invalidation of combined entries.
#[test]
fn c74_operation_on_stage_2_alone_is_noticed() {
    let pages = [PAGE, 2 * PAGE, MIB2 + PAGE].map(|ipa| single(IpaOperand::new(Ipa::new(ipa))));
    assert!(!suffices(|_, cpu| {
        cpu.execute(DsbIshst);
        pages.into_iter().for_each(|page| cpu.execute(Instruction::Tlbi(page)));
        execute(cpu, [DsbIsh, Isb]);
    }));
}

/// C73: hvisor's flush did nothing at all.
#[test]
fn c73_no_invalidation_is_noticed() {
    assert!(!suffices(|_, cpu| execute(cpu, [DsbIsh, Isb])));
}

/// C73: and waited for its own CPU only, where others were meant.
#[test]
fn c73_barrier_for_one_cpu_is_noticed() {
    assert!(!suffices(|_, cpu| {
        execute(cpu, [DsbIshst, Instruction::Tlbi(Tlbi::Vmalls12e1(ALL_CPUS)), DsbNsh, Isb]);
    }));
}

/// A range operation of another granule, or from between its units.
#[test]
fn range_of_another_granule_is_noticed() {
    assert!(!suffices(|_, cpu| {
        let extent = stage2::tlbi::operand::Extent::within(1024).unwrap();
        let geometry = stage2::Geometry::new(stage2::Granule::Kib16, 40, stage2::PaSize::Bits40).unwrap();
        let format = stage2::Format::new(&geometry, stage2::Features::BASE);
        let operand = RangeOperand::new(Ipa::new(0), extent, None, Units::new(format));
        around(cpu, [Tlbi::Ripas2e1(ALL_CPUS, Reach::LastLevel, operand)]);
    }));
}
