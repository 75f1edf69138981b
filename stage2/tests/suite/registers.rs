//! VTCR_EL2 and the ID registers behind a geometry, against literals and
//! against a second reading of the manual: [`walk`] is what a CPU makes of a
//! register value, written after the conditions of the manual's pseudocode and
//! without a look at the crate.

use stage2::vtcr::vtcr;
use stage2::{
    AccessFlag, DirtyState, Features, Fwb, Geometry, Granule, Ipa, IpaRange, Level, PaSize, VmidSize,
};

const GRANULES: [Granule; 3] = [Granule::Kib4, Granule::Kib16, Granule::Kib64];
const LEVELS: [Level; 4] = [Level::L0, Level::L1, Level::L2, Level::L3];
const PA_SIZES: [PaSize; 7] = [
    PaSize::Bits32,
    PaSize::Bits36,
    PaSize::Bits40,
    PaSize::Bits42,
    PaSize::Bits44,
    PaSize::Bits48,
    PaSize::Bits52,
];

/// A walk as a CPU would do it.
#[derive(Debug, PartialEq, Eq)]
struct Walk {
    page_bits: u32,
    ipa_bits: u32,
    pa_bits: u32,
    start_level: i32,
    root_tables: usize,
}

/// What a CPU with `pa_max` bits of physical address, and without FEAT_TTST,
/// makes of a value of VTCR_EL2; `None` if every access faults.
fn walk(vtcr: u64, pa_max: u32) -> Option<Walk> {
    let field = |low: u32, width: u32| (vtcr >> low & ((1 << width) - 1)) as u32;
    let page_bits = match field(14, 2) {
        0b00 => 12,
        0b01 => 16,
        0b10 => 14,
        _ => return None,
    };
    let ds = field(32, 1) == 1 && page_bits != 16;
    let may_be_wide = ds || page_bits == 16;

    // S2MinTxSZ and MaxTxSZ.
    let ipa_bits = 64 - field(0, 6);
    let widest = if may_be_wide { pa_max } else { pa_max.min(48) };
    if ipa_bits > widest || ipa_bits < 25 {
        return None;
    }

    // S2StartLevel and S2InvalidSL.
    let start_level = match (page_bits, field(33, 1), field(6, 2)) {
        (12, 1, 0b00) if ds && pa_max >= 52 => -1,
        (12, 0, 0b00) => 2,
        (12, 0, 0b01) => 1,
        (12, 0, 0b10) if pa_max >= 44 => 0,
        (14 | 16, _, 0b00) => 3,
        (14 | 16, _, 0b01) => 2,
        (14, _, 0b10) if pa_max >= 42 => 1,
        (14, _, 0b11) if ds && pa_max >= 52 => 0,
        (16, _, 0b10) if pa_max >= 44 => 1,
        _ => return None,
    };

    // S2InconsistentSL.
    let stride = page_bits - 3;
    let below = page_bits + (3 - start_level) as u32 * stride;
    if ipa_bits < below + 1 || ipa_bits > below + stride + 4 {
        return None;
    }

    let pa_bits = match field(16, 3) {
        0b000 => 32,
        0b001 => 36,
        0b010 => 40,
        0b011 => 42,
        0b100 => 44,
        0b101 => 48,
        0b110 if may_be_wide => 52,
        _ => return None,
    };
    let root_tables = 1 << ipa_bits.saturating_sub(below + stride);
    Some(Walk { page_bits, ipa_bits, pa_bits, start_level, root_tables })
}

fn page_bits(granule: Granule) -> u32 {
    match granule {
        Granule::Kib4 => 12,
        Granule::Kib16 => 14,
        Granule::Kib64 => 16,
    }
}

/// Every width, start level and size of physical addresses, possible or not.
fn for_every_shape(mut claim: impl FnMut(Granule, u32, PaSize, Level)) {
    for granule in GRANULES {
        for ipa_bits in 32..=52 {
            for pa_size in PA_SIZES {
                for level in LEVELS {
                    claim(granule, ipa_bits, pa_size, level);
                }
            }
        }
    }
}

