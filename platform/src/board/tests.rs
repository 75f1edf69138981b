use std::{string::ToString, vec::Vec};

use super::*;
use crate::{
    dt::{Trigger, testing::TreeBuilder},
    uart::Kind,
};

/// Device trees as QEMU 10 makes them for `-M virt,virtualization=on -smp 4 -m 2G`.
const VIRT_GIC2: &[u8] = &Aligned(*include_bytes!("../../tests/fixtures/qemu-virt-gic2.dtb")).0;
const VIRT_GIC3: &[u8] = &Aligned(*include_bytes!("../../tests/fixtures/qemu-virt-gic3.dtb")).0;

#[repr(align(8))]
struct Aligned<const SIZE: usize>([u8; SIZE]);

fn read(blob: &[u8]) -> Board<'_> {
    Board::from_dt(blob).expect("valid tree")
}

fn region(base: u64, size: u64) -> Region {
    Region { base, size }
}

/// The problems as a person sees them.
fn lines(board: &Board<'_>) -> Vec<std::string::String> {
    board.problems().map(|problem| problem.to_string()).collect()
}

#[test]
fn virt_has_no_problems() {
    assert_eq!(lines(&read(VIRT_GIC2)), Vec::<&str>::new());
    assert_eq!(lines(&read(VIRT_GIC3)), Vec::<&str>::new());
}

#[test]
fn virt_gic3_is_read() {
    let redists = Vec::from([region(0x080a_0000, 0xf6_0000)]);
    let expected = GicInfo::V3 {
        dist: region(0x0800_0000, 0x1_0000),
        redists: redists.into_iter().collect(),
        stride: None,
        maintenance: Some(IntId::ppi(9)),
    };
    assert_eq!(read(VIRT_GIC3).gic, Some(expected));
}

#[test]
fn virt_gic2_is_read() {
    let expected = GicInfo::V2 {
        dist: region(0x0800_0000, 0x1_0000),
        cpu: region(0x0801_0000, 0x1_0000),
        hyp: region(0x0803_0000, 0x1_0000),
        vcpu: region(0x0804_0000, 0x1_0000),
        maintenance: Some(IntId::ppi(9)),
    };
    assert_eq!(read(VIRT_GIC2).gic, Some(expected));
}

#[test]
fn virt_memory_and_cpus_are_read() {
    let board = read(VIRT_GIC3);
    assert_eq!(board.model, Some("linux,dummy-virt"));
    assert_eq!(board.memory, [region(0x4000_0000, 0x8000_0000)]);
    let expected: Vec<Cpu> = (0..4).map(|mpidr| Cpu { mpidr, enable: Enable::Psci }).collect();
    assert_eq!(board.cpus, expected[..]);
    assert_eq!(board.psci, Some(Conduit::Smc));
}

#[test]
fn virt_console_and_timer_are_read() {
    let board = read(VIRT_GIC3);
    let console = board.console.expect("has a console");
    assert_eq!((console.kind, console.base), (Kind::Pl011, 0x0900_0000));
    assert_eq!(console.interrupt, Some((IntId::spi(1), Trigger::Level)));
    let expected = Timer {
        virtual_ppi: Some(IntId::ppi(11)),
        hypervisor_ppi: Some(IntId::ppi(10)),
        physical_ppi: Some(IntId::ppi(14)),
        frequency: None,
    };
    assert_eq!(board.timer, expected);
}

