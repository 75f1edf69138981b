//! The sequences, instruction by instruction.
//!
//! Whether they are *right* is for the model machine in `tests/suite/model` to
//! say; these are the claims about which one is chosen and how it is spelt.

use std::cell::{Cell, RefCell};
use std::vec::Vec;

use super::cover::Cover;
use super::operand::{IpaOperand, Units};
use super::{Completion, Costs, Instruction, Instructions, Platform, Reach, Scope};
use super::{Sequences, Stage2Registers, Support, Tlbi};
use crate::addr::{Ipa, IpaRange, Level};
use crate::format::Format;
use crate::geometry::{Geometry, Granule, PaSize};
use crate::maint::{Maintenance, Stale};
use crate::vtcr::Features;

use Instruction::{DsbIsh, DsbIshst, DsbNsh, Isb};

const MINE: Stage2Registers = Stage2Registers { vttbr: 1 << 48 | 0x1000, vtcr: 0x8002_3558 };
const OTHER: Stage2Registers = Stage2Registers { vttbr: 2 << 48 | 0x2000, vtcr: 0x8002_3559 };
const PAGE: u64 = 0x1000;
const MIB2: u64 = 0x20_0000;

/// All features, so that each test takes away what it is about.
const FULL: Platform = Platform {
    range_operations: Support::Present,
    level_hints: Support::Present,
    completion: Completion::Once,
    costs: Costs::TYPICAL,
};

/// What a CPU was told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Execute(Instruction),
    Set(Stage2Registers),
}

/// A CPU that writes down what it is told to do.
struct Recorder {
    registers: Cell<Stage2Registers>,
    events: RefCell<Vec<Event>>,
}

impl Instructions for Recorder {
    fn execute(&self, instruction: Instruction) {
        self.events.borrow_mut().push(Event::Execute(instruction));
    }

    fn registers(&self) -> Stage2Registers {
        self.registers.get()
    }

    fn set_registers(&self, registers: Stage2Registers) {
        self.registers.set(registers);
        self.events.borrow_mut().push(Event::Set(registers));
    }
}

fn format() -> Format {
    let geometry = Geometry::new(Granule::Kib4, 40, PaSize::Bits40).expect("a common shape");
    Format::new(&geometry, Features::BASE)
}

fn range(start: u64, size: u64) -> IpaRange {
    IpaRange::new(Ipa::new(start), size).expect("not empty")
}

/// What `call` makes a CPU do on which the space of these registers is current.
fn record(
    current: Stage2Registers,
    platform: Platform,
    call: impl FnOnce(&Sequences<&Recorder>),
) -> Vec<Event> {
    let recorder = Recorder { registers: Cell::new(current), events: RefCell::default() };
    call(&Sequences::new(&recorder, MINE, format(), platform));
    recorder.events.take()
}

/// The TLBIs of an invalidation.
fn operations(platform: Platform, range: IpaRange, stale: Stale) -> Vec<Tlbi> {
    let events = record(MINE, platform, |sequences| sequences.invalidate(range, stale));
    let operation = |event| match event {
        Event::Execute(Instruction::Tlbi(operation)) => Some(operation),
        _ => None,
    };
    events.into_iter().filter_map(operation).collect()
}

fn execute<const N: usize>(instructions: [Instruction; N]) -> Vec<Event> {
    instructions.map(Event::Execute).to_vec()
}

fn page_operand(ipa: u64) -> IpaOperand {
    IpaOperand::with_level(Ipa::new(ipa), Level::L3, Units::new(format()))
}

#[test]
fn publication_is_one_barrier() {
    assert_eq!(record(MINE, FULL, |sequences| sequences.publish()), execute([DsbIshst]));
}

#[test]
fn page_takes_the_sequence_of_the_manual() {
    let events = record(MINE, FULL, |sequences| {
        sequences.invalidate(range(PAGE, PAGE), Stale::Leaves(Level::L3));
    });
    let page = Tlbi::Ipas2e1(Scope::InnerShareable, Reach::LastLevel, page_operand(PAGE));
    let combined = Tlbi::Vmalle1(Scope::InnerShareable);
    let expected = [DsbIshst, Instruction::Tlbi(page), DsbIsh, Instruction::Tlbi(combined), DsbIsh, Isb];
    assert_eq!(events, execute(expected));
}

