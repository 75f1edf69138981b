//! What a guest gets to acknowledge, and when.

use super::State::{Active, Pending, PendingActive};
use super::{Ack, Level, Machine, SPURIOUS, VERSIONS, Version};
use crate::vgic::Maintenance;
use platform::intid::IntId;

const SPI0: u32 = 32;

fn set_priority(machine: &mut Machine, intid: u32, priority: u8) {
    use crate::mmio::Width::Byte;
    machine.write_as(0, 0x400 + u64::from(intid), Byte, priority.into());
}

fn make_edge(machine: &mut Machine, spi: u32) {
    let (word, field) = (2 + spi / 16, spi % 16);
    let value = machine.read(0, 0xc00 + 4 * u64::from(word)) | 2 << (2 * field);
    machine.write(0, 0xc00 + 4 * u64::from(word), value);
}

#[test]
fn a_level_interrupt_is_delivered_once_per_assertion() {
    for version in VERSIONS {
        let mut m = Machine::ready(version, 1);
        m.line(1, Level::High);
        assert_eq!(m.iar(0), 33);
        m.line(1, Level::Low);
        m.eoi(0, 33);
        assert_eq!(m.shown(0), []);
    }
}

#[test]
fn a_level_that_is_still_high_at_eoi_comes_again() {
    for version in VERSIONS {
        let mut m = Machine::ready(version, 1);
        m.line(1, Level::High);
        assert_eq!(m.iar(0), 33);
        m.eoi(0, 33);
        assert_eq!(m.shown(0), [(33, Pending)]);
    }
}

#[test]
fn a_level_that_drops_before_it_is_seen_is_withdrawn() {
    for version in VERSIONS {
        let mut m = Machine::ready(version, 1);
        m.line(1, Level::High);
        m.line(1, Level::Low);
        assert_eq!(m.shown(0), []);
    }
}

#[test]
fn an_edge_stays_pending_when_its_line_drops() {
    for version in VERSIONS {
        let mut m = Machine::ready(version, 1);
        make_edge(&mut m, 1);
        m.line(1, Level::High);
        m.line(1, Level::Low);
        assert_eq!(m.iar(0), 33);
        m.eoi(0, 33);
        assert_eq!(m.shown(0), []);
    }
}

#[test]
fn two_edges_before_the_first_is_seen_are_one() {
    let mut m = Machine::ready(Version::V3, 1);
    make_edge(&mut m, 1);
    for _ in 0..2 {
        m.line(1, Level::High);
        m.line(1, Level::Low);
    }
    assert_eq!(m.iar(0), 33);
    m.eoi(0, 33);
    assert_eq!(m.shown(0), []);
}

#[test]
fn an_edge_while_active_comes_again_after_eoi() {
    let mut m = Machine::ready(Version::V3, 1);
    make_edge(&mut m, 1);
    m.line(1, Level::High);
    m.line(1, Level::Low);
    assert_eq!(m.iar(0), 33);
    m.line(1, Level::High);
    assert_eq!(m.shown(0), [(33, PendingActive)]);
    m.eoi(0, 33);
    assert_eq!(m.iar(0), 33);
}

#[test]
fn an_sgi_to_self_is_in_a_list_register_at_once() {
    for version in VERSIONS {
        let mut m = Machine::ready(version, 2);
        m.send(0, 0b01, 7);
        assert_eq!(m.shown(0), [(7, Pending)]);
        assert_eq!(m.shown(1), []);
    }
}

#[test]
fn an_sgi_to_self_that_has_ended_uses_its_list_register_again() {
    let mut m = Machine::ready(Version::V3, 1);
    for _ in 0..10 {
        m.send(0, 1, 7);
        assert_eq!(m.iar(0), 7);
        m.eoi(0, 7);
    }
    assert_eq!(m.cpus[0].lrs.iter().filter(|lr| lr.intid() == 7).count(), 1);
}

#[test]
fn an_sgi_to_self_while_active_becomes_active_and_pending() {
    let mut m = Machine::ready(Version::V3, 1);
    m.send(0, 1, 7);
    assert_eq!(m.iar(0), 7);
    m.send(0, 1, 7);
    assert_eq!(m.shown(0), [(7, PendingActive)]);
}

#[test]
fn an_sgi_reaches_its_targets_and_nobody_else() {
    for version in VERSIONS {
        let mut m = Machine::ready(version, 4);
        m.send(1, 0b1101, 3);
        for (vcpu, expected) in [(0, 3), (1, SPURIOUS), (2, 3), (3, 3)] {
            assert_eq!(m.iar(vcpu), expected, "vCPU {vcpu}");
        }
    }
}

