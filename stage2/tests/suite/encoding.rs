//! Descriptors, against literals worked out by hand from the Arm Architecture
//! Reference Manual, and against a second reading of the manual: [`Seen`] is
//! what a walker makes of a word. Nothing here calls the crate's own
//! constants: a constant that is wrong must show.

use proptest::prelude::*;
use stage2::{
    Access, AddressFormat, Attributes, Dirty, DirtyState, Execute, Features, Format, Fwb, Geometry, Granule,
    Level, MemoryType, PaSize, Permissions, PhysAddr, Pte, Xnx,
};

const GRANULES: [Granule; 3] = [Granule::Kib4, Granule::Kib16, Granule::Kib64];
const LEVELS: [Level; 4] = [Level::L0, Level::L1, Level::L2, Level::L3];
const TYPES: [MemoryType; 4] = [
    MemoryType::NormalWriteBack,
    MemoryType::NormalNonCacheable,
    MemoryType::DeviceNGnRE,
    MemoryType::DeviceNGnRnE,
];
const ACCESSES: [Access; 4] = [Access::None, Access::ReadOnly, Access::WriteOnly, Access::ReadWrite];
const EXECUTES: [Execute; 4] =
    [Execute::Never, Execute::Allowed, Execute::PrivilegedOnly, Execute::UnprivilegedOnly];

fn format(granule: Granule, pa_size: PaSize, features: Features) -> Format {
    Format::new(&Geometry::new(granule, 40, pa_size).unwrap(), features)
}

/// All ways to spell descriptors that there are.
fn formats() -> Vec<Format> {
    let mut formats = Vec::new();
    for granule in GRANULES {
        for pa_size in [PaSize::Bits48, PaSize::Bits52] {
            for fwb in [Fwb::Off, Fwb::On] {
                for xnx in [Xnx::Absent, Xnx::Present] {
                    for dirty in [DirtyState::WriteProtect, DirtyState::Hardware] {
                        formats.push(format(
                            granule,
                            pa_size,
                            Features { fwb, xnx, dirty, ..Features::BASE },
                        ));
                    }
                }
            }
        }
    }
    formats
}

/// All attributes for which the format has descriptors.
fn all_attributes(format: Format) -> Vec<Attributes> {
    let mut all = Vec::new();
    for memory in TYPES {
        for access in ACCESSES {
            for execute in EXECUTES {
                all.push(Attributes { memory, permissions: Permissions { access, execute } });
            }
        }
    }
    all.retain(|attributes| format.allows(attributes.permissions));
    all
}

/// The levels that have leaves, each with the alignment of these, in bits.
fn leaf_levels(granule: Granule, pa_size: PaSize) -> Vec<(Level, u32)> {
    let wide = pa_size == PaSize::Bits52;
    let all = match granule {
        Granule::Kib4 => vec![(Level::L3, 12), (Level::L2, 21), (Level::L1, 30), (Level::L0, 39)],
        Granule::Kib16 => vec![(Level::L3, 14), (Level::L2, 25), (Level::L1, 36)],
        Granule::Kib64 => vec![(Level::L3, 16), (Level::L2, 29), (Level::L1, 42)],
    };
    let largest_needs_52_bits = all.len() - 1;
    all.into_iter()
        .enumerate()
        .filter(|&(index, _)| wide || index < largest_needs_52_bits)
        .map(|(_, x)| x)
        .collect()
}

/// The size of addresses that `format` was made for.
fn pa_size(format: Format) -> PaSize {
    if format.addresses() == AddressFormat::Bits48 { PaSize::Bits48 } else { PaSize::Bits52 }
}

/// What a walker takes from the word of a leaf.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    output: u64,
    page: bool,
    memattr: u64,
    read: bool,
    write: bool,
    execute_el1: bool,
    execute_el0: bool,
    inner_shareable: bool,
    accessed: bool,
    dbm: bool,
    contiguous: bool,
}

