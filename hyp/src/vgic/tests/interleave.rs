//! All interleavings of the protocol in `mod.rs`, tried by loom.
//!
//! Each model races a few home CPUs and devices over one interrupt, then serves
//! the kicks that they are owed, and looks where the interrupt ended up: in
//! exactly the list register where it belongs. Loom also lets relaxed loads
//! return old values wherever the memory model allows it, so a missing
//! `publish` fails here and nowhere else.
//!
//! `RUSTFLAGS="--cfg hyp_loom" cargo test --release -p hyp --lib interleave`;
//! `LOOM_MAX_PREEMPTIONS=3` looks deeper in half a minute.

use std::sync::Arc;

use loom::thread;

use super::interface::Interface;
use crate::mmio::Width::{Byte, Double, Word};
use crate::vcpu_set::VcpuSet;
use crate::vgic::irq::Irq;
use crate::vgic::sync::{AtomicU8, Ordering::Relaxed};
use crate::vgic::{Level, SgiRegister, State, Version, Vgic};
use platform::intid::IntId;

const SPI: IntId = IntId::spi(1);

/// Two vCPUs, everything enabled, SPI 1 an edge and routed to vCPU 0.
fn vgic(version: Version) -> Arc<Vgic> {
    let vgic = Vgic::new(version, 2);
    let mut lrs = Interface::new(2);
    for vcpu in 0..2 {
        let _ = vgic.dist_write(vcpu, 0x100, Word, u64::MAX, &mut lrs);
        let _ = vgic.redist_write(0, vcpu, 0x1_0100, Word, u64::MAX, &mut lrs);
    }
    let _ = vgic.dist_write(0, 0x104, Word, 2, &mut lrs);
    let _ = vgic.dist_write(0, 0xc08, Word, 8, &mut lrs);
    let _ = vgic.dist_write(0, 0x821, Byte, 1, &mut lrs);
    let _ = vgic.dist_write(0, 0x000, Word, 3, &mut lrs);
    Arc::new(vgic)
}

fn model(body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 100_000;
    // Every pair of pre-emptions: all the races that two looks can lose.
    builder.preemption_bound.get_or_insert(2);
    builder.check(body);
}

/// Serves what is owed and says which list registers are pending, by vCPU.
fn settle(vgic: &Vgic, lrs: &mut [Interface; 2], mut owed: VcpuSet) -> Vec<(usize, u32)> {
    for _ in 0..10 {
        owed = owed.iter().fold(VcpuSet::EMPTY, |all, vcpu| all.union(vgic.flush(vcpu, &mut lrs[vcpu])));
    }
    assert!(owed.is_empty(), "kicks never end");
    assert!(lrs.iter().all(|lrs| !lrs.has_maintenance()), "nothing has ended since");
    let shown = |(vcpu, lrs): (usize, &Interface)| {
        let pending = lrs.shown().into_iter().filter(|&(_, state)| state == State::Pending);
        pending.map(move |(intid, _)| (vcpu, intid)).collect::<Vec<_>>()
    };
    lrs.iter().enumerate().flat_map(shown).collect()
}

/// Runs `first` and `second` at once, each with list registers of its own.
fn race(
    vgic: &Arc<Vgic>,
    [mut first_lrs, mut second_lrs]: [Interface; 2],
    first: impl Fn(&Vgic, &mut Interface) -> VcpuSet + Send + 'static,
    second: impl Fn(&Vgic, &mut Interface) -> VcpuSet + Send + 'static,
    device: impl Fn(&Vgic) -> VcpuSet,
) -> Vec<(usize, u32)> {
    let first = thread::spawn({
        let vgic = vgic.clone();
        move || (first(&vgic, &mut first_lrs), first_lrs)
    });
    let second = thread::spawn({
        let vgic = vgic.clone();
        move || (second(&vgic, &mut second_lrs), second_lrs)
    });
    let kicks = device(vgic);
    let (first_kicks, first_lrs) = first.join().expect("the first home CPU");
    let (second_kicks, second_lrs) = second.join().expect("the second home CPU");
    let owed = kicks.union(first_kicks).union(second_kicks);
    settle(vgic, &mut [first_lrs, second_lrs], owed)
}

fn lrs() -> [Interface; 2] {
    [Interface::new(2), Interface::new(2)]
}

fn reroute(vgic: &Vgic, lrs: &mut Interface) -> VcpuSet {
    vgic.dist_write(1, 0x6000 + 8 * u64::from(SPI.raw()), Double, 1, lrs)
}

#[test]
fn an_edge_and_a_reroute_meet() {
    model(|| {
        let vgic = vgic(Version::V3);
        let pending = race(
            &vgic,
            lrs(),
            |vgic, lrs| vgic.flush(0, lrs),
            reroute,
            |vgic| vgic.set_spi_line(SPI, Level::High),
        );
        assert_eq!(pending, [(1, SPI.raw())]);
    });
}

#[test]
fn an_edge_and_an_enable_meet() {
    model(|| {
        let vgic = vgic(Version::V3);
        let mut lrs = lrs();
        let _ = vgic.dist_write(1, 0x184, Word, 2, &mut lrs[1]);
        let pending = race(
            &vgic,
            lrs,
            |vgic, lrs| vgic.flush(0, lrs),
            |vgic, lrs| vgic.dist_write(1, 0x104, Word, 2, lrs),
            |vgic| vgic.set_spi_line(SPI, Level::High),
        );
        assert_eq!(pending, [(0, SPI.raw())]);
    });
}

