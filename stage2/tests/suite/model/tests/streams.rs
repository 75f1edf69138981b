//! Streams of operations on several CPUs at once, with guests at work beside
//! them, under schedules drawn at random.
//!
//! What the streams mean is not looked at here, for it depends on who came
//! first. The claim is that no order breaks a rule of the machine.

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};

use stage2::{
    AccessFlag, Aging, Annotation, Bbm, Budget, Contiguous, Cursor, Detail, DirtyState, Features, Geometry,
    Granule, Ipa, IpaRange, Level, MapError, Mapping, PaSize, Permissions, PhysAddr, Tlb,
};

use crate::model::rig::{Rig, range};
use crate::model::{Access, Config, Machine, Schedule, Task};

/// One thing that a CPU does.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Map(IpaRange, u64),
    Unmap(IpaRange),
    Protect(IpaRange, Permissions),
    Relax(Ipa, Permissions),
    MakeYoung(Ipa),
    Age(IpaRange, Aging),
    CollectDirty(IpaRange),
    Split(IpaRange),
    Collapse(Ipa),
    Fold(Ipa),
    Unfold(Ipa),
    Migrate(u64, u64),
    Annotate(IpaRange),
    ClearAnnotations(IpaRange),
    Reclaim,
    /// A guest's access, by one of the ways it may go.
    Access(u64, Access, usize),
    /// A walker comes by for no reason.
    Speculate(u64),
}

fn ranges(granule: Granule) -> impl Strategy<Value = IpaRange> {
    let (page, block) = (granule.page_size(), granule.span(Level::L2));
    let bound = prop_oneof![
        3 => (0_u64..6).prop_map(move |pages| pages * page),
        2 => (0_u64..4).prop_map(move |blocks| blocks * block),
        1 => (0_u64..6).prop_map(move |pages| 2 * block - pages * page),
    ];
    let size = prop_oneof![3 => (1_u64..5).prop_map(move |pages| pages * page), 1 => Just(block), 1 => Just(2 * block)];
    (bound, size).prop_map(|(start, size)| range(start, size))
}

fn deeds(granule: Granule) -> impl Strategy<Value = Deed> {
    let permissions = prop_oneof![
        Just(Permissions::ALL),
        Just(Permissions::READ_ONLY),
        Just(Permissions::READ_WRITE),
        Just(Permissions::NONE)
    ];
    let accesses = prop_oneof![Just(Access::Read), Just(Access::Write), Just(Access::Execute)];
    let agings =
        prop_oneof![Just(Aging::Test), Just(Aging::Clear(Tlb::None)), Just(Aging::Clear(Tlb::Batch))];
    let ipas = move || ranges(granule).prop_map(|range| range.start());
    let addresses = move || ranges(granule).prop_map(|range| range.start().bits());
    let outputs = || (1_u64..4).prop_map(|gib| gib << 36);
    prop_oneof![
        4 => (ranges(granule), outputs()).prop_map(|(range, output)| Deed::Map(range, output + range.start().bits())),
        4 => ranges(granule).prop_map(Deed::Unmap),
        3 => (ranges(granule), permissions.clone()).prop_map(|(range, permissions)| Deed::Protect(range, permissions)),
        1 => (ipas(), permissions.clone()).prop_map(|(ipa, permissions)| Deed::Relax(ipa, permissions)),
        1 => ipas().prop_map(Deed::MakeYoung),
        1 => (ranges(granule), agings).prop_map(|(range, aging)| Deed::Age(range, aging)),
        2 => ranges(granule).prop_map(Deed::CollectDirty),
        2 => ranges(granule).prop_map(Deed::Split),
        3 => ipas().prop_map(Deed::Collapse),
        2 => ipas().prop_map(Deed::Fold),
        1 => ipas().prop_map(Deed::Unfold),
        1 => (addresses(), outputs()).prop_map(|(ipa, output)| Deed::Migrate(ipa, output + ipa)),
        1 => ranges(granule).prop_map(Deed::Annotate),
        1 => ranges(granule).prop_map(Deed::ClearAnnotations),
        1 => Just(Deed::Reclaim),
        3 => (addresses(), accesses, any::<usize>()).prop_map(|(ipa, access, way)| Deed::Access(ipa, access, way)),
        1 => addresses().prop_map(Deed::Speculate),
    ]
}