#[test]
fn vtcr_of_every_geometry_describes_exactly_its_walk() {
    let mut geometries = 0;
    for_every_shape(|granule, ipa_bits, pa_size, level| {
        let Ok(geometry) = Geometry::with_start_level(granule, ipa_bits, pa_size, level) else { return };
        let expected = Walk {
            page_bits: page_bits(granule),
            ipa_bits,
            pa_bits: pa_size.bits(),
            start_level: level.number() as i32,
            root_tables: geometry.root_tables(),
        };
        assert_eq!(walk(vtcr(&geometry, Features::BASE), pa_size.bits()), Some(expected), "{geometry:?}");
        geometries += 1;
    });
    assert!(geometries > 200, "only {geometries} geometries exist");
}

#[test]
fn every_refused_geometry_has_no_walk() {
    for_every_shape(|granule, ipa_bits, pa_size, level| {
        if Geometry::with_start_level(granule, ipa_bits, pa_size, level).is_ok() {
            return;
        }
        let tg0: u64 = match granule {
            Granule::Kib4 => 0b00,
            Granule::Kib16 => 0b10,
            Granule::Kib64 => 0b01,
        };
        let ds = u64::from(pa_size == PaSize::Bits52);
        for sl0 in 0..4 {
            let vtcr = u64::from(64 - ipa_bits) | sl0 << 6 | tg0 << 14 | ds << 32;
            let start_level = walk(vtcr, pa_size.bits()).map(|walk| walk.start_level);
            assert_ne!(start_level, Some(level.number() as i32), "{granule:?}, {ipa_bits}, {pa_size:?}");
        }
    });
}

#[test]
fn start_level_and_root_of_every_width_with_4_kib_pages() {
    let l0 = (44..=52).map(|bits| (bits, Level::L0, [1, 1, 1, 1, 1, 2, 4, 8, 16][bits as usize - 44]));
    let l1 = (35..=43).map(|bits| (bits, Level::L1, [1, 1, 1, 1, 1, 2, 4, 8, 16][bits as usize - 35]));
    let l2 = (32..=34).map(|bits| (bits, Level::L2, [4, 8, 16][bits as usize - 32]));
    check_shapes(Granule::Kib4, l2.chain(l1).chain(l0));
}

#[test]
fn start_level_and_root_of_every_width_with_16_kib_pages() {
    let l1 = (41..=51).map(|bits| (bits, Level::L1, [1, 1, 1, 1, 1, 1, 1, 2, 4, 8, 16][bits as usize - 41]));
    let l2 = (32..=40).map(|bits| (bits, Level::L2, [1, 1, 1, 1, 1, 2, 4, 8, 16][bits as usize - 32]));
    check_shapes(Granule::Kib16, l2.chain(l1).chain([(52, Level::L0, 1)]));
}

#[test]
fn start_level_and_root_of_every_width_with_64_kib_pages() {
    let l1 = (47..=52).map(|bits| (bits, Level::L1, 1));
    let l2 = (32..=46).map(|bits| (bits, Level::L2, if bits > 42 { 1 << (bits - 42) } else { 1 }));
    check_shapes(Granule::Kib64, l2.chain(l1));
}

fn check_shapes(granule: Granule, expected: impl Iterator<Item = (u32, Level, usize)>) {
    let mut widths = 0;
    for (ipa_bits, level, root_tables) in expected {
        let geometry = Geometry::new(granule, ipa_bits, PaSize::Bits52).unwrap();
        let shape = (geometry.start_level(), geometry.root_tables());
        assert_eq!(shape, (level, root_tables), "{granule:?}, {ipa_bits} bits");
        widths += 1;
    }
    assert_eq!(widths, 21, "every width from 32 to 52 bits");
}

#[test]
fn no_shorter_walk_of_two_levels_exists_than_the_one_chosen() {
    for granule in GRANULES {
        for ipa_bits in 32..=52 {
            let chosen = Geometry::new(granule, ipa_bits, PaSize::Bits52).unwrap().start_level().number();
            for shorter in LEVELS.into_iter().filter(|level| (chosen + 1..3).contains(&level.number())) {
                assert!(Geometry::with_start_level(granule, ipa_bits, PaSize::Bits52, shorter).is_err());
            }
        }
    }
}