#[test]
fn a_disabled_sgi_waits_for_its_enable() {
    let mut m = Machine::ready(Version::V3, 2);
    m.write_redist(1, 1, 0x1_0180, 1 << 3);
    m.send(0, 0b10, 3);
    assert_eq!(m.shown(1), []);
    m.write_redist(1, 1, 0x1_0100, 1 << 3);
    assert_eq!(m.shown(1), [(3, Pending)]);
}

#[test]
fn gicv2_sgis_from_several_vcpus_are_delivered_one_by_one() {
    let mut m = Machine::ready(Version::V2, 4);
    for from in [2, 1, 3, 1] {
        m.send(from, 0b0001, 5);
    }
    for source in [2, 1, 3] {
        assert_eq!(m.cpus[0].ack(), Some(Ack { intid: 5, source }));
        m.eoi(0, 5);
    }
    assert_eq!(m.shown(0), []);
}

#[test]
fn gicv2_sgi_from_the_same_vcpu_while_active_comes_again() {
    let mut m = Machine::ready(Version::V2, 2);
    m.send(1, 0b01, 5);
    assert_eq!(m.cpus[0].ack(), Some(Ack { intid: 5, source: 1 }));
    m.send(1, 0b01, 5);
    m.eoi(0, 5);
    assert_eq!(m.cpus[0].ack(), Some(Ack { intid: 5, source: 1 }));
}

#[test]
fn disabling_takes_a_pending_interrupt_back_and_enabling_brings_it_again() {
    for version in VERSIONS {
        let mut m = Machine::ready(version, 2);
        make_edge(&mut m, 1);
        m.line(1, Level::High);
        m.write(1, 0x184, 2);
        assert_eq!(m.shown(0), []);
        assert_eq!(m.read(0, 0x204), 2);
        m.write(1, 0x104, 2);
        assert_eq!(m.shown(0), [(33, Pending)]);
    }
}

#[test]
fn disabling_leaves_an_active_interrupt_active() {
    let mut m = Machine::ready(Version::V3, 1);
    m.line(1, Level::High);
    assert_eq!(m.iar(0), 33);
    m.write(0, 0x184, 2);
    assert_eq!(m.shown(0), [(33, Active)]);
}

#[test]
fn disabling_takes_back_the_pending_half_of_an_active_one() {
    let mut m = Machine::ready(Version::V3, 1);
    m.send(0, 1, 7);
    assert_eq!(m.iar(0), 7);
    m.send(0, 1, 7);
    m.write_redist(0, 0, 0x1_0180, 1 << 7);
    assert_eq!(m.shown(0), [(7, Active)]);
    assert_eq!(m.read_redist(0, 0, 0x1_0200), 1 << 7);
}

#[test]
fn the_group_enables_gate_delivery() {
    for version in VERSIONS {
        let mut m = Machine::ready(version, 1);
        m.write(0, 0x000, 0);
        m.line(1, Level::High);
        assert_eq!(m.shown(0), []);
        m.write(0, 0x000, 3);
        assert_eq!(m.shown(0), [(33, Pending)]);
        m.write(0, 0x000, 0);
        assert_eq!(m.shown(0), []);
    }
}

#[test]
fn the_list_register_says_group_and_priority() {
    let mut m = Machine::ready(Version::V3, 1);
    m.line(1, Level::High);
    let lr = m.cpus[0].lrs[0];
    assert_eq!((lr.is_group_one(), lr.priority()), (true, 0xa0));
    set_priority(&mut m, 33, 0x47);
    m.write(0, 0x084, !2);
    let lr = m.cpus[0].lrs[0];
    assert_eq!((lr.is_group_one(), lr.priority()), (false, 0x40));
}

#[test]
fn gicv2_interrupts_are_in_group_zero_unless_told_otherwise() {
    let mut m = Machine::ready(Version::V2, 1);
    m.line(1, Level::High);
    assert!(!m.cpus[0].lrs[0].is_group_one());
}

#[test]
fn rerouting_moves_a_pending_interrupt() {
    let mut m = Machine::ready(Version::V3, 2);
    m.line(1, Level::High);
    assert_eq!((m.shown(0), m.shown(1)), (vec![(33, Pending)], vec![]));
    m.write(0, 0x6000 + 8 * 33, 1);
    assert_eq!((m.shown(0), m.shown(1)), (vec![], vec![(33, Pending)]));

    let mut m = Machine::ready(Version::V2, 2);
    m.line(1, Level::High);
    m.write(1, 0x820, 0x0101_0201);
    assert_eq!((m.shown(0), m.shown(1)), (vec![], vec![(33, Pending)]));
}

