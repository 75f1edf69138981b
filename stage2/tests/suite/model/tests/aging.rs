//! Faults, passes and rounds on the machine, each beside whatever could get in
//! its way, in every order of steps.

use stage2::{
    Aging, Budget, Cursor, Detail, Generation, Installed, Ipa, IpaRange, Leaf, Level, MapError, Permissions,
    PhysAddr, Resolved, Tlb,
};

use super::operations::at_every_step;
use crate::model::rig::{Rig, range};
use crate::model::{Access, Outcome};

const PAGE: u64 = 0x1000;
const MIB2: u64 = 0x20_0000;
const RAM: u64 = 0x4000_0000;

type Answer = Result<(), MapError>;

fn pages(first: u64, count: u64) -> IpaRange {
    range(first * PAGE, count * PAGE)
}

/// A vCPU of CPU `cpu` faults on `ipa` until something is mapped there.
fn fault(rig: &Rig<'_>, cpu: usize, ipa: u64, leaf: Leaf) {
    let cpu = rig.cpu(cpu);
    let install = || {
        let always = || Ok::<(), ()>(());
        rig.space.install(&cpu.pin(), Ipa::new(ipa), leaf, None, always, &cpu.maintenance).unwrap()
    };
    let mut installed = install();
    while installed == Installed::Retry {
        stage2::TableMemory::relax(rig.machine);
        installed = install();
    }
    assert!(matches!(installed, Installed::Done(_) | Installed::AlreadyMapped(_)), "{installed:?}");
}

fn page(rig: &Rig<'_>, output: u64) -> Leaf {
    rig.space.leaf(Level::L3, PhysAddr::new(output), stage2::Attributes::RAM).unwrap()
}

fn pass(rig: &Rig<'_>, cpu: usize, over: IpaRange, tlb: Tlb) -> Answer {
    let cpu = rig.cpu(cpu);
    let (mut cursor, aging) = (Cursor::new(over), Aging::Clear(tlb));
    rig.space
        .age_step(&cpu.pin(), &mut cursor, aging, Budget::UNLIMITED, &cpu.maintenance, |_| {})
        .map(|_| ())
}

/// A round, which copies what it is told of. Guests map all their memory from
/// [`RAM`] on here.
fn round(rig: &Rig<'_>, cpu: usize, over: IpaRange, detail: Detail) -> Answer {
    let cpu = rig.cpu(cpu);
    let mut cursor = Cursor::new(over);
    rig.space
        .collect_dirty_step(&cpu.pin(), &mut cursor, detail, Budget::UNLIMITED, &cpu.maintenance, |found| {
            rig.machine.copy(RAM + found.start().bits(), found.size());
        })
        .map(|_| ())
}

fn map(rig: &Rig<'_>, cpu: usize) -> Answer {
    rig.cpu(cpu).map(pages(0, 2), RAM)
}

fn outcome(rig: &Rig<'_>, ipa: u64, access: Access) -> Vec<Outcome> {
    rig.machine.outcomes(2, 1, ipa, access)
}

#[test]
fn c30_page_and_block_are_installed_by_two_faults_and_both_guests_get_on() {
    at_every_step(
        1,
        |_, _| Ok(()),
        [
            |rig, cpu| {
                let block = rig.space.leaf(Level::L2, PhysAddr::new(RAM), stage2::Attributes::RAM)?;
                fault(rig, cpu, 5 * PAGE, block);
                Ok(())
            },
            |rig, cpu| {
                fault(rig, cpu, 3 * PAGE, page(rig, RAM + 3 * PAGE));
                Ok(())
            },
        ],
        |rig| {
            assert_eq!(outcome(rig, 5 * PAGE, Access::Read), [Outcome::Reaches(RAM + 5 * PAGE)]);
            assert_eq!(outcome(rig, 3 * PAGE, Access::Read), [Outcome::Reaches(RAM + 3 * PAGE)]);
        },
    );
}