fn perform(rig: &Rig<'_>, number: usize, deeds: &[Deed]) {
    for &deed in deeds {
        let cpu = rig.cpu(number);
        let (space, guard, maintenance) = (&rig.space, &cpu.pin(), &cpu.maintenance);
        let whole = Budget::UNLIMITED;
        let result = match deed {
            Deed::Map(range, output) => cpu.map(range, output),
            Deed::Unmap(range) => cpu.unmap(range),
            Deed::Protect(range, permissions) => cpu.protect(range, permissions),
            Deed::Age(range, aging) => {
                let cursor = &mut Cursor::new(range);
                space.age_step(guard, cursor, aging, whole, maintenance, |_| {}).map(|_| ())
            }
            Deed::CollectDirty(range) => {
                let cursor = &mut Cursor::new(range);
                let detail = Detail::Leaves;
                space.collect_dirty_step(guard, cursor, detail, whole, maintenance, |_| {}).map(|_| ())
            }
            Deed::Split(range) => {
                let cursor = &mut Cursor::new(range);
                space.split_step(guard, cursor, Level::L3, whole, maintenance).map(|_| ())
            }
            Deed::Annotate(range) => {
                let (cursor, note) = (&mut Cursor::new(range), Annotation::new(1).unwrap());
                space.annotate_step(guard, cursor, note, whole, maintenance).map(|_| ())
            }
            Deed::ClearAnnotations(range) => {
                let cursor = &mut Cursor::new(range);
                space.clear_annotations_step(guard, cursor, whole, maintenance).map(|_| ())
            }
            // The others are refused where they make no sense, and say so.
            deed => {
                match deed {
                    Deed::Relax(ipa, permissions) => drop(space.relax(guard, ipa, permissions, maintenance)),
                    Deed::MakeYoung(ipa) => drop(space.make_young(guard, ipa, maintenance)),
                    Deed::Collapse(ipa) => drop(space.collapse(guard, ipa, maintenance)),
                    Deed::Fold(ipa) => drop(space.fold(guard, ipa, maintenance)),
                    Deed::Unfold(ipa) => space.unfold(guard, ipa, maintenance),
                    Deed::Migrate(ipa, output) => {
                        let copy = |from: Mapping| rig.machine.copy(from.output.bits(), from.range.size());
                        drop(space.migrate(guard, Ipa::new(ipa), PhysAddr::new(output), copy, maintenance));
                    }
                    Deed::Access(ipa, access, way) => drop(rig.machine.access(number, 1, ipa, access, way)),
                    Deed::Speculate(ipa) => rig.machine.speculate(number, 1, ipa),
                    _ => drop(cpu.reclaim()),
                }
                Ok(())
            }
        };
        let refused = matches!(result, Err(MapError::AlreadyMapped { .. } | MapError::Annotated { .. }));
        assert!(result.is_ok() || refused, "{deed:?}: {result:?}");
    }
}

/// A shape and a machine, and two or three CPUs' streams of deeds.
fn scenario() -> impl Strategy<Value = (Granule, PaSize, Config, Vec<Vec<Deed>>)> {
    let shapes = prop_oneof![
        4 => Just((Granule::Kib4, PaSize::Bits40)),
        1 => Just((Granule::Kib4, PaSize::Bits52)),
        1 => Just((Granule::Kib16, PaSize::Bits48)),
        1 => Just((Granule::Kib16, PaSize::Bits52)),
    ];
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (shapes, flags).prop_flat_map(|((granule, pa_size), (level_hints, range_operations, repeat, bbm2))| {
        let table_memory = 64 * granule.page_size();
        let config = Config { cpus: 3, table_memory, level_hints, range_operations, repeat, bbm2 };
        let streams = proptest::collection::vec(proptest::collection::vec(deeds(granule), 1..5), 2..4);
        (Just(granule), Just(pa_size), Just(config), streams)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_deeds_breaks_a_rule(
        (granule, pa_size, config, streams) in scenario(),
        seed in any::<u64>(),
        rarity in prop_oneof![Just(2_u64), Just(8), Just(40), Just(200)],
    ) {
        let machine = Machine::new(config);
        let geometry = Geometry::new(granule, 40, pa_size).unwrap();
        let bbm = if config.bbm2 { Bbm::Level2 } else { Bbm::Level0 };
        let features =
            Features { access_flag: AccessFlag::Hardware, dirty: DirtyState::Hardware, bbm, contiguous: Contiguous::Allowed, ..Features::BASE };
        let rig = Rig::with_shape(&machine, geometry, features, 1);
        let (page, block) = (granule.page_size(), granule.span(Level::L2));
        rig.cpu(0).map(range(0, block + 3 * page), 1 << 36).unwrap();
        let tasks = streams.iter().enumerate().map(|(number, deeds)| {
            let rig = &rig;
            Box::new(move || perform(rig, number, deeds)) as Task<'_>
        });
        machine.run(Schedule::Random { seed, rarity }, tasks.collect());
        assert_eq!(machine.rest(), Vec::<String>::new());
        rig.finish();
        assert_eq!(machine.in_use(), 0);
    }
}