#[test]
fn a_rerouted_active_interrupt_comes_to_the_new_target_after_eoi() {
    let mut m = Machine::ready(Version::V3, 2);
    m.line(1, Level::High);
    assert_eq!(m.iar(0), 33);
    m.write(0, 0x6000 + 8 * 33, 1);
    assert_eq!(m.shown(1), []);
    m.eoi(0, 33);
    assert_eq!((m.shown(0), m.shown(1)), (vec![], vec![(33, Pending)]));
}

#[test]
fn an_interrupt_routed_to_nobody_waits() {
    let mut m = Machine::ready(Version::V3, 2);
    m.write(0, 0x6000 + 8 * 33, 7);
    m.line(1, Level::High);
    assert_eq!((m.shown(0), m.shown(1)), (vec![], vec![]));
    m.write(0, 0x6000 + 8 * 33, 1);
    assert_eq!(m.shown(1), [(33, Pending)]);
}

#[test]
fn the_only_vcpu_of_a_gicv2_guest_needs_no_targets() {
    let mut m = Machine::new(Version::V2, 1);
    m.write(0, 0x104, 2);
    m.write(0, 0x000, 1);
    m.line(1, Level::High);
    assert_eq!(m.shown(0), [(33, Pending)]);
}

#[test]
fn interrupts_are_taken_by_priority_then_number() {
    let mut m = Machine::ready(Version::V3, 1);
    for (spi, priority) in [(0, 0xa0), (1, 0x40), (2, 0x80), (3, 0x40)] {
        set_priority(&mut m, SPI0 + spi, priority);
        make_edge(&mut m, spi);
    }
    for spi in 0..4 {
        m.line(spi, Level::High);
    }
    for intid in [33, 35, 34, 32] {
        assert_eq!(m.iar(0), intid);
        m.eoi(0, intid);
    }
}

#[test]
fn more_interrupts_than_list_registers_all_come_most_urgent_first() {
    for list_regs in [2, 3, 4] {
        let mut m = Machine::with_list_regs(Version::V3, 1, list_regs);
        m.set_up();
        for spi in 0..12 {
            set_priority(&mut m, SPI0 + spi, 0xf0 - 8 * spi as u8);
            make_edge(&mut m, spi);
        }
        for spi in 0..12 {
            m.line(spi, Level::High);
        }
        assert!(m.cpus[0].wanted.contains(Maintenance::NO_PENDING));
        for spi in (0..12).rev() {
            m.serve_maintenance();
            assert_eq!(m.iar(0), SPI0 + spi, "{list_regs} list registers");
            m.eoi(0, SPI0 + spi);
        }
        assert_eq!(m.cpus[0].wanted, Maintenance::NONE);
    }
}

#[test]
fn a_more_urgent_one_displaces_the_least_urgent_pending_one() {
    let mut m = Machine::ready(Version::V3, 1);
    for spi in 0..5 {
        m.line(spi, Level::High);
    }
    assert!(!m.shown(0).contains(&(36, Pending)));
    set_priority(&mut m, 36, 0x20);
    assert_eq!(m.iar(0), 36);
}

#[test]
fn nesting_deeper_than_the_list_registers_is_unwound() {
    let mut m = Machine::ready(Version::V3, 1);
    for spi in 0..8 {
        set_priority(&mut m, SPI0 + spi, 0xf0 - 16 * spi as u8);
        make_edge(&mut m, spi);
    }
    for spi in 0..8 {
        m.line(spi, Level::High);
        m.serve_maintenance();
        assert_eq!(m.iar(0), SPI0 + spi);
    }
    m.serve_maintenance();
    assert_eq!(m.read(0, 0x304), 0xff);
    for spi in (0..8).rev() {
        m.eoi(0, SPI0 + spi);
        assert_eq!(m.read(0, 0x304), (1 << spi) - 1);
    }
    assert_eq!(m.cpus[0].wanted, Maintenance::NONE);
}

#[test]
fn late_deactivation_does_not_block_further_interrupts() {
    let mut m = Machine::ready(Version::V3, 1);
    for spi in 0..10 {
        make_edge(&mut m, spi);
        m.line(spi, Level::High);
        m.serve_maintenance();
        assert_eq!(m.iar(0), SPI0 + spi);
        m.cpus[0].drop_priority();
        m.serve_maintenance();
    }
}