#[test]
fn an_edge_and_a_disable_meet() {
    model(|| {
        let vgic = vgic(Version::V3);
        let pending = race(
            &vgic,
            lrs(),
            |vgic, lrs| vgic.flush(0, lrs),
            |vgic, lrs| vgic.dist_write(1, 0x184, Word, 2, lrs),
            |vgic| vgic.set_spi_line(SPI, Level::High),
        );
        assert_eq!(pending, []);
        assert_eq!(vgic.dist_read(0, 0x204, Word, &mut Interface::new(2)), 2, "and is not forgotten");
    });
}

#[test]
fn an_edge_and_the_end_of_the_one_before_meet_a_reroute() {
    model(|| {
        let vgic = vgic(Version::V3);
        let mut lrs = lrs();
        let _ = vgic.set_spi_line(SPI, Level::High);
        let _ = vgic.set_spi_line(SPI, Level::Low);
        let _ = vgic.flush(0, &mut lrs[0]);
        assert_eq!(lrs[0].iar(), SPI.raw());
        lrs[0].eoi(SPI.raw());
        let pending = race(
            &vgic,
            lrs,
            |vgic, lrs| vgic.flush(0, lrs),
            reroute,
            |vgic| vgic.set_spi_line(SPI, Level::High),
        );
        assert_eq!(pending, [(1, SPI.raw())]);
    });
}

#[test]
fn a_line_that_drops_while_it_is_loaded_is_withdrawn() {
    model(|| {
        let vgic = vgic(Version::V3);
        let mut lrs = lrs();
        let _ = vgic.dist_write(1, 0xc08, Word, 0, &mut lrs[1]);
        let _ = vgic.set_spi_line(SPI, Level::High);
        let pending = race(
            &vgic,
            lrs,
            |vgic, lrs| vgic.flush(0, lrs),
            |_, _| VcpuSet::EMPTY,
            |vgic| vgic.set_spi_line(SPI, Level::Low),
        );
        assert_eq!(pending, []);
    });
}

#[test]
fn clearing_pending_does_not_hit_the_next_sgi() {
    model(|| {
        let vgic = vgic(Version::V3);
        let mut lrs = lrs();
        // It has had one, and has not looked since the guest ended it.
        let _ = vgic.deliver(0, IntId::sgi(3), &mut lrs[0]);
        assert_eq!(lrs[0].iar(), 3);
        lrs[0].eoi(3);
        let pending = race(
            &vgic,
            lrs,
            |vgic, lrs| vgic.flush(0, lrs),
            |vgic, lrs| {
                let cleared = vgic.redist_write(1, 0, 0x1_0280, Word, 1 << 3, lrs);
                cleared.union(vgic.write_sgi_register(1, SgiRegister::Sgi1R, 0x0300_0001, lrs))
            },
            |_| VcpuSet::EMPTY,
        );
        assert_eq!(pending, [(0, 3)]);
    });
}

#[test]
fn an_sgi_to_self_and_an_enable_from_elsewhere_meet() {
    model(|| {
        let vgic = vgic(Version::V3);
        let mut lrs = lrs();
        let _ = vgic.redist_write(0, 0, 0x1_0180, Word, 1 << 3, &mut lrs[0]);
        let pending = race(
            &vgic,
            lrs,
            |vgic, lrs| vgic.deliver(0, IntId::sgi(3), lrs),
            |vgic, lrs| vgic.redist_write(1, 0, 0x1_0100, Word, 1 << 3, lrs),
            |_| VcpuSet::EMPTY,
        );
        assert_eq!(pending, [(0, 3)]);
    });
}

#[test]
fn an_sgi_to_self_and_a_disable_from_elsewhere_meet() {
    model(|| {
        let vgic = vgic(Version::V3);
        let pending = race(
            &vgic,
            lrs(),
            |vgic, lrs| vgic.deliver(0, IntId::sgi(3), lrs),
            |vgic, lrs| vgic.redist_write(1, 0, 0x1_0180, Word, 1 << 3, lrs),
            |_| VcpuSet::EMPTY,
        );
        assert_eq!(pending, []);
    });
}

#[test]
fn gicv2_senders_are_not_overlooked() {
    model(|| {
        let vgic = vgic(Version::V2);
        let mut lrs = lrs();
        let _ = vgic.dist_write(0, 0xf00, Word, 0x0001_0003, &mut lrs[0]);
        let pending = race(
            &vgic,
            lrs,
            |vgic, lrs| vgic.flush(0, lrs),
            |vgic, lrs| vgic.dist_write(1, 0xf00, Word, 0x0001_0003, lrs),
            |_| VcpuSet::EMPTY,
        );
        assert_eq!(pending, [(0, 3)]);
        assert!(vgic.vcpu(0).has_source(Irq::at(0, 3)), "the second sender waits behind the first");
    });
}

#[test]
fn an_idle_cpu_and_a_device_do_not_miss_each_other() {
    model(|| {
        let vgic = vgic(Version::V3);
        let idle = Arc::new(AtomicU8::new(0));
        let home = thread::spawn({
            let (vgic, idle) = (vgic.clone(), idle.clone());
            move || {
                idle.store(1, Relaxed);
                vgic.has_deliverable(0, &mut Interface::new(2))
            }
        });
        let kicks = vgic.set_spi_line(SPI, Level::High);
        assert!(kicks.contains(0));
        let woken = idle.load(Relaxed) == 1;
        let stays_awake = home.join().expect("the home CPU");
        assert!(woken || stays_awake);
    });
}
