//! Transcripts: who wrote what when, and what the terminal shows.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// 1 tick = 1 ms.
const PATIENCE: Patience = Patience { focused: 300, others: 20, hold: 1000 };

const A: Source = Source::Vm(VmIndex::new(0).expect("small"));
const B: Source = Source::Vm(VmIndex::new(1).expect("small"));

/// A mux, its sources' texts and the terminal.
struct Desk {
    mux: Mux,
    now: u64,
    texts: [VecDeque<u8>; SOURCES],
    lost: [u32; SOURCES],
    screen: Vec<u8>,
}

impl Desk {
    fn with_vms(names: &[&str]) -> Self {
        let mut mux = Mux::new(PATIENCE);
        for (index, name) in names.iter().enumerate() {
            mux.name(VmIndex::new(index).expect("small"), name);
        }
        mux.set_focus(A);
        let texts = [const { VecDeque::new() }; SOURCES];
        Self { mux, now: 0, texts, lost: [0; SOURCES], screen: Vec::new() }
    }

    fn writes(&mut self, source: Source, text: &[u8]) -> &mut Self {
        self.texts[source.slot()].extend(text);
        self
    }

    fn loses(&mut self, source: Source, count: u32) -> &mut Self {
        self.lost[source.slot()] += count;
        self
    }

    /// Lets everything out that may come out at this time.
    fn shows(&mut self) -> Choice {
        loop {
            let waiting = |slot: &usize| !self.texts[*slot].is_empty() || self.lost[*slot] != 0;
            let ready =
                SourceSet::from_bits((0..SOURCES).filter(waiting).fold(0, |bits, slot| bits | 1 << slot));
            let Choice::Take(source, limit) = self.mux.choose(self.now, ready) else {
                return self.mux.choose(self.now, ready);
            };
            let text = &mut self.texts[source.slot()];
            let line = text.iter().position(|&byte| byte == b'\n').map_or(text.len(), |end| end + 1);
            let bytes: Vec<u8> = text.drain(..line.min(limit)).collect();
            let taken = Taken { count: bytes.len(), lost: std::mem::take(&mut self.lost[source.slot()]) };
            self.mux.accept(source, self.now, taken, &bytes);
            self.sends();
        }
    }

    fn sends(&mut self) {
        self.screen.extend_from_slice(self.mux.staged());
        self.mux.advance(self.mux.staged().len());
    }

    fn after(&mut self, ticks: u64) -> &mut Self {
        self.shows();
        self.now += ticks;
        self
    }

    #[track_caller]
    fn screen_is(&mut self, expected: &str) {
        self.shows();
        assert_eq!(String::from_utf8_lossy(&self.screen), expected);
    }
}

#[test]
fn a_lone_vm_has_the_terminal_to_itself() {
    let mut desk = Desk::with_vms(&["debian"]);
    desk.writes(A, b"\x1b[2Jbooting\r\nlogin: ").screen_is("\x1b[2Jbooting\r\nlogin: ");
}

#[test]
fn the_hypervisors_lines_are_tagged_even_then() {
    let mut desk = Desk::with_vms(&["debian"]);
    desk.writes(Source::Hypervisor, b"4 CPUs\nstarting debian\n");
    desk.screen_is("entresol: 4 CPUs\r\nentresol: starting debian\r\n");
}

#[test]
fn lines_of_two_vms_do_not_mix() {
    let mut desk = Desk::with_vms(&["debian", "rt"]);
    desk.writes(A, b"one ").after(5).writes(B, b"tick 1\n").after(5).writes(A, b"line\r\n");
    desk.screen_is("[debian] one line\r\n[rt] tick 1\r\n");
}

#[test]
fn vms_take_turns_by_line() {
    let mut desk = Desk::with_vms(&["a", "b"]);
    desk.writes(A, b"1\n2\n3\n").writes(B, b"x\ny\n");
    desk.screen_is("[a] 1\r\n[b] x\r\n[a] 2\r\n[b] y\r\n[a] 3\r\n");
}

#[test]
fn a_prompt_shows_at_once_and_is_broken_when_it_rests() {
    let mut desk = Desk::with_vms(&["debian", "rt"]);
    desk.writes(A, b"# ").screen_is("[debian] # ");
    desk.after(10).writes(B, b"tick\n").after(100).screen_is("[debian] # ");
    desk.after(200).screen_is("[debian] # \r\n[rt] tick\r\n");
    desk.writes(A, b"ls").screen_is("[debian] # \r\n[rt] tick\r\n[debian] ls");
}

#[test]
fn typing_holds_the_line_but_not_for_ever() {
    let mut desk = Desk::with_vms(&["debian", "rt"]);
    desk.writes(A, b"# ").writes(B, b"tick\n");
    for _ in 0..9 {
        desk.writes(A, b"x").after(100);
        assert!(!desk.screen.ends_with(b"tick\r\n"));
    }
    desk.after(100).screen_is("[debian] # xxxxxxxxx\r\n[rt] tick\r\n");
}

#[test]
fn a_vm_without_focus_rests_only_briefly() {
    let mut desk = Desk::with_vms(&["debian", "rt"]);
    desk.writes(B, b"half").after(1).writes(A, b"# ");
    assert_eq!(desk.shows(), Choice::WaitUntil(20));
    desk.after(19).screen_is("[rt] half\r\n[debian] # ");
}

#[test]
fn a_switch_of_focus_is_told_on_its_own_line() {
    let mut desk = Desk::with_vms(&["debian", "rt"]);
    desk.writes(A, b"# ").after(400);
    desk.mux.set_focus(B);
    desk.writes(Source::Hypervisor, b"keys go to rt\n").writes(B, b"> ");
    desk.screen_is("[debian] # \r\nentresol: keys go to rt\r\n[rt] > ");
}

