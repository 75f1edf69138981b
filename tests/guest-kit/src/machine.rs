//! The machine: QEMU virt's fixed map, and what differs from one instance to
//! the next, read from the device tree.
#![expect(unsafe_code, reason = "the device tree is reached by the address in x0")]

use fdt::Fdt;
use fdt::properties::values::StringList;

use crate::gic;

/// First byte of RAM.
pub const RAM_BASE: usize = 0x4000_0000;
/// The interrupt distributor, either version.
pub const GICD: usize = 0x0800_0000;
/// The CPU interface of a GICv2.
pub const GICC: usize = 0x0801_0000;
/// The first redistributor of a GICv3; one every 128 KiB.
pub const GICR: usize = 0x080a_0000;
/// The console, a PL011.
pub const UART: usize = 0x0900_0000;
/// The console's interrupt, SPI 1.
pub const UART_INTID: u32 = 33;
/// The virtual timer's interrupt, PPI 11.
pub const VIRTUAL_TIMER_INTID: u32 = 27;
/// The physical timer's interrupt, PPI 14.
pub const PHYSICAL_TIMER_INTID: u32 = 30;
/// An address where the machine has nothing.
pub const HOLE: usize = 0x0b00_0000;

/// What the device tree says about this machine.
#[derive(Clone, Copy)]
pub struct Machine {
    /// How many CPUs there are; CPU `i` has MPIDR affinity `i`.
    pub cpus: usize,
    /// Which interrupt controller it has.
    pub gic: gic::Version,
    /// How many bytes of RAM there are from [`RAM_BASE`] on.
    pub ram_size: u64,
    /// What the command line says about who runs this program.
    pub host: Host,
}

/// Who runs a guest program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// A hypervisor: the usual case.
    Hypervisor,
    /// Nobody: the command line is `bare`. Programs then leave out what a
    /// machine without a hypervisor does differently.
    Nobody,
}

/// Reads the tree and takes its GIC into use for [`gic`]'s functions.
pub(crate) fn discover(device_tree: usize) -> Machine {
    // SAFETY: whoever loaded the program put a device tree there (booting.rst);
    // the parser checks the header's magic number and stays inside its size.
    let tree = unsafe { Fdt::from_ptr_unaligned_fallible(device_tree as *const u8) };
    let tree = tree.expect("the loader passes a device tree");
    let mut machine = Machine { cpus: 0, gic: gic::Version::V2, ram_size: 0, host: Host::Hypervisor };
    for (_, node) in tree.all_nodes().expect("the tree has a root").flatten() {
        let property = |name| node.raw_property(name).ok().flatten();
        if property("device_type").is_some_and(|kind| kind.value == b"cpu\0") {
            machine.cpus += 1;
        }
        if property("device_type").is_some_and(|kind| kind.value == b"memory\0") {
            machine.ram_size += property("reg").map_or(0, |reg| second_u64(reg.value));
        }
        let compatible = property("compatible").and_then(|list| list.as_value::<StringList<'_>>().ok());
        if compatible.is_some_and(|mut list| list.any(|name| name == "arm,gic-v3")) {
            machine.gic = gic::Version::V3;
        }
        if property("bootargs").is_some_and(|text| text.value == b"bare\0") {
            machine.host = Host::Nobody;
        }
    }
    gic::set_version(machine.gic);
    machine
}

/// The size in a `reg` of two cells each, as the memory node of a 64-bit machine has.
fn second_u64(reg: &[u8]) -> u64 {
    reg.get(8..16).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes)
}
