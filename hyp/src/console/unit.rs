//! Where a stream of terminal output may be cut.
//!
//! [`Unit`] follows the bytes of one source and knows whether the last one ended
//! a *unit*: a character of UTF-8, an escape sequence (ECMA-48: a two-byte
//! escape, a control sequence, or a string such as a window title), or a `\r\n`.
//! Text cut inside a unit shows as garbage in whatever follows it.

/// Bytes after which an unfinished sequence is taken for text.
const LIMIT: u8 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ground,
    /// After `\r`.
    Return,
    /// After ESC.
    Escape,
    /// After ESC `[`.
    Control,
    /// After ESC `]` and its like.
    Text,
    /// After ESC within such a string.
    TextEscape,
    /// This many bytes of a character are missing.
    Utf8(u8),
}

/// How far one source is in the unit it is writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    state: State,
    length: u8,
}

impl Unit {
    /// Between two units.
    pub(super) const GROUND: Self = Self { state: State::Ground, length: 0 };

    /// Whether a cut here would split a unit.
    pub(super) fn is_open(self) -> bool {
        self.state != State::Ground && self.length < LIMIT
    }

    /// Whether the last byte was `\r`.
    pub(super) fn is_return(self) -> bool {
        self.state == State::Return
    }

    /// The state after one more byte.
    pub(super) fn after(self, byte: u8) -> Self {
        let state = match (self.state, byte) {
            (State::Control, 0x20..=0x3f) => State::Control,
            (State::Control, 0x40..=0x7e) => State::Ground,
            (State::Escape | State::TextEscape, b'[') => State::Control,
            (State::Escape | State::TextEscape, b']' | b'P' | b'X' | b'^' | b'_') => State::Text,
            (State::Escape | State::TextEscape, 0x20..=0x2f) => State::Escape,
            (State::Text, 0x1b) => State::TextEscape,
            // BEL ends a string too, by a custom of xterm.
            (State::Text, 0x07 | b'\n') => State::Ground,
            (State::Text, _) => State::Text,
            (State::Utf8(missing @ 2..), 0x80..=0xbf) => State::Utf8(missing - 1),
            (State::Utf8(_), 0x80..=0xbf) => State::Ground,
            (_, 0x1b) => State::Escape,
            (_, b'\r') => State::Return,
            (State::Escape | State::TextEscape, _) => State::Ground,
            (_, 0xc2..=0xdf) => State::Utf8(1),
            (_, 0xe0..=0xef) => State::Utf8(2),
            (_, 0xf0..=0xf4) => State::Utf8(3),
            (_, _) => State::Ground,
        };
        let length = if state == State::Ground { 0 } else { self.length.saturating_add(1) };
        Self { state, length }
    }
}

#[cfg(test)]
mod tests {
    use super::Unit;

    /// Positions in `text` where it may be cut.
    fn cuts(text: &[u8]) -> Vec<usize> {
        let mut unit = Unit::GROUND;
        let mut cuts = vec![];
        for (at, &byte) in text.iter().enumerate() {
            unit = unit.after(byte);
            if !unit.is_open() {
                cuts.push(at + 1);
            }
        }
        cuts
    }

    #[test]
    fn escape_sequences_stay_whole() {
        assert_eq!(cuts(b"a\x1b[1;31mb"), [1, 8, 9]);
        assert_eq!(cuts(b"\x1b(Bx"), [3, 4]);
        assert_eq!(cuts(b"\x1b7x"), [2, 3]);
    }

    #[test]
    fn strings_end_with_bell_or_terminator() {
        assert_eq!(cuts(b"\x1b]0;title\x07x"), [10, 11]);
        assert_eq!(cuts(b"\x1bPq\x1b\\x"), [5, 6]);
    }

    #[test]
    fn characters_stay_whole() {
        assert_eq!(cuts("\u{e9}\u{20ac}\u{1f600}".as_bytes()), [2, 5, 9]);
    }

    #[test]
    fn a_broken_character_does_not_swallow_what_follows() {
        assert_eq!(cuts(b"\xe2\x82a\x80b"), [3, 4, 5]);
    }

    #[test]
    fn return_and_newline_stay_together() {
        assert_eq!(cuts(b"a\r\nb\rc"), [1, 3, 4, 6]);
    }

    #[test]
    fn a_sequence_without_end_is_text_after_a_while() {
        let endless = [b"\x1b]".as_slice(), &[b'x'; 100]].concat();
        assert_eq!(cuts(&endless).first(), Some(&64));
    }
}
