//! The model's own rules, one by one, driven without the crate's operations:
//! instructions straight on a CPU, around single changes.

use stage2::tlbi::operand::{Extent, IpaOperand, RangeOperand, Units};
use stage2::tlbi::{Instruction, Instructions, Reach, Scope, Tlbi};
use stage2::{Descriptor, Ipa, Level, Permissions, Pte};

use crate::model::rig::{Rig, range};
use crate::model::{Access, Config, Cpu, Machine, Outcome};

use Instruction::{DsbIsh, DsbIshst, DsbNsh, Isb};

const PAGE: u64 = 0x1000;
const MIB2: u64 = 0x20_0000;
const RAM: u64 = 0x4000_0000;

const ALL_CPUS: Scope = Scope::InnerShareable;

/// Page 0 of a space on two CPUs, all in order.
fn rig(machine: &Machine) -> Rig<'_> {
    let rig = Rig::new(machine);
    rig.cpu(0).map(range(0, PAGE), RAM).unwrap();
    machine.check();
    rig
}

/// CPU 0 takes the permission to write from page 0, and tells nobody.
fn write_protect(rig: &Rig<'_>) {
    let cpu = rig.cpu(0);
    let guard = cpu.pin();
    let entry = rig.space.entry(&guard, Ipa::new(0)).unwrap();
    let Pte::Leaf(leaf) = entry.pte() else { panic!("there is a page") };
    entry.try_update(leaf.with_permissions(Permissions::READ_ONLY)).unwrap();
}

fn execute<const N: usize>(cpu: Cpu<'_>, instructions: [Instruction; N]) {
    instructions.into_iter().for_each(|instruction| cpu.execute(instruction));
}

fn units(rig: &Rig<'_>) -> Units {
    Units::new(rig.space.format())
}

/// A TLBI for page 0, on all CPUs.
fn page() -> Instruction {
    Instruction::Tlbi(Tlbi::Ipas2e1(ALL_CPUS, Reach::LastLevel, IpaOperand::new(Ipa::new(0))))
}

fn page_at(level: Level, rig: &Rig<'_>) -> Instruction {
    let operand = IpaOperand::with_level(Ipa::new(0), level, units(rig));
    Instruction::Tlbi(Tlbi::Ipas2e1(ALL_CPUS, Reach::LastLevel, operand))
}

fn stage1(scope: Scope) -> Instruction {
    Instruction::Tlbi(Tlbi::Vmalle1(scope))
}

/// Whether a guest on `cpu` might write to page 0.
fn may_write(machine: &Machine, cpu: usize) -> bool {
    machine.outcomes(cpu, 1, 0, Access::Write).contains(&Outcome::Reaches(RAM))
}