/// The shape of a Raspberry Pi 4: addresses behind `ranges`, a spin-table, no PSCI.
fn raspberry_pi_4() -> TreeBuilder {
    TreeBuilder::new()
        .reserve(0, 0x1000)
        .text("model", "Raspberry Pi 4 Model B")
        .cells("interrupt-parent", &[1])
        .begin("chosen")
        .text("stdout-path", "serial1:115200n8")
        .end()
        .begin("aliases")
        .text("serial1", "/soc/serial@7e215040")
        .end()
        .begin("reserved-memory")
        .cells("#address-cells", &[2])
        .cells("#size-cells", &[1])
        .bytes("ranges", &[])
        .begin("linux,cma")
        .cells("size", &[0x400_0000])
        .end()
        .begin("atf@0")
        .cells("reg", &[0, 0, 0x8_0000])
        .end()
        .end()
        .begin("soc")
        .cells("#address-cells", &[1])
        .cells("#size-cells", &[1])
        .cells("ranges", &[0x7e00_0000, 0, 0xfe00_0000, 0x180_0000, 0x4000_0000, 0, 0xff80_0000, 0x80_0000])
        .begin("watchdog@7e100000")
        .text("compatible", "brcm,bcm2711-pm\0brcm,bcm2835-pm-wdt")
        .cells("reg", &[0x7e10_0000, 0x114])
        .end()
        .begin("serial@7e215040")
        .text("compatible", "brcm,bcm2835-aux-uart")
        .cells("reg", &[0x7e21_5040, 0x40])
        .cells("interrupts", &[0, 93, 4])
        .end()
        .begin("interrupt-controller@40041000")
        .text("compatible", "arm,gic-400")
        .cells("#interrupt-cells", &[3])
        .cells("phandle", &[1])
        .cells("reg", &[0x4004_1000, 0x1000, 0x4004_2000, 0x2000, 0x4004_4000, 0x2000, 0x4004_6000, 0x2000])
        .cells("interrupts", &[1, 9, 0xf04])
        .end()
        .end()
        .begin("cpus")
        .cells("#address-cells", &[1])
        .cells("#size-cells", &[0])
        .begin("cpu@0")
        .text("device_type", "cpu")
        .text("enable-method", "spin-table")
        .cells("cpu-release-addr", &[0, 0xd8])
        .cells("reg", &[0])
        .end()
        .begin("cpu@1")
        .text("device_type", "cpu")
        .text("enable-method", "spin-table")
        .cells("reg", &[1])
        .end()
        .begin("cpu@2")
        .text("device_type", "cpu")
        .text("status", "fail")
        .cells("reg", &[2])
        .end()
        .begin("l2-cache0")
        .end()
        .end()
        .begin("timer")
        .text("compatible", "arm,armv8-timer")
        .text("interrupt-names", "virt\0hyp-phys")
        .cells("interrupts", &[1, 11, 0xf08, 1, 10, 0xf08])
        .end()
}

#[test]
fn addresses_behind_ranges_are_physical() {
    let blob = raspberry_pi_4().build();
    let board = read(&blob);
    assert!(matches!(board.gic, Some(GicInfo::V2 { hyp: Region { base: 0xff84_4000, .. }, .. })));
    assert_eq!(board.console.map(|console| console.base), Some(0xfe21_5040));
    assert_eq!(board.watchdogs.first().map(|pm| pm.registers), Some(region(0xfe10_0000, 0x114)));
}

#[test]
fn reservations_of_both_kinds_are_kept() {
    let blob = raspberry_pi_4().build();
    assert_eq!(read(&blob).reserved, [region(0, 0x1000), region(0, 0x8_0000)]);
}

#[test]
fn cpus_that_are_not_okay_are_left_out() {
    let blob = raspberry_pi_4().build();
    let mpidrs: Vec<u64> = read(&blob).cpus.iter().map(|cpu| cpu.mpidr).collect();
    assert_eq!(mpidrs, [0, 1]);
}

#[test]
fn a_spin_table_needs_its_release_address() {
    let blob = raspberry_pi_4().build();
    let board = read(&blob);
    let enables: Vec<Enable> = board.cpus.iter().map(|cpu| cpu.enable).collect();
    assert_eq!(enables, [Enable::SpinTable { release_addr: 0xd8 }, Enable::Unknown]);
    assert!(lines(&board).iter().any(|line| line.starts_with("/cpus/cpu@1: no way to start this CPU")));
}

#[test]
fn named_timer_interrupts_are_found_by_name() {
    let blob = raspberry_pi_4().build();
    let timer = read(&blob).timer;
    assert_eq!((timer.virtual_ppi, timer.hypervisor_ppi), (Some(IntId::ppi(11)), Some(IntId::ppi(10))));
    assert_eq!(timer.physical_ppi, None);
}

#[test]
fn without_a_psci_node_there_is_no_conduit() {
    let blob = raspberry_pi_4().build();
    assert_eq!(read(&blob).psci, None);
}

