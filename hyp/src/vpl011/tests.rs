//! Register semantics, and the sequences of real drivers.

use proptest::prelude::*;

use super::register::{
    CR, DMACR, DR, FBRD, FR, IBRD, ICR, IDENTIFICATION, IFLS, ILPR, IMSC, LCR_H, MIS, RIS, RSR_ECR,
};
use super::*;

/// Reads as a 32-bit load and follows the interrupt line, which must be
/// reported as changed exactly when it does.
fn load(uart: &Vpl011, offset: u64) -> u32 {
    let before = uart.line();
    let reading = uart.read(offset, Width::Word);
    assert_eq!(reading.line, (before != uart.line()).then(|| uart.line()));
    reading.value as u32
}

fn store(uart: &Vpl011, offset: u64, value: u32) -> bool {
    let before = uart.line();
    let effects = uart.write(offset, Width::Word, u64::from(value));
    assert_eq!(effects.line, (before != uart.line()).then(|| uart.line()));
    effects.queued
}

fn type_in(uart: &Vpl011, text: &[u8]) {
    for &byte in text {
        let _ = uart.receive(byte);
    }
}

/// Everything the console can take now.
fn drain(uart: &Vpl011) -> Vec<u8> {
    let mut text = Vec::new();
    loop {
        let mut buffer = [0; 64];
        let drained = uart.take_line(&mut buffer);
        text.extend_from_slice(&buffer[..drained.taken.count]);
        if !drained.more {
            return text;
        }
    }
}

fn powered() -> Vpl011 {
    let uart = Vpl011::new();
    assert_eq!(uart.reset(), None);
    uart
}

fn with_fifos() -> Vpl011 {
    let uart = powered();
    store(&uart, LCR_H, 0x70);
    uart
}

/// Fills the transmit side until the guest sees a full FIFO.
fn fill(uart: &Vpl011) -> usize {
    (0..)
        .find(|_| {
            if load(uart, FR) & FR_TXFF != 0 {
                return true;
            }
            store(uart, DR, u32::from(b'x'));
            false
        })
        .expect("a FIFO fills")
}

#[test]
fn reset_values_are_the_manuals() {
    let uart = powered();
    let expected = [
        (RSR_ECR, 0),
        (FR, 0x97),
        (ILPR, 0),
        (IBRD, 0),
        (FBRD, 0),
        (LCR_H, 0),
        (CR, 0x300),
        (IFLS, 0x12),
        (IMSC, 0),
        (RIS, 0),
        (MIS, 0),
        (DMACR, 0),
    ];
    for (offset, value) in expected {
        assert_eq!(load(&uart, offset), value, "register {offset:#x}");
    }
}

#[test]
fn linux_recognises_the_part() {
    let uart = powered();
    let byte = |index: u64| load(&uart, IDENTIFICATION + 4 * index);
    let peripheral = (0..4).fold(0, |id, index| id | byte(index) << (8 * index));
    let cell = (0..4).fold(0, |id, index| id | byte(4 + index) << (8 * index));
    assert_eq!(peripheral & 0x000f_ffff, 0x0004_1011, "drivers/tty/serial/amba-pl011 matches this");
    assert_eq!(peripheral >> 20 & 0xf, 3, "32-deep FIFOs");
    assert_eq!(cell, 0xb105_f00d);
}

#[test]
fn configuration_reads_back_without_reserved_bits() {
    let uart = powered();
    let kept = [
        (ILPR, 0xff),
        (IBRD, 0xffff),
        (FBRD, 0x3f),
        (LCR_H, 0xff),
        (CR, 0xff87),
        (IFLS, 0x3f),
        (IMSC, 0x7ff),
        (DMACR, 7),
    ];
    for (offset, mask) in kept {
        store(&uart, offset, u32::MAX);
        assert_eq!(load(&uart, offset), mask, "register {offset:#x}");
    }
}

#[test]
fn narrow_reads_pick_their_bytes() {
    let uart = powered();
    store(&uart, IBRD, 0xabcd);
    assert_eq!(uart.read(IBRD, Width::Byte).value, 0xcd);
    assert_eq!(uart.read(IBRD + 1, Width::Byte).value, 0xab);
    assert_eq!(uart.read(FR, Width::Byte).value, 0x97);
    assert_eq!(uart.read(FR + 1, Width::Byte).value, 0);
    assert_eq!(uart.read(IBRD, Width::Double).value, 0xabcd);
}

#[test]
fn a_read_beside_the_data_register_eats_nothing() {
    let uart = powered();
    type_in(&uart, b"a");
    assert_eq!(uart.read(DR + 1, Width::Byte).value, 0);
    assert_eq!(load(&uart, DR), u32::from(b'a'));
}

#[test]
fn a_guest_that_sets_nothing_up_can_print() {
    let uart = powered();
    for &byte in b"early\n" {
        assert_eq!(load(&uart, FR) & (FR_TXFF | FR_BUSY), 0);
        assert!(store(&uart, DR, u32::from(byte)));
    }
    assert_eq!(drain(&uart), b"early\n");
}