#[test]
fn addresses_beyond_the_space_are_outside_for_every_width() {
    for granule in GRANULES {
        for ipa_bits in 32..=52 {
            let geometry = Geometry::new(granule, ipa_bits, PaSize::Bits52).unwrap();
            let contains =
                |start: u64, size| geometry.contains(IpaRange::new(Ipa::new(start), size).unwrap());
            let end = 1 << ipa_bits;
            assert!(contains(end - 1, 1));
            assert!(contains(0, end));
            assert!(!contains(end, 1));
            assert!(!contains(end - 1, 2));
            assert!(!contains(0, end + 1));
            // High bits that, cut off, would be an address inside.
            for bit in ipa_bits..60 {
                assert!(!contains(1 << bit, 1), "{geometry:?}, bit {bit}");
            }
        }
    }
}

#[test]
fn numbers_that_are_no_address_are_refused_when_they_become_one() {
    for number in [1 << 60, 1 << 63, u64::MAX] {
        assert_eq!(Ipa::try_new(number), None);
    }
    assert_eq!(IpaRange::new(Ipa::new((1 << 60) - 1), u64::MAX), None);
}

fn vtcr_of(granule: Granule, ipa_bits: u32, pa_size: PaSize, features: Features) -> u64 {
    vtcr(&Geometry::new(granule, ipa_bits, pa_size).unwrap(), features)
}

/// RES1 | SH0 inner | ORGN0, IRGN0 write-back: what all share.
const COMMON: u64 = 0x8000_3500;

#[test]
fn vtcr_with_4_kib_pages() {
    let vtcr = |ipa_bits, pa_size| vtcr_of(Granule::Kib4, ipa_bits, pa_size, Features::BASE);
    // What other hypervisors use for 40 bits.
    assert_eq!(vtcr(40, PaSize::Bits40), 0x8002_3558);
    // PS 32 bits, SL0 0b00, T0SZ 32.
    assert_eq!(vtcr(32, PaSize::Bits32), COMMON | 32);
    // PS 44 bits 0b100, SL0 0b01, T0SZ 25.
    assert_eq!(vtcr(39, PaSize::Bits44), COMMON | 0x4_0000 | 0x40 | 25);
    // PS 48 bits 0b101, SL0 0b10, T0SZ 16.
    assert_eq!(vtcr(48, PaSize::Bits48), 0x8005_3590);
    // DS, PS 52 bits 0b110, SL0 0b10, T0SZ 12.
    assert_eq!(vtcr(52, PaSize::Bits52), 0x1_8006_358c);
}

#[test]
fn vtcr_with_16_kib_pages() {
    let vtcr = |ipa_bits, pa_size| vtcr_of(Granule::Kib16, ipa_bits, pa_size, Features::BASE);
    // TG0 0b10; SL0 0b01 is level 2.
    assert_eq!(vtcr(40, PaSize::Bits40), COMMON | 0x8000 | 0x2_0000 | 0x40 | 24);
    // SL0 0b10 is level 1.
    assert_eq!(vtcr(48, PaSize::Bits48), COMMON | 0x8000 | 0x5_0000 | 0x80 | 16);
    // DS; SL0 0b11 is level 0.
    assert_eq!(vtcr(52, PaSize::Bits52), COMMON | 1 << 32 | 0x8000 | 0x6_0000 | 0xc0 | 12);
}

#[test]
fn vtcr_with_64_kib_pages() {
    let vtcr = |ipa_bits, pa_size| vtcr_of(Granule::Kib64, ipa_bits, pa_size, Features::BASE);
    // TG0 0b01; SL0 0b01 is level 2.
    assert_eq!(vtcr(40, PaSize::Bits40), COMMON | 0x4000 | 0x2_0000 | 0x40 | 24);
    // SL0 0b10 is level 1; 52 bits take no DS.
    assert_eq!(vtcr(52, PaSize::Bits52), COMMON | 0x4000 | 0x6_0000 | 0x80 | 12);
}