/// A walker's reading of `word`, with VTCR_EL2.SH0 set to inner shareable.
fn seen(word: u64, granule: Granule, pa_size: PaSize, xnx: Xnx) -> Seen {
    let field = |high: u32, low: u32| word >> low & ((1 << (high - low + 1)) - 1);
    let (output, shareability) = match (pa_size, granule) {
        (PaSize::Bits52, Granule::Kib64) => (field(47, 16) << 16 | field(15, 12) << 48, field(9, 8)),
        (PaSize::Bits52, _) => (field(49, 12) << 12 | field(9, 8) << 50, 0b11),
        (_, Granule::Kib64) => (field(47, 16) << 16, field(9, 8)),
        _ => (field(47, 12) << 12, field(9, 8)),
    };
    let (execute_el1, execute_el0) = match (xnx, field(54, 53)) {
        (Xnx::Absent, xn) => (xn & 0b10 == 0, xn & 0b10 == 0),
        (Xnx::Present, 0b00) => (true, true),
        (Xnx::Present, 0b01) => (false, true),
        (Xnx::Present, 0b10) => (false, false),
        (Xnx::Present, _) => (true, false),
    };
    assert_eq!(field(0, 0), 1, "{word:#x} is valid");
    assert_eq!(field(63, 59), 0, "{word:#x} leaves bits alone that are not ours");
    Seen {
        output,
        page: field(1, 1) == 1,
        memattr: field(5, 2),
        read: field(6, 6) == 1,
        write: field(7, 7) == 1,
        execute_el1,
        execute_el0,
        inner_shareable: shareability == 0b11,
        accessed: field(10, 10) == 1,
        dbm: field(51, 51) == 1,
        contiguous: field(52, 52) == 1,
    }
}

/// What a walker should make of a new leaf.
fn meant(level: Level, output: u64, attributes: Attributes, fwb: Fwb) -> Seen {
    let Attributes { memory, permissions: Permissions { access, execute } } = attributes;
    Seen {
        output,
        page: level == Level::L3,
        memattr: match (memory, fwb) {
            (MemoryType::NormalWriteBack, Fwb::Off) => 0b1111,
            (MemoryType::NormalWriteBack, Fwb::On) => 0b0110,
            (MemoryType::NormalNonCacheable, _) => 0b0101,
            (MemoryType::DeviceNGnRE, _) => 0b0001,
            (MemoryType::DeviceNGnRnE, _) => 0b0000,
        },
        read: matches!(access, Access::ReadOnly | Access::ReadWrite),
        write: matches!(access, Access::WriteOnly | Access::ReadWrite),
        execute_el1: matches!(execute, Execute::Allowed | Execute::PrivilegedOnly),
        execute_el0: matches!(execute, Execute::Allowed | Execute::UnprivilegedOnly),
        inner_shareable: true,
        accessed: true,
        dbm: false,
        contiguous: false,
    }
}

#[test]
fn every_leaf_means_to_a_walker_what_was_asked_for() {
    for format in formats() {
        for (level, alignment) in leaf_levels(format.granule(), pa_size(format)) {
            for attributes in all_attributes(format) {
                for bit in alignment..pa_size(format).bits() {
                    let leaf = format.leaf(level, PhysAddr::new(1 << bit), attributes).unwrap();
                    let seen = seen(leaf.encode().bits(), format.granule(), pa_size(format), format.xnx());
                    assert_eq!(seen, meant(level, 1 << bit, attributes, format.fwb()), "{format:?}");
                }
            }
        }
    }
}

#[test]
fn every_leaf_decodes_to_what_was_encoded() {
    for format in formats() {
        for (level, alignment) in leaf_levels(format.granule(), pa_size(format)) {
            for attributes in all_attributes(format) {
                for bit in alignment..pa_size(format).bits() {
                    let output = PhysAddr::new(1 << bit);
                    let leaf = format.leaf(level, output, attributes).unwrap();
                    assert_eq!(Pte::decode(leaf.encode(), level, format), Pte::Leaf(leaf));
                    assert_eq!((leaf.output(), leaf.attributes()), (output, attributes), "{format:?}");
                }
            }
        }
    }
}

#[test]
fn leaves_exist_at_the_levels_of_the_manual_only() {
    for format in formats() {
        let expected = leaf_levels(format.granule(), pa_size(format));
        for level in LEVELS {
            let exists = format.leaf(level, PhysAddr::new(0), Attributes::RAM).is_some();
            assert_eq!(exists, expected.iter().any(|&(with_leaves, _)| with_leaves == level), "{format:?}");
        }
    }
}

#[test]
fn leaf_that_is_not_aligned_to_its_size_is_refused() {
    for format in formats() {
        for (level, alignment) in leaf_levels(format.granule(), pa_size(format)) {
            let output = PhysAddr::new(1 << (alignment - 1));
            assert_eq!(format.leaf(level, output, Attributes::RAM), None, "{format:?}, {level:?}");
        }
    }
}

#[test]
fn leaf_beyond_the_width_of_the_format_is_refused() {
    for format in formats() {
        let output = PhysAddr::new(1 << pa_size(format).bits());
        assert_eq!(format.leaf(Level::L3, output, Attributes::RAM), None, "{format:?}");
    }
}

