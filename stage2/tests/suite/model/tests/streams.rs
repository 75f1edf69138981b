//! Streams of operations on several CPUs at once, with guests at work beside
//! them, under schedules drawn at random.
//!
//! What the streams mean is not looked at here, for it depends on who came
//! first. The claim is that no order breaks a rule of the machine.

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};

use stage2::{AccessFlag, Features, Geometry, Granule, IpaRange, Level, MapError, PaSize, Permissions};

use crate::model::rig::{Rig, range};
use crate::model::{Access, Config, Machine, Schedule, Task};

/// One thing that a CPU does.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Map(IpaRange, u64),
    Unmap(IpaRange),
    Protect(IpaRange, Permissions),
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
    let addresses = || ranges(granule).prop_map(|range| range.start().bits());
    let outputs = (1_u64..4).prop_map(|gib| gib << 36);
    prop_oneof![
        4 => (ranges(granule), outputs).prop_map(|(range, output)| Deed::Map(range, output + range.start().bits())),
        4 => ranges(granule).prop_map(Deed::Unmap),
        3 => (ranges(granule), permissions).prop_map(|(range, permissions)| Deed::Protect(range, permissions)),
        1 => Just(Deed::Reclaim),
        3 => (addresses(), accesses, any::<usize>()).prop_map(|(ipa, access, way)| Deed::Access(ipa, access, way)),
        1 => addresses().prop_map(Deed::Speculate),
    ]
}

fn perform(rig: &Rig<'_>, number: usize, deeds: &[Deed]) {
    for &deed in deeds {
        let cpu = rig.cpu(number);
        let result = match deed {
            Deed::Map(range, output) => cpu.map(range, output),
            Deed::Unmap(range) => cpu.unmap(range),
            Deed::Protect(range, permissions) => cpu.protect(range, permissions),
            Deed::Reclaim => {
                cpu.reclaim();
                Ok(())
            }
            Deed::Access(ipa, access, way) => {
                rig.machine.access(number, 1, ipa, access, way);
                Ok(())
            }
            Deed::Speculate(ipa) => {
                rig.machine.speculate(number, 1, ipa);
                Ok(())
            }
        };
        assert!(matches!(result, Ok(()) | Err(MapError::AlreadyMapped { .. })), "{deed:?}: {result:?}");
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
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (shapes, flags).prop_flat_map(|((granule, pa_size), (level_hints, range_operations, repeat))| {
        let table_memory = 64 * granule.page_size();
        let config = Config { cpus: 3, table_memory, level_hints, range_operations, repeat, bbm2: false };
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
        let features = Features { access_flag: AccessFlag::Hardware, ..Features::BASE };
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
