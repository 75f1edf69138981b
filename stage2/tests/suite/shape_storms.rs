//! Two CPUs, as threads, of which one changes the size of mappings while the
//! other does something else with them. See [`crate::threads`].

use stage2::epoch::Participant;
use stage2::{
    Annotation, Attributes, Budget, CollapseError, Cursor, Ipa, Level, MigrateError, NoTlb, Permissions,
    PhysAddr, Pte, Space, Step, TableMemory,
};

use crate::threads::{Memory, memory, range, space, storm};

const PAGE: u64 = 0x1000;
const MIB2: u64 = 0x20_0000;

/// A page in the middle of the block that everything here is about.
const MIDDLE: Ipa = Ipa::new(300 * PAGE);

fn map_block(space: &Space<&Memory>) {
    let cpu = space.memory().epochs().register().unwrap();
    space.map(&cpu.pin(), range(0, MIB2), PhysAddr::new(0), Attributes::RAM, &NoTlb).unwrap();
}

fn split(space: &Space<&Memory>, cpu: &Participant<'_>) {
    let mut cursor = Cursor::new(range(0, MIB2));
    let step = space.split_step(&cpu.pin(), &mut cursor, Level::L3, Budget::UNLIMITED, &NoTlb);
    assert!(step.is_ok());
}

fn finish(space: Space<&Memory>, memory: &Memory) {
    space.destroy(&NoTlb);
    assert_eq!(memory.in_use(), 0);
}

#[test]
fn page_stays_visible_while_its_table_is_collapsed_and_split() {
    let memory = memory();
    let space = space(&memory);
    map_block(&space);
    storm(&space, |space, cpu, thread| {
        if thread == 0 {
            split(space, cpu);
            space.collapse(&cpu.pin(), MIDDLE, &NoTlb).unwrap();
        } else {
            for _ in 0..100 {
                let mapping = space.lookup(&cpu.pin(), MIDDLE).expect("mapped all the time");
                assert_eq!(mapping.translate(MIDDLE), Some(PhysAddr::new(MIDDLE.bits())));
            }
        }
    });
    finish(space, &memory);
}

#[test]
fn both_who_collapse_and_split_the_same_table_get_on() {
    let memory = memory();
    let space = space(&memory);
    map_block(&space);
    storm(&space, |space, cpu, _| {
        split(space, cpu);
        // If the other was first, the block is in a table that is not full.
        match space.collapse(&cpu.pin(), MIDDLE, &NoTlb) {
            Ok(block) => assert_eq!(block.range, range(0, MIB2)),
            Err(CollapseError::NotFull { ipa }) => assert_eq!(ipa, Ipa::new(MIB2)),
            // And split again since.
            Err(error) => assert_eq!(error, CollapseError::SmallerLeaves { ipa: Ipa::new(0) }),
        }
    });
    finish(space, &memory);
}

#[test]
fn page_unmapped_while_its_table_is_collapsed_is_gone() {
    let memory = memory();
    let space = space(&memory);
    map_block(&space);
    storm(&space, |space, cpu, thread| {
        if thread == 0 {
            let _ = space.collapse(&cpu.pin(), MIDDLE, &NoTlb);
        } else {
            let page = range(MIDDLE.bits(), PAGE);
            space.unmap(&cpu.pin(), page, &NoTlb).unwrap();
            assert_eq!(space.lookup(&cpu.pin(), MIDDLE), None);
            let whole = space.leaves(&cpu.pin(), range(0, MIB2)).map(|leaf| leaf.range.size()).sum::<u64>();
            assert_eq!(whole, MIB2 - PAGE);
            space.map(&cpu.pin(), page, PhysAddr::new(MIDDLE.bits()), Attributes::RAM, &NoTlb).unwrap();
        }
    });
    finish(space, &memory);
}

#[test]
fn block_unmapped_while_its_table_is_collapsed_is_gone() {
    let memory = memory();
    let space = space(&memory);
    storm(&space, |space, cpu, thread| {
        if thread == 0 {
            let _ = space.collapse(&cpu.pin(), MIDDLE, &NoTlb);
        } else {
            space.map(&cpu.pin(), range(0, MIB2), PhysAddr::new(0), Attributes::RAM, &NoTlb).unwrap();
            split(space, cpu);
            space.unmap(&cpu.pin(), range(0, MIB2), &NoTlb).unwrap();
            assert_eq!(space.leaves(&cpu.pin(), range(0, MIB2)).count(), 0);
        }
    });
    finish(space, &memory);
}

