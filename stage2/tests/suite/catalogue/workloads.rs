//! What Linux' own tests of its page tables do, in small.

use stage2::{
    Attributes, Budget, Cursor, Detail, Features, Geometry, Granule, Ipa, IpaRange, Leaf, PaSize,
    Permissions, PhysAddr, Resolved, Step,
};

use crate::kit::Lone;
use crate::machine::Machine;
use crate::model::rig::{Rig, range};
use crate::model::{Access, Config, Machine as Model, Outcome};

const PAGE: u64 = 0x1000;
const MIB2: u64 = 0x20_0000;
const RAM: u64 = 0x4000_0000;

fn space(machine: &Machine) -> Lone<'_, Machine> {
    let geometry = Geometry::new(Granule::Kib4, 40, PaSize::Bits40).unwrap();
    Lone::new(geometry, Features::BASE, machine).unwrap()
}

#[test]
fn c26_change_of_one_page_leaves_the_rest_of_its_block_as_it_was() {
    let machine = Machine::new(16);
    let space = space(&machine);
    let attributes = Attributes { permissions: Permissions::READ_EXECUTE, ..Attributes::RAM };
    space.map(range(0, MIB2), PhysAddr::new(RAM), attributes, &machine).unwrap();
    // Old, which is no default of anything.
    space.update(Ipa::new(0), Leaf::aged);
    space.protect(range(7 * PAGE, PAGE), Permissions::READ_ONLY, &machine).unwrap();
    let rest = space.leaves(range(0, MIB2)).filter(|leaf| leaf.range.start() != Ipa::new(7 * PAGE));
    let as_it_was = rest.filter(|leaf| leaf.attributes == attributes && !leaf.young);
    assert_eq!(as_it_was.count(), 511);
    space.destroy(&machine);
    machine.check();
}

/// Memory of one kind, and what each access to it comes to.
struct Kind {
    setup: fn(&Rig<'_>),
    /// Reading, writing, executing.
    outcomes: [Outcome; 3],
}

#[test]
fn c85_every_access_to_every_kind_of_memory() {
    let (reaches, refused, absent) =
        (Outcome::Reaches(RAM), Outcome::PermissionFault, Outcome::TranslationFault);
    let kinds = [
        Kind { setup: |_| {}, outcomes: [absent; 3] },
        Kind { setup: |rig| rig.cpu(0).map(range(0, PAGE), RAM).unwrap(), outcomes: [reaches; 3] },
        Kind {
            setup: |rig| {
                rig.cpu(0).map(range(0, MIB2), RAM).unwrap();
                rig.cpu(0).protect(range(0, PAGE), Permissions::READ_ONLY).unwrap();
            },
            outcomes: [reaches, refused, refused],
        },
        Kind {
            // Logged: the first write faults.
            setup: |rig| {
                let cpu = rig.cpu(0);
                cpu.map(range(0, PAGE), RAM).unwrap();
                let (mut cursor, budget) = (Cursor::new(range(0, PAGE)), Budget::UNLIMITED);
                let (guard, detail) = (cpu.pin(), Detail::Leaves);
                let cleaned = |_: IpaRange| {};
                let _ = rig
                    .space
                    .collect_dirty_step(&guard, &mut cursor, detail, budget, &cpu.maintenance, cleaned)
                    .unwrap();
            },
            outcomes: [reaches, refused, reaches],
        },
        Kind {
            // Taken back.
            setup: |rig| {
                rig.cpu(0).map(range(0, PAGE), RAM).unwrap();
                rig.cpu(0).unmap(range(0, PAGE)).unwrap();
            },
            outcomes: [absent; 3],
        },
    ];
    for (number, kind) in kinds.into_iter().enumerate() {
        let machine = Model::new(Config::FULL);
        let rig = Rig::new(&machine);
        (kind.setup)(&rig);
        for (access, outcome) in [Access::Read, Access::Write, Access::Execute].into_iter().zip(kind.outcomes)
        {
            // On either CPU, whatever its TLB holds.
            for cpu in [0, 1] {
                assert_eq!(machine.outcomes(cpu, 1, 0, access), [outcome], "kind {number}, {access:?}");
            }
        }
        rig.finish();
    }
}

#[test]
fn c86_blocks_are_created_logged_and_made_whole_again() {
    let machine = Machine::new(16);
    let (space, cpu) = (space(&machine), machine.cpu());
    let whole = range(0, 2 * MIB2);
    space.map(whole, PhysAddr::new(RAM), Attributes::RAM, &machine).unwrap();
    let collect = || {
        let (mut cursor, mut found) = (Cursor::new(whole), Vec::new());
        let (detail, budget) = (Detail::Pages, Budget::UNLIMITED);
        let visit = |range| found.push(range);
        let step = space.collect_dirty_step(&cpu.pin(), &mut cursor, detail, budget, &machine, visit);
        assert_eq!(step, Ok(Step::Done));
        found.into_iter().map(IpaRange::size).sum::<u64>()
    };
    assert_eq!(collect(), 2 * MIB2, "all may have been written to");
    for page in [0, 5, 511, 700] {
        let ipa = Ipa::new(page * PAGE);
        let written = space.relax(&cpu.pin(), ipa, Permissions::READ_WRITE, &machine);
        assert_eq!(written, Resolved::Done);
    }
    assert_eq!(collect(), 4 * PAGE);
    let mut cursor = Cursor::new(whole);
    let step = space.stop_logging_step(&cpu.pin(), &mut cursor, Budget::UNLIMITED, &machine);
    assert_eq!(step, Ok(Step::Done));
    for block in [0, MIB2] {
        let made = space.collapse(&cpu.pin(), Ipa::new(block), &machine).unwrap();
        assert_eq!((made.range, made.output), (range(block, MIB2), PhysAddr::new(RAM + block)));
    }
    assert_eq!(space.leaves(whole).count(), 2);
    machine.check();
    space.destroy(&machine);
    assert_eq!(machine.tables_in_use(), 0);
}

#[test]
fn c88_block_and_a_page_beyond_are_filled_at_once() {
    let machine = Machine::new(16);
    let space = space(&machine);
    space.map(range(0, MIB2 + PAGE), PhysAddr::new(RAM), Attributes::RAM, &machine).unwrap();
    let sizes: Vec<_> = space.leaves(range(0, 2 * MIB2)).map(|leaf| leaf.range.size()).collect();
    assert_eq!(sizes, [MIB2, PAGE]);
    space.destroy(&machine);
    machine.check();
}