#[test]
fn a_slow_console_shows_as_a_full_fifo() {
    let uart = with_fifos();
    assert_eq!(fill(&uart), TRANSMIT_RING);
    assert_eq!(load(&uart, FR) & (FR_TXFF | FR_BUSY | FR_TXFE), FR_TXFF | FR_BUSY);

    let mut some = [0; FIFO_DEPTH];
    let _ = uart.take_line(&mut some);
    assert_eq!(load(&uart, FR) & (FR_TXFF | FR_BUSY | FR_TXFE), FR_TXFE);
}

#[test]
fn without_fifos_one_byte_fills_the_transmitter() {
    let uart = powered();
    let written = fill(&uart);
    assert_eq!(written, TRANSMIT_RING - FIFO_DEPTH + 1);
}

#[test]
fn bytes_written_to_a_full_fifo_are_reported_as_lost() {
    let uart = with_fifos();
    fill(&uart);
    store(&uart, DR, 0);
    store(&uart, DR, 0);
    let mut all = [0; TRANSMIT_RING];
    assert_eq!(uart.take_line(&mut all).taken, Taken { count: TRANSMIT_RING, lost: 0 });
    assert_eq!(uart.take_line(&mut all).taken, Taken { count: 0, lost: 2 });
}

#[test]
fn enabling_the_transmit_interrupt_on_an_empty_fifo_raises_it() {
    let uart = with_fifos();
    assert_eq!(load(&uart, RIS), 0);
    store(&uart, IMSC, INT_TX);
    assert_eq!(load(&uart, MIS), INT_TX);
    assert_eq!(uart.line(), Level::High);
}

#[test]
fn clearing_the_transmit_interrupt_holds_until_the_next_byte() {
    let uart = with_fifos();
    store(&uart, IMSC, INT_TX);
    store(&uart, ICR, INT_TX);
    assert_eq!(uart.line(), Level::Low);
    store(&uart, DR, 0);
    assert_eq!(uart.line(), Level::High);
}

#[test]
fn a_full_fifo_withdraws_the_transmit_interrupt_until_it_is_half_empty() {
    let uart = with_fifos();
    store(&uart, IMSC, INT_TX);
    fill(&uart);
    assert_eq!(uart.line(), Level::Low);

    let mut buffer = [0; FIFO_DEPTH / 2 - 1];
    assert_eq!(uart.take_line(&mut buffer).line, None);
    let mut buffer = [0; 1];
    assert_eq!(uart.take_line(&mut buffer).line, Some(Level::High));
}

#[test]
fn typed_bytes_raise_receive_and_timeout_until_read() {
    let uart = with_fifos();
    store(&uart, IMSC, INT_RX | INT_RT);
    assert_eq!(uart.receive(b'l'), Some(Level::High));
    assert_eq!(uart.receive(b's'), None);
    assert_eq!(load(&uart, MIS), INT_RX | INT_RT);

    // Clearing can't hide bytes that still wait.
    store(&uart, ICR, INT_RX | INT_RT);
    assert_eq!(uart.line(), Level::High);

    assert_eq!(load(&uart, DR), u32::from(b'l'));
    assert_eq!(uart.line(), Level::High);
    assert_eq!(load(&uart, DR), u32::from(b's'));
    assert_eq!(uart.line(), Level::Low);
    assert_ne!(load(&uart, FR) & FR_RXFE, 0);
}

#[test]
fn switching_the_fifos_empties_the_receiver() {
    let uart = with_fifos();
    store(&uart, IMSC, INT_RX);
    type_in(&uart, b"x");
    store(&uart, LCR_H, 0x60);
    assert_eq!(uart.line(), Level::Low);
    type_in(&uart, b"y");
    store(&uart, LCR_H, 0x63);
    assert_eq!(load(&uart, DR), u32::from(b'y'));
}

#[test]
fn overrun_is_told_once_and_cleared_by_the_guest() {
    let uart = with_fifos();
    store(&uart, IMSC, INT_OE);
    while uart.receive_room() > 0 {
        assert_eq!(uart.receive(b'.'), None);
    }
    assert_ne!(load(&uart, FR) & FR_RXFF, 0);
    assert_eq!(uart.receive(b'!'), Some(Level::High));
    assert_eq!(load(&uart, RSR_ECR), RSR_OE);
    assert_eq!(load(&uart, DR), DR_OE | u32::from(b'.'));
    assert_eq!(load(&uart, DR), u32::from(b'.'));
    store(&uart, ICR, INT_OE);
    assert_eq!(uart.line(), Level::Low);
    store(&uart, RSR_ECR, 0);
    assert_eq!(load(&uart, RSR_ECR), 0);
}

#[test]
fn loopback_sends_to_the_guest_itself() {
    let uart = powered();
    store(&uart, CR, 0x381);
    assert!(!store(&uart, DR, u32::from(b'o')));
    assert_eq!(load(&uart, DR), u32::from(b'o'));
    assert_eq!(drain(&uart), b"");
}

