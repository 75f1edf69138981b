//! GICD and GICR as a GICv3 guest sees them.

use super::{Machine, Version};
use crate::mmio::Width::{Byte, Double, Half, Word};
use crate::vcpu_set::VcpuSet;

/// Offset, what is written, what reads back.
type Row = (u64, u32, u32);

#[test]
fn distributor_words_read_back_what_they_keep() {
    let table: &[Row] = &[
        (0x000, 0xffff_ffff, 0x53),
        (0x004, 0xffff_ffff, 0x0248_0003),
        (0x008, 0xffff_ffff, 0x4500_043b),
        (0x00c, 0xffff_ffff, 0),
        (0x010, 0xffff_ffff, 0),
        (0x040, 0xffff_ffff, 0),
        (0x080, 0xffff_ffff, 0),
        (0x084, 0x1234_5678, 0x1234_5678),
        (0x08c, 0x1234_5678, 0x1234_5678),
        (0x090, 0xffff_ffff, 0),
        (0x100, 0xffff_ffff, 0),
        (0x104, 0x0000_00f0, 0x0000_00f0),
        (0x184, 0x0000_0030, 0x0000_00c0),
        (0x104, 0x0000_0000, 0x0000_00c0),
        (0x200, 0xffff_ffff, 0),
        (0x208, 0x0000_00f0, 0x0000_00f0),
        (0x288, 0x0000_0030, 0x0000_00c0),
        (0x30c, 0x0000_00f0, 0x0000_00f0),
        (0x38c, 0x0000_0030, 0x0000_00c0),
        (0x310, 0xffff_ffff, 0),
        (0x400, 0xffff_ffff, 0),
        (0x41c, 0xffff_ffff, 0),
        (0x420, 0x1234_5678, 0x1030_5078),
        (0x47c, 0xffff_ffff, 0xf8f8_f8f8),
        (0x480, 0xffff_ffff, 0),
        (0x800, 0xffff_ffff, 0),
        (0x820, 0xffff_ffff, 0),
        (0xc00, 0xffff_ffff, 0),
        (0xc08, 0xffff_ffff, 0xaaaa_aaaa),
        (0xc0c, 0x8000_0002, 0x8000_0002),
        (0xc1c, 0x5555_5555, 0),
        (0xc20, 0xffff_ffff, 0),
        (0xd04, 0xffff_ffff, 0),
        (0xe08, 0xffff_ffff, 0),
        (0xf00, 0xffff_ffff, 0),
        (0xf10, 0xffff_ffff, 0),
        (0x6000, 0xffff_ffff, 0),
        (0x60f8, 0xffff_ffff, 0),
        (0x6100, 0xffff_ffff, 0x00ff_ffff),
        (0x6104, 0xffff_ffff, 0),
        (0x63f8, 0x0000_0001, 0x0000_0001),
        (0x6400, 0xffff_ffff, 0),
        (0xffe8, 0xffff_ffff, 0x3b),
        (0x0fe8, 0xffff_ffff, 0),
    ];
    let mut m = Machine::new(Version::V3, 2);
    for &(offset, written, read) in table {
        m.write(0, offset, written);
        assert_eq!(m.read(0, offset), read, "GICD + {offset:#x}");
    }
}

#[test]
fn redistributor_words_read_back_what_they_keep() {
    let table: &[Row] = &[
        (0x0000, 0xffff_ffff, 0),
        (0x0004, 0xffff_ffff, 0x4500_043b),
        (0x0008, 0xffff_ffff, 0x0000_0110),
        (0x000c, 0xffff_ffff, 0x0000_0001),
        (0x0014, 0x0000_0000, 0),
        (0x0014, 0xffff_ffff, 0x0000_0006),
        (0x0070, 0xffff_ffff, 0),
        (0x0078, 0xffff_ffff, 0),
        (0xffe8, 0xffff_ffff, 0x3b),
        (0x1_0080, 0x1234_5678, 0x1234_5678),
        (0x1_0084, 0xffff_ffff, 0),
        (0x1_0100, 0xf000_000f, 0xf000_000f),
        (0x1_0180, 0xc000_0003, 0x3000_000c),
        (0x1_0104, 0xffff_ffff, 0),
        (0x1_0200, 0xf000_000f, 0xf000_000f),
        (0x1_0280, 0xc000_0003, 0x3000_000c),
        (0x1_0300, 0xf000_000f, 0xf000_000f),
        (0x1_0380, 0xc000_0003, 0x3000_000c),
        (0x1_0400, 0x1234_5678, 0x1030_5078),
        (0x1_041c, 0xffff_ffff, 0xf8f8_f8f8),
        (0x1_0420, 0xffff_ffff, 0),
        (0x1_0c00, 0x0000_0000, 0xaaaa_aaaa),
        (0x1_0c04, 0xffff_ffff, 0xaaaa_aaaa),
        (0x1_0c08, 0xffff_ffff, 0),
        (0x1_0d00, 0xffff_ffff, 0),
        (0x1_0e00, 0xffff_ffff, 0),
        (0x1_ffe8, 0xffff_ffff, 0),
    ];
    let mut m = Machine::new(Version::V3, 2);
    for &(offset, written, read) in table {
        m.write_redist(0, 1, offset, written);
        assert_eq!(m.read_redist(0, 1, offset), read, "GICR + {offset:#x}");
        assert_eq!(m.read_redist(1, 1, offset), read, "GICR + {offset:#x} by its own vCPU");
    }
}

