//! The tree as another parser, and a guest, reads it.

use super::*;
use alloc::string::String;
use alloc::vec::Vec;
use fdt::Fdt;
use proptest::prelude::*;

const SEED: [u8; RNG_SEED_LEN] = [0x5A; RNG_SEED_LEN];

fn machine() -> GuestMachine<'static> {
    GuestMachine {
        name: "debian",
        cpus: 2,
        memory: 512 << 20,
        gic: crate::vgic::Version::V3,
        cmdline: "console=ttyAMA0",
        initrd: None,
        timer_hz: None,
        rng_seed: &SEED,
        kaslr_seed: 0x1234,
    }
}

/// The value of a property in the tree of `machine`, in the node of that path.
fn property(machine: &GuestMachine<'_>, path: &str, name: &str) -> Option<Vec<u8>> {
    let tree = build(machine).unwrap();
    let fdt = Fdt::new_unaligned(&tree).unwrap();
    let node = fdt.find_node(path)?;
    node.raw_property(name).map(|property| property.value.to_vec())
}

fn cells(machine: &GuestMachine<'_>, path: &str, name: &str) -> Vec<u32> {
    let value = property(machine, path, name).expect("the property");
    value.chunks(4).map(|cell| u32::from_be_bytes(cell.try_into().unwrap())).collect()
}

fn text(machine: &GuestMachine<'_>, path: &str, name: &str) -> String {
    String::from_utf8(property(machine, path, name).expect("the property")).unwrap()
}

#[test]
fn chosen_has_command_line_console_and_seeds() {
    let machine = machine();
    assert_eq!(text(&machine, "/chosen", "bootargs"), "console=ttyAMA0\0");
    assert_eq!(text(&machine, "/chosen", "stdout-path"), "/pl011@9000000\0");
    assert_eq!(property(&machine, "/chosen", "rng-seed").unwrap(), SEED);
    assert_eq!(cells(&machine, "/chosen", "kaslr-seed"), [0, 0x1234]);
}

#[test]
fn initrd_is_named_when_there_is_one() {
    assert_eq!(property(&machine(), "/chosen", "linux,initrd-start"), None);
    let machine = GuestMachine { initrd: Some(0x4800_0000..0x4812_3456), ..machine() };
    assert_eq!(cells(&machine, "/chosen", "linux,initrd-start"), [0, 0x4800_0000]);
    assert_eq!(cells(&machine, "/chosen", "linux,initrd-end"), [0, 0x4812_3456]);
}

#[test]
fn memory_starts_where_virt_has_it() {
    let machine = GuestMachine { memory: 6 << 30, ..machine() };
    assert_eq!(cells(&machine, "/memory@40000000", "reg"), [0, 0x4000_0000, 1, 0x8000_0000]);
}

#[test]
fn each_vcpu_has_its_affinity_and_psci() {
    let machine = GuestMachine { cpus: 8, ..machine() };
    assert_eq!(cells(&machine, "/cpus/cpu@7", "reg"), [7]);
    assert_eq!(text(&machine, "/cpus/cpu@7", "enable-method"), "psci\0");
    assert_eq!(text(&machine, "/psci", "method"), "hvc\0");
}

#[test]
fn there_are_as_many_cpus_as_vcpus() {
    let tree = build(&machine()).unwrap();
    let fdt = Fdt::new_unaligned(&tree).unwrap();
    assert_eq!(fdt.find_node("/cpus").unwrap().children().iter().count(), 2);
}

#[test]
fn gic_v3_has_a_redistributor_per_vcpu() {
    let machine = machine();
    assert_eq!(text(&machine, "/intc@8000000", "compatible"), "arm,gic-v3\0");
    let expected = [0, 0x0800_0000, 0, 0x1_0000, 0, 0x080A_0000, 0, 0x4_0000];
    assert_eq!(cells(&machine, "/intc@8000000", "reg"), expected);
}

