//! Admission: which VMs can run on this machine, and where.
//!
//! [`plan`] holds each VM of a bundle against its images and the machine and answers, at
//! the VM's place in the list, with a [`VmPlan`] or a [`Refusal`]. The host asks with the
//! machine of a device tree (`cargo xtask check --dtb`) or, not knowing one, with
//! [`Machine::LARGEST`]; EL2 asks with its own.
//!
//! Memory is only counted here, in 2 MiB chunks and in the order of `vms.toml`. A VM has
//! its memory from boot on, whether it starts with the machine or waits for `start`.
//!
//! vCPUs without `on` go, one after the other, to the CPU that has the fewest vCPUs of
//! the same VM, then the fewest at all, then the lowest number. VMs with `on` count first,
//! so that the others keep out of their way.

use crate::bundle::Bundle;
use crate::bundle::cpio::Kind;
use crate::bundle::error::{Cause, ConfigError, Refusal, Role};
use crate::bundle::manifest::{MAX_CPUS, MAX_MEMORY, MEMORY_GRANULE, VmConfig};
use crate::guest::image::{self, LoadPlan};
use crate::guest::layout::RAM_BASE;
use crate::vcpu_set::MAX_VCPUS;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

/// What there is for guests.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    /// The physical CPUs that came up, one bit each.
    pub cpus: u16,
    /// Free physical memory, by address; regions must not overlap.
    pub free: &'a [Range<u64>],
}

impl Machine<'static> {
    /// More than any machine has: what is refused here is refused everywhere.
    pub const LARGEST: Self = Self { cpus: u16::MAX, free: core::slice::from_ref(&(0..1 << 48)) };
}

/// How to run a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmPlan<'a> {
    /// The physical CPU of each vCPU.
    pub cpus: heapless::Vec<u8, MAX_VCPUS>,
    /// Bytes of RAM.
    pub memory: u64,
    /// What goes where in it.
    pub load: LoadPlan<'a>,
}

/// Plans every VM of `bundle`.
pub fn plan<'a>(bundle: &Bundle<'a>, machine: &Machine<'_>) -> Vec<Result<VmPlan<'a>, Refusal>> {
    let total = chunks(machine.free);
    let mut left = total;
    let mut load = CpuLoad::new(machine.cpus, bundle.vms());
    bundle
        .vms()
        .iter()
        .map(|vm| {
            let config = vm.as_ref().map_err(refuse_config)?;
            let refuse = |(line, cause)| Refusal { name: config.name.clone(), line, cause };
            let load_plan = load_images(bundle, config).map_err(refuse)?;
            let rest = left.checked_sub(config.memory).ok_or_else(|| {
                let [wanted_mib, left_mib, total_mib] = [config.memory, left, total].map(|bytes| bytes >> 20);
                refuse((config.lines.memory, Cause::Memory { wanted_mib, left_mib, total_mib }))
            })?;
            let cpus = load.place(config).map_err(refuse)?;
            left = rest;
            Ok(VmPlan { cpus, memory: config.memory, load: load_plan })
        })
        .collect()
}

fn refuse_config(error: &ConfigError) -> Refusal {
    let name = error.name.clone().unwrap_or_default();
    Refusal { name, line: error.line, cause: Cause::Config(error.clone()) }
}

/// Bytes of `free` that lie in whole chunks of [`MEMORY_GRANULE`].
fn chunks(free: &[Range<u64>]) -> u64 {
    let usable = |region: &Range<u64>| {
        let start = region.start.checked_next_multiple_of(MEMORY_GRANULE)?;
        region.end.checked_sub(start).map(|len| len - len % MEMORY_GRANULE)
    };
    free.iter().filter_map(usable).fold(0, u64::saturating_add)
}

/// Finds a VM's files and their places in its memory.
fn load_images<'a>(bundle: &Bundle<'a>, config: &VmConfig) -> Result<LoadPlan<'a>, (u32, Cause)> {
    let kernel = file(bundle, Role::Kernel, &config.kernel).map_err(|cause| (config.lines.kernel, cause))?;
    let initrd = config.initrd.as_deref().map(|name| file(bundle, Role::Initrd, name)).transpose();
    let initrd = initrd.map_err(|cause| (config.lines.initrd, cause))?;
    image::plan(kernel, initrd, config.memory)
        .map_err(|error| (config.lines.kernel, Cause::Image { file: config.kernel.clone(), error }))
}

fn file<'a>(bundle: &Bundle<'a>, role: Role, name: &str) -> Result<&'a [u8], Cause> {
    let file = || String::from(name);
    match bundle.member(name) {
        Ok(member) if member.kind == Kind::File => Ok(member.data),
        Ok(_) => Err(Cause::NoFile { role, file: file() }),
        Err(damage) => Err(Cause::Missing { role, file: file(), damage }),
    }
}

/// How many vCPUs each physical CPU has.
struct CpuLoad {
    usable: u16,
    vcpus: [u32; MAX_CPUS as usize],
}