#[test]
fn page_is_installed_beside_the_removal_of_its_table() {
    for swap in [false, true] {
        let fault_on_1: fn(&Rig<'_>, usize) -> Answer = |rig, cpu| {
            fault(rig, cpu, PAGE, page(rig, RAM + PAGE));
            Ok(())
        };
        let unmap_0: fn(&Rig<'_>, usize) -> Answer = |rig, cpu| rig.cpu(cpu).unmap(pages(0, 1));
        let both = if swap { [unmap_0, fault_on_1] } else { [fault_on_1, unmap_0] };
        at_every_step(
            if swap { 5 } else { 1 },
            |rig, cpu| rig.cpu(cpu).map(pages(0, 1), RAM),
            both,
            |rig| {
                let mapped = rig.space.lookup(&rig.cpu(0).pin(), Ipa::new(PAGE)).map(|leaf| leaf.output);
                assert_eq!(mapped, Some(PhysAddr::new(RAM + PAGE)));
                assert_eq!(outcome(rig, 0, Access::Read), [Outcome::TranslationFault]);
            },
        );
    }
}

#[test]
fn c12_pass_beside_a_split_changes_no_meaning() {
    at_every_step(
        1,
        |rig, cpu| rig.cpu(cpu).map(range(0, MIB2), RAM),
        [
            |rig, cpu| rig.cpu(cpu).protect(pages(0, 1), Permissions::READ_ONLY),
            |rig, cpu| pass(rig, cpu, pages(0, 4), Tlb::None),
        ],
        |rig| {
            let reached = outcome(rig, PAGE, Access::Write);
            let fine = [Outcome::Reaches(RAM + PAGE), Outcome::AccessFlagFault];
            assert!(reached.iter().all(|outcome| fine.contains(outcome)), "{reached:?}");
            let write = outcome(rig, 0, Access::Write);
            assert!(!write.contains(&Outcome::Reaches(RAM)), "{write:?}");
        },
    );
}

#[test]
fn pass_beside_an_access_flag_fault_leaves_one_of_both_in_effect() {
    at_every_step(
        1,
        map,
        [
            |rig, cpu| pass(rig, cpu, pages(0, 2), Tlb::Batch),
            |rig, cpu| {
                let cpu = rig.cpu(cpu);
                let resolved = rig.space.make_young(&cpu.pin(), Ipa::new(0), &cpu.maintenance);
                assert_ne!(resolved, Resolved::NotMapped);
                Ok(())
            },
        ],
        |rig| assert_eq!(outcome(rig, PAGE, Access::Read), [Outcome::AccessFlagFault]),
    );
}

#[test]
fn c10_permission_is_relaxed_by_two_cpus_and_never_taken_away() {
    at_every_step(
        1,
        |rig, cpu| {
            map(rig, cpu)?;
            rig.cpu(cpu).protect(pages(0, 2), Permissions::NONE)
        },
        [
            |rig, cpu| {
                relax(rig, cpu, Permissions::READ_ONLY);
                Ok(())
            },
            |rig, cpu| {
                relax(rig, cpu, Permissions::READ_WRITE);
                Ok(())
            },
        ],
        |rig| {
            // A CPU that was not asked may still have to fault once.
            assert!(outcome(rig, 0, Access::Write).contains(&Outcome::Reaches(RAM)));
            for cpu in 0..2 {
                assert_eq!(rig.machine.outcomes(cpu, 1, 0, Access::Read), [Outcome::Reaches(RAM)]);
            }
        },
    );
}

/// Two faults are enough, whoever else is at work.
fn relax(rig: &Rig<'_>, cpu: usize, permissions: Permissions) {
    let cpu = rig.cpu(cpu);
    let faults = (1..3)
        .find(|_| rig.space.relax(&cpu.pin(), Ipa::new(0), permissions, &cpu.maintenance) == Resolved::Done);
    assert!(faults.is_some(), "two faults were not enough");
}

#[test]
fn nothing_is_copied_that_a_guest_can_still_write_to_unnoticed() {
    at_every_step(
        1,
        map,
        [
            |rig, cpu| round(rig, cpu, pages(0, 4), Detail::Leaves),
            |rig, cpu| {
                relax(rig, cpu, Permissions::READ_WRITE);
                pass(rig, cpu, pages(0, 2), Tlb::None)
            },
        ],
        |_| {},
    );
}

#[test]
fn block_is_split_for_a_round_beside_another_round() {
    at_every_step(
        41,
        |rig, cpu| rig.cpu(cpu).map(range(0, MIB2), RAM),
        [
            |rig, cpu| round(rig, cpu, range(0, MIB2), Detail::Pages),
            |rig, cpu| round(rig, cpu, range(0, MIB2), Detail::Leaves),
        ],
        |rig| assert_eq!(outcome(rig, 7 * PAGE, Access::Write), [Outcome::PermissionFault]),
    );
}

#[test]
fn cold_page_is_taken_beside_one_who_uses_it_or_stays() {
    at_every_step(
        1,
        |rig, cpu| {
            map(rig, cpu)?;
            pass(rig, cpu, pages(0, 2), Tlb::Batch)
        },
        [
            |rig, cpu| {
                let cpu = rig.cpu(cpu);
                let (mut cursor, mut taken) = (Cursor::new(pages(0, 2)), Vec::new());
                rig.space
                    .reclaim_step(
                        &cpu.pin(),
                        &mut cursor,
                        Generation::YOUNGEST,
                        Budget::UNLIMITED,
                        &cpu.maintenance,
                        |leaf| taken.push(leaf),
                    )
                    .map(|_| ())?;
                // Whoever gets the memory now is its only user.
                taken.iter().for_each(|leaf| rig.machine.reuse(leaf.output.bits(), leaf.range.size()));
                assert!(!taken.is_empty());
                Ok(())
            },
            |rig, cpu| {
                let cpu = rig.cpu(cpu);
                let _ = rig.space.make_young(&cpu.pin(), Ipa::new(0), &cpu.maintenance);
                Ok(())
            },
        ],
        |rig| assert_eq!(outcome(rig, PAGE, Access::Read), [Outcome::TranslationFault]),
    );
}
