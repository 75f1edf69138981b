//! The joined console against a UART of which the test holds the other end.

use std::collections::VecDeque;
use std::string::String;
use std::sync::{Arc, Mutex as StdMutex};

use super::input::HELP as KEYS;
use super::port::{Port, Switch};
use super::prompt::Command;
use super::*;
use crate::mmio::Width;
use crate::vgic::Level;

#[derive(Default)]
struct Wire {
    sent: Vec<u8>,
    typed: VecDeque<u8>,
    /// Bytes that still fit; `None` is a UART that never fills.
    room: Option<usize>,
    transmit_interrupt: bool,
}

#[derive(Clone, Default)]
struct FakePort(Arc<StdMutex<Wire>>);

impl FakePort {
    fn wire<T>(&self, look: impl FnOnce(&mut Wire) -> T) -> T {
        look(&mut self.0.lock().expect("no test panics here"))
    }

    fn screen(&self) -> String {
        self.wire(|wire| String::from_utf8_lossy(&wire.sent).into_owned())
    }

    fn types(&self, keys: &[u8]) {
        self.wire(|wire| wire.typed.extend(keys));
    }
}

impl Port for FakePort {
    fn try_put(&mut self, byte: u8) -> bool {
        self.wire(|wire| {
            if wire.room == Some(0) {
                return false;
            }
            wire.room = wire.room.map(|room| room - 1);
            wire.sent.push(byte);
            true
        })
    }

    fn try_get(&mut self) -> Option<u8> {
        self.wire(|wire| wire.typed.pop_front())
    }

    fn set_transmit_interrupt(&mut self, switch: Switch) {
        self.wire(|wire| wire.transmit_interrupt = switch == Switch::On);
    }
}

const DEBIAN: VmIndex = VmIndex::new(0).expect("small");
const RT: VmIndex = VmIndex::new(1).expect("small");

/// A console in its working state with these two VMs; 1 tick is 1 ms.
fn console(port: &FakePort) -> Console<'static, FakePort> {
    let console = Console::new(Box::leak(Box::new(Queues::new())));
    for (vm, name) in [(DEBIAN, "debian"), (RT, "rt")] {
        console.add_vm(vm, name);
        let _ = console.uart(vm).reset();
    }
    console.install(port.clone(), 1000);
    console.defer();
    console
}

/// `vm` writes `byte`, as through its trap handler.
fn writes(console: &Console<'_, FakePort>, vm: VmIndex, byte: u8, now: u64) -> Pumped {
    assert!(console.uart(vm).write(0, Width::Word, u64::from(byte)).queued);
    console.guest_wrote(vm, now)
}

/// `vm` prints `text`, and somebody pumps when it is time.
fn prints(console: &Console<'_, FakePort>, vm: VmIndex, text: &[u8], now: u64) -> Pumped {
    for &byte in text {
        let _ = writes(console, vm, byte, now);
    }
    console.pump(now)
}

#[test]
fn what_is_said_before_the_uart_is_known_comes_out_with_it() {
    let port = FakePort::default();
    let console = Console::new(Box::leak(Box::new(Queues::new())));
    console.say(format_args!("first light"));
    assert_eq!(port.screen(), "");
    console.install(port.clone(), 1000);
    console.say(format_args!("second {}", "line"));
    assert_eq!(port.screen(), "entresol: first light\r\nentresol: second line\r\n");
}

#[test]
fn a_deferred_line_waits_for_the_pump() {
    let port = FakePort::default();
    let console = console(&port);
    console.say(format_args!("hello"));
    assert_eq!(port.screen(), "");
    assert!(console.is_due(u64::MAX));
    assert_eq!(console.pump(0), Pumped::default());
    assert_eq!(port.screen(), "entresol: hello\r\n");
    assert!(!console.is_due(u64::MAX));
}