#[test]
fn several_memory_nodes_with_several_ranges_are_all_kept() {
    let blob = TreeBuilder::new()
        .begin("memory@80000000")
        .text("device_type", "memory")
        .cells("reg", &[0, 0x8000_0000, 0, 0x1000, 0, 0, 0, 0, 8, 0, 0, 0x2000])
        .end()
        .begin("memory@20")
        .text("device_type", "memory")
        .cells("reg", &[0x20, 0, 0, 0x3000])
        .end()
        .begin("secram@0")
        .text("device_type", "memory")
        .text("status", "disabled")
        .cells("reg", &[0, 0, 0, 0x1000])
        .end()
        .build();
    let expected =
        [region(0x8000_0000, 0x1000), region(0x8_0000_0000, 0x2000), region(0x20_0000_0000, 0x3000)];
    assert_eq!(read(&blob).memory, expected);
}

#[test]
fn a_memory_node_left_to_the_firmware_is_named() {
    let blob = TreeBuilder::new()
        .begin("memory@0")
        .text("device_type", "memory")
        .cells("reg", &[0, 0, 0, 0])
        .build();
    let board = read(&blob);
    assert!(lines(&board).iter().any(|line| line.starts_with("/memory@0: no memory: the size")), "{board:?}");
    assert!(board.problems().all(|problem| problem.kind != ProblemKind::NoMemory));
}

#[test]
fn an_empty_memory_node_beside_another_is_no_problem() {
    let blob = TreeBuilder::new()
        .begin("memory@0")
        .text("device_type", "memory")
        .cells("reg", &[0, 0, 0, 0])
        .end()
        .begin("memory@80000000")
        .text("device_type", "memory")
        .cells("reg", &[0, 0x8000_0000, 0, 0x1000])
        .build();
    assert!(read(&blob).problems().all(|problem| problem.kind != ProblemKind::EmptyMemory));
}

/// Memory in two pieces that touch, and one apart; a bundle from `start` to `end`.
fn with_initrd(start: u32, end: u32) -> (Option<Region>, Vec<ProblemKind<'static>>) {
    let blob = TreeBuilder::new()
        .begin("chosen")
        .cells("linux,initrd-start", &[start])
        .cells("linux,initrd-end", &[end])
        .end()
        .begin("memory@1000")
        .text("device_type", "memory")
        .cells("reg", &[0, 0x2000, 0, 0x1000, 0, 0x1000, 0, 0x1000, 0, 0x8000, 0, 0x1000])
        .build();
    let board = read(&blob);
    let problems = board.problems().filter_map(|problem| match problem.kind {
        ProblemKind::InitrdOutsideMemory(region) => Some(ProblemKind::InitrdOutsideMemory(region)),
        _ => None,
    });
    (board.initrd, problems.collect())
}

#[test]
fn an_initrd_may_lie_across_neighbouring_memory() {
    assert_eq!(with_initrd(0x1800, 0x3000), (Some(region(0x1800, 0x1800)), Vec::new()));
}

#[test]
fn an_initrd_that_is_not_all_in_memory_is_not_used() {
    for (start, end) in [(0x3000, 0x3800), (0x2000, 0x3001), (0x2800, 0x8800), (0xfff, 0x2000)] {
        let problem = ProblemKind::InitrdOutsideMemory(region(start.into(), (end - start).into()));
        assert_eq!(with_initrd(start, end), (None, Vec::from([problem])));
    }
}

#[test]
fn what_an_empty_tree_lacks_is_listed() {
    let blob = TreeBuilder::new().build();
    let board = read(&blob);
    let kinds: Vec<ProblemKind<'_>> = board.problems().map(|problem| problem.kind).collect();
    use ProblemKind::{NoConsole, NoCpus, NoGic, NoMemory, NoTimer};
    assert_eq!(kinds, [NoMemory, NoCpus, NoGic, NoTimer, NoConsole]);
}

#[test]
fn a_gic_without_gich_is_named_and_not_used() {
    let blob = TreeBuilder::new()
        .begin("intc@8000000")
        .text("compatible", "arm,cortex-a15-gic")
        .cells("reg", &[0, 0x800_0000, 0, 0x1_0000, 0, 0x801_0000, 0, 0x1_0000])
        .build();
    let board = read(&blob);
    assert_eq!(board.gic, None);
    assert!(
        lines(&board).iter().any(|line| line.starts_with("/intc@8000000: the reg of this GIC is too short"))
    );
}

