//! The guest's device tree.
//!
//! [`build`] turns a [`GuestMachine`] into a flattened device tree with the nodes that
//! QEMU's `virt` has for the same devices: same names, addresses, interrupts and flags,
//! so that a guest finds nothing it would not find there. What is in each node is
//! required by that node's binding (Linux `Documentation/devicetree/bindings`) unless a
//! comment says otherwise. `writer` knows the format, this file what to say in it.

mod writer;

use crate::guest::layout::{
    DTB_MAX, GICC_BASE, GICC_SIZE, GICD_BASE, GICD_SIZE, GICR_BASE, GICR_STRIDE, RAM_BASE, TIMER_HYPERVISOR,
    TIMER_PHYSICAL, TIMER_SECURE, TIMER_VIRTUAL, UART_BASE, UART_CLOCK_HZ, UART_INTID, UART_SIZE,
};
use crate::vcpu_set::MAX_VCPUS;
use crate::vgic::Version;
use alloc::vec::Vec;
use core::ops::Range;
use platform::intid::IntId;
use writer::{Node, Tree};

/// Bytes of `rng-seed`: what Linux's generator takes in before it trusts itself, twice.
pub const RNG_SEED_LEN: usize = 64;

/// What a guest's device tree depends on.
#[derive(Clone, Debug)]
pub struct GuestMachine<'a> {
    /// The VM's name, shown by Linux as the machine model.
    pub name: &'a str,
    /// How many vCPUs; those past [`MAX_VCPUS`] are left out.
    pub cpus: usize,
    /// Bytes of RAM.
    pub memory: u64,
    /// The interrupt controller.
    pub gic: Version,
    /// The kernel command line.
    pub cmdline: &'a str,
    /// Where the initial RAM disk is, if there is one.
    pub initrd: Option<Range<u64>>,
    /// The timer's frequency, only where firmware has left CNTFRQ_EL0 wrong.
    pub timer_hz: Option<u32>,
    /// Random bytes that no other guest gets. Without them a guest that has no random
    /// number instruction either stays slow and predictable.
    pub rng_seed: &'a [u8; RNG_SEED_LEN],
    /// Eight more, for where the kernel puts itself.
    pub kaslr_seed: u64,
}

/// The device tree would be longer than [`DTB_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// Nodes that others refer to.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Phandle {
    InterruptController = 1,
    UartClock = 2,
}

/// When an interrupt fires, in the GIC's interrupt binding.
const LEVEL_HIGH: u32 = 4;

/// The device tree of `machine`.
///
/// # Errors
///
/// The command line is far beyond what a manifest allows.
pub fn build(machine: &GuestMachine<'_>) -> Result<Vec<u8>, TooLong> {
    let mut tree = Tree::with_capacity(2048 + machine.cmdline.len());
    tree.root(|root| {
        root.cells("#address-cells", &[2]);
        root.cells("#size-cells", &[2]);
        root.cells("interrupt-parent", &[Phandle::InterruptController as u32]);
        // What QEMU calls the machine, and some firmware asks for.
        root.string("compatible", "linux,dummy-virt");
        root.string("model", machine.name);
        // Device memory accesses are emulated: there is no cache they could miss.
        root.flag("dma-coherent");

        chosen(root, machine);
        root.node("aliases", |node| node.string("serial0", UART_PATH));
        root.node("memory@40000000", |node| {
            node.string("device_type", "memory");
            node.regions("reg", &[(RAM_BASE, machine.memory)]);
        });
        cpus(root, machine.cpus.min(MAX_VCPUS));
        root.node("psci", |node| {
            node.strings("compatible", "arm,psci-1.0\0arm,psci-0.2\0");
            node.string("method", "hvc");
        });
        // Lets `systemd-detect-virt` and others know that this is a virtual machine.
        root.node("hypervisor", |node| node.string("compatible", "entresol,hypervisor"));
        match machine.gic {
            Version::V2 => gic_v2(root),
            Version::V3 => gic_v3(root, machine.cpus.min(MAX_VCPUS)),
        }
        timer(root, machine);
        uart(root);
    });
    let tree = tree.finish();
    if tree.len() as u64 > DTB_MAX {
        return Err(TooLong);
    }
    Ok(tree)
}

/// The UART's node, from the root.
const UART_PATH: &str = "/pl011@9000000";