#[test]
fn a_guests_bytes_gather_for_a_moment() {
    let port = FakePort::default();
    let console = console(&port);
    assert_eq!(writes(&console, DEBIAN, b'#', 7).next, Next::At(8));
    assert_eq!(console.deadline(), Some(8));
    assert_eq!(writes(&console, DEBIAN, b' ', 7), Pumped::default());
    assert_eq!(writes(&console, RT, b'!', 7).next, Next::At(8));
    assert_eq!([console.is_due(7), console.is_due(8)], [false, true]);
    assert_eq!(port.screen(), "");
    assert_eq!(console.pump(8).next, Next::At(8 + 333));
    assert_eq!(port.screen(), "[debian] # ");
}

#[test]
fn a_guest_that_fills_its_fifo_is_relieved_at_once() {
    let port = FakePort::default();
    let console = console(&port);
    for _ in 0..2 * TRANSMIT_RING {
        let _ = writes(&console, DEBIAN, b'x', 0);
        assert_eq!(console.uart(DEBIAN).read(0x18, Width::Word).value & 0x20, 0);
    }
    assert!(port.screen().len() > TRANSMIT_RING);
}

#[test]
fn a_full_uart_arms_its_interrupt_and_goes_on_from_there() {
    let port = FakePort::default();
    let console = console(&port);
    port.wire(|wire| wire.room = Some(4));
    assert_eq!(prints(&console, DEBIAN, b"a\n", 0).next, Next::Room);
    assert!(port.wire(|wire| wire.transmit_interrupt));
    assert!(!console.is_due(u64::MAX));
    assert_eq!(port.screen(), "[deb");

    port.wire(|wire| wire.room = Some(4));
    assert_eq!(console.transmit_interrupt(0).next, Next::Room);
    port.wire(|wire| wire.room = None);
    assert_eq!(console.transmit_interrupt(0).next, Next::Idle);
    assert!(!port.wire(|wire| wire.transmit_interrupt));
    assert_eq!(port.screen(), "[debian] a\r\n");
}

#[test]
fn a_line_said_while_the_uart_is_full_sets_no_time_that_nobody_can_meet() {
    let port = FakePort::default();
    let console = console(&port);
    port.wire(|wire| wire.room = Some(4));
    assert_eq!(prints(&console, DEBIAN, b"a\n", 0).next, Next::Room);
    console.say(format_args!("meanwhile"));
    assert_eq!((console.is_due(u64::MAX), console.deadline()), (false, None));
}

#[test]
fn there_is_no_time_to_come_back_once_everything_is_sent() {
    let port = FakePort::default();
    let console = console(&port);
    console.say(format_args!("hello"));
    let _ = console.pump(0);
    // As if the pump had come between queueing the line and noting the time.
    console.wait_end.store(0, core::sync::atomic::Ordering::SeqCst);
    assert_eq!((console.is_due(u64::MAX), console.deadline()), (false, None));
}

#[test]
fn a_board_without_a_uart_has_nothing_to_come_back_for() {
    let console: Console<'_, FakePort> = Console::new(Box::leak(Box::new(Queues::new())));
    console.defer();
    console.say(format_args!("into the void"));
    let _ = console.pump(0);
    assert_eq!(console.deadline(), None);
}

#[test]
fn a_guest_that_was_held_back_hears_when_it_may_go_on() {
    let port = FakePort::default();
    let console = console(&port);
    port.wire(|wire| wire.room = Some(0));
    let uart = console.uart(DEBIAN);
    let _ = uart.write(0x2c, Width::Word, 0x70);
    let _ = uart.write(0x38, Width::Word, 0x20);
    while uart.read(0x18, Width::Word).value & 0x20 == 0 {
        let _ = writes(&console, DEBIAN, b'x', 0);
    }
    assert_eq!(uart.line(), Level::Low);
    port.wire(|wire| wire.room = None);
    let pumped = console.transmit_interrupt(0);
    assert!(pumped.changed.contains(DEBIAN));
    assert_eq!(uart.line(), Level::High);
    assert_eq!(pumped.next, Next::Now, "one pump has its budget");
}