/// Who might write after CPU 0 write-protected the page and executed this.
fn writers<const N: usize>(config: Config, instructions: impl Fn(&Rig<'_>) -> [Instruction; N]) -> [bool; 2] {
    let machine = Machine::new(config);
    let rig = rig(&machine);
    write_protect(&rig);
    execute(machine.cpu(0), instructions(&rig));
    [0, 1].map(|cpu| may_write(&machine, cpu))
}

#[test]
fn store_alone_stops_nobody() {
    assert_eq!(writers(Config::FULL, |_| []), [true, true]);
}

#[test]
fn whole_sequence_stops_everyone() {
    let sequence = |_: &Rig<'_>| [DsbIshst, page(), DsbIsh, stage1(ALL_CPUS), DsbIsh, Isb];
    assert_eq!(writers(Config::FULL, sequence), [false, false]);
}

#[test]
fn sequence_with_the_level_stops_everyone() {
    let sequence = |rig: &Rig<'_>| [DsbIshst, page_at(Level::L3, rig), DsbIsh, stage1(ALL_CPUS), DsbIsh];
    assert_eq!(writers(Config::FULL, sequence), [false, false]);
}

#[test]
fn wrong_level_removes_nothing() {
    let sequence = |rig: &Rig<'_>| [DsbIshst, page_at(Level::L2, rig), DsbIsh, stage1(ALL_CPUS), DsbIsh];
    assert_eq!(writers(Config::FULL, sequence), [true, true]);
}

#[test]
fn tlbi_before_the_barrier_may_see_the_old_descriptor_again() {
    let sequence = |_: &Rig<'_>| [page(), DsbIsh, stage1(ALL_CPUS), DsbIsh];
    assert_eq!(writers(Config::FULL, sequence), [true, true]);
}

#[test]
fn tlbi_is_complete_at_the_dsb_and_not_before() {
    let sequence = |_: &Rig<'_>| [DsbIshst, page(), DsbIsh, stage1(ALL_CPUS)];
    assert_eq!(writers(Config::FULL, sequence), [true, true]);
}

#[test]
fn combined_entry_comes_back_from_a_stage_2_entry() {
    let backwards = |_: &Rig<'_>| [DsbIshst, stage1(ALL_CPUS), DsbIsh, page(), DsbIsh];
    assert_eq!(writers(Config::FULL, backwards), [true, true]);
    let together = |_: &Rig<'_>| [DsbIshst, page(), stage1(ALL_CPUS), DsbIsh];
    assert_eq!(writers(Config::FULL, together), [true, true]);
}

#[test]
fn whole_vmid_takes_one_operation() {
    let all = Instruction::Tlbi(Tlbi::Vmalls12e1(ALL_CPUS));
    assert_eq!(writers(Config::FULL, |_| [DsbIshst, all, DsbIsh]), [false, false]);
}

#[test]
fn local_operations_stop_their_own_cpu() {
    let all = Instruction::Tlbi(Tlbi::Vmalls12e1(Scope::Local));
    assert_eq!(writers(Config::FULL, |_| [DsbIshst, all, DsbNsh]), [false, true]);
}

#[test]
fn dsb_nsh_does_not_wait_for_other_cpus() {
    let all = Instruction::Tlbi(Tlbi::Vmalls12e1(ALL_CPUS));
    assert_eq!(writers(Config::FULL, |_| [DsbIshst, all, DsbNsh]), [true, true]);
}

#[test]
fn dsb_nsh_publishes_to_its_own_cpu() {
    let all = Instruction::Tlbi(Tlbi::Vmalls12e1(ALL_CPUS));
    assert_eq!(writers(Config::FULL, |_| [DsbNsh, all, DsbIsh]), [false, true]);
}

#[test]
fn erratum_lets_accesses_go_on_until_another_operation_is_complete() {
    let config = Config { repeat: true, ..Config::FULL };
    let all = Instruction::Tlbi(Tlbi::Vmalls12e1(ALL_CPUS));
    assert_eq!(writers(config, |_| [DsbIshst, all, DsbIsh]), [true, true]);
    let repeat = Instruction::Tlbi(Tlbi::Repeat);
    assert_eq!(writers(config, |_| [DsbIshst, all, DsbIsh, repeat]), [true, true]);
    assert_eq!(writers(config, |_| [DsbIshst, all, DsbIsh, repeat, DsbIsh]), [false, false]);
}

#[test]
fn dsb_of_another_cpu_completes_nothing() {
    let machine = Machine::new(Config::FULL);
    let rig = rig(&machine);
    write_protect(&rig);
    let all = Instruction::Tlbi(Tlbi::Vmalls12e1(ALL_CPUS));
    execute(machine.cpu(0), [DsbIshst, all]);
    execute(machine.cpu(1), [DsbIsh]);
    assert!(may_write(&machine, 1));
}

#[test]
fn operation_with_an_odd_start_for_its_level_removes_nothing() {
    let range_at = |rig: &Rig<'_>, start, level| {
        let extent = Extent::within(512).unwrap();
        let operand = RangeOperand::new(Ipa::new(start), extent, Some(level), units(rig));
        let operation = Instruction::Tlbi(Tlbi::Ripas2e1(ALL_CPUS, Reach::LastLevel, operand));
        [DsbIshst, operation, DsbIsh, stage1(ALL_CPUS), DsbIsh]
    };
    let stopped = |start, level| {
        let machine = Machine::new(Config::FULL);
        let rig = Rig::new(&machine);
        rig.cpu(0).map(range(0, MIB2), RAM).unwrap();
        write_protect(&rig);
        execute(machine.cpu(0), range_at(&rig, start, level));
        !may_write(&machine, 0)
    };
    assert!(stopped(0, Level::L2));
    assert!(!stopped(PAGE, Level::L2));
}