fn chosen(root: &mut Node<'_>, machine: &GuestMachine<'_>) {
    root.node("chosen", |node| {
        node.string("bootargs", machine.cmdline);
        node.string("stdout-path", UART_PATH);
        if let Some(initrd) = &machine.initrd {
            node.address("linux,initrd-start", initrd.start);
            node.address("linux,initrd-end", initrd.end);
        }
        node.bytes("rng-seed", machine.rng_seed);
        node.address("kaslr-seed", machine.kaslr_seed);
    });
}

fn cpus(root: &mut Node<'_>, cpus: usize) {
    const NAMES: [&str; MAX_VCPUS] = ["cpu@0", "cpu@1", "cpu@2", "cpu@3", "cpu@4", "cpu@5", "cpu@6", "cpu@7"];
    root.node("cpus", |node| {
        node.cells("#address-cells", &[1]);
        node.cells("#size-cells", &[0]);
        // vCPU n has n in Aff0 of its MPIDR and zeroes above.
        for (affinity, name) in (0..).zip(NAMES).take(cpus) {
            node.node(name, |node| {
                node.string("device_type", "cpu");
                node.string("compatible", "arm,armv8");
                node.cells("reg", &[affinity]);
                node.string("enable-method", "psci");
            });
        }
    });
}

fn gic_v2(root: &mut Node<'_>) {
    root.node("intc@8000000", |node| {
        node.string("compatible", "arm,cortex-a15-gic");
        node.regions("reg", &[(GICD_BASE, GICD_SIZE), (GICC_BASE, GICC_SIZE)]);
        interrupt_controller(node);
    });
}

fn gic_v3(root: &mut Node<'_>, cpus: usize) {
    root.node("intc@8000000", |node| {
        node.string("compatible", "arm,gic-v3");
        let redistributors = GICR_STRIDE * cpus as u64;
        node.regions("reg", &[(GICD_BASE, GICD_SIZE), (GICR_BASE, redistributors)]);
        node.cells("#redistributor-regions", &[1]);
        interrupt_controller(node);
    });
}

fn interrupt_controller(node: &mut Node<'_>) {
    node.flag("interrupt-controller");
    node.cells("#interrupt-cells", &[3]);
    // An interrupt's parent is found without an address; dtc warns if this is missing.
    node.cells("#address-cells", &[0]);
    node.cells("phandle", &[Phandle::InterruptController as u32]);
}

fn timer(root: &mut Node<'_>, machine: &GuestMachine<'_>) {
    // GICv2's binding has the CPUs that a PPI is wired to beside the trigger.
    let cpus = match machine.gic {
        Version::V2 => (1 << machine.cpus.min(MAX_VCPUS)) - 1,
        Version::V3 => 0,
    };
    let flags = cpus << 8 | LEVEL_HIGH;
    root.node("timer", |node| {
        node.strings("compatible", "arm,armv8-timer\0arm,armv7-timer\0");
        let [a, b, c, d] = [TIMER_SECURE, TIMER_PHYSICAL, TIMER_VIRTUAL, TIMER_HYPERVISOR]
            .map(|timer| interrupt(timer, flags));
        node.cells("interrupts", [a, b, c, d].as_flattened());
        if let Some(hz) = machine.timer_hz {
            node.cells("clock-frequency", &[hz]);
        }
        // It goes on counting while its vCPU sleeps.
        node.flag("always-on");
    });
}

fn uart(root: &mut Node<'_>) {
    const CLOCK: u32 = Phandle::UartClock as u32;
    root.node("apb-pclk", |node| {
        node.string("compatible", "fixed-clock");
        node.cells("#clock-cells", &[0]);
        node.cells("clock-frequency", &[UART_CLOCK_HZ]);
        node.string("clock-output-names", "clk24mhz");
        node.cells("phandle", &[CLOCK]);
    });
    root.node("pl011@9000000", |node| {
        node.strings("compatible", "arm,pl011\0arm,primecell\0");
        node.regions("reg", &[(UART_BASE, UART_SIZE)]);
        node.cells("interrupts", &interrupt(UART_INTID, LEVEL_HIGH));
        node.cells("clocks", &[CLOCK, CLOCK]);
        node.strings("clock-names", "uartclk\0apb_pclk\0");
    });
}

/// An interrupt as the GIC's binding has it: SPI or PPI, number among those, flags.
fn interrupt(interrupt: IntId, flags: u32) -> [u32; 3] {
    const SPI: u32 = 0;
    const PPI: u32 = 1;
    if interrupt.is_private() {
        [PPI, interrupt.raw() - 16, flags]
    } else {
        [SPI, interrupt.raw() - 32, flags]
    }
}

#[cfg(test)]
mod tests;