#[test]
fn permission_taken_while_the_table_is_collapsed_is_gone() {
    let memory = memory();
    let space = space(&memory);
    map_block(&space);
    storm(&space, |space, cpu, thread| {
        if thread == 0 {
            let _ = space.collapse(&cpu.pin(), MIDDLE, &NoTlb);
            split(space, cpu);
        } else {
            for permissions in [Permissions::READ_ONLY, Permissions::ALL] {
                space.protect(&cpu.pin(), range(0, MIB2), permissions, &NoTlb).unwrap();
                for leaf in space.leaves(&cpu.pin(), range(0, MIB2)) {
                    assert_eq!(leaf.attributes.permissions, permissions);
                }
            }
        }
    });
    finish(space, &memory);
}

#[test]
fn map_into_a_hole_of_a_table_that_someone_tries_to_collapse_is_not_lost() {
    let memory = memory();
    let space = space(&memory);
    let cpu = memory.epochs().register().unwrap();
    let last = range(MIB2 - PAGE, PAGE);
    space.map(&cpu.pin(), range(0, MIB2 - PAGE), PhysAddr::new(0), Attributes::RAM, &NoTlb).unwrap();
    storm(&space, |space, cpu, thread| {
        if thread == 0 {
            let _ = space.collapse(&cpu.pin(), MIDDLE, &NoTlb);
        } else {
            let output = PhysAddr::new(last.start().bits());
            space.map(&cpu.pin(), last, output, Attributes::RAM, &NoTlb).unwrap();
            let found = space.lookup(&cpu.pin(), last.start()).expect("just mapped");
            assert_eq!(found.translate(last.start()), Some(output));
            space.unmap(&cpu.pin(), last, &NoTlb).unwrap();
        }
    });
    finish(space, &memory);
}

#[test]
fn page_that_is_annotated_and_mapped_by_turns_is_never_found_empty() {
    let memory = memory();
    let space = space(&memory);
    map_block(&space);
    let page = range(MIDDLE.bits(), PAGE);
    let moved_out = Annotation::new(1).unwrap();
    storm(&space, |space, cpu, thread| {
        let guard = cpu.pin();
        if thread == 0 {
            let mut cursor = Cursor::new(page);
            let step = space.annotate_step(&guard, &mut cursor, moved_out, Budget::UNLIMITED, &NoTlb);
            assert_eq!(step, Ok(Step::Done));
            let entry = space.entry(&guard, MIDDLE).unwrap();
            assert_eq!(entry.pte(), Pte::Annotated(moved_out));
            let leaf = space.leaf(entry.level(), PhysAddr::new(MIDDLE.bits()), Attributes::RAM).unwrap();
            entry.try_update(leaf).unwrap();
        } else {
            for _ in 0..10 {
                let pte = space.entry(&guard, MIDDLE).unwrap().pte();
                assert!(matches!(pte, Pte::Leaf(_) | Pte::Annotated(_)), "{pte:?}");
            }
        }
    });
    finish(space, &memory);
}

#[test]
fn page_that_moves_is_found_in_the_old_or_the_new_place() {
    let memory = memory();
    let space = space(&memory);
    map_block(&space);
    let (here, there) = (PhysAddr::new(MIDDLE.bits()), PhysAddr::new(MIB2));
    let cpu = memory.epochs().register().unwrap();
    split(&space, &cpu);
    storm(&space, |space, cpu, thread| {
        let guard = cpu.pin();
        if thread == 0 {
            let vacated = space.migrate(&guard, MIDDLE, there, |_| {}, &NoTlb).unwrap();
            assert_eq!(vacated.output(), here);
            let vacated = space.migrate(&guard, MIDDLE, here, |_| {}, &NoTlb).unwrap();
            assert_eq!(vacated.output(), there);
        } else {
            for _ in 0..10 {
                let output = space.lookup(&guard, MIDDLE).expect("mapped all the time").output;
                assert!(output == here || output == there, "{output}");
            }
        }
    });
    finish(space, &memory);
}

#[test]
fn page_that_is_being_replaced_by_an_identical_one_does_not_become_writable() {
    let memory = memory();
    let space = space(&memory);
    map_block(&space);
    let cpu = memory.epochs().register().unwrap();
    split(&space, &cpu);
    let page = range(MIDDLE.bits(), PAGE);
    storm(&space, |space, cpu, thread| {
        let guard = cpu.pin();
        if thread == 0 {
            let answer = space.migrate_identical(&guard, MIDDLE, PhysAddr::new(MIB2), &NoTlb);
            assert!(answer.is_ok() || answer == Err(MigrateError::Writable { ipa: MIDDLE }));
        } else {
            for permissions in [Permissions::READ_ONLY, Permissions::ALL] {
                space.protect(&guard, page, permissions, &NoTlb).unwrap();
                let found = space.lookup(&guard, MIDDLE).expect("mapped all the time");
                assert_eq!(found.attributes.permissions, permissions);
            }
        }
    });
    finish(space, &memory);
}