#[test]
fn power_on_values_are_the_architectures() {
    let m = Machine::new(Version::V3, 2);
    assert_eq!(m.read(0, 0x000), 0x50);
    assert_eq!(m.read_redist(0, 0, 0x14), 6, "asleep");
    assert_eq!(m.read_redist(0, 0, 0x1_0c00), 0xaaaa_aaaa, "SGIs are edges");
    assert_eq!(m.read_redist(0, 0, 0x1_0c04), 0, "PPIs are levels");
    for offset in [0x104, 0x204, 0x304, 0x420, 0xc08, 0x6100] {
        assert_eq!(m.read(0, offset), 0, "GICD + {offset:#x}");
    }
}

#[test]
fn typer_is_readable_in_halves_and_whole_and_marks_the_last_frame() {
    let m = Machine::new(Version::V3, 3);
    let read = |frame, width| m.vgic.redist_read(0, frame, 0x8, width, &m.cpus[0]);
    assert_eq!(read(0, Double), 0x0000_0000_0000_0000);
    assert_eq!(read(1, Double), 0x0000_0001_0000_0100);
    assert_eq!(read(2, Double), 0x0000_0002_0000_0210);
    assert_eq!(read(2, Word), 0x210);
}

#[test]
fn routes_are_readable_and_writable_whole() {
    let mut m = Machine::new(Version::V3, 2);
    m.write_as(0, 0x6108, Double, 0xffff_ffff_8000_0001);
    assert_eq!(m.vgic.dist_read(0, 0x6108, Double, &m.cpus[0]), 1);
}

#[test]
fn priorities_are_readable_and_writable_as_bytes() {
    let mut m = Machine::new(Version::V3, 1);
    m.write_as(0, 0x422, Byte, 0xab);
    assert_eq!(m.read(0, 0x420), 0x00a8_0000);
    assert_eq!(m.vgic.dist_read(0, 0x422, Byte, &m.cpus[0]), 0xa8);
    let _ = m.vgic.redist_write(0, 0, 0x1_0403, Byte, 0x50, &mut m.cpus[0]);
    assert_eq!(m.read_redist(0, 0, 0x1_0400), 0x5000_0000);
    assert_eq!(m.vgic.redist_read(0, 0, 0x1_0403, Byte, &m.cpus[0]), 0x50);
}

#[test]
fn each_vcpu_has_private_interrupts_of_its_own() {
    let mut m = Machine::new(Version::V3, 2);
    m.write_redist(0, 0, 0x1_0100, 0xff);
    assert_eq!((m.read_redist(0, 0, 0x1_0100), m.read_redist(0, 1, 0x1_0100)), (0xff, 0));
}

#[test]
fn pending_and_active_show_what_is_in_list_registers() {
    let mut m = Machine::ready(Version::V3, 2);
    m.send(0, 0b11, 4);
    for frame in 0..2 {
        assert_eq!(m.read_redist(0, frame, 0x1_0200), 1 << 4, "frame {frame}");
        assert_eq!(m.read_redist(0, frame, 0x1_0300), 0, "frame {frame}");
    }
    assert_eq!(m.iar(0), 4);
    assert_eq!(m.read_redist(0, 0, 0x1_0200), 0);
    assert_eq!(m.read_redist(0, 0, 0x1_0300), 1 << 4);
}

#[test]
fn an_sgi_that_came_again_shows_as_pending_to_others() {
    let mut m = Machine::ready(Version::V3, 2);
    m.send(0, 0b01, 4);
    assert_eq!(m.iar(0), 4);
    let _ = m.flush(0);
    assert_eq!(m.read_redist(1, 0, 0x1_0300), 1 << 4);
    m.eoi(0, 4);
    m.send(0, 0b01, 4);
    assert_eq!((m.read_redist(1, 0, 0x1_0200), m.read_redist(1, 0, 0x1_0300)), (1 << 4, 0));
}

#[test]
fn the_pending_half_that_outlives_the_active_one_shows_to_others() {
    let mut m = Machine::ready(Version::V3, 2);
    m.send(0, 0b01, 4);
    assert_eq!(m.iar(0), 4);
    m.send(0, 0b01, 4);
    let _ = m.flush(0);
    m.eoi(0, 4);
    let _ = m.flush(0);
    assert_eq!((m.read_redist(1, 0, 0x1_0200), m.read_redist(1, 0, 0x1_0300)), (1 << 4, 0));
}

#[test]
fn an_interrupt_that_others_sent_again_shows_as_pending_to_them() {
    let mut m = Machine::ready(Version::V3, 2);
    m.send(1, 0b01, 4);
    assert_eq!(m.iar(0), 4);
    let _ = m.flush(0);
    m.eoi(0, 4);
    m.send(1, 0b01, 4);
    assert_eq!((m.read_redist(1, 0, 0x1_0200), m.read_redist(1, 0, 0x1_0300)), (1 << 4, 0));
}