#[test]
fn interrupts_pass_through_the_imx_power_controller() {
    let blob = TreeBuilder::new()
        .cells("interrupt-parent", &[2])
        .begin("chosen")
        .text("stdout-path", "/serial@30860000")
        .end()
        .begin("gic")
        .text("compatible", "arm,gic-v3")
        .cells("phandle", &[1])
        .cells("interrupt-parent", &[1])
        .cells("interrupts", &[1, 9, 4])
        .cells("reg", &[0, 0x3880_0000, 0, 0x1_0000, 0, 0x3888_0000, 0, 0xc_0000])
        .end()
        .begin("gpc")
        .text("compatible", "fsl,imx8mq-gpc")
        .cells("phandle", &[2])
        .end()
        .begin("serial@30860000")
        .text("compatible", "fsl,imx8mq-uart\0fsl,imx6q-uart")
        .cells("reg", &[0, 0x3086_0000, 0, 0x1_0000])
        .cells("interrupts", &[0, 26, 4])
        .build();
    let console = read(&blob).console.expect("has a console");
    assert_eq!(console.interrupt, Some((IntId::spi(26), Trigger::Level)));
}

#[test]
fn a_command_line_that_is_no_text_is_ignored_and_named() {
    let blob = TreeBuilder::new().begin("chosen").bytes("bootargs", &[0xff, 0xfe, 0]).build();
    let board = read(&blob);
    assert_eq!(board.bootargs, None);
    assert!(board.problems().any(|problem| problem.kind == ProblemKind::BootargsNotText));
}

#[test]
fn psci_of_version_0_1_alone_is_not_used() {
    let blob = TreeBuilder::new().begin("psci").text("compatible", "arm,psci").text("method", "smc").build();
    let board = read(&blob);
    assert_eq!(board.psci, None);
    assert!(lines(&board).iter().any(|line| line.starts_with("/psci: PSCI not usable")));
}

#[test]
fn more_reservations_than_fit_are_reported() {
    let mut builder = TreeBuilder::new();
    for index in 1..=MAX_RESERVED as u64 + 1 {
        builder = builder.reserve(index << 12, 0x1000);
    }
    let blob = builder.build();
    let board = read(&blob);
    assert_eq!(board.reserved.len(), MAX_RESERVED);
    assert!(board.problems().any(|problem| problem.kind == ProblemKind::TooManyReservations));
}

#[test]
fn a_fatal_problem_is_listed_however_many_there_are() {
    let mut builder =
        TreeBuilder::new().begin("cpus").cells("#address-cells", &[1]).cells("#size-cells", &[0]);
    for mpidr in 0..MAX_PROBLEMS as u32 + 2 {
        builder = builder.begin("cpu").text("device_type", "cpu").cells("reg", &[mpidr]).end();
    }
    let blob = builder.build();
    let board = read(&blob);
    assert_eq!(board.problems().count(), MAX_PROBLEMS);
    for kind in [ProblemKind::NoMemory, ProblemKind::NoGic, ProblemKind::NoTimer] {
        assert!(board.problems().any(|problem| problem.kind == kind), "{kind}");
    }
}

#[test]
fn a_cpu_interface_spread_over_128_kib_is_taken_where_it_is_contiguous() {
    let blob = TreeBuilder::new()
        .begin("gic@f9010000")
        .text("compatible", "arm,gic-400")
        .cells(
            "reg",
            &[
                0,
                0xf901_0000,
                0,
                0x1_0000,
                0,
                0xf902_0000,
                0,
                0x2_0000,
                0,
                0xf904_0000,
                0,
                0x2_0000,
                0,
                0xf906_0000,
                0,
                0x2_0000,
            ],
        )
        .build();
    let Some(GicInfo::V2 { cpu, hyp, vcpu, .. }) = read(&blob).gic else { panic!("has a GICv2") };
    assert_eq!((cpu, vcpu), (region(0xf902_f000, 0x2000), region(0xf906_f000, 0x2000)));
    assert_eq!(hyp, region(0xf904_0000, 0x2_0000));
}
