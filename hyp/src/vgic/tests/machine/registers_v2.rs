//! GICD as a GICv2 guest sees it.

use super::{Ack, Machine, Version};
use crate::mmio::Width::{Byte, Double, Half, Word};

/// Offset, what is written, what reads back.
type Row = (u64, u32, u32);

#[test]
fn distributor_words_read_back_what_they_keep() {
    let table: &[Row] = &[
        (0x000, 0xffff_ffff, 3),
        (0x004, 0xffff_ffff, 0x0000_0023),
        (0x008, 0xffff_ffff, 0x4500_043b),
        (0x00c, 0xffff_ffff, 0),
        (0x080, 0x1234_5678, 0x1234_5678),
        (0x084, 0x1234_5678, 0x1234_5678),
        (0x090, 0xffff_ffff, 0),
        (0x100, 0xf000_000f, 0xf000_000f),
        (0x180, 0xc000_0003, 0x3000_000c),
        (0x104, 0x0000_00f0, 0x0000_00f0),
        (0x184, 0x0000_0030, 0x0000_00c0),
        (0x200, 0xf000_000f, 0xf000_0000),
        (0x280, 0xc000_0003, 0x3000_0000),
        (0x204, 0x0000_00f0, 0x0000_00f0),
        (0x304, 0x0000_00f0, 0x0000_00f0),
        (0x384, 0x0000_0030, 0x0000_00c0),
        (0x400, 0x1234_5678, 0x1030_5078),
        (0x47c, 0xffff_ffff, 0xf8f8_f8f8),
        (0x480, 0xffff_ffff, 0),
        (0x800, 0xffff_ffff, 0x0101_0101),
        (0x81c, 0x0000_0000, 0x0101_0101),
        (0x820, 0xffff_0201, 0x0303_0201),
        (0x880, 0xffff_ffff, 0),
        (0xc00, 0x0000_0000, 0xaaaa_aaaa),
        (0xc04, 0xffff_ffff, 0xaaaa_aaaa),
        (0xc08, 0x0000_0002, 0x0000_0002),
        (0xf00, 0x0300_0000, 0),
        (0xf20, 0x0000_ff01, 0x0000_0301),
        (0xf10, 0x0000_0100, 0x0000_0201),
        (0xfe8, 0xffff_ffff, 0x2b),
        (0x6100, 0xffff_ffff, 0),
        (0xffe8, 0xffff_ffff, 0),
    ];
    let mut m = Machine::new(Version::V2, 2);
    for &(offset, written, read) in table {
        m.write(0, offset, written);
        assert_eq!(m.read(0, offset), read, "GICD + {offset:#x}");
    }
}

#[test]
fn a_reader_of_the_private_targets_learns_its_own_number() {
    let m = Machine::new(Version::V2, 4);
    for vcpu in 0..4 {
        assert_eq!(m.read(vcpu, 0x800), 0x0101_0101 << vcpu);
        assert_eq!(m.vgic.dist_read(vcpu, 0x81f, Byte, &m.cpus[vcpu]), 1 << vcpu);
    }
}

#[test]
fn targets_are_absent_with_one_vcpu() {
    let mut m = Machine::new(Version::V2, 1);
    m.write(0, 0x820, 0x0101_0101);
    assert_eq!((m.read(0, 0x800), m.read(0, 0x820)), (0, 0));
}

#[test]
fn targets_and_priorities_are_readable_and_writable_as_bytes() {
    let mut m = Machine::new(Version::V2, 2);
    m.write_as(0, 0x821, Byte, 0xff);
    assert_eq!(m.read(0, 0x820), 0x0000_0300);
    m.write_as(1, 0x403, Byte, 0xff);
    assert_eq!((m.read(1, 0x400), m.read(0, 0x400)), (0xf800_0000, 0));
}

#[test]
fn each_vcpu_has_private_interrupts_of_its_own() {
    let mut m = Machine::new(Version::V2, 2);
    m.write(0, 0x100, 0xff);
    assert_eq!((m.read(0, 0x100), m.read(1, 0x100)), (0xff, 0));
}

#[test]
fn sgi_sources_can_be_set_read_and_cleared() {
    let mut m = Machine::ready(Version::V2, 4);
    m.write_as(0, 0xf25, Byte, 0b1010);
    assert_eq!(m.vgic.dist_read(0, 0xf15, Byte, &m.cpus[0]), 0b1010);
    m.write_as(0, 0xf15, Byte, 0b0010);
    assert_eq!(m.cpus[0].ack(), Some(Ack { intid: 5, source: 3 }));
    assert_eq!(m.read(0, 0xf24), 0);
}

#[test]
fn no_access_whatever_panics() {
    let mut m = Machine::ready(Version::V2, 2);
    for offset in (0..0x1_0040).chain([u64::MAX, u64::MAX - 3, 1 << 32, 1 << 63]) {
        for width in [Byte, Half, Word, Double] {
            for value in [0, u64::MAX] {
                m.write_as(1, offset, width, value);
                m.vgic.dist_read(1, offset, width, &m.cpus[1]);
            }
        }
    }
}