#[test]
fn clearing_pending_takes_it_out_of_list_registers() {
    let mut m = Machine::ready(Version::V3, 2);
    m.send(0, 0b11, 4);
    for frame in 0..2 {
        m.write_redist(0, frame, 0x1_0280, 1 << 4);
        assert_eq!(m.shown(frame), [], "vCPU {frame}");
    }
}

#[test]
fn clearing_active_takes_it_out_of_list_registers() {
    let mut m = Machine::ready(Version::V3, 2);
    m.send(0, 0b11, 4);
    assert_eq!((m.iar(0), m.iar(1)), (4, 4));
    for frame in 0..2 {
        m.write_redist(0, frame, 0x1_0380, 1 << 4);
        assert_eq!(m.shown(frame), [], "vCPU {frame}");
    }
}

#[test]
fn setting_active_blocks_delivery_until_cleared() {
    let mut m = Machine::ready(Version::V3, 1);
    m.write_redist(0, 0, 0x1_0300, 1 << 4);
    m.send(0, 1, 4);
    assert_eq!(m.shown(0), []);
    assert_eq!(m.read_redist(0, 0, 0x1_0300), 1 << 4);
    m.write_redist(0, 0, 0x1_0380, 1 << 4);
    assert_eq!(m.iar(0), 4);
}

#[test]
fn pending_by_software_outlives_the_line_and_is_used_up_by_delivery() {
    use crate::vgic::Level::{High, Low};
    let mut m = Machine::ready(Version::V3, 1);
    m.write(0, 0x204, 2);
    m.line(1, High);
    m.line(1, Low);
    assert_eq!(m.iar(0), 33);
    m.eoi(0, 33);
    assert_eq!(m.shown(0), []);
}

#[test]
fn clearing_pending_does_not_silence_a_high_line() {
    let mut m = Machine::ready(Version::V3, 1);
    m.line(1, crate::vgic::Level::High);
    m.write(0, 0x284, 2);
    assert_eq!(m.iar(0), 33);
}

#[test]
fn rwp_is_set_until_a_remote_holder_has_looked() {
    let mut m = Machine::ready(Version::V3, 2);
    m.write(0, 0x6000 + 8 * 33, 1);
    m.line(1, crate::vgic::Level::High);
    let kicks = m.vgic.dist_write(0, 0x184, Word, 2, &mut m.cpus[0]);
    assert_eq!(kicks, VcpuSet::one(1));
    assert_eq!(m.read(0, 0x000) >> 31, 1);
    m.serve(kicks);
    assert_eq!(m.read(0, 0x000) >> 31, 0);

    m.send(0, 0b10, 4);
    let kicks = m.vgic.redist_write(0, 1, 0x1_0180, Word, 1 << 4, &mut m.cpus[0]);
    assert_eq!(m.read_redist(0, 1, 0), 1 << 3);
    m.serve(kicks);
    assert_eq!(m.read_redist(0, 1, 0), 0);
}

#[test]
fn group_zero_sgi_registers_reach_group_zero_only() {
    use crate::vgic::SgiRegister::{Asgi1R, Sgi0R};
    let mut m = Machine::ready(Version::V3, 1);
    for register in [Sgi0R, Asgi1R] {
        let _ = m.vgic.write_sgi_register(0, register, 0x0400_0001, &mut m.cpus[0]);
        assert_eq!(m.shown(0), []);
    }
    m.write_redist(0, 0, 0x1_0080, !(1 << 4));
    let _ = m.vgic.write_sgi_register(0, Sgi0R, 0x0400_0001, &mut m.cpus[0]);
    assert_eq!(m.iar(0), 4);
}

#[test]
fn no_access_whatever_panics() {
    let mut m = Machine::ready(Version::V3, 2);
    let offsets = (0..0x2_0040).chain([u64::MAX, u64::MAX - 3, 1 << 32, 1 << 63]);
    for offset in offsets {
        for width in [Byte, Half, Word, Double] {
            for value in [0, u64::MAX] {
                m.write_as(1, offset, width, value);
                m.vgic.dist_read(1, offset, width, &m.cpus[1]);
                let kicks = m.vgic.redist_write(1, 0, offset, width, value, &mut m.cpus[1]);
                m.serve(kicks);
                m.vgic.redist_read(1, 0, offset, width, &m.cpus[1]);
            }
        }
    }
}

#[test]
fn accesses_of_the_wrong_width_read_zero_and_change_nothing() {
    let mut m = Machine::new(Version::V3, 1);
    for (offset, width) in [(0x104, Byte), (0x104, Half), (0x100, Double), (0x105, Word), (0x420, Half)] {
        m.write_as(0, offset, width, u64::MAX);
        assert_eq!(m.vgic.dist_read(0, offset, width, &m.cpus[0]), 0, "{offset:#x} {width:?}");
        assert_eq!((m.read(0, 0x104), m.read(0, 0x420)), (0, 0), "{offset:#x} {width:?}");
    }
}
