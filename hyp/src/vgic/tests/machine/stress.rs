//! Real threads: one per vCPU as its home CPU, others as devices.
//!
//! Nothing is served at once here. A kick is a flag, as between real CPUs, and
//! the vCPU's own thread serves it before its guest goes on. Meanwhile
//! interrupts are rerouted, disabled and enabled, and vCPUs are switched out
//! and in. What must hold: an edge that a device waits for arrives, it arrives
//! once, and nobody waits forever.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use super::{Interface, Level, SgiRegister, Version, Vgic};
use crate::mmio::Width;
use crate::vcpu_set::VcpuSet;
use platform::intid::IntId;

const VCPUS: usize = 4;
/// SPIs whose device waits for each edge to arrive.
const SYNCHRONOUS: u32 = 3;
/// SPIs whose device pulses at will.
const FREE: u32 = 3;
/// An SGI that every vCPU sends around.
const SGI: u32 = 5;
const EDGES: u32 = 10_000;
const DEADLINE: Duration = Duration::from_secs(120);

struct World {
    vgic: Vgic,
    kicked: [AtomicBool; VCPUS],
    /// Arrivals of each SPI, on whichever vCPU.
    arrived: [AtomicU32; (SYNCHRONOUS + FREE) as usize],
    sgis: [AtomicU32; VCPUS],
    done: AtomicBool,
    started: Instant,
}

/// A small generator, one per thread: the interleaving is random anyway.
struct Random(u32);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 % bound
    }
}

impl World {
    fn new(version: Version) -> Self {
        let world = Self {
            vgic: Vgic::new(version, VCPUS),
            kicked: Default::default(),
            arrived: Default::default(),
            sgis: Default::default(),
            done: AtomicBool::new(false),
            started: Instant::now(),
        };
        let mut lrs = Interface::new(4);
        for vcpu in 0..VCPUS {
            world.write(vcpu, 0x100, u32::MAX, &mut lrs);
            let _ = world.vgic.redist_write(0, vcpu, 0x1_0100, Width::Word, u64::MAX, &mut lrs);
        }
        world.write(0, 0x104, u32::MAX, &mut lrs);
        world.write(0, 0xc08, 0xaaaa_aaaa, &mut lrs);
        for spi in 0..SYNCHRONOUS + FREE {
            world.route(spi, 0, &mut lrs);
        }
        world.write(0, 0x000, 3, &mut lrs);
        world
    }

    fn kick(&self, kicks: VcpuSet) {
        kicks.iter().for_each(|vcpu| self.kicked[vcpu].store(true, SeqCst));
    }

    fn write(&self, vcpu: usize, offset: u64, value: u32, lrs: &mut Interface) {
        self.kick(self.vgic.dist_write(vcpu, offset, Width::Word, value.into(), lrs));
    }

    /// Routes SPI `spi` to `target`; the write is made by that vCPU number 0.
    fn route(&self, spi: u32, target: u32, lrs: &mut Interface) {
        let (offset, width, value) = match self.vgic.version {
            Version::V2 => (0x820 + u64::from(spi), Width::Byte, 1 << target),
            Version::V3 => (0x6100 + 8 * u64::from(spi), Width::Double, target),
        };
        self.kick(self.vgic.dist_write(0, offset, width, value.into(), lrs));
    }

    fn line(&self, spi: u32, level: Level) {
        self.kick(self.vgic.set_spi_line(IntId::spi(spi), level));
    }

    fn pulse(&self, spi: u32) {
        self.line(spi, Level::High);
        self.line(spi, Level::Low);
    }

    fn wait_until(&self, what: &str, condition: impl Fn() -> bool) {
        while !condition() {
            assert!(self.started.elapsed() < DEADLINE, "nobody came: {what}: {self:?}");
            thread::yield_now();
        }
    }

    /// A device that sends an edge, waits until it has arrived, and so on.
    fn synchronous_device(&self, spi: u32) {
        for edge in 1..=EDGES {
            self.pulse(spi);
            self.wait_until("edge", || self.arrived[spi as usize].load(SeqCst) >= edge);
        }
    }

    fn free_device(&self, spi: u32, random: &mut Random) {
        for _ in 0..EDGES {
            self.pulse(spi);
            (0..random.below(4)).for_each(|_| thread::yield_now());
        }
        // One more, of which at least one must arrive after this moment.
        let before = self.arrived[spi as usize].load(SeqCst);
        self.pulse(spi);
        self.wait_until("last edge", || self.arrived[spi as usize].load(SeqCst) > before);
        assert!(before <= EDGES, "more arrived than were sent");
    }