#[test]
fn a_waiting_line_names_its_time() {
    let port = FakePort::default();
    let console = console(&port);
    let _ = prints(&console, DEBIAN, b"# ", 50);
    let pumped = prints(&console, RT, b"tick\n", 60);
    let Next::At(time) = pumped.next else { panic!("{pumped:?}") };
    assert_eq!(time, 50 + 333);
    assert_eq!(console.deadline(), Some(time));
    assert_eq!([console.is_due(time - 1), console.is_due(time)], [false, true]);
    console.say(format_args!("news"));
    assert!(console.is_due(time - 1), "somebody who hasn't been asked to wait");
    assert_eq!(console.pump(time - 1).next, Next::At(time));
    assert_eq!(console.pump(time), Pumped::default());
    assert_eq!(console.deadline(), None);
    assert_eq!(port.screen(), "[debian] # \r\nentresol: news\r\n[rt] tick\r\n");
}

#[test]
fn keys_reach_the_focused_guest() {
    let port = FakePort::default();
    let console = console(&port);
    let _ = console.uart(DEBIAN).write(0x38, Width::Word, 0x10);
    port.types(b"ls\x1d1x");
    let received = console.receive(0);
    assert!(received.pumped.changed.contains(DEBIAN));
    assert_eq!(received.command, None);
    let read = |vm| console.uart(vm).read(0, Width::Word).value as u8;
    assert_eq!([read(DEBIAN), read(DEBIAN), read(RT)], *b"lsx");
    assert_eq!(port.screen(), "entresol: keys go to rt; Ctrl-] ? for help\r\n");
}

#[test]
fn a_session_at_the_prompt() {
    let port = FakePort::default();
    let console = console(&port);
    port.types(b"\x1dhstop\rstop rt\rlist\rnev");
    assert_eq!(console.receive(0).command, Some(Command::Stop(RT)));
    console.say(format_args!("rt: stopped"));
    console.command_done();
    assert_eq!(console.receive(0).command, Some(Command::List));
    console.say(format_args!("0 debian running"));
    console.say(format_args!("1 rt off"));
    console.command_done();
    assert_eq!(console.receive(0).command, None);
    port.types(b"\x04");
    let _ = console.receive(0);
    port.types(b"\x1dhx");
    let _ = console.receive(0);
    let expected = "\
entresol: keys go to the hypervisor; `help`, or Ctrl-D to leave\r
entresol: `stop` needs a VM, by name or number; `list` shows them\r
entresol> stop\r
entresol> stop rt\r
entresol: rt: stopped\r
entresol> list\r
entresol: 0 debian running\r
entresol: 1 rt off\r
entresol> nev\r
entresol: keys go to debian; Ctrl-] ? for help\r
entresol: keys go to the hypervisor; `help`, or Ctrl-D to leave\r
entresol> x";
    assert_eq!(port.screen(), expected);
}

#[test]
fn leaving_the_prompt_forgets_what_was_typed_there() {
    let port = FakePort::default();
    let console = console(&port);
    port.wire(|wire| wire.room = Some(0));
    port.types(b"\x1dhpoweroff\x1d1\x1dhlist\r");
    let received = console.receive(0);
    assert_eq!(received.command, Some(Command::List));
    port.wire(|wire| wire.room = None);
    while console.transmit_interrupt(0).next == Next::Now {}
    assert!(port.screen().ends_with("\r\nentresol> list\r\n"), "{}", port.screen());
    assert!(!port.screen().contains("poweroff"));
}

#[test]
fn help_is_offered_after_the_prefix() {
    let port = FakePort::default();
    let console = console(&port);
    port.types(b"\x1d?\x1d7");
    let _ = console.receive(0);
    assert_eq!(port.screen(), format!("entresol: {KEYS}\r\nentresol: there is no VM 7\r\n"));
}