#[test]
fn gic_v2_has_its_cpu_interface_in_memory() {
    let machine = GuestMachine { gic: crate::vgic::Version::V2, ..machine() };
    assert_eq!(text(&machine, "/intc@8000000", "compatible"), "arm,cortex-a15-gic\0");
    assert_eq!(
        cells(&machine, "/intc@8000000", "reg"),
        [0, 0x0800_0000, 0, 0x1_0000, 0, 0x0801_0000, 0, 0x1_0000]
    );
}

/// As QEMU's `virt` writes them for two CPUs.
#[test]
fn timer_interrupts_are_those_of_virt() {
    assert_eq!(cells(&machine(), "/timer", "interrupts"), [1, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4]);
    let v2 = GuestMachine { gic: crate::vgic::Version::V2, ..machine() };
    assert_eq!(cells(&v2, "/timer", "interrupts"), [1, 13, 0x304, 1, 14, 0x304, 1, 11, 0x304, 1, 10, 0x304]);
}

#[test]
fn timer_frequency_is_only_given_when_asked_for() {
    assert_eq!(property(&machine(), "/timer", "clock-frequency"), None);
    let machine = GuestMachine { timer_hz: Some(54_000_000), ..machine() };
    assert_eq!(cells(&machine, "/timer", "clock-frequency"), [54_000_000]);
}

#[test]
fn uart_has_interrupt_and_clocks() {
    let machine = machine();
    assert_eq!(cells(&machine, "/pl011@9000000", "reg"), [0, 0x0900_0000, 0, 0x1000]);
    assert_eq!(cells(&machine, "/pl011@9000000", "interrupts"), [0, 1, 4]);
    let clock = cells(&machine, "/apb-pclk", "phandle");
    assert_eq!(cells(&machine, "/pl011@9000000", "clocks"), [clock[0], clock[0]]);
    assert_eq!(text(&machine, "/aliases", "serial0"), "/pl011@9000000\0");
}

#[test]
fn interrupts_go_to_the_gic() {
    let machine = machine();
    assert_eq!(cells(&machine, "/", "interrupt-parent"), cells(&machine, "/intc@8000000", "phandle"));
}

#[test]
fn flags_are_properties_without_a_value() {
    for (path, name) in
        [("/", "dma-coherent"), ("/intc@8000000", "interrupt-controller"), ("/timer", "always-on")]
    {
        assert_eq!(property(&machine(), path, name), Some(Vec::new()), "{name}");
    }
}

#[test]
fn longest_command_line_fits() {
    let cmdline = "x".repeat(crate::bundle::manifest::MAX_CMDLINE);
    let machine = GuestMachine { cmdline: &cmdline, cpus: 8, initrd: Some(1..2), ..machine() };
    assert!(build(&machine).unwrap().len() < 8192);
}

#[test]
fn tree_larger_than_its_room_is_refused() {
    let cmdline = "x".repeat(DTB_MAX as usize);
    assert_eq!(build(&GuestMachine { cmdline: &cmdline, ..machine() }), Err(TooLong));
}

proptest! {
    #[test]
    fn any_machine_gives_a_readable_tree(
        cpus in any::<usize>(),
        memory in any::<u64>(),
        cmdline in "[ -~]{0,300}",
        initrd in prop::option::of(any::<(u64, u64)>()),
    ) {
        let initrd = initrd.map(|(start, end)| start..end);
        let machine = GuestMachine { cpus, memory, cmdline: &cmdline, initrd, ..machine() };
        let tree = build(&machine).unwrap();
        let fdt = Fdt::new_unaligned(&tree).unwrap();
        prop_assert_eq!(fdt.total_size(), tree.len());
        let nodes = fdt.all_nodes().count();
        prop_assert_eq!(nodes, 10 + cpus.min(MAX_VCPUS));
        prop_assert_eq!(text(&machine, "/chosen", "bootargs"), cmdline.clone() + "\0");
    }
}
