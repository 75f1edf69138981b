//! vCPU switches, power-off and reset.

use super::State::{Active, Pending};
use super::{Interface, Level, Machine, SPURIOUS, VERSIONS, Version};
use crate::vgic::{Lr, Maintenance};
use platform::intid::IntId;

/// Switches a vCPU out; its list registers must be empty then.
fn save(m: &mut Machine, vcpu: usize) {
    let kicks = m.vgic.save(vcpu, &mut m.cpus[vcpu]);
    assert!(m.cpus[vcpu].lrs.iter().all(|&lr| lr == Lr::EMPTY));
    assert_eq!(m.cpus[vcpu].wanted, Maintenance::NONE);
    m.serve(kicks.without(vcpu));
}

fn restore(m: &mut Machine, vcpu: usize) {
    let kicks = m.vgic.restore(vcpu, &mut m.cpus[vcpu]);
    m.serve(kicks);
}

#[test]
fn a_switch_keeps_pending_and_active_interrupts() {
    for version in VERSIONS {
        let mut m = Machine::ready(version, 1);
        m.send(0, 1, 3);
        assert_eq!(m.iar(0), 3);
        m.send(0, 1, 4);
        m.line(1, Level::High);
        let before = m.shown(0);
        save(&mut m, 0);
        restore(&mut m, 0);
        assert_eq!(m.shown(0), before);
    }
}

#[test]
fn gicv2_senders_survive_a_switch() {
    let mut m = Machine::ready(Version::V2, 4);
    m.send(3, 1, 5);
    m.send(2, 1, 5);
    save(&mut m, 0);
    restore(&mut m, 0);
    let mut sources = Vec::new();
    while let Some(ack) = m.cpus[0].ack() {
        sources.push(ack.source);
        m.eoi(0, 5);
    }
    assert_eq!(sources, [2, 3]);
}

#[test]
fn a_saved_vcpu_has_something_to_take_exactly_if_it_is_pending() {
    let mut m = Machine::ready(Version::V3, 1);
    m.line(1, Level::High);
    save(&mut m, 0);
    assert!(m.vgic.has_deliverable_at_rest(0));
    restore(&mut m, 0);
    assert_eq!(m.iar(0), 33);
    save(&mut m, 0);
    assert!(!m.vgic.has_deliverable_at_rest(0));
}

#[test]
fn a_pending_interrupt_of_a_saved_vcpu_can_be_rerouted() {
    let mut m = Machine::ready(Version::V3, 2);
    m.line(1, Level::High);
    save(&mut m, 0);
    m.write(1, 0x6000 + 8 * 33, 1);
    assert_eq!(m.shown(1), [(33, Pending)]);
    restore(&mut m, 0);
    assert_eq!(m.shown(0), []);
}

#[test]
fn an_interrupt_that_arrives_while_saved_is_loaded_at_restore() {
    let mut m = Machine::ready(Version::V3, 2);
    save(&mut m, 1);
    let kicks = m.vgic.write_sgi_register(0, crate::vgic::SgiRegister::Sgi1R, 0x0300_0002, &mut m.cpus[0]);
    assert!(kicks.contains(1));
    assert!(m.vgic.has_deliverable_at_rest(1));
    restore(&mut m, 1);
    assert_eq!(m.shown(1), [(3, Pending)]);
}

#[test]
fn a_linked_interrupt_is_still_linked_after_a_switch() {
    let mut m = Machine::ready(Version::V3, 1);
    m.vgic.link_ppi(0, IntId::ppi(11), IntId::ppi(11));
    let _ = m.vgic.deliver_linked(0, IntId::ppi(11), &mut m.cpus[0]);
    for state in [Pending, Active] {
        save(&mut m, 0);
        assert!(m.vgic.owns_physical(0, IntId::ppi(11)));
        restore(&mut m, 0);
        assert_eq!(m.shown(0), [(27, state)]);
        assert!(m.cpus[0].lrs.iter().any(|lr| lr.physical() == Some(IntId::ppi(11))));
        m.iar(0);
    }
    m.eoi(0, 27);
    save(&mut m, 0);
    assert!(!m.vgic.owns_physical(0, IntId::ppi(11)));
}

#[test]
fn waiting_and_spilled_interrupts_survive_a_switch() {
    let mut m = Machine::with_list_regs(Version::V3, 1, 2);
    m.set_up();
    for spi in 0..5 {
        m.line(spi, Level::High);
        m.serve_maintenance();
        let intid = m.iar(0);
        m.cpus[0].drop_priority();
        assert_eq!(intid, 32 + spi);
    }
    let active = m.read(0, 0x304);
    save(&mut m, 0);
    restore(&mut m, 0);
    m.serve_maintenance();
    assert_eq!((m.read(0, 0x304), active), (0x1f, 0x1f));
}

#[test]
fn power_off_leaves_nothing_active_and_forgets_nothing_pending() {
    let mut m = Machine::ready(Version::V3, 2);
    m.line(1, Level::High);
    m.send(0, 1, 4);
    assert_eq!(m.iar(0), 4);
    let kicks = m.vgic.power_off(0, &mut m.cpus[0]);
    m.serve(kicks);
    assert_eq!(m.read(1, 0x304), 0);
    assert_eq!(m.read_redist(1, 0, 0x1_0300), 0);
    save(&mut m, 0);
    m.write(1, 0x6000 + 8 * 33, 1);
    assert_eq!(m.shown(1), [(33, Pending)]);
}

#[test]
fn reset_is_power_on_again() {
    for version in VERSIONS {
        let mut m = Machine::ready(version, 2);
        m.send(0, 0b11, 4);
        m.line(1, Level::High);
        (0..2).for_each(|vcpu| save(&mut m, vcpu));
        m.vgic.reset();
        m.line(1, Level::Low);
        m.cpus = (0..2).map(|_| Interface::new(4)).collect();
        (0..2).for_each(|vcpu| restore(&mut m, vcpu));
        let fresh = Machine::new(version, 2);
        for offset in (0..0x1_0000).step_by(4) {
            assert_eq!(m.read(0, offset), fresh.read(0, offset), "{offset:#x}");
        }
        for offset in (0..0x2_0000).step_by(4) {
            assert_eq!(m.read_redist(0, 1, offset), fresh.read_redist(0, 1, offset), "{offset:#x}");
        }
        m.set_up();
        assert_eq!((m.iar(0), m.iar(1)), (SPURIOUS, SPURIOUS));
    }
}

#[test]
fn an_sgi_that_was_active_across_a_switch_can_be_sent_again() {
    for version in VERSIONS {
        let mut m = Machine::ready(version, 2);
        m.send(0, 1, 3);
        assert_eq!(m.iar(0), 3);
        save(&mut m, 0);
        restore(&mut m, 0);
        m.eoi(0, 3);
        m.send(0, 1, 3);
        assert_eq!(m.shown(0), [(3, Pending)]);
    }
}