#[test]
fn a_linked_interrupt_carries_its_physical_number() {
    let mut m = Machine::ready(Version::V3, 1);
    m.vgic.link_ppi(0, IntId::ppi(11), IntId::ppi(11));
    let kicks = m.vgic.deliver_linked(0, IntId::ppi(11), &mut m.cpus[0]);
    assert!(kicks.is_empty());
    assert!(m.vgic.owns_physical(0, IntId::ppi(11)));
    assert_eq!(m.cpus[0].lrs[0].physical(), Some(IntId::ppi(11)));
    assert_eq!(m.iar(0), 27);
    m.eoi(0, 27);
    assert_eq!(m.cpus[0].deactivated, [IntId::ppi(11)]);
    let _ = m.flush(0);
    assert!(!m.vgic.owns_physical(0, IntId::ppi(11)));
}

#[test]
fn a_linked_interrupt_whose_line_falls_before_it_is_taken_is_let_go() {
    for version in [Version::V2, Version::V3] {
        let mut m = Machine::ready(version, 1);
        m.vgic.link_ppi(0, IntId::ppi(11), IntId::ppi(11));
        let _ = m.vgic.deliver_linked(0, IntId::ppi(11), &mut m.cpus[0]);
        m.cpus[0].low = vec![IntId::ppi(11)];
        assert!(!m.vgic.has_deliverable(0, &mut m.cpus[0]), "{version:?}");
        assert_eq!(m.shown(0), [], "{version:?}");
        assert_eq!(m.cpus[0].deactivated, [IntId::ppi(11)], "{version:?}");
    }
}

#[test]
fn a_linked_interrupt_that_is_disabled_waits_and_keeps_its_link() {
    let mut m = Machine::ready(Version::V3, 1);
    m.vgic.link_ppi(0, IntId::ppi(11), IntId::ppi(14));
    m.write_redist(0, 0, 0x1_0180, 1 << 27);
    let _ = m.vgic.deliver_linked(0, IntId::ppi(11), &mut m.cpus[0]);
    assert_eq!(m.shown(0), []);
    assert!(m.vgic.owns_physical(0, IntId::ppi(11)));
    m.write_redist(0, 0, 0x1_0100, 1 << 27);
    assert_eq!(m.cpus[0].lrs[0].physical(), Some(IntId::ppi(14)));
}

#[test]
fn a_linked_interrupt_that_the_guest_deactivates_by_register_is_deactivated_physically() {
    let mut m = Machine::ready(Version::V3, 1);
    m.vgic.link_ppi(0, IntId::ppi(11), IntId::ppi(11));
    let _ = m.vgic.deliver_linked(0, IntId::ppi(11), &mut m.cpus[0]);
    assert_eq!(m.iar(0), 27);
    m.write_redist(0, 0, 0x1_0380, 1 << 27);
    assert_eq!(m.cpus[0].deactivated, [IntId::ppi(11)]);
    assert_eq!(m.shown(0), []);
}

#[test]
fn a_ppi_that_is_not_linked_follows_its_line() {
    for version in VERSIONS {
        let mut m = Machine::ready(version, 2);
        let kicks = m.vgic.deliver(1, IntId::ppi(14), &mut m.cpus[1]);
        assert!(kicks.is_empty());
        assert_eq!(m.iar(1), 30);
        m.eoi(1, 30);
        assert_eq!(m.iar(1), 30, "the line is still high");
        m.private_line(1, 14, Level::Low);
        m.eoi(1, 30);
        assert_eq!(m.shown(1), []);
    }
}

#[test]
fn has_deliverable_sees_waiting_and_loaded_and_not_active_ones() {
    let mut m = Machine::ready(Version::V3, 1);
    let has = |m: &mut Machine| m.vgic.has_deliverable(0, &mut m.cpus[0]);
    assert!(!has(&mut m));
    let kicks = m.vgic.set_spi_line(IntId::spi(1), Level::High);
    assert!(has(&mut m), "waiting");
    m.serve(kicks);
    assert!(has(&mut m), "loaded");
    assert_eq!(m.iar(0), 33);
    assert!(!has(&mut m), "active");
    m.cpus[0].eoi(33);
    assert!(has(&mut m), "ended, the line still high, not flushed yet");
}