impl CpuLoad {
    /// The load of the VMs that say where they want to be.
    fn new(usable: u16, vms: &[Result<VmConfig, ConfigError>]) -> Self {
        let mut load = Self { usable, vcpus: [0; MAX_CPUS as usize] };
        for cpu in vms.iter().flatten().filter_map(|vm| vm.on.as_ref()).flatten() {
            load.add(*cpu);
        }
        load
    }

    fn add(&mut self, cpu: u32) {
        let vcpus = usize::try_from(cpu).ok().and_then(|cpu| self.vcpus.get_mut(cpu));
        if let Some(vcpus) = vcpus {
            *vcpus += 1;
        }
    }

    /// The physical CPU of each vCPU of a VM.
    fn place(&mut self, config: &VmConfig) -> Result<heapless::Vec<u8, MAX_VCPUS>, (u32, Cause)> {
        match &config.on {
            Some(on) => self.check(on).map_err(|cause| (config.lines.on, cause)),
            None => self.spread(config.cpus).map_err(|cause| (config.lines.vm, cause)),
        }
    }

    fn check(&self, on: &[u32]) -> Result<heapless::Vec<u8, MAX_VCPUS>, Cause> {
        let mut placed = heapless::Vec::new();
        for &cpu in on.iter().take(MAX_VCPUS) {
            let usable = u8::try_from(cpu).ok().filter(|&cpu| is_set(self.usable, cpu));
            let usable = usable.ok_or(Cause::NoSuchCpu { cpu, usable: self.usable })?;
            // As many places as are taken from the list.
            let _never_full = placed.push(usable);
        }
        Ok(placed)
    }

    fn spread(&mut self, vcpus: usize) -> Result<heapless::Vec<u8, MAX_VCPUS>, Cause> {
        let mut placed = heapless::Vec::new();
        for _ in 0..vcpus.min(MAX_VCPUS) {
            let cpu = self.least_loaded(&placed).ok_or(Cause::NoCpus)?;
            self.add(u32::from(cpu));
            // As many places as vCPUs a VM can have.
            let _never_full = placed.push(cpu);
        }
        Ok(placed)
    }

    /// The best CPU for one more vCPU of a VM that has some on `own`.
    fn least_loaded(&self, own: &[u8]) -> Option<u8> {
        let candidates = (0_u8..).zip(self.vcpus).filter(|&(cpu, _)| is_set(self.usable, cpu));
        let ranked =
            candidates.map(|(cpu, vcpus)| (own.iter().filter(|&&other| other == cpu).count(), vcpus, cpu));
        ranked.min().map(|(_, _, cpu)| cpu)
    }
}

fn is_set(cpus: u16, cpu: u8) -> bool {
    u32::from(cpu) < MAX_CPUS && cpus >> cpu & 1 != 0
}

