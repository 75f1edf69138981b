//! A VM of a few instructions, made by hand, for cases about what a guest makes the hypervisor do.
//!
//! Main type: [`Guest`]. Its program runs at EL1 with its MMU off, from
//! [`BASE`] on, and stops at a WFI; [`ON_EXCEPTION`] is where it lands if an
//! exception is injected, once it has set VBAR_EL1 ([`SET_VECTORS`]).

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use hyp::arch::{self, PointerAuthentication};
use hyp::boot::Hardware;
use hyp::bundle::manifest::Manifest;
use hyp::create::ipa_bits;
use hyp::lifecycle::Images;
use hyp::mem::guest::GuestMemory;
use hyp::mem::pool::{self, CHUNK};
use hyp::mem::tables::{self, EPOCHS, Frames};
use hyp::task::Task;
use hyp::trap::{self, Leave, Next};
use hyp::vcpu::Vcpu;
use hyp::vgic::Vgic;
use hyp::vm::{Parts, Vm};
use hyp::vmid::Vmids;
use hyp::vpl011::Vpl011;
use stage2::epoch::Participant;
use stage2::tlbi::{Sequences, Stage2Registers};
use stage2::{Attributes, Geometry, Granule, Ipa, IpaRange, Maintenance, PhysAddr, Space};

/// First address of its memory, 2 MiB in one block, and of its program.
pub(crate) const BASE: u64 = 0x4000_0000;
/// Where its exception vectors are.
pub(crate) const VECTORS: u64 = BASE + 0x800;
/// `msr vbar_el1, x30`: with [`VECTORS`] in x30.
pub(crate) const SET_VECTORS: u32 = 0xd518_c01e;
/// `wfi`.
pub(crate) const STOP: u32 = 0xd503_207f;
/// Synchronous exception from EL1 with SP_EL1: `mrs x10, esr_el1`, `mrs x11, far_el1`, `mrs x12, elr_el1`, `wfi`.
const ON_EXCEPTION: [u32; 4] = [0xd538_520a, 0xd538_600b, 0xd538_402c, STOP];
const ON_EXCEPTION_AT: u64 = VECTORS + 0x200;

/// A VM with one vCPU, which is in the processor while this exists.
pub(crate) struct Guest {
    /// Its stage 2.
    pub(crate) space: Space<Frames>,
    /// How TLBs forget what changes in it.
    pub(crate) maintenance: Sequences<arch::ThisCpu>,
    /// Its vCPU, and the registers that it runs with.
    pub(crate) task: Task,
}

/// What the vectors found when an exception was injected.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Injected {
    /// ESR_EL1.
    pub(crate) esr: u64,
    /// FAR_EL1.
    pub(crate) far: u64,
    /// ELR_EL1.
    pub(crate) elr: u64,
}

/// Stage 2 as VMs have it on this machine, with nothing mapped.
pub(crate) fn empty_space(hardware: &Hardware) -> Result<Space<Frames>, String> {
    let team = hardware.team;
    let geometry = Geometry::new(Granule::Kib4, ipa_bits(team.pa_size), team.pa_size)
        .map_err(|error| error.to_string())?;
    Space::new(geometry, team.features, Frames).map_err(|error| error.to_string())
}

/// `size` bytes from `ipa` on.
pub(crate) fn range(ipa: u64, size: u64) -> Result<IpaRange, String> {
    let start = Ipa::try_new(ipa).ok_or_else(|| format!("{ipa:#x} is no guest address"))?;
    IpaRange::new(start, size).ok_or_else(|| format!("{size:#x} bytes at {ipa:#x} are no range"))
}

/// Takes part in the epochs, so that it may look into tables.
pub(crate) fn participant() -> Result<Participant<'static>, String> {
    EPOCHS.register().ok_or_else(|| String::from("no CPU is left to look into tables"))
}

/// Every guest's: the first that each guest's own allocator gives out.
const VMID: u16 = 1;

impl Guest {
    /// A guest with `program` at [`BASE`], about to execute its first instruction.
    pub(crate) fn new(hardware: &Hardware, program: &[u32]) -> Result<Self, String> {
        let pieces = pool::allocate(CHUNK).map_err(|error| error.to_string())?;
        let memory = GuestMemory::new(BASE, pieces);
        let space = empty_space(hardware)?;
        let maintenance = tables::maintenance(&space, VMID, hardware.team.tlb);
        let cpu = participant()?;
        for (ipa, piece) in memory.pieces() {
            let output = PhysAddr::try_new(piece.base).ok_or("memory beyond 52 bits")?;
            space
                .map(&cpu.pin(), range(ipa, piece.size)?, output, Attributes::RAM, &maintenance)
                .map_err(|error| error.to_string())?;
        }
        for (ipa, words) in [(BASE, program), (ON_EXCEPTION_AT, &ON_EXCEPTION)] {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            memory.write(ipa, &bytes).map_err(|error| error.to_string())?;
        }
        arch::invalidate_instructions();
        let Stage2Registers { vttbr, vtcr } = tables::registers(&space, 0);
        // VMs live as long as the machine.
        let vm: &'static Vm = Box::leak(Box::new(Vm::new(Parts {
            id: 0,
            config: Manifest::parse("[[vm]]\nname = \"test\"\nmemory = \"2M\"\nkernel = \"none\"\n")
                .vms
                .pop()
                .ok_or("the manifest has no VM")?
                .map_err(|error| error.to_string())?,
            ids: hardware.team.ids.clone(),
            vgic: Vgic::new(hardware.gic, 1),
            console: Box::leak(Box::new(Vpl011::new())),
            vttbr,
            vtcr,
            vmids: Box::leak(Box::new(Vmids::new(hardware.team.features.vmid))),
            memory,
            images: Images { segments: Vec::new(), entry: BASE, device_tree: BASE },
        })));
        vm.set_vcpus(Vec::leak(Vec::from([Vcpu::new(vm, 0, 0)])));
        let vcpu = vm.vcpus().first().ok_or("the VM has no vCPU")?;
        let mut task = Task::new(vcpu);
        task.reset(BASE, 0);
        task.regs.x[30] = VECTORS;
        task.load(PointerAuthentication::of_this_cpu());
        // The guest before had the same VMID.
        maintenance.invalidate_all();
        Ok(Self { space, maintenance, task })
    }

    /// Runs until it waits for an interrupt. Exits are handled as in a CPU's loop.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        loop {
            let leave = Leave::from_bits(arch::run_guest(&mut self.task.regs, self.task.vcpu));
            match trap::handle(leave, &mut self.task) {
                Next::Go => {}
                Next::Wait => return Ok(()),
                Next::Off => return Err(format!("it went off at {:#x}", self.task.regs.pc)),
            }
        }
    }

    /// Register `number`.
    pub(crate) fn x(&self, number: usize) -> u64 {
        self.task.regs.x.get(number).copied().unwrap_or(0)
    }

    /// What was injected, if it stopped in its vectors.
    pub(crate) fn injected(&self) -> Option<Injected> {
        let end = ON_EXCEPTION_AT + 4 * ON_EXCEPTION.len() as u64;
        (self.task.regs.pc == end).then(|| Injected { esr: self.x(10), far: self.x(11), elr: self.x(12) })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.task.discard();
    }
}
