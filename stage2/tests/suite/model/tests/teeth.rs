//! The machine bites: whatever instruction is left out of a sequence, it is
//! missed.
//!
//! Each row is an operation whose sequences are run with their first
//! instruction left out, with their second, and so on. Each time, the machine
//! must find something wrong at the latest when the operation is over.
//!
//! **One kind of instruction is not missed: the ISB at the end of a sequence.**
//! It is there for the instructions that follow on the same CPU. The only
//! effect that TLBIs of the EL1&0 regime and writes to its registers could
//! have on them is on a later TLBI (seen in
//! `isb_after_going_back_is_missed_by_the_next_sequence`) and on the guest, and
//! before a CPU is in its guest there is an exception return, which
//! synchronises as well.

use stage2::tlbi::Instruction;
use stage2::{Attributes, Ipa, Level, Maintenance, Permissions, PhysAddr, Pte, Stale};

use crate::model::careless::{Action, Call, Negligent};
use crate::model::rig::{Hand, Rig, range};
use crate::model::{Access, Careless, Config, Cpu, Machine, Outcome};

const PAGE: u64 = 0x1000;
const MIB2: u64 = 0x20_0000;
const RAM: u64 = 0x4000_0000;

const ISB: Action = Action::Execute(Instruction::Isb);

/// What is to be done, and by whom.
type Deed = fn(&Hand<'_, '_, &Careless<'_>>);

/// One row: an operation on a machine.
struct Row {
    config: Config,
    setup: fn(&Rig<'_>),
    deed: Deed,
}

impl Row {
    /// Does the deed with each of its instructions left out in turn, and
    /// returns those that were not missed.
    fn unnoticed(&self) -> Vec<Action> {
        let mut unnoticed = Vec::new();
        for omitted in 0.. {
            let machine = Machine::new(self.config);
            let rig = Rig::new(&machine);
            (self.setup)(&rig);
            machine.check();
            let careless = Careless::new(machine.cpu(0), omitted);
            (self.deed)(&rig.with(0, &careless));
            let violations = machine.rest();
            match careless.left_out() {
                Some(action) if violations.is_empty() => unnoticed.push(action),
                Some(_) => {}
                None => {
                    assert_eq!(violations, Vec::<String>::new(), "with nothing left out");
                    assert!(omitted > 0, "the deed executes nothing");
                    break;
                }
            }
        }
        unnoticed
    }
}

fn nothing(_: &Rig<'_>) {}

fn one_page(rig: &Rig<'_>) {
    rig.cpu(0).map(range(0, PAGE), RAM).unwrap();
}

fn one_block(rig: &Rig<'_>) {
    rig.cpu(0).map(range(0, MIB2), RAM).unwrap();
}

/// Pages that take a whole table and a bit of the next.
fn many_pages(rig: &Rig<'_>) {
    rig.cpu(0).map(range(PAGE, 2 * MIB2), RAM).unwrap();
}

/// The guest of another space runs on CPU 0.
fn foreign(rig: &Rig<'_>) {
    many_pages(rig);
    let other = Rig::with_vmid(rig.machine, 2);
    other.enter(0);
}

#[test]
fn isb_after_going_back_is_missed_by_the_next_sequence() {
    let machine = Machine::new(Config::FULL);
    let [mine, other] = [1, 2].map(|vmid| Rig::with_vmid(&machine, vmid));
    one_page(&mine);
    one_block(&other);
    mine.enter(0);
    // A sequence for the other space; its last instruction is the ISB.
    let careless = Careless::new(machine.cpu(0), 9);
    other.with(0, &careless).maintenance.invalidate(range(0, PAGE), Stale::AnyLeaves);
    assert_eq!(careless.left_out(), Some(ISB));
    assert_eq!(machine.rest(), Vec::<String>::new());
    mine.with(0, &careless).protect(range(0, PAGE), Permissions::READ_ONLY).unwrap();
    assert_ne!(machine.rest(), Vec::<String>::new());
}

#[test]
fn every_sequence_is_missed_as_a_whole() {
    type Setup = fn(&Rig<'_>);
    type Deed = fn(&Hand<'_, '_, Cpu<'_>>, &Negligent<'_>);
    let deeds: [(Setup, Deed); 4] = [
        (one_page, |cpu, negligent| {
            cpu.rig.space.unmap(&cpu.pin(), range(0, PAGE), negligent).unwrap();
        }),
        (many_pages, |cpu, negligent| {
            cpu.rig.space.unmap(&cpu.pin(), range(0, 4 * MIB2), negligent).unwrap();
        }),
        (one_block, |cpu, negligent| {
            cpu.rig.space.protect(&cpu.pin(), range(0, PAGE), Permissions::READ_ONLY, negligent).unwrap();
        }),
        (nothing, |cpu, negligent| {
            let output = PhysAddr::new(RAM);
            cpu.rig.space.map(&cpu.pin(), range(0, PAGE), output, Attributes::RAM, negligent).unwrap();
        }),
    ];
    let mut healed = Vec::new();
    for (number, (setup, deed)) in deeds.into_iter().enumerate() {
        for omitted in 0.. {
            let machine = Machine::new(Config::FULL);
            let rig = Rig::new(&machine);
            setup(&rig);
            let cpu = rig.cpu(0);
            let negligent = Negligent::new(&cpu.maintenance, omitted);
            deed(&cpu, &negligent);
            match (negligent.left_out(), machine.rest().is_empty()) {
                (Some(call), true) => healed.push((number, call)),
                (Some(_), false) => {}
                (None, clean) => {
                    assert!(clean && omitted > 0);
                    break;
                }
            }
        }
    }
    // As above: the split is published again by what follows it.
    assert_eq!(healed, [(2, Call::Publish)]);
}

#[test]
fn every_instruction_of_a_map_is_missed() {
    let row = Row { config: Config::FULL, setup: nothing, deed: |cpu| cpu.map(range(0, PAGE), RAM).unwrap() };
    assert_eq!(row.unnoticed(), []);
}

#[test]
fn every_instruction_of_an_unmap_is_missed() {
    let row = Row { config: Config::FULL, setup: one_page, deed: |cpu| cpu.unmap(range(0, PAGE)).unwrap() };
    // One sequence for the leaf, and one for each table that became empty.
    assert_eq!(row.unnoticed(), [ISB; 3]);
}

#[test]
fn every_instruction_of_a_split_is_missed() {
    let row = Row { config: Config::FULL, setup: one_block, deed: |cpu| cpu.unmap(range(0, PAGE)).unwrap() };
    // The walkers are told of the new table again at the start of the sequence
    // for the page that goes.
    let told_again = Action::Execute(Instruction::DsbIshst);
    assert_eq!(row.unnoticed(), [ISB, told_again, ISB]);
}

#[test]
fn every_instruction_of_a_move_is_missed() {
    let row = Row { config: Config::FULL, setup: one_page, deed: move_page };
    assert_eq!(row.unnoticed(), [ISB]);
}

/// Lets page 0 have other memory: break before make.
fn move_page(cpu: &Hand<'_, '_, &Careless<'_>>) {
    let (space, guard) = (&cpu.rig.space, cpu.pin());
    let entry = space.entry(&guard, Ipa::new(0)).unwrap();
    let leaf = space.leaf(entry.level(), PhysAddr::new(RAM + MIB2), Attributes::RAM).unwrap();
    entry.try_lock().unwrap().break_with(&cpu.maintenance).make(leaf, &cpu.maintenance);
}

#[test]
fn every_instruction_of_a_relaxation_is_missed() {
    let row = Row { config: Config::FULL, setup: read_only_page, deed: relax };
    assert_eq!(row.unnoticed(), [ISB]);
}

fn read_only_page(rig: &Rig<'_>) {
    one_page(rig);
    rig.cpu(0).protect(range(0, PAGE), Permissions::READ_ONLY).unwrap();
}

/// Allows everything on page 0, and makes it effective on this CPU: nobody
/// else is told, and nobody else needs to be.
fn relax(cpu: &Hand<'_, '_, &Careless<'_>>) {
    let (space, guard, machine) = (&cpu.rig.space, cpu.pin(), cpu.rig.machine);
    let entry = space.entry(&guard, Ipa::new(0)).unwrap();
    let Pte::Leaf(leaf) = entry.pte() else { panic!("there is a page") };
    entry.try_update(leaf.with_permissions(Permissions::ALL)).unwrap();
    cpu.maintenance.invalidate_local(range(0, PAGE), Stale::Leaves(Level::L3));
    if machine.outcomes(0, 1, 0, Access::Write) != [Outcome::Reaches(RAM)] {
        machine.complain("the CPU that relaxed the permission may not see it");
    }
}

#[test]
fn every_instruction_of_a_protection_is_missed() {
    let row = Row {
        config: Config::FULL,
        setup: many_pages,
        deed: |cpu| cpu.protect(range(PAGE, 37 * PAGE), Permissions::READ_ONLY).unwrap(),
    };
    assert_eq!(row.unnoticed(), [ISB]);
}

#[test]
fn every_instruction_of_a_protection_of_a_block_is_missed() {
    let row = Row {
        config: Config::FULL,
        setup: one_block,
        deed: |cpu| cpu.protect(range(0, MIB2), Permissions::READ_ONLY).unwrap(),
    };
    assert_eq!(row.unnoticed(), [ISB]);
}

#[test]
fn every_instruction_of_range_operations_is_missed() {
    let row =
        Row { config: Config::FULL, setup: many_pages, deed: |cpu| cpu.unmap(range(0, 4 * MIB2)).unwrap() };
    assert_eq!(row.unnoticed(), [ISB; 2]);
}

#[test]
fn every_instruction_is_missed_where_the_whole_vmid_goes() {
    let row = Row {
        config: Config { range_operations: false, level_hints: false, ..Config::FULL },
        setup: many_pages,
        deed: |cpu| cpu.unmap(range(0, 4 * MIB2)).unwrap(),
    };
    assert_eq!(row.unnoticed(), [ISB; 2]);
}

#[test]
fn every_instruction_is_missed_where_an_erratum_wants_repetition() {
    let row = Row {
        config: Config { repeat: true, ..Config::FULL },
        setup: one_page,
        deed: |cpu| cpu.unmap(range(0, PAGE)).unwrap(),
    };
    assert_eq!(row.unnoticed(), [ISB; 3]);
}

#[test]
fn every_instruction_for_a_space_that_is_not_current_is_missed() {
    let row = Row {
        config: Config::FULL,
        setup: foreign,
        deed: |cpu| cpu.protect(range(PAGE, PAGE), Permissions::READ_ONLY).unwrap(),
    };
    // That of the sequence proper, and that after going back.
    assert_eq!(row.unnoticed(), [ISB; 2]);
}