#[test]
fn reset_forgets_the_set_up_and_keeps_the_last_words() {
    let uart = with_fifos();
    store(&uart, IMSC, INT_TX);
    store(&uart, DR, u32::from(b'!'));
    type_in(&uart, b"x");
    assert_eq!(uart.reset(), Some(Level::Low));
    assert_eq!((load(&uart, IMSC), load(&uart, RIS), load(&uart, LCR_H)), (0, 0, 0));
    assert_eq!(drain(&uart), b"!");
}

/// amba-pl011's probe and start-up as `drivers/tty/serial/amba-pl011.c` does
/// them (Linux 6.12), with a byte typed before anybody listened.
fn linux_startup(uart: &Vpl011) {
    // Probe: everything off.
    store(uart, IMSC, 0);
    store(uart, ICR, 0xffff);
    // hwinit: clear pending errors and receive interrupts, then mask all.
    store(uart, ICR, 0x7d0);
    store(uart, IMSC, 0);
    // startup: trigger levels, line control, enable.
    store(uart, IFLS, 0x12);
    store(uart, LCR_H, 0x70);
    store(uart, CR, 0xf01);
    // enable_interrupts: clear, empty the receiver, then RTIM and RXIM.
    store(uart, ICR, INT_RT | INT_RX);
    for _ in 0..2 * FIFO_DEPTH {
        if load(uart, FR) & FR_RXFE != 0 {
            break;
        }
        load(uart, DR);
    }
    store(uart, IMSC, INT_RT | INT_RX);
}

#[test]
fn linux_starts_up_quiet_and_listening() {
    let uart = powered();
    type_in(&uart, b"early bird");
    linux_startup(&uart);
    assert_eq!(uart.line(), Level::Low);
    assert_ne!(load(&uart, FR) & FR_RXFE, 0);
    assert_eq!(uart.receive(b'a'), Some(Level::High));
}

/// amba-pl011's interrupt handler: at most half a FIFO is written per turn,
/// without looking at TXFF. Returns what it read.
fn linux_interrupt(uart: &Vpl011, pending: &mut Vec<u8>) -> Vec<u8> {
    let mut read = Vec::new();
    let mut turns = 0;
    loop {
        let status = load(uart, RIS) & load(uart, IMSC);
        if status == 0 {
            return read;
        }
        turns += 1;
        assert!(turns < 256, "the driver gives up after 256 turns");
        store(uart, ICR, status & !(INT_TX | INT_RT | INT_RX));
        if status & (INT_RT | INT_RX) != 0 {
            while load(uart, FR) & FR_RXFE == 0 {
                read.push(load(uart, DR) as u8);
            }
        }
        if status & INT_TX != 0 {
            let count = pending.len().min(FIFO_DEPTH / 2);
            for byte in pending.drain(..count) {
                store(uart, DR, u32::from(byte));
            }
            if pending.is_empty() {
                let mask = load(uart, IMSC);
                store(uart, IMSC, mask & !INT_TX);
            }
        }
    }
}

#[test]
fn linux_sends_a_long_text_by_interrupts_and_loses_nothing() {
    let uart = powered();
    linux_startup(&uart);
    let text: Vec<u8> = (0..3 * TRANSMIT_RING).map(|n| b'a' + (n % 26) as u8).collect();
    let mut pending = text.clone();
    let mut shown = Vec::new();
    // start_tx: fill the FIFO by polling, then let interrupts do the rest.
    for byte in pending.drain(..8) {
        assert_eq!(load(&uart, FR) & FR_TXFF, 0);
        store(&uart, DR, u32::from(byte));
    }
    let mask = load(&uart, IMSC);
    store(&uart, IMSC, mask | INT_TX);
    while !pending.is_empty() {
        assert_eq!(uart.line(), Level::High, "the driver would wait for ever");
        linux_interrupt(&uart, &mut pending);
        // The console catches up a little each time.
        let mut buffer = [0; 100];
        let drained = uart.take_line(&mut buffer);
        assert_eq!(drained.taken.lost, 0);
        shown.extend_from_slice(&buffer[..drained.taken.count]);
    }
    shown.extend(drain(&uart));
    assert_eq!(shown, text);
    assert_eq!(uart.line(), Level::Low);
}

#[test]
fn linux_reads_pasted_text_whole() {
    let uart = powered();
    linux_startup(&uart);
    let text = [b'p'; 200];
    type_in(&uart, &text);
    assert_eq!(linux_interrupt(&uart, &mut Vec::new()), text);
    assert_eq!(uart.line(), Level::Low);
}

fn width() -> impl Strategy<Value = Width> {
    (0u64..4).prop_map(Width::from_sas)
}

proptest! {
    #[test]
    fn nothing_a_guest_does_panics_or_desynchronises_the_line(
        accesses in prop::collection::vec((0u64..0x1100, width(), any::<u64>(), 0u8..4), 1..200)
    ) {
        let uart = powered();
        for (offset, width, value, kind) in accesses {
            let before = uart.line();
            let told = match kind {
                0 => uart.read(offset, width).line,
                1 => uart.write(offset, width, value).line,
                2 => uart.write(offset & 0x7c, width, value).line,
                _ => uart.receive(value as u8),
            };
            prop_assert_eq!(told, (before != uart.line()).then(|| uart.line()));
            prop_assert!(uart.read(offset, width).value <= width.mask());
        }
    }
}