#[test]
fn operation_under_registers_that_are_not_synchronised_removes_nothing() {
    let machine = Machine::new(Config::FULL);
    let rig = rig(&machine);
    let cpu = machine.cpu(0);
    write_protect(&rig);
    execute(cpu, [DsbIsh]);
    cpu.set_registers(cpu.registers());
    let all = Instruction::Tlbi(Tlbi::Vmalls12e1(ALL_CPUS));
    execute(cpu, [all, DsbIsh]);
    assert!(may_write(&machine, 0));
    execute(cpu, [Isb, all, DsbIsh]);
    assert!(!may_write(&machine, 0));
}

#[test]
fn registers_must_not_change_under_a_walk() {
    let machine = Machine::new(Config::FULL);
    let _rig = rig(&machine);
    let cpu = machine.cpu(0);
    cpu.trap();
    cpu.set_registers(cpu.registers());
    assert_ne!(machine.take_violations(), Vec::<String>::new());
    execute(cpu, [DsbIsh]);
    cpu.set_registers(cpu.registers());
    assert_eq!(machine.take_violations(), Vec::<String>::new());
}

#[test]
fn invalid_descriptors_are_not_cached() {
    let machine = Machine::new(Config::FULL);
    let rig = rig(&machine);
    assert_eq!(machine.outcomes(1, 1, PAGE, Access::Read), [Outcome::TranslationFault]);
    rig.cpu(0).map(range(PAGE, PAGE), RAM + PAGE).unwrap();
    // Published, and so there is only one way left.
    assert_eq!(machine.outcomes(1, 1, PAGE, Access::Read), [Outcome::Reaches(RAM + PAGE)]);
}

#[test]
fn store_is_seen_by_walkers_late() {
    let machine = Machine::new(Config::FULL);
    let rig = rig(&machine);
    let cpu = rig.cpu(0);
    let guard = cpu.pin();
    let entry = rig.space.entry(&guard, Ipa::new(PAGE)).unwrap();
    let leaf = rig.space.leaf(Level::L3, stage2::PhysAddr::new(RAM + PAGE), stage2::Attributes::RAM).unwrap();
    entry.try_update(leaf).unwrap();
    let either = [Outcome::Reaches(RAM + PAGE), Outcome::TranslationFault];
    assert_eq!(machine.outcomes(1, 1, PAGE, Access::Read), either);
    assert_ne!(machine.rest(), Vec::<String>::new());
}

#[test]
fn nothing_is_left_of_a_page_that_was_unmapped() {
    let machine = Machine::new(Config::FULL);
    let rig = rig(&machine);
    rig.cpu(0).unmap(range(0, PAGE)).unwrap();
    assert_eq!(machine.outcomes(1, 1, 0, Access::Read), [Outcome::TranslationFault]);
    machine.reuse(RAM, PAGE);
    machine.check();
}

#[test]
fn memory_that_is_mapped_must_not_be_reused() {
    let machine = Machine::new(Config::FULL);
    let _rig = rig(&machine);
    machine.reuse(RAM, PAGE);
    assert_eq!(machine.take_violations().len(), 1);
    machine.reuse(RAM + PAGE, PAGE);
    assert_eq!(machine.take_violations().len(), 0);
}

#[test]
fn page_that_may_be_written_silently_must_not_be_copied() {
    let machine = Machine::new(Config::FULL);
    let rig = rig(&machine);
    write_protect(&rig);
    machine.copy(RAM, PAGE);
    assert_eq!(machine.take_violations().len(), 1);
    let all = Instruction::Tlbi(Tlbi::Vmalls12e1(ALL_CPUS));
    execute(machine.cpu(0), [DsbIshst, all, DsbIsh]);
    machine.copy(RAM, PAGE);
    assert_eq!(machine.take_violations(), Vec::<String>::new());
}

#[test]
fn descriptors_are_equal_to_what_the_model_reads() {
    // The model looks for exactly this word when it asks what is empty.
    assert_eq!(Descriptor::EMPTY.bits(), 0);
}