    /// The home CPU of one vCPU, and the guest on it.
    fn home(&self, vcpu: usize) {
        let mut random = Random(0x9e37_79b9 + vcpu as u32);
        let mut lrs = Interface::new(2 + vcpu % 3);
        let mut disabled = 0;
        while !self.done.load(SeqCst) {
            self.serve(vcpu, &mut lrs);
            match random.below(12) {
                0..6 => self.take_one(vcpu, &mut lrs, &mut random),
                6 => self.send_sgi(vcpu, 1 << random.below(VCPUS as u32), &mut lrs),
                // Only one vCPU changes each: it knows what is enabled.
                7 if vcpu == 0 => {
                    self.route(random.below(SYNCHRONOUS + FREE), random.below(VCPUS as u32), &mut lrs)
                }
                8 if vcpu == 1 => {
                    disabled = 1 << random.below(SYNCHRONOUS + FREE);
                    self.write(vcpu, 0x184, disabled, &mut lrs);
                }
                9 if vcpu == 1 => self.write(vcpu, 0x104, std::mem::take(&mut disabled) | 0xff, &mut lrs),
                10 => {
                    self.kick(self.vgic.save(vcpu, &mut lrs));
                    thread::yield_now();
                    self.kick(self.vgic.restore(vcpu, &mut lrs));
                }
                _ => self.idle(vcpu, &mut lrs),
            }
        }
    }

    /// What the loop around a guest does before entering it.
    fn serve(&self, vcpu: usize, lrs: &mut Interface) {
        while self.kicked[vcpu].swap(false, SeqCst) || lrs.has_maintenance() {
            self.kick(self.vgic.flush(vcpu, lrs));
        }
    }

    /// Sleeps until there is a kick, if there is nothing to take.
    fn idle(&self, vcpu: usize, lrs: &mut Interface) {
        let nothing = !self.vgic.has_deliverable(vcpu, lrs);
        let mut naps = 0;
        while nothing && naps < 20 && !self.kicked[vcpu].load(SeqCst) && !self.done.load(SeqCst) {
            thread::yield_now();
            naps += 1;
        }
    }

    fn take_one(&self, vcpu: usize, lrs: &mut Interface, random: &mut Random) {
        let Some(ack) = lrs.ack() else {
            return;
        };
        match ack.intid {
            SGI => _ = self.sgis[vcpu].fetch_add(1, SeqCst),
            spi => _ = self.arrived[spi as usize - 32].fetch_add(1, SeqCst),
        }
        if random.below(4) == 0 {
            self.serve(vcpu, lrs);
        }
        lrs.eoi(ack.intid);
    }

    fn send_sgi(&self, vcpu: usize, targets: u64, lrs: &mut Interface) {
        self.kick(match self.vgic.version {
            Version::V2 => {
                let value = targets << 16 | u64::from(SGI);
                self.vgic.dist_write(vcpu, 0xf00, Width::Word, value, lrs)
            }
            Version::V3 => {
                let value = u64::from(SGI) << 24 | targets;
                self.vgic.write_sgi_register(vcpu, SgiRegister::Sgi1R, value, lrs)
            }
        });
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "arrived {:?}, kicked {:?}, {:#x?}", self.arrived, self.kicked, self.vgic)
    }
}

fn run(version: Version) {
    let world = World::new(version);
    thread::scope(|scope| {
        for vcpu in 0..VCPUS {
            let world = &world;
            scope.spawn(move || world.home(vcpu));
        }
        let devices: Vec<_> = (0..SYNCHRONOUS + FREE)
            .map(|spi| {
                let world = &world;
                scope.spawn(move || match spi {
                    0..SYNCHRONOUS => world.synchronous_device(spi),
                    _ => world.free_device(spi, &mut Random(spi + 77)),
                })
            })
            .collect();
        let results: Vec<_> = devices.into_iter().map(thread::ScopedJoinHandle::join).collect();
        // The vCPUs must stop even if a device has given up.
        world.done.store(true, SeqCst);
        results.into_iter().for_each(|result| result.expect("a device gave up"));
    });
    for spi in 0..SYNCHRONOUS as usize {
        assert_eq!(world.arrived[spi].load(SeqCst), EDGES, "SPI {spi} once per edge");
    }
    for sgis in &world.sgis {
        assert!(sgis.load(SeqCst) > 0);
    }
}

#[test]
fn every_edge_arrives_once_on_gicv2() {
    run(Version::V2);
}

#[test]
fn every_edge_arrives_once_on_gicv3() {
    run(Version::V3);
}
