//! Making the VMs, once, at boot: from a bundle to vCPUs that wait for a start.
//!
//! What is wrong with one VM keeps that one from existing, with its reason
//! printed, and no other.

use crate::bundle::admit::{self, VmPlan};
use crate::bundle::{Bundle, VmConfig};
use crate::guest::dtb::{self, GuestMachine};
use crate::guest::image::Segment;
use crate::guest::layout;
use crate::lifecycle::Images;
use crate::mem::guest::GuestMemory;
use crate::mem::pool;
use crate::mem::tables::{self, EPOCHS, Frames};
use crate::percpu::PER_CPU;
use crate::seed::Seeds;
use crate::terminal::{self, say};
use crate::trap::sysreg::IdView;
use crate::vcpu::Vcpu;
use crate::vgic::{Version, Vgic};
use crate::vm::{Parts, VMS, Vm};
use crate::vmid::Vmids;
use crate::vtimer::VTIMER;
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use platform::board::Region;
use stage2::tlbi::{Platform, Stage2Registers};
use stage2::{Attributes, Features, Geometry, Ipa, IpaRange, PaSize, PhysAddr, Space};

/// What VMs are made on.
pub struct Host<'a> {
    /// The ID registers that guests see.
    pub ids: &'a IdView,
    /// The interrupt controller, the machine's and the guests'.
    pub gic: Version,
    /// GICV, the virtual CPU interface that a GICv2 guest gets as its GICC.
    pub virtual_interface: Option<Region>,
    /// Stage-2 features of every CPU.
    pub features: Features,
    /// What TLB maintenance every CPU offers, and what any of them asks for.
    pub tlb: Platform,
    /// Physical address size of every CPU.
    pub pa_size: PaSize,
    /// CPUs that are up, one bit each.
    pub cpus: u16,
    /// The timer's frequency, if the firmware has it wrong.
    pub timer_hz: Option<u32>,
}

/// Bits of a guest's physical addresses on this machine: 40, as QEMU virt's
/// map needs, or what there is.
pub fn ipa_bits(pa_size: PaSize) -> u32 {
    pa_size.bits().min(40)
}

/// Makes every VM of the bundle that can be made, and hands the vCPUs to their
/// CPUs. How many there are.
pub fn create_all(bundle: &Bundle<'static>, host: &Host<'_>, seeds: &mut Seeds) -> usize {
    for problem in bundle.problems() {
        say!("{problem}");
    }
    if let Some(damage) = bundle.damage() {
        say!("bundle: {damage}");
    }
    // The pool knows what is free; admission only counts it.
    let free = 0..pool::free_bytes();
    let plans = admit::plan(bundle, &admit::Machine { cpus: host.cpus, free: core::slice::from_ref(&free) });
    let vmids = Box::leak(Box::new(Vmids::new(host.features.vmid)));
    let mut vms: Vec<&'static Vm> = Vec::new();
    let mut homes: [Vec<&'static Vcpu>; PER_CPU.len()] = Default::default();
    for (config, plan) in bundle.vms().iter().zip(plans) {
        let made = match (config, plan) {
            (Ok(config), Ok(plan)) => {
                create(vms.len(), config, &plan, host, vmids, seeds).map_err(|reason| {
                    say!("VM {}: not created: {reason}", config.name);
                })
            }
            (_, Err(refusal)) => {
                say!("{refusal}");
                continue;
            }
            (Err(_), Ok(_)) => continue,
        };
        let Ok(vm) = made else { continue };
        for vcpu in vm.vcpus() {
            if let Some(home) = homes.get_mut(vcpu.home) {
                home.push(vcpu);
            }
        }
        vms.push(vm);
    }
    for (block, vcpus) in PER_CPU.iter().zip(homes) {
        block.vcpus.call_once(|| vcpus);
    }
    VMS.call_once(|| Vec::leak(vms)).len()
}

fn create(
    id: usize,
    config: &VmConfig,
    plan: &VmPlan<'static>,
    host: &Host<'_>,
    vmids: &'static Vmids,
    seeds: &mut Seeds,
) -> Result<&'static Vm, String> {
    // What can be refused comes before the memory: the next VM may want it.
    let console = terminal::uart(id).ok_or_else(|| String::from("there is no console for it"))?;
    let images = images(config, plan, host, seeds)?;
    let pieces = pool::allocate(plan.memory).map_err(|error| error.to_string())?;
    let memory = GuestMemory::new(layout::RAM_BASE, pieces);
    let Stage2Registers { vttbr, vtcr } = map(&memory, host)?;
    let vgic = Vgic::new(host.gic, plan.cpus.len());
    for index in 0..plan.cpus.len() {
        vgic.link_ppi(index, VTIMER, VTIMER);
    }
    let vm: &'static Vm = Box::leak(Box::new(Vm::new(Parts {
        id,
        config: config.clone(),
        ids: host.ids.clone(),
        vgic,
        console,
        memory,
        vttbr,
        vtcr,
        vmids,
        images,
    })));
    let vcpus: Vec<Vcpu> =
        plan.cpus.iter().enumerate().map(|(index, &home)| Vcpu::new(vm, index, usize::from(home))).collect();
    vm.set_vcpus(Vec::leak(vcpus));
    terminal::add_vm(id, vm.name());
    Ok(vm)
}