#[test]
fn vtcr_has_ha_hd_and_vs_where_they_were_asked_for() {
    let vtcr = |features| vtcr_of(Granule::Kib4, 40, PaSize::Bits40, features);
    let base = vtcr(Features::BASE);
    let accessed = Features { access_flag: AccessFlag::Hardware, ..Features::BASE };
    assert_eq!(vtcr(accessed), base | 1 << 21);
    let dirty = Features { dirty: DirtyState::Hardware, ..accessed };
    assert_eq!(vtcr(dirty), base | 1 << 21 | 1 << 22);
    let wide = Features { vmid: VmidSize::Bits16, ..Features::BASE };
    assert_eq!(vtcr(wide), base | 1 << 19);
}

#[test]
fn hd_never_comes_without_ha() {
    let dirty = Features { dirty: DirtyState::Hardware, ..Features::BASE };
    assert_eq!(vtcr_of(Granule::Kib4, 40, PaSize::Bits40, dirty) >> 21 & 0b11, 0b11);
}

#[test]
fn vtcr_does_not_depend_on_fwb() {
    let forced = Features { fwb: Fwb::On, ..Features::BASE };
    let vtcr = |features| vtcr_of(Granule::Kib4, 40, PaSize::Bits40, features);
    assert_eq!(vtcr(forced), vtcr(Features::BASE));
}

/// ID_AA64MMFR0_EL1 with PARange 6 (52 bits) and these fields: TGran16, 64, 4,
/// then those for stage 2 alone.
fn mmfr0(both: [u64; 3], stage2: [u64; 3]) -> u64 {
    6 | both[0] << 20 | both[1] << 24 | both[2] << 28 | stage2[0] << 32 | stage2[1] << 36 | stage2[2] << 40
}

fn sizes(mmfr0: u64) -> [Option<PaSize>; 3] {
    GRANULES.map(|granule| PaSize::for_granule(mmfr0, granule))
}

#[test]
fn parange_of_52_bits_needs_lpa2_unless_pages_have_64_kib() {
    let (cut, whole) = (Some(PaSize::Bits48), Some(PaSize::Bits52));
    // 4, 16 and 64 KiB without FEAT_LPA2, then with it.
    assert_eq!(sizes(mmfr0([1, 0, 0], [0, 0, 0])), [cut, cut, whole]);
    assert_eq!(sizes(mmfr0([2, 0, 1], [0, 0, 0])), [whole, whole, whole]);
}

#[test]
fn granule_fields_of_stage_2_override_those_of_both_stages() {
    let (cut, whole) = (Some(PaSize::Bits48), Some(PaSize::Bits52));
    // Absent, present, with 52 bits.
    assert_eq!(sizes(mmfr0([2, 0, 1], [1, 1, 1])), [None, None, None]);
    assert_eq!(sizes(mmfr0([2, 0, 1], [2, 2, 2])), [cut, cut, whole]);
    assert_eq!(sizes(mmfr0([0, 15, 15], [3, 2, 3])), [whole, whole, whole]);
    // Each granule has its own field: those for 16, 64 and 4 KiB.
    assert_eq!(sizes(mmfr0([2, 0, 1], [1, 0, 2])), [cut, None, whole]);
    assert_eq!(sizes(mmfr0([2, 0, 1], [2, 1, 3])), [whole, cut, None]);
}

#[test]
fn granule_that_is_not_implemented_has_no_size() {
    assert_eq!(sizes(mmfr0([0, 15, 15], [0, 0, 0])), [None, None, None]);
}

#[test]
fn parange_below_52_bits_is_taken_as_it_is() {
    let mmfr0 = mmfr0([2, 0, 1], [0, 0, 0]) & !0xf;
    for (field, size) in [(0, PaSize::Bits32), (2, PaSize::Bits40), (5, PaSize::Bits48)] {
        assert_eq!(sizes(mmfr0 | field), [Some(size); 3]);
    }
    assert_eq!(sizes(mmfr0 | 7), [Some(PaSize::Bits52); 3]);
    assert_eq!(sizes(mmfr0 | 8), [None; 3]);
}
