//! Two CPUs at the same entries: the second comes in between any two steps of
//! the first.

use stage2::{Budget, Cursor, Ipa, Level, MapError, Permissions, PhysAddr, Step};

use crate::model::rig::{Rig, range};
use crate::model::{Config, Machine, Schedule};

const PAGE: u64 = 0x1000;
const MIB2: u64 = 0x20_0000;
const RAM: u64 = 0x4000_0000;

/// What a CPU does.
type Program = fn(&Rig<'_>, usize);

/// Lets CPU 1 do the second program at step 0 of CPU 0's first, at step 1, and
/// so on, later with ever more steps between; each time, everything must be in
/// order.
fn meet(setup: Program, programs: [Program; 2]) {
    let run = |step| {
        let machine = Machine::new(Config::FULL);
        let rig = Rig::new(&machine);
        setup(&rig, 0);
        let tasks = programs.iter().enumerate().map(|(cpu, program)| {
            let rig = &rig;
            Box::new(move || program(rig, cpu)) as Box<dyn FnOnce() + Send + '_>
        });
        let steps = machine.run(Schedule::SwitchAt(vec![step]), tasks.collect());
        assert_eq!(machine.rest(), Vec::<String>::new(), "with a switch at step {step}");
        rig.finish();
        assert_eq!(machine.in_use(), 0, "with a switch at step {step}");
        steps
    };
    let mut step = 0;
    while step < run(step) {
        step += 1 + step / 16;
    }
}

/// 2 MiB as one block.
fn block(rig: &Rig<'_>, cpu: usize) {
    rig.cpu(cpu).map(range(0, MIB2), RAM).unwrap();
}

/// The same as pages.
fn pages(rig: &Rig<'_>, cpu: usize) {
    block(rig, cpu);
    let (cpu, mut cursor) = (rig.cpu(cpu), Cursor::new(range(0, MIB2)));
    let step = rig.space.split_step(&cpu.pin(), &mut cursor, Level::L3, Budget::UNLIMITED, &cpu.maintenance);
    assert_eq!(step, Ok(Step::Done));
}

/// Where an address leads.
fn look(rig: &Rig<'_>, cpu: usize, ipa: u64) -> Option<u64> {
    let cpu = rig.cpu(cpu);
    let found = rig.space.lookup(&cpu.pin(), Ipa::new(ipa))?;
    found.translate(Ipa::new(ipa)).map(PhysAddr::bits)
}

/// Gives page 3 other memory, by break and make.
fn migrate(rig: &Rig<'_>, cpu: usize) {
    let cpu = rig.cpu(cpu);
    let output = PhysAddr::new(RAM + 4 * MIB2);
    // Gone before it could be moved is fine.
    let _ = rig.space.migrate(&cpu.pin(), Ipa::new(3 * PAGE), output, |_| {}, &cpu.maintenance);
}

#[test]
fn c01_walk_does_not_go_on_in_a_table_that_became_a_block() {
    meet(
        pages,
        [
            |rig, cpu| {
                let cpu = rig.cpu(cpu);
                rig.space.collapse(&cpu.pin(), Ipa::new(0), &cpu.maintenance).unwrap();
                cpu.reclaim();
            },
            |rig, cpu| {
                for page in [0, 1, 300, 511] {
                    assert_eq!(look(rig, cpu, page * PAGE), Some(RAM + page * PAGE));
                }
            },
        ],
    );
}

#[test]
fn c08_walk_through_a_table_that_is_unmapped_finds_its_pages_or_nothing() {
    meet(
        pages,
        [
            |rig, cpu| {
                let cpu = rig.cpu(cpu);
                cpu.unmap(range(0, MIB2)).unwrap();
                rig.machine.reuse(RAM, MIB2);
                cpu.reclaim();
            },
            |rig, cpu| {
                for page in [0, 1, 300, 511] {
                    let found = look(rig, cpu, page * PAGE);
                    assert!(found.is_none_or(|output| output == RAM + page * PAGE));
                }
            },
        ],
    );
}

#[test]
fn c11_entry_between_break_and_make_keeps_its_table() {
    let unmap: Program = |rig, cpu| rig.cpu(cpu).unmap(range(0, MIB2)).unwrap();
    meet(pages, [migrate, unmap]);
}

#[test]
fn c11_unmap_of_a_table_waits_for_an_entry_between_break_and_make() {
    let unmap: Program = |rig, cpu| rig.cpu(cpu).unmap(range(PAGE, MIB2 - PAGE)).unwrap();
    meet(pages, [migrate, unmap]);
}

#[test]
fn c14_protection_reaches_what_lies_behind_a_hole_and_a_held_entry() {
    let setup: Program = |rig, cpu| {
        pages(rig, cpu);
        rig.cpu(cpu).unmap(range(PAGE, PAGE)).unwrap();
    };
    meet(
        setup,
        [migrate, |rig, cpu| {
            let cpu = rig.cpu(cpu);
            cpu.protect(range(0, MIB2), Permissions::READ_ONLY).unwrap();
            let guard = cpu.pin();
            let leaves: Vec<_> = rig.space.leaves(&guard, range(0, MIB2)).collect();
            assert_eq!(leaves.len(), 511);
            assert!(leaves.iter().all(|leaf| leaf.attributes.permissions == Permissions::READ_ONLY));
        }],
    );
}

#[test]
fn c30_block_and_page_that_are_mapped_at_once_leave_no_table_behind() {
    let one: Program = |rig, cpu| {
        let result = rig.cpu(cpu).map(range(0, MIB2), RAM);
        assert!(matches!(result, Ok(()) | Err(MapError::AlreadyMapped { .. })), "{result:?}");
    };
    let other: Program = |rig, cpu| {
        let result = rig.cpu(cpu).map(range(5 * PAGE, PAGE), RAM + 5 * PAGE);
        assert!(matches!(result, Ok(()) | Err(MapError::AlreadyMapped { .. })), "{result:?}");
        // A block that finds the page gives all back, and nothing of the page's.
        assert_eq!(look(rig, cpu, 5 * PAGE), Some(RAM + 5 * PAGE));
    };
    meet(|_, _| {}, [one, other]);
}
