//! Values that the hardware reads, against literals worked out by hand from
//! the Arm Architecture Reference Manual. Nothing here calls the crate's own
//! constants: a constant that is wrong must show.

use crate::machine::Machine;
use stage2::{
    Access, AccessFlag, Attributes, Execute, Features, Fwb, Geometry, Granule, Ipa, IpaRange, Level,
    MemoryType, PaSize, Permissions, PhysAddr, Space, VmidSize,
};

fn vtcr(ipa_bits: u32, pa_size: PaSize, features: Features) -> u64 {
    let machine = Machine::new(32);
    let geometry = Geometry::new(Granule::Kib4, ipa_bits, pa_size).unwrap();
    let space = Space::new(geometry, features, &machine).unwrap();
    let vtcr = space.vtcr();
    space.destroy(&machine);
    vtcr
}

/// RES1 | SH0 inner | ORGN0, IRGN0 write-back | TG0 4 KiB: what all share.
const COMMON: u64 = 0x8000_3500;

#[test]
fn vtcr_of_40_bits_is_what_other_hypervisors_use() {
    assert_eq!(vtcr(40, PaSize::Bits40, Features::BASE), 0x8002_3558);
}

#[test]
fn vtcr_of_32_bits_starts_at_level_2() {
    // PS 32 bits, SL0 = 0b00, T0SZ = 32.
    assert_eq!(vtcr(32, PaSize::Bits32, Features::BASE), COMMON | 32);
}

#[test]
fn vtcr_of_39_bits_starts_at_level_1() {
    // PS 44 bits = 0b100, SL0 = 0b01, T0SZ = 25.
    assert_eq!(vtcr(39, PaSize::Bits44, Features::BASE), COMMON | 0x4_0000 | 0x40 | 25);
}

#[test]
fn vtcr_of_48_bits_starts_at_level_0() {
    // PS 48 bits = 0b101, SL0 = 0b10, T0SZ = 16.
    assert_eq!(vtcr(48, PaSize::Bits48, Features::BASE), 0x8005_3590);
}

#[test]
fn vtcr_has_ha_and_vs_where_they_were_asked_for() {
    let base = vtcr(40, PaSize::Bits40, Features::BASE);
    let hardware = Features { access_flag: AccessFlag::Hardware, ..Features::BASE };
    assert_eq!(vtcr(40, PaSize::Bits40, hardware), base | 1 << 21);
    let wide = Features { vmid: VmidSize::Bits16, ..Features::BASE };
    assert_eq!(vtcr(40, PaSize::Bits40, wide), base | 1 << 19);
}

#[test]
fn vtcr_does_not_depend_on_fwb() {
    let forced = Features { fwb: Fwb::On, ..Features::BASE };
    assert_eq!(vtcr(40, PaSize::Bits40, forced), vtcr(40, PaSize::Bits40, Features::BASE));
}

fn leaf(level: Level, output: u64, attributes: Attributes, fwb: Fwb) -> u64 {
    let machine = Machine::new(32);
    let geometry = Geometry::new(Granule::Kib4, 40, PaSize::Bits48).unwrap();
    let space = Space::new(geometry, Features { fwb, ..Features::BASE }, &machine).unwrap();
    let leaf = space.leaf(level, PhysAddr::new(output), attributes).unwrap();
    space.destroy(&machine);
    leaf.encode().bits()
}

#[test]
fn page_of_ram() {
    // Page 0b11, MemAttr 0b1111, S2AP 0b11, SH 0b11, AF.
    assert_eq!(leaf(Level::L3, 0x4020_3000, Attributes::RAM, Fwb::Off), 0x4020_37ff);
}

#[test]
fn blocks_of_ram() {
    // As the page, but block 0b01.
    assert_eq!(leaf(Level::L2, 0x4020_0000, Attributes::RAM, Fwb::Off), 0x4020_07fd);
    assert_eq!(leaf(Level::L1, 0xffff_c000_0000, Attributes::RAM, Fwb::Off), 0xffff_c000_07fd);
}

#[test]
fn page_of_ram_with_forced_write_back() {
    // MemAttr 0b0110.
    assert_eq!(leaf(Level::L3, 0x4020_3000, Attributes::RAM, Fwb::On), 0x4020_37db);
}

#[test]
fn page_of_a_device_is_the_same_with_and_without_fwb() {
    // XN in bit 54, MemAttr 0b0001.
    let expected = 0x0040_0000_0900_07c7;
    assert_eq!(leaf(Level::L3, 0x0900_0000, Attributes::DEVICE, Fwb::Off), expected);
    assert_eq!(leaf(Level::L3, 0x0900_0000, Attributes::DEVICE, Fwb::On), expected);
}

#[test]
fn strongly_ordered_device_and_uncached_memory() {
    let device = Attributes { memory: MemoryType::DeviceNGnRnE, ..Attributes::DEVICE };
    assert_eq!(leaf(Level::L3, 0x0900_0000, device, Fwb::Off), 0x0040_0000_0900_07c3);
    let buffer = Attributes { memory: MemoryType::NormalNonCacheable, ..Attributes::DEVICE };
    assert_eq!(leaf(Level::L3, 0x0900_0000, buffer, Fwb::Off), 0x0040_0000_0900_07d7);
    assert_eq!(leaf(Level::L3, 0x0900_0000, buffer, Fwb::On), 0x0040_0000_0900_07d7);
}

#[test]
fn permissions_set_s2ap_and_xn() {
    let with = |access, execute| {
        let permissions = Permissions { access, execute };
        leaf(Level::L3, 0, Attributes { permissions, ..Attributes::RAM }, Fwb::Off)
    };
    const REST: u64 = 0x73f;
    const XN: u64 = 1 << 54;
    assert_eq!(with(Access::None, Execute::Never), REST | XN);
    assert_eq!(with(Access::ReadOnly, Execute::Never), REST | XN | 0x40);
    assert_eq!(with(Access::WriteOnly, Execute::Never), REST | XN | 0x80);
    assert_eq!(with(Access::ReadWrite, Execute::Never), REST | XN | 0xc0);
    assert_eq!(with(Access::ReadOnly, Execute::Allowed), REST | 0x40);
}

#[test]
fn table_descriptor_is_its_address_and_0b11() {
    let machine = Machine::new(8);
    let geometry = Geometry::new(Granule::Kib4, 39, PaSize::Bits40).unwrap();
    let space = Space::new(geometry, Features::BASE, &machine).unwrap();
    let page = IpaRange::new(Ipa::new(0), 0x1000).unwrap();
    space.map(page, PhysAddr::new(0x8000_0000), Attributes::RAM, &machine).unwrap();
    assert_eq!(space.root(), PhysAddr::new(0x1_0000_0000));
    // The next tables the arena gives lie right behind the root.
    let first = machine.snapshot(space.root())[0];
    assert_eq!(first.bits(), 0x1_0000_1003);
    space.destroy(&machine);
}