/// The VM's stage 2: its memory, and GICV where a GICv2 guest looks for GICC.
/// Everything else traps.
///
/// Only the registers remain of it: the tables stay as long as the VM, which
/// is as long as the machine.
fn map(memory: &GuestMemory, host: &Host<'_>) -> Result<Stage2Registers, String> {
    let geometry = Geometry::new(stage2::Granule::Kib4, ipa_bits(host.pa_size), host.pa_size)
        .map_err(|error| error.to_string())?;
    let space = Space::new(geometry, host.features, Frames).map_err(|error| error.to_string())?;
    // The VM gets a VMID when it first runs. Until then no TLB can hold anything of it,
    // under no VMID; and 0 is nobody's.
    let vmid = 0;
    let maintenance = tables::maintenance(&space, vmid, host.tlb);
    let cpu = EPOCHS.register().ok_or("no CPU is left to look into tables")?;
    let guard = cpu.pin();
    let map = |ipa: u64, region: Region, attributes| {
        let range = Ipa::try_new(ipa).and_then(|start| IpaRange::new(start, region.size));
        let (Some(range), Some(output)) = (range, PhysAddr::try_new(region.base)) else {
            return Err(String::from("an address is beyond what stage 2 can hold"));
        };
        space.map(&guard, range, output, attributes, &maintenance).map_err(|error| error.to_string())
    };
    for (ipa, piece) in memory.pieces() {
        map(ipa, piece, Attributes::RAM)?;
    }
    if let Some(interface) = host.virtual_interface {
        let size = interface.size.min(layout::GICC_SIZE);
        map(layout::GICC_BASE, Region { size, ..interface }, Attributes::DEVICE)?;
    }
    Ok(tables::registers(&space, vmid))
}

/// What the VM's memory holds at each start.
fn images(
    config: &VmConfig,
    plan: &VmPlan<'static>,
    host: &Host<'_>,
    seeds: &mut Seeds,
) -> Result<Images, String> {
    let mut segments: Vec<Segment<'static>> = plan.load.pieces().cloned().collect();
    let tree = dtb::build(&GuestMachine {
        name: &config.name,
        cpus: plan.cpus.len(),
        memory: plan.memory,
        gic: host.gic,
        cmdline: &config.cmdline,
        initrd: plan.load.initrd.as_ref().map(|initrd| initrd.ipa..initrd.ipa + initrd.data.len() as u64),
        timer_hz: host.timer_hz,
        rng_seed: &seeds.seed(),
        kaslr_seed: seeds.number(),
    })
    .map_err(|_| String::from("its device tree would be too long: shorten `cmdline`"))?;
    segments.push(Segment { ipa: plan.load.dtb, data: Vec::leak(tree), zeroes: 0 });
    Ok(Images { segments, entry: plan.load.entry, device_tree: plan.load.dtb })
}