#[test]
fn numbers_that_do_not_exist_do_nothing() {
    let mut m = Machine::ready(Version::V3, 1);
    m.line(96, Level::High);
    m.line(900, Level::High);
    let _ = m.vgic.set_spi_line(IntId::ppi(3), Level::High);
    let _ = m.vgic.set_ppi_line(0, IntId::spi(3), Level::High);
    let _ = m.vgic.set_ppi_line(0, IntId::sgi(3), Level::High);
    let _ = m.vgic.deliver(0, IntId::spi(3), &mut m.cpus[0]);
    let _ = m.vgic.deliver_linked(0, IntId::sgi(3), &mut m.cpus[0]);
    assert_eq!(m.shown(0), []);
}

#[test]
fn a_priority_that_changes_while_active_holds_for_the_next_one() {
    let mut m = Machine::ready(Version::V3, 1);
    m.send(0, 1, 3);
    assert_eq!(m.iar(0), 3);
    m.write_redist(0, 0, 0x1_0400, 0x4040_4040);
    m.eoi(0, 3);
    m.send(0, 1, 3);
    assert_eq!(m.cpus[0].lrs[0].priority(), 0x40);
}

#[test]
fn an_sgi_that_was_disabled_while_active_waits_for_its_enable() {
    for version in VERSIONS {
        let (clear, set) = if version == Version::V2 { (0x180, 0x100) } else { (0x1_0180, 0x1_0100) };
        let write = |m: &mut Machine, offset| match version {
            Version::V2 => m.write(0, offset, 1 << 3),
            Version::V3 => m.write_redist(0, 0, offset, 1 << 3),
        };
        let mut m = Machine::ready(version, 1);
        m.send(0, 1, 3);
        assert_eq!(m.iar(0), 3);
        write(&mut m, clear);
        m.eoi(0, 3);
        m.send(0, 1, 3);
        assert_eq!(m.shown(0), []);
        write(&mut m, set);
        assert_eq!(m.shown(0), [(3, Pending)]);
    }
}

/// Two list registers, and edges of SPI 0 and 1 more urgent than all else.
fn narrow(version: Version, vcpus: usize) -> Machine {
    let mut m = Machine::with_list_regs(version, vcpus, 2);
    m.set_up();
    for (spi, priority) in [(0, 0x80), (1, 0x40)] {
        make_edge(&mut m, spi);
        set_priority(&mut m, SPI0 + spi, priority);
    }
    m
}

/// Sends the edge of an SPI, and the guest takes it.
fn nest(m: &mut Machine, spi: u32) {
    m.line(spi, Level::High);
    m.serve_maintenance();
    assert_eq!(m.iar(0), SPI0 + spi);
    m.serve_maintenance();
}

#[test]
fn a_linked_interrupt_never_makes_room() {
    let mut m = narrow(Version::V3, 1);
    m.vgic.link_ppi(0, IntId::ppi(11), IntId::ppi(11));
    let _ = m.vgic.deliver_linked(0, IntId::ppi(11), &mut m.cpus[0]);
    assert_eq!(m.iar(0), 27);
    nest(&mut m, 0);
    nest(&mut m, 1);
    assert_eq!(m.shown(0), [(27, Active), (33, Active)]);
    for intid in [33, 32, 27] {
        m.eoi(0, intid);
    }
    assert_eq!((m.read(0, 0x304), m.cpus[0].deactivated.as_slice()), (0, &[IntId::ppi(11)][..]));
}

#[test]
fn what_the_guest_ended_before_anything_made_room_does_not_count() {
    let mut m = narrow(Version::V3, 1);
    m.send(0, 1, 3);
    assert_eq!(m.iar(0), 3);
    // Deactivated by register, then ended: the hardware finds nothing to end.
    m.write_redist(0, 0, 0x1_0380, 1 << 3);
    m.eoi(0, 3);
    m.send(0, 1, 4);
    assert_eq!(m.iar(0), 4);
    nest(&mut m, 0);
    nest(&mut m, 1);
    assert_eq!(m.read_redist(0, 0, 0x1_0300), 1 << 4);
}

#[test]
fn a_gicv2_sgi_that_made_room_is_ended_without_a_list_register() {
    let mut m = narrow(Version::V2, 4);
    m.send(3, 1, 5);
    assert_eq!(m.cpus[0].ack(), Some(Ack { intid: 5, source: 3 }));
    nest(&mut m, 0);
    nest(&mut m, 1);
    m.eoi(0, 33);
    let _ = m.flush(0);
    assert_eq!(m.shown(0), [(32, Active)], "its sender is forgotten");
    assert_eq!(m.read(0, 0x300), 1 << 5);
    m.eoi(0, 32);
    m.eoi(0, 5);
    assert_eq!(m.read(0, 0x300), 0);
}