#[test]
fn log_frames_are_kept_until_somebody_asks() {
    let port = FakePort::default();
    let console = console(&port);
    console.queues.push_frame(b"\x01\xab\x00");
    assert!(!console.is_due(u64::MAX));
    port.types(b"\x1dhlog\r");
    let _ = console.receive(0);
    let screen = port.screen();
    assert!(screen.contains("entresol: log 01ab00\r\nentresol: 1 log frames; that is all\r\n"), "{screen}");
}

#[test]
fn log_frames_flow_once_a_host_decodes_them() {
    let port = FakePort::default();
    let console = console(&port);
    console.queues.push_frame(b"\x01\x00");
    console.send_frames();
    console.queues.push_frame(b"\x02\x00");
    let _ = prints(&console, DEBIAN, b"\xff", 0);
    let sent = port.wire(|wire| wire.sent.clone());
    assert_eq!(sent, b"\xff\x01\x00\xff\x02\x00[debian] \xff\x00");
}

#[test]
fn lines_beyond_the_ring_are_counted() {
    let port = FakePort::default();
    let console = console(&port);
    for _ in 0..1000 {
        console.say(format_args!("12345"));
    }
    while console.pump(0).next == Next::Now {}
    let screen = port.screen();
    let shown = screen.matches("12345").count();
    assert_eq!(shown, 4096 / 6);
    assert!(screen.ends_with(&format!("entresol: ... {} bytes dropped\r\n", 6 * (1000 - shown))));
}

#[test]
fn a_line_too_long_is_cut_and_says_so() {
    let port = FakePort::default();
    let console = console(&port);
    console.say(format_args!("{}", "x".repeat(2000)));
    while console.pump(0).next == Next::Now {}
    assert_eq!(port.screen(), format!("entresol: {}...\r\n", "x".repeat(LINE)));
}

#[test]
fn a_crash_is_shown_even_while_the_console_is_locked() {
    let port = FakePort::default();
    let console = console(&port);
    console.say(format_args!("the last thing said"));
    let held = console.front.lock();
    let mut writer = console.crash_writer().expect("the first crash");
    writer.write_str("crash\n").expect("it never fails");
    assert!(console.crash_writer().is_none(), "a crash within the crash");
    drop(held);
    assert_eq!(port.screen(), "\r\nthe last thing said\r\ncrash\r\n");
}

#[test]
fn a_dead_uart_does_not_hold_up_a_crash() {
    let port = FakePort::default();
    let console = console(&port);
    port.wire(|wire| wire.room = Some(3));
    let mut writer = console.crash_writer().expect("the first crash");
    writer.write_str("crash\n").expect("it never fails");
    writer.write_str(&"x".repeat(100_000)).expect("it never fails");
    assert_eq!(port.screen(), "\r\nc");
}

#[test]
fn many_cpus_lose_and_mix_nothing() {
    let port = FakePort::default();
    let console = console(&port);
    let console = &console;
    const LINES: usize = 200;
    std::thread::scope(|scope| {
        for vm in [DEBIAN, RT] {
            scope.spawn(move || {
                for line in 0..LINES {
                    let text = format!("{} {line}\n", vm.index());
                    let _ = prints(console, vm, text.as_bytes(), line as u64 * 1000);
                    while console.uart(vm).read(0x18, Width::Word).value & 0x80 == 0 {
                        let _ = console.pump(line as u64 * 1000);
                    }
                }
            });
        }
    });
    assert!(!console.is_due(u64::MAX), "somebody's bytes were forgotten");
    let screen = port.screen();
    for (vm, tag) in [(DEBIAN, "[debian] "), (RT, "[rt] ")] {
        let text: String = screen.split("\r\n").filter_map(|line| line.strip_prefix(tag)).collect();
        let expected: String = (0..LINES).map(|line| format!("{} {line}", vm.index())).collect();
        assert_eq!(text, expected);
    }
}
