use std::vec::Vec;

use super::*;
use crate::dt::testing::{Blob, TreeBuilder};

/// Two UARTs and an alias; `chosen` adds what the boot loader says.
fn board(chosen: impl FnOnce(TreeBuilder) -> TreeBuilder) -> Blob {
    chosen(TreeBuilder::new().begin("chosen"))
        .end()
        .begin("aliases")
        .text("serial1", "/serial@2000")
        .end()
        .begin("display@0")
        .text("compatible", "simple-framebuffer")
        .end()
        .begin("serial@1000")
        .text("compatible", "arm,pl011\0arm,primecell")
        .cells("reg", &[0, 0x1000, 0, 0x1000])
        .end()
        .begin("serial@2000")
        .text("compatible", "snps,dw-apb-uart")
        .cells("reg", &[0, 0x2000, 0, 0x100])
        .cells("reg-shift", &[2])
        .cells("reg-io-width", &[4])
        .end()
        .begin("serial@3000")
        .text("compatible", "arm,pl011")
        .text("status", "disabled")
        .cells("reg", &[0, 0x3000, 0, 0x1000])
        .build()
}

fn base(blob: &[u8]) -> Option<u64> {
    find(blob).map(|info| info.base)
}

#[test]
fn stdout_path_names_the_console() {
    let blob = board(|chosen| chosen.text("stdout-path", "serial1:115200n8"));
    let spacing = super::super::Spacing { width: super::super::Width::Word, shift: 2 };
    let expected = UartInfo { kind: Kind::Ns16550(spacing), base: 0x2000, interrupt: None, clock: None };
    assert_eq!(find(&blob), Some(expected));
}

#[test]
fn the_command_line_overrides_stdout_path() {
    let blob = board(|chosen| {
        chosen.text("stdout-path", "serial1").text("bootargs", "quiet entresol.console=/serial@1000")
    });
    assert_eq!(base(&blob), Some(0x1000));
}

#[test]
fn the_command_line_can_give_an_address() {
    let blob = board(|chosen| chosen.text("bootargs", "entresol.console=cadence,0xFf000000"));
    let expected = UartInfo { kind: Kind::Cadence, base: 0xff00_0000, interrupt: None, clock: None };
    assert_eq!(find(&blob), Some(expected));
}

#[test]
fn an_address_that_is_no_number_is_not_used() {
    for value in ["pl011,0x", "pl011,10", "pl011,0x1g", "pl011,0x11112222333344445", "vga,0xb8000"] {
        assert_eq!(by_address(value.as_bytes()), None, "{value}");
    }
}

#[test]
fn a_disabled_console_is_passed_over() {
    let blob = board(|chosen| chosen.text("stdout-path", "/serial@3000"));
    assert_eq!(base(&blob), Some(0x1000));
}

#[test]
fn a_framebuffer_is_passed_over_and_reported() {
    let blob = board(|chosen| chosen.text("stdout-path", "/display@0"));
    let tree = Tree::new(&blob).expect("valid header");
    let mut walk = Walk::new(&tree);
    let chosen = Chosen::find(&mut walk).expect("valid tree");
    let mut reports = Vec::new();
    let console = select(&mut walk, &chosen, |report| reports.push(report)).expect("valid tree");
    assert_eq!(console.map(|console| console.info.base), Some(0x1000));
    assert!(matches!(reports[..], [PassedOver::Unsupported(_)]));
}

#[test]
fn without_a_name_the_first_usable_uart_serves() {
    assert_eq!(base(&board(|chosen| chosen)), Some(0x1000));
}

#[test]
fn a_transmitter_that_never_has_room_does_not_stop_the_boot() {
    let mut block = crate::mmio::fake::FakeRegisters::new(0x100);
    let info = UartInfo { kind: Kind::Lpuart, base: 0, interrupt: None, clock: None };
    put_blocking(&Uart::new(&info, block.registers()), b'x');
}
