//! A space on a machine, ready to be changed by any of the machine's CPUs.

use std::ops::Deref;

use stage2::epoch::Participant;
use stage2::tlbi::{Instructions, Sequences, Stage2Registers};
use stage2::{
    Attributes, Features, Geometry, Granule, Ipa, IpaRange, MapError, PaSize, Permissions, PhysAddr, Space,
    TableMemory,
};

use super::{CURRENT, Cpu, Machine};

/// A range, which is not empty.
pub(crate) fn range(start: u64, size: u64) -> IpaRange {
    IpaRange::new(Ipa::new(start), size).unwrap()
}

/// A space whose guest runs on all CPUs of a machine.
pub(crate) struct Rig<'m> {
    pub(crate) machine: &'m Machine,
    pub(crate) space: Space<&'m Machine>,
    vmid: u64,
    registers: Stage2Registers,
}

impl<'m> Rig<'m> {
    /// A space of 4 KiB pages and 40 bits, with VMID 1.
    pub(crate) fn new(machine: &'m Machine) -> Self {
        Self::with_vmid(machine, 1)
    }

    pub(crate) fn with_vmid(machine: &'m Machine, vmid: u64) -> Self {
        let geometry = Geometry::new(Granule::Kib4, 40, PaSize::Bits40).unwrap();
        Self::with_shape(machine, geometry, Features::BASE, vmid)
    }

    pub(crate) fn with_shape(
        machine: &'m Machine,
        geometry: Geometry,
        features: Features,
        vmid: u64,
    ) -> Self {
        let space = Space::new(geometry, features, machine).unwrap();
        let registers = machine.start(&space, vmid);
        Self { machine, space, vmid, registers }
    }

    /// A CPU that has left its guest to change the space.
    pub(crate) fn cpu(&self, number: usize) -> Hand<'_, 'm, Cpu<'m>> {
        let cpu = self.machine.cpu(number);
        cpu.trap();
        self.with(number, cpu)
    }

    /// The CPU with this number, changing the space with these instructions.
    pub(crate) fn with<I: Instructions>(&self, number: usize, instructions: I) -> Hand<'_, 'm, I> {
        CURRENT.set(number);
        let participant = self.machine.epochs().register().unwrap();
        Hand { rig: self, participant, maintenance: self.maintenance(instructions) }
    }

    fn maintenance<I: Instructions>(&self, instructions: I) -> Sequences<I> {
        let platform = self.machine.config().platform();
        Sequences::new(instructions, self.registers, self.space.format(), platform)
    }

    /// Makes the space current on a CPU, as entering its guest does.
    pub(crate) fn enter(&self, cpu: usize) {
        self.machine.enter(cpu, self.registers);
    }

    /// Ends the space, and everything must be as if it had never been.
    #[track_caller]
    pub(crate) fn finish(self) {
        let machine = self.machine;
        machine.check();
        machine.stop(self.vmid);
        let cpu = machine.cpu(0);
        cpu.trap();
        let maintenance = self.maintenance(cpu);
        self.space.destroy(&maintenance);
        machine.check();
    }
}

/// A CPU at work on a rig's space.
pub(crate) struct Hand<'r, 'm, I> {
    pub(crate) rig: &'r Rig<'m>,
    participant: Participant<'m>,
    pub(crate) maintenance: Sequences<I>,
}

impl<I: Instructions> Hand<'_, '_, I> {
    pub(crate) fn map(&self, range: IpaRange, output: u64) -> Result<(), MapError> {
        let output = PhysAddr::new(output);
        self.rig.space.map(&self.participant.pin(), range, output, Attributes::RAM, &self.maintenance)
    }

    pub(crate) fn unmap(&self, range: IpaRange) -> Result<(), MapError> {
        self.rig.space.unmap(&self.participant.pin(), range, &self.maintenance)
    }

    pub(crate) fn protect(&self, range: IpaRange, permissions: Permissions) -> Result<(), MapError> {
        self.rig.space.protect(&self.participant.pin(), range, permissions, &self.maintenance)
    }

    /// Frees all tables that left the tree, unless someone is pinned.
    pub(crate) fn reclaim(&self) -> usize {
        (0..4).map(|_| self.rig.space.collect(&self.participant.pin())).sum()
    }
}

impl<'m, I> Deref for Hand<'_, 'm, I> {
    type Target = Participant<'m>;

    fn deref(&self) -> &Participant<'m> {
        &self.participant
    }
}
