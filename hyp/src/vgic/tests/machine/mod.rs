//! Tests of a VM whose vCPUs are all resident, each on a CPU of its own.

mod delivery;
mod model;
mod registers_v2;
mod registers_v3;
mod stress;
mod switching;

use platform::intid::IntId;

use super::interface::{Ack, Interface, SPURIOUS};
use crate::mmio::Width;
use crate::vcpu_set::VcpuSet;
use crate::vgic::{Level, SgiRegister, State, Version, Vgic};

/// A VM with all its vCPUs resident, whose kicks are served at once.
struct Machine {
    vgic: Vgic,
    cpus: Vec<Interface>,
}

impl Machine {
    fn new(version: Version, vcpus: usize) -> Self {
        Self::with_list_regs(version, vcpus, 4)
    }

    fn with_list_regs(version: Version, vcpus: usize, count: usize) -> Self {
        let vgic = Vgic::new(version, vcpus);
        Self { vgic, cpus: (0..vcpus).map(|_| Interface::new(count)).collect() }
    }

    /// A machine whose interrupts are all enabled, of priority 0xa0, and go to
    /// vCPU 0: as an operating system sets it up.
    fn ready(version: Version, vcpus: usize) -> Self {
        let mut machine = Self::new(version, vcpus);
        machine.set_up();
        machine
    }

    fn set_up(&mut self) {
        for vcpu in 0..self.cpus.len() {
            match self.vgic.version {
                Version::V2 => {
                    self.write(vcpu, 0x100, u32::MAX);
                    (0..8).for_each(|n| self.write(vcpu, 0x400 + 4 * n, 0xa0a0_a0a0));
                }
                Version::V3 => {
                    self.write_redist(vcpu, vcpu, 0x1_0100, u32::MAX);
                    (0..8).for_each(|n| self.write_redist(vcpu, vcpu, 0x1_0400 + 4 * n, 0xa0a0_a0a0));
                }
            }
        }
        for n in 1..4 {
            self.write(0, 0x100 + 4 * n, u32::MAX);
        }
        for n in 8..32 {
            self.write(0, 0x400 + 4 * n, 0xa0a0_a0a0);
            self.write(0, 0x800 + 4 * n, 0x0101_0101);
        }
        self.write(0, 0x000, 3);
    }

    /// Serves kicks, as their home CPUs would, until nobody is left to kick.
    fn serve(&mut self, mut kicks: VcpuSet) {
        for _ in 0..100 {
            if kicks.is_empty() {
                return;
            }
            kicks = kicks.iter().fold(VcpuSet::EMPTY, |next, vcpu| next.union(self.flush(vcpu)));
        }
        panic!("kicks never end");
    }

    fn flush(&mut self, vcpu: usize) -> VcpuSet {
        let kicks = self.vgic.flush(vcpu, &mut self.cpus[vcpu]);
        assert!(!kicks.contains(vcpu));
        kicks
    }

    fn serve_maintenance(&mut self) {
        for vcpu in 0..self.cpus.len() {
            for round in 0.. {
                assert!(round < 10, "a storm of maintenance interrupts: {:?}", self.cpus[vcpu]);
                if !self.cpus[vcpu].has_maintenance() {
                    break;
                }
                let kicks = self.flush(vcpu);
                self.serve(kicks);
            }
        }
    }

    fn read(&self, vcpu: usize, offset: u64) -> u32 {
        self.vgic.dist_read(vcpu, offset, Width::Word, &self.cpus[vcpu]) as u32
    }

    fn write(&mut self, vcpu: usize, offset: u64, value: u32) {
        self.write_as(vcpu, offset, Width::Word, value.into());
    }

    fn write_as(&mut self, vcpu: usize, offset: u64, width: Width, value: u64) {
        let kicks = self.vgic.dist_write(vcpu, offset, width, value, &mut self.cpus[vcpu]);
        assert!(!kicks.contains(vcpu));
        self.serve(kicks);
    }

    fn read_redist(&self, vcpu: usize, frame: usize, offset: u64) -> u32 {
        self.vgic.redist_read(vcpu, frame, offset, Width::Word, &self.cpus[vcpu]) as u32
    }

    fn write_redist(&mut self, vcpu: usize, frame: usize, offset: u64, value: u32) {
        let cpu = &mut self.cpus[vcpu];
        let kicks = self.vgic.redist_write(vcpu, frame, offset, Width::Word, value.into(), cpu);
        assert!(!kicks.contains(vcpu));
        self.serve(kicks);
    }

    /// Sends SGI `n` to a mask of vCPUs, the way the version has it.
    fn send(&mut self, from: usize, targets: u8, n: u32) {
        let (cpu, value) = (&mut self.cpus[from], u64::from(n) << 24 | u64::from(targets));
        match self.vgic.version {
            Version::V2 => self.write(from, 0xf00, u32::from(targets) << 16 | n),
            Version::V3 => {
                let kicks = self.vgic.write_sgi_register(from, SgiRegister::Sgi1R, value, cpu);
                self.serve(kicks);
            }
        }
    }

    /// Drives SPI `n`, counted from 0.
    fn line(&mut self, n: u32, level: Level) {
        let kicks = self.vgic.set_spi_line(IntId::spi(n), level);
        self.serve(kicks);
    }

    fn private_line(&mut self, vcpu: usize, n: u32, level: Level) {
        let kicks = self.vgic.set_ppi_line(vcpu, IntId::ppi(n), level);
        self.serve(kicks);
    }

    fn iar(&mut self, vcpu: usize) -> u32 {
        self.cpus[vcpu].iar()
    }

    /// Ends an interrupt and lets maintenance interrupts come.
    fn eoi(&mut self, vcpu: usize, intid: u32) {
        self.cpus[vcpu].eoi(intid);
        self.serve_maintenance();
    }

    fn shown(&self, vcpu: usize) -> Vec<(u32, State)> {
        self.cpus[vcpu].shown()
    }
}

const VERSIONS: [Version; 2] = [Version::V2, Version::V3];
