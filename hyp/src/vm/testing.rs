//! VMs for tests, made of host memory.

use super::{Parts, Vm};
use crate::bundle::VmConfig;
use crate::bundle::manifest::Manifest;
use crate::guest::image::Segment;
use crate::guest::layout;
use crate::lifecycle::Images;
use crate::mem::guest::GuestMemory;
use crate::mem::pool::{CHUNK, Pieces};
use crate::trap::sysreg::IdView;
use crate::trap::sysreg::id::{GuestShape, HostId};
use crate::vcpu::Vcpu;
use crate::vgic::{Version, Vgic};
use crate::vmid::Vmids;
use crate::vpl011::Vpl011;
use platform::board::Region;
use stage2::VmidSize;
use std::alloc::{Layout, alloc_zeroed};

/// Memory that lives as long as the tests, aligned to its size: a power of two of [`CHUNK`]s.
#[expect(unsafe_code, reason = "the standard library's way to aligned memory")]
pub(crate) fn memory(size: u64) -> Region {
    assert!(size.is_power_of_two() && size >= CHUNK);
    let layout = Layout::from_size_align(size as usize, size as usize).expect("a power of two");
    // SAFETY: the size is not zero.
    let base = unsafe { alloc_zeroed(layout) };
    assert!(!base.is_null(), "the host has no memory left");
    Region { base: base.expose_provenance() as u64, size }
}

/// The bytes at a guest address, as the guest would read them.
#[expect(unsafe_code, reason = "a guest's memory is not Rust's")]
pub(crate) fn guest_bytes(vm: &Vm, ipa: u64, size: usize) -> Vec<u8> {
    let (start, piece) = vm.memory.pieces().next().expect("tests' VMs have one piece");
    assert!(ipa >= start && ipa + size as u64 <= start + piece.size);
    let address = core::ptr::with_exposed_provenance::<u8>((piece.base + (ipa - start)) as usize);
    // SAFETY: within the memory that `memory` leaked; no test writes it at the same time.
    unsafe { core::slice::from_raw_parts(address, size) }.to_vec()
}

/// What `lines` of a manifest make of a VM.
fn config(vcpus: usize, lines: &str) -> VmConfig {
    let text = format!("[[vm]]\nname = \"test\"\ncpus = {vcpus}\nmemory = \"2M\"\nkernel = \"k\"\n{lines}");
    Manifest::parse(&text).vms.remove(0).expect("the manifest is right")
}

/// A VM that is off, with 2 MiB of memory and these images.
pub(crate) fn vm_with(vcpus: usize, lines: &str, segments: Vec<Segment<'static>>) -> &'static Vm {
    let mut pieces = Pieces::new();
    pieces.push(memory(CHUNK)).expect("there is room for one");
    let shape = GuestShape { ipa_bits: 40, gic: Version::V3 };
    let vm: &'static Vm = Box::leak(Box::new(Vm::new(Parts {
        id: 0,
        config: config(vcpus, lines),
        ids: IdView::new(&[HostId::read_with(|_| 0)], shape),
        vgic: Vgic::new(Version::V3, vcpus),
        console: Box::leak(Box::new(Vpl011::new())),
        memory: GuestMemory::new(layout::RAM_BASE, pieces),
        vttbr: 0,
        vtcr: 0,
        vmids: Box::leak(Box::new(Vmids::new(VmidSize::Bits8))),
        images: Images { segments, entry: layout::RAM_BASE, device_tree: layout::RAM_BASE + 0x10_0000 },
    })));
    vm.set_vcpus(Vec::leak((0..vcpus).map(|index| Vcpu::new(vm, index, 0)).collect()));
    vm
}

/// A VM that is off.
pub(crate) fn vm(vcpus: usize) -> &'static Vm {
    vm_with(vcpus, "", Vec::new())
}