#[test]
fn local_sequence_leaves_other_cpus_alone() {
    let events = record(MINE, FULL, |sequences| {
        sequences.invalidate_local(range(PAGE, PAGE), Stale::Leaves(Level::L3));
    });
    let page = Tlbi::Ipas2e1(Scope::Local, Reach::LastLevel, page_operand(PAGE));
    let combined = Tlbi::Vmalle1(Scope::Local);
    let expected = [DsbNsh, Instruction::Tlbi(page), DsbNsh, Instruction::Tlbi(combined), DsbNsh, Isb];
    assert_eq!(events, execute(expected));
}

#[test]
fn whole_vmid_takes_one_operation() {
    let all = Instruction::Tlbi(Tlbi::Vmalls12e1(Scope::InnerShareable));
    let events = record(MINE, FULL, |sequences| sequences.invalidate_all());
    assert_eq!(events, execute([DsbIshst, all, DsbIsh, Isb]));
}

#[test]
fn foreign_space_is_made_current_and_the_own_one_again() {
    let all = Instruction::Tlbi(Tlbi::Vmalls12e1(Scope::InnerShareable));
    let events = record(OTHER, FULL, |sequences| sequences.invalidate_all());
    let [dsb, isb, all] = [DsbIsh, Isb, all].map(Event::Execute);
    assert_eq!(events, [dsb, Event::Set(MINE), isb, all, dsb, isb, Event::Set(OTHER), isb]);
}

#[test]
fn erratum_repeats_once_however_much_was_invalidated() {
    let platform = Platform { completion: Completion::Repeated, ..FULL };
    for size in [PAGE, 3 * MIB2 + PAGE, 1 << 40] {
        let operations = operations(platform, range(0, size), Stale::Tables);
        let repeats = operations.iter().filter(|&&operation| operation == Tlbi::Repeat).count();
        assert_eq!((repeats, operations.last()), (1, Some(&Tlbi::Repeat)), "{size:#x}");
    }
}

#[test]
fn tables_are_invalidated_at_all_levels_without_a_hint() {
    let expected = Tlbi::Ipas2e1(Scope::InnerShareable, Reach::AllLevels, IpaOperand::new(Ipa::new(MIB2)));
    assert_eq!(operations(FULL, range(MIB2, PAGE), Stale::Tables)[0], expected);
}

#[test]
fn no_level_is_hinted_where_a_cpu_ignores_the_field() {
    let platform = Platform { level_hints: Support::Absent, ..FULL };
    let expected = Tlbi::Ipas2e1(Scope::InnerShareable, Reach::LastLevel, IpaOperand::new(Ipa::new(MIB2)));
    assert_eq!(operations(platform, range(MIB2, MIB2), Stale::Leaves(Level::L2))[0], expected);
}

#[test]
fn leaves_of_one_level_take_one_single_operation_each() {
    let platform = Platform { range_operations: Support::Absent, ..FULL };
    let operations = operations(platform, range(0, 7 * MIB2), Stale::Leaves(Level::L2));
    // And one for the combined entries.
    assert_eq!(operations.len(), 7 + 1);
}

#[test]
fn leaf_is_invalidated_whole_even_if_a_part_was_named() {
    let whole = operations(FULL, range(MIB2, MIB2), Stale::Leaves(Level::L2));
    assert_eq!(operations(FULL, range(MIB2 + PAGE, PAGE), Stale::Leaves(Level::L2)), whole);
}

#[test]
fn thousand_pages_take_a_handful_of_range_operations() {
    let pages = range(0, 1000 * PAGE);
    let operations = operations(FULL, pages, Stale::Leaves(Level::L3));
    let pieces = Cover::new(pages, Units::new(format())).count();
    assert_eq!((operations.len(), pieces), (2 + 1, 2));
}

#[test]
fn thousand_pages_without_range_operations_take_the_vmid() {
    let platform = Platform { range_operations: Support::Absent, ..FULL };
    let operations = operations(platform, range(0, 1000 * PAGE), Stale::Leaves(Level::L3));
    assert_eq!(operations, [Tlbi::Vmalls12e1(Scope::InnerShareable)]);
}

#[test]
fn two_pages_are_cheaper_one_by_one() {
    let operations = operations(FULL, range(0, 2 * PAGE), Stale::AnyLeaves);
    assert!(matches!(operations[..], [Tlbi::Ipas2e1(..), Tlbi::Ipas2e1(..), Tlbi::Vmalle1(_)]));
}