// RAM of the largest VM ends at an address that 40-bit guest physical addresses have.
const _: () = assert!(RAM_BASE + MAX_MEMORY <= 1 << 40);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::pack;

    /// A bundle in which `k` is a raw kernel of 4 bytes and `i` an initrd of 3 MiB.
    fn archive(text: &str) -> Vec<u8> {
        let file = |_: Role, name: &str| match name {
            "k" => Ok(alloc::vec![0xD5; 4]),
            "i" => Ok(alloc::vec![1; 3 << 20]),
            "z" => Ok(alloc::vec![0x1F, 0x8B, 8, 0]),
            _ => Err(()),
        };
        pack::build(text, file).expect("test text without problems")
    }

    fn vm(name: &str, rest: &str) -> String {
        alloc::format!("[[vm]]\nname = \"{name}\"\n{rest}\n")
    }

    /// Each VM's CPUs, or the sentence that refuses it.
    fn placements(text: &str, machine: &Machine<'_>) -> Vec<Result<Vec<u8>, String>> {
        let archive = archive(text);
        let bundle = Bundle::parse(&archive).unwrap();
        let plans = plan(&bundle, machine);
        plans
            .into_iter()
            .map(|plan| plan.map(|plan| plan.cpus.to_vec()).map_err(|refusal| refusal.to_string()))
            .collect()
    }

    const SMALL: &str = "memory = \"64M\"\nkernel = \"k\"";
    const FOUR_CPUS: Machine<'_> = Machine { cpus: 0b1111, free: core::slice::from_ref(&(0..256 << 20)) };

    #[test]
    fn vcpus_are_spread_over_the_least_loaded_cpus() {
        let text =
            vm("a", &alloc::format!("{SMALL}\ncpus = 3")) + &vm("b", &alloc::format!("{SMALL}\ncpus = 2"));
        assert_eq!(placements(&text, &FOUR_CPUS), [Ok(alloc::vec![0, 1, 2]), Ok(alloc::vec![3, 0])]);
    }

    #[test]
    fn automatic_placement_avoids_cpus_named_by_a_later_vm() {
        let text = vm("a", SMALL) + &vm("b", &alloc::format!("{SMALL}\non = [0]"));
        assert_eq!(placements(&text, &FOUR_CPUS), [Ok(alloc::vec![1]), Ok(alloc::vec![0])]);
    }

    #[test]
    fn vm_shares_cpus_with_itself_only_when_it_has_more_vcpus() {
        let text =
            vm("a", &alloc::format!("{SMALL}\non = [0, 0]")) + &vm("b", &alloc::format!("{SMALL}\ncpus = 3"));
        let machine = Machine { cpus: 0b11, ..FOUR_CPUS };
        assert_eq!(placements(&text, &machine), [Ok(alloc::vec![0, 0]), Ok(alloc::vec![1, 0, 1])]);
    }

    #[test]
    fn cpu_that_failed_to_start_is_not_used() {
        let text =
            vm("a", &alloc::format!("{SMALL}\ncpus = 2")) + &vm("b", &alloc::format!("{SMALL}\non = [1]"));
        let machine = Machine { cpus: 0b1101, ..FOUR_CPUS };
        let found = placements(&text, &machine);
        assert_eq!(found[0], Ok(alloc::vec![0, 2]));
        assert_eq!(
            found[1].as_ref().unwrap_err(),
            "vms.toml line 10: VM `b`: `on` names physical CPU 1, this machine has 0, 2, 3: name one of those, or leave \
             `on` out"
        );
    }

    #[test]
    fn vm_that_wants_too_much_memory_leaves_the_others_alone() {
        let text = vm("a", SMALL) + &vm("b", "memory = \"1G\"\nkernel = \"k\"") + &vm("c", SMALL);
        let found = placements(&text, &FOUR_CPUS);
        assert!(found[0].is_ok() && found[2].is_ok());
        assert_eq!(
            found[1].as_ref().unwrap_err(),
            "vms.toml line 7: VM `b`: wants 1024 MiB of memory, 192 MiB of 256 MiB are left: lower `memory` here or in \
             the VMs above, or give the machine more"
        );
    }

    #[test]
    fn waiting_vm_has_its_memory_already() {
        let big = "memory = \"200M\"\nkernel = \"k\"\nautostart = false";
        let text = vm("a", big) + &vm("b", SMALL);
        let admitted: Vec<_> = placements(&text, &FOUR_CPUS).iter().map(Result::is_ok).collect();
        assert_eq!(admitted, [true, false]);
    }

    #[test]
    fn only_whole_chunks_of_memory_count() {
        assert_eq!(chunks(&[0x1000..0x40_0000, 0x60_0000..0x7F_F000]), 2 << 20);
    }

    #[test]
    fn missing_kernel_is_named() {
        let text = vm("a", "memory = \"64M\"\nkernel = \"k\"");
        let archive = archive(&text);
        // The same bundle with its kernel's name changed.
        let at = archive.windows(3).position(|bytes| bytes == b"k\0\0").expect("its name");
        let mut other = archive.clone();
        other[at] = b'x';
        let bundle = Bundle::parse(&other).unwrap();
        let refusal = plan(&bundle, &FOUR_CPUS).remove(0).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "vms.toml line 4: VM `a`: its kernel `k` is not in the bundle: add that file, or correct the name"
        );
    }

    #[test]
    fn link_is_not_taken_for_a_kernel() {
        let mut archive = archive(&vm("a", SMALL));
        let name = archive.windows(3).position(|bytes| bytes == b"k\0\0").expect("its name");
        // The mode, 14 bytes into the header of 110 in front of the name.
        archive[name - 96..name - 88].copy_from_slice(b"0000A1FF");
        let bundle = Bundle::parse(&archive).unwrap();
        let refusal = plan(&bundle, &FOUR_CPUS).remove(0).unwrap_err();
        assert!(matches!(refusal.cause, Cause::NoFile { role: Role::Kernel, .. }), "{refusal}");
    }

    #[test]
    fn truncated_bundle_runs_the_vms_whose_files_are_complete() {
        let text = vm("a", SMALL) + &vm("b", &alloc::format!("{SMALL}\ninitrd = \"i\""));
        let mut archive = archive(&text);
        archive.truncate(archive.len() - (2 << 20));
        let bundle = Bundle::parse(&archive).unwrap();
        let plans = plan(&bundle, &FOUR_CPUS);
        assert!(plans[0].is_ok());
        let refusal = plans[1].as_ref().unwrap_err().to_string();
        assert!(
            refusal.starts_with("vms.toml line 9: VM `b`: its initrd `i` is not in the readable part"),
            "{refusal}"
        );
    }

    #[test]
    fn initrd_larger_than_memory_is_refused_with_what_is_enough() {
        let text = vm("a", "memory = \"2M\"\nkernel = \"k\"\ninitrd = \"i\"");
        assert_eq!(
            placements(&text, &FOUR_CPUS)[0].as_ref().unwrap_err(),
            "vms.toml line 4: VM `a`: `k`: the initrd of 3072 KiB does not fit beside the kernel in \"2M\": raise \
             `memory` to \"4M\""
        );
    }

    #[test]
    fn compressed_kernel_is_refused_with_the_command_that_helps() {
        let text = vm("a", "memory = \"2M\"\nkernel = \"z\"");
        let refusal = placements(&text, &FOUR_CPUS).remove(0).unwrap_err();
        assert!(refusal.contains("decompress it with `gunzip`"), "{refusal}");
    }
}