#[test]
fn execution_at_one_level_is_refused_without_xnx() {
    for execute in [Execute::PrivilegedOnly, Execute::UnprivilegedOnly] {
        let permissions = Permissions { execute, ..Permissions::ALL };
        let format = format(Granule::Kib4, PaSize::Bits48, Features::BASE);
        let attributes = Attributes { permissions, ..Attributes::RAM };
        assert!(!format.allows(permissions));
        assert_eq!(format.leaf(Level::L3, PhysAddr::new(0), attributes), None);
    }
}

fn any_leaf() -> impl Strategy<Value = (Format, Level, PhysAddr, Attributes)> {
    (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u64>())
        .prop_map(|(format, level, attributes, address)| {
            let format = *format.get(&formats());
            let (level, alignment) = *level.get(&leaf_levels(format.granule(), pa_size(format)));
            let output = address & ((1 << pa_size(format).bits()) - 1) & (u64::MAX << alignment);
            (format, level, PhysAddr::new(output), *attributes.get(&all_attributes(format)))
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn any_leaf_survives_the_round_trip((format, level, output, attributes) in any_leaf()) {
        let leaf = format.leaf(level, output, attributes).unwrap();
        let seen = seen(leaf.encode().bits(), format.granule(), pa_size(format), format.xnx());
        prop_assert_eq!(seen, meant(level, output.bits(), attributes, format.fwb()));
        prop_assert_eq!(Pte::decode(leaf.encode(), level, format), Pte::Leaf(leaf));
        prop_assert_eq!((leaf.output(), leaf.attributes()), (output, attributes));
    }

    /// Age, dirty state, contiguity and permissions are changed one after the
    /// other; the place and the type of the memory must come through.
    #[test]
    fn changes_of_state_never_change_what_is_mapped(
        (format, level, output, attributes) in any_leaf(),
        changes in prop::collection::vec(0..8u8, 0..12),
    ) {
        let mut leaf = format.leaf(level, output, attributes).unwrap();
        let mut expected = attributes;
        for change in changes {
            leaf = match change {
                0 => leaf.aged(),
                1 => leaf.young(),
                2 => leaf.cleaned(),
                3 => leaf.dirtied(),
                4 => leaf.with_contiguous(),
                5 => leaf.without_contiguous(),
                6 => leaf.merge_access_state(leaf.young().dirtied()),
                _ => {
                    expected.permissions = Permissions::READ_WRITE;
                    leaf.with_permissions(Permissions::READ_WRITE)
                }
            };
            prop_assert_eq!((leaf.output(), leaf.attributes()), (output, expected));
            prop_assert_eq!(Pte::decode(leaf.encode(), level, format), Pte::Leaf(leaf));
        }
    }
}

fn word(granule: Granule, pa_size: PaSize, level: Level, output: u64) -> u64 {
    let format = format(granule, pa_size, Features::BASE);
    format.leaf(level, PhysAddr::new(output), Attributes::RAM).unwrap().encode().bits()
}

#[test]
fn ram_with_4_kib_pages() {
    // Page 0b11 or block 0b01, MemAttr 0b1111, S2AP 0b11, SH 0b11, AF.
    let word = |level, output| word(Granule::Kib4, PaSize::Bits48, level, output);
    assert_eq!(word(Level::L3, 0x4020_3000), 0x4020_37ff);
    assert_eq!(word(Level::L2, 0x4020_0000), 0x4020_07fd);
    assert_eq!(word(Level::L1, 0xffff_c000_0000), 0xffff_c000_07fd);
}

#[test]
fn ram_with_16_kib_pages() {
    let word = |level, output| word(Granule::Kib16, PaSize::Bits48, level, output);
    assert_eq!(word(Level::L3, 0x4020_4000), 0x4020_47ff);
    assert_eq!(word(Level::L2, 0x4200_0000), 0x4200_07fd);
}

#[test]
fn ram_with_64_kib_pages() {
    let word = |level, output| word(Granule::Kib64, PaSize::Bits48, level, output);
    assert_eq!(word(Level::L3, 0x4021_0000), 0x4021_07ff);
    assert_eq!(word(Level::L2, 0x6000_0000), 0x6000_07fd);
}

#[test]
fn ram_beyond_48_bits_with_4_kib_pages() {
    // Bits 51:50 of the address in bits 9:8, where SH was.
    let word = |level, output| word(Granule::Kib4, PaSize::Bits52, level, output);
    assert_eq!(word(Level::L3, 0x8_0000_4020_3000), 0x4020_36ff);
    assert_eq!(word(Level::L3, 0xf_ffff_ffff_f000), 0x3_ffff_ffff_f7ff);
    assert_eq!(word(Level::L0, 0x4_0080_0000_0000), 0x80_0000_05fd);
}

#[test]
fn ram_beyond_48_bits_with_16_kib_pages() {
    let word = |level, output| word(Granule::Kib16, PaSize::Bits52, level, output);
    assert_eq!(word(Level::L3, 0xd_0000_4020_4000), 0x1_0000_4020_47ff);
    assert_eq!(word(Level::L1, 0x4_0010_0000_0000), 0x10_0000_05fd);
}

#[test]
fn ram_beyond_48_bits_with_64_kib_pages() {
    // Bits 51:48 of the address in bits 15:12; SH stays.
    let word = |level, output| word(Granule::Kib64, PaSize::Bits52, level, output);
    assert_eq!(word(Level::L3, 0x5_0000_4021_0000), 0x4021_57ff);
    assert_eq!(word(Level::L1, 0xa_0400_0000_0000), 0x400_0000_a7fd);
}

fn page(output: u64, attributes: Attributes, features: Features) -> u64 {
    let format = format(Granule::Kib4, PaSize::Bits48, features);
    format.leaf(Level::L3, PhysAddr::new(output), attributes).unwrap().encode().bits()
}

#[test]
fn page_of_ram_with_forced_write_back() {
    // MemAttr 0b0110.
    let forced = Features { fwb: Fwb::On, ..Features::BASE };
    assert_eq!(page(0x4020_3000, Attributes::RAM, forced), 0x4020_37db);
}

#[test]
fn page_of_a_device_is_the_same_with_and_without_fwb() {
    // XN in bit 54, MemAttr 0b0001.
    for fwb in [Fwb::Off, Fwb::On] {
        let features = Features { fwb, ..Features::BASE };
        assert_eq!(page(0x0900_0000, Attributes::DEVICE, features), 0x0040_0000_0900_07c7);
    }
}

#[test]
fn strongly_ordered_device_and_uncached_memory() {
    let device = Attributes { memory: MemoryType::DeviceNGnRnE, ..Attributes::DEVICE };
    assert_eq!(page(0x0900_0000, device, Features::BASE), 0x0040_0000_0900_07c3);
    let buffer = Attributes { memory: MemoryType::NormalNonCacheable, ..Attributes::DEVICE };
    assert_eq!(page(0x0900_0000, buffer, Features::BASE), 0x0040_0000_0900_07d7);
}

#[test]
fn permissions_set_s2ap_and_xn() {
    let with = |access, execute| {
        let permissions = Permissions { access, execute };
        page(
            0,
            Attributes { permissions, ..Attributes::RAM },
            Features { xnx: Xnx::Present, ..Features::BASE },
        )
    };
    const REST: u64 = 0x73f;
    assert_eq!(with(Access::None, Execute::Never), REST | 0x0040_0000_0000_0000);
    assert_eq!(with(Access::ReadOnly, Execute::Allowed), REST | 0x40);
    assert_eq!(with(Access::WriteOnly, Execute::UnprivilegedOnly), REST | 0x0020_0000_0000_0080);
    assert_eq!(with(Access::ReadWrite, Execute::PrivilegedOnly), REST | 0x0060_0000_0000_00c0);
}

#[test]
fn clean_page_of_ram() {
    // S2AP 0b01, and DBM in bit 51 or our mark in bit 58.
    let clean = |dirty| {
        let format = format(Granule::Kib4, PaSize::Bits48, Features { dirty, ..Features::BASE });
        format.leaf(Level::L3, PhysAddr::new(0x4020_3000), Attributes::RAM).unwrap().cleaned()
    };
    assert_eq!(clean(DirtyState::Hardware).encode().bits(), 0x0008_0000_4020_377f);
    assert_eq!(clean(DirtyState::WriteProtect).encode().bits(), 0x0400_0000_4020_377f);
    assert_eq!(clean(DirtyState::WriteProtect).dirty(), Dirty::Clean);
}

#[test]
fn contiguous_page_of_ram() {
    let format = format(Granule::Kib4, PaSize::Bits48, Features::BASE);
    let leaf = format.leaf(Level::L3, PhysAddr::new(0x4020_0000), Attributes::RAM).unwrap();
    assert_eq!(leaf.with_contiguous().encode().bits(), 0x0010_0000_4020_07ff);
}