#[test]
fn a_broken_hypervisor_prompt_comes_back_with_its_mark() {
    let mut desk = Desk::with_vms(&["debian"]);
    desk.mux.set_focus(Source::Prompt);
    desk.writes(Source::Prompt, b"entresol> li").after(400).writes(A, b"hello\n").after(1);
    desk.writes(Source::Prompt, b"st\nentresol> ");
    desk.screen_is("entresol> li\r\nhello\r\nentresol> st\r\nentresol> ");
}

#[test]
fn what_was_lost_is_marked_where_it_is_missing() {
    let mut desk = Desk::with_vms(&["debian"]);
    desk.writes(A, b"before").shows();
    desk.loses(A, 1234).writes(A, b"after\n");
    desk.screen_is("before\r\n[debian] ... 1234 bytes dropped\r\nafter\r\n");
}

#[test]
fn a_return_draws_the_tag_again() {
    let mut desk = Desk::with_vms(&["debian", "rt"]);
    desk.writes(A, b"10%\r20%\r\n\r\n");
    desk.screen_is("[debian] 10%\r[debian] 20%\r\n[debian] \r\n");
}

#[test]
fn a_flood_without_newlines_lets_others_speak() {
    let mut desk = Desk::with_vms(&["a", "b"]);
    desk.writes(A, &[b'x'; 5000]).writes(B, b"tick\n");
    desk.shows();
    let screen = String::from_utf8_lossy(&desk.screen).into_owned();
    let longest = screen.lines().map(str::len).max();
    assert!(screen.find("tick") < Some(1100), "the other waited for {:?} bytes", screen.find("tick"));
    assert_eq!(longest, Some(screen.lines().last().map_or(0, str::len)));
}

#[test]
fn a_break_waits_for_the_end_of_a_unit() {
    let mut desk = Desk::with_vms(&["a", "b"]);
    // The limit of a line falls into the middle of a colour.
    let text = [[b'x'; 1020].as_slice(), b"\x1b[31mred"].concat();
    desk.writes(A, &text).shows();
    desk.writes(A, b"\x1b[1;3").shows();
    desk.writes(A, b"2mgreen").writes(B, b"tick\n").shows();
    let screen = String::from_utf8_lossy(&desk.screen).into_owned();
    assert!(screen.contains("\x1b[1;32m\r\n[b] tick\r\n[a] green"), "{screen:?}");
}

#[test]
fn an_unfinished_sequence_stops_nobody_for_long() {
    let mut desk = Desk::with_vms(&["a", "b"]);
    desk.writes(A, b"\x1b[").after(10).writes(B, b"tick\n");
    assert_eq!(desk.shows(), Choice::WaitUntil(1010));
    desk.after(1000).screen_is("[a] \x1b[\r\n[b] tick\r\n");
}

#[test]
fn guest_bytes_cannot_start_a_frame() {
    let mut desk = Desk::with_vms(&["a"]);
    desk.writes(A, b"\xff").shows();
    desk.mux.set_frames(Frames::Sent);
    desk.writes(A, b"\xff\n").shows();
    assert_eq!(desk.screen, b"\xff\xff\x00\r\n");
}

#[test]
fn frames_travel_inside_a_line_and_only_when_asked_for() {
    let mut desk = Desk::with_vms(&["a"]);
    desk.mux.accept_frame(b"\x01\x02\x00");
    desk.mux.set_frames(Frames::Sent);
    desk.writes(A, b"he").shows();
    desk.mux.accept_frame(b"\x01\xff\x00");
    desk.sends();
    desk.writes(A, b"llo").shows();
    assert_eq!(desk.screen, b"he\xff\x01\xff\x00llo");
}

/// What each of the sources on a screen wrote, without line ends. The texts of
/// the property below hold nothing that looks like a tag.
fn unmix(screen: &[u8]) -> [Vec<u8>; 3] {
    let mut texts = [const { Vec::new() }; 3];
    for line in screen.split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // Each bare return starts the line again, with its tag.
        for part in line.split(|&byte| byte == b'\r') {
            let tags: [&[u8]; 3] = [b"[a] ", b"[b] ", b"entresol: "];
            let Some((source, text)) =
                (0..3).find_map(|source| part.strip_prefix(tags[source]).map(|text| (source, text)))
            else {
                assert!(part.is_empty(), "no tag: {}", String::from_utf8_lossy(part));
                continue;
            };
            texts[source].extend_from_slice(text);
        }
    }
    texts
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[a-z ]{0,80}".prop_map(String::into_bytes),
        Just(b"\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\r".to_vec()),
        Just(b"\x1b[1;31m".to_vec()),
        Just("\u{e9}\u{1f600}".as_bytes().to_vec()),
        Just(b"\xff\x80\x1b".to_vec()),
        Just([b'y'; 1500].to_vec()),
    ]
}

proptest! {
    #[test]
    fn every_source_keeps_its_bytes_and_their_order(
        pieces in prop::collection::vec((0usize..3, piece(), 0u64..600), 0..60)
    ) {
        let sources = [A, B, Source::Hypervisor];
        let mut desk = Desk::with_vms(&["a", "b"]);
        let mut written = [const { Vec::new() }; 3];
        for (source, text, pause) in pieces {
            written[source].extend_from_slice(&text);
            desk.writes(sources[source], &text).after(pause);
        }
        while let Choice::WaitUntil(time) = desk.shows() {
            prop_assert!(time > desk.now, "it must not ask to be asked again at once");
            desk.now = time;
        }
        let shown = unmix(&desk.screen);
        for (source, text) in written.iter().enumerate() {
            let text: Vec<u8> = text.iter().copied().filter(|byte| !b"\r\n".contains(byte)).collect();
            prop_assert_eq!(&shown[source], &text);
        }
    }
}
