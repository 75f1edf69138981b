use super::*;
use crate::{
    dt::testing::{Blob, TreeBuilder},
    mmio::fake::FakeRegisters,
};

/// A Raspberry Pi's power manager, and whatever `add` adds.
fn tree(add: fn(TreeBuilder) -> TreeBuilder) -> Blob {
    let pm =
        TreeBuilder::new().begin("pm").text("compatible", "brcm,bcm2835-pm").cells("reg", &[0, 0, 0, 0x28]);
    add(pm.end()).build()
}

/// A system controller at 0x1000 and a node that resets by it; `add` says how.
fn with_syscon(add: fn(TreeBuilder) -> TreeBuilder) -> Blob {
    let node = TreeBuilder::new().begin("reboot").text("compatible", "syscon-reboot").cells("regmap", &[7]);
    add(node).end().begin("syscon@1000").cells("phandle", &[7]).cells("reg", &[0, 0x1000, 0, 0x100]).build()
}

fn resets(blob: &[u8]) -> std::vec::Vec<ResetInfo> {
    Board::from_dt(blob).expect("valid tree").resets.to_vec()
}

#[test]
fn firmware_comes_before_the_power_manager() {
    let blob = tree(|tree| tree.begin("psci").text("compatible", "arm,psci-1.0").text("method", "smc"));
    let board = Board::from_dt(&blob).expect("valid tree");
    let mut block = FakeRegisters::new(0x28);
    let registers = block.registers();
    let Reset(ways) = Reset::of(&board, |_| Some(registers)).expect("has two ways");
    assert!(matches!(ways[..], [Way::Psci(Conduit::Smc), Way::Bcm2835Pm(_)]));
}

#[test]
fn firmware_that_only_returns_is_followed_by_the_next_way() {
    let blob = tree(|tree| tree.begin("psci").text("compatible", "arm,psci-1.0").text("method", "smc"));
    let board = Board::from_dt(&blob).expect("valid tree");
    let mut block = FakeRegisters::new(0x28);
    let registers = block.registers();
    Reset::of(&board, |_| Some(registers)).expect("has two ways").reset();
    assert_eq!(registers.read32(0x1c), 0x5a00_0020);
}

#[test]
fn a_machine_without_any_way_has_no_reset() {
    let blob = TreeBuilder::new().build();
    assert!(Reset::of(&Board::from_dt(&blob).expect("valid tree"), |_| None).is_none());
}

#[test]
fn a_watchdog_does_not_switch_off() {
    let mut block = FakeRegisters::new(0x10);
    let registers = block.registers();
    let way = Way::Imx2(Imx2 { registers, order: ByteOrder::Little }, Output::Internal);
    way.power_off();
    assert_eq!(registers.read16(0), 0);
    way.reset();
    assert_eq!(registers.read16(0), 0x24);
}

#[test]
fn a_syscon_is_found_by_its_phandle() {
    let blob = with_syscon(|node| node.cells("offset", &[0x14]).cells("mask", &[2]));
    let [info] = resets(&blob)[..] else { panic!("has one way") };
    assert_eq!(info.registers, Region { base: 0x1000, size: 0x100 });
    assert!(info.kind.can_reset() && !info.kind.can_power_off());
}

#[test]
fn without_regmap_the_parent_is_the_syscon() {
    let blob = TreeBuilder::new()
        .begin("syscon@2000")
        .cells("reg", &[0, 0x2000, 0, 0x100])
        .begin("poweroff")
        .text("compatible", "syscon-poweroff")
        .cells("offset", &[0])
        .cells("value", &[1])
        .build();
    let [info] = resets(&blob)[..] else { panic!("has one way") };
    assert_eq!(info.registers.base, 0x2000);
    assert!(info.kind.can_power_off());
}

#[test]
fn a_register_outside_its_syscon_is_no_way() {
    assert_eq!(resets(&with_syscon(|node| node.cells("offset", &[0xfe]).cells("mask", &[2]))), []);
    assert_eq!(resets(&with_syscon(|node| node.cells("offset", &[0x100]).cells("mask", &[2]))), []);
    assert_eq!(resets(&with_syscon(|node| node.cells("offset", &[0xffff_fffc]).cells("mask", &[2]))), []);
}

#[test]
fn only_masked_bits_are_changed() {
    let mut block = FakeRegisters::new(0x10);
    let registers = block.registers();
    registers.write32(4, 0xffff_0000);
    let write =
        Write { action: Action::Reset, offset: 4, mask: 0xff00_00ff, value: 0x12, order: ByteOrder::Little };
    write.perform(registers);
    assert_eq!(registers.read32(4), 0x00ff_0012);
}

#[test]
fn a_big_endian_syscon_is_written_the_other_way_round() {
    let mut block = FakeRegisters::new(0x10);
    let registers = block.registers();
    let write = Write { action: Action::Reset, offset: 0, mask: 2, value: 2, order: ByteOrder::Big };
    write.perform(registers);
    assert_eq!(registers.read32(0), 0x0200_0000);
}

#[test]
fn the_syscon_says_how_its_bytes_are_arranged() {
    let blob = TreeBuilder::new()
        .begin("reboot")
        .text("compatible", "syscon-reboot")
        .cells("regmap", &[7])
        .cells("offset", &[0xb0])
        .cells("mask", &[2])
        .end()
        .begin("dcfg@1ee0000")
        .cells("phandle", &[7])
        .bytes("big-endian", &[])
        .cells("reg", &[0, 0x1ee_0000, 0, 0x1000])
        .build();
    let [ResetInfo { kind: Kind::Syscon(write), .. }] = resets(&blob)[..] else { panic!("has one way") };
    assert_eq!(write.order, ByteOrder::Big);
}

#[test]
fn a_mask_without_a_value_is_the_value() {
    let blob = with_syscon(|node| node.cells("offset", &[0]).cells("mask", &[2]));
    let [ResetInfo { kind: Kind::Syscon(write), .. }] = resets(&blob)[..] else { panic!("has one way") };
    assert_eq!((write.mask, write.value), (u32::MAX, 2));
}

#[test]
fn the_security_monitor_of_a_layerscape_is_no_power_switch() {
    let blob = TreeBuilder::new()
        .begin("sec_mon@1e90000")
        .text("compatible", "fsl,sec-v5.4-mon\0fsl,sec-v5.0-mon\0fsl,sec-v4.0-mon")
        .cells("reg", &[0, 0x1e9_0000, 0, 0x1_0000])
        .build();
    assert_eq!(resets(&blob), []);
}
