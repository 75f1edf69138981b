//! Scripts for a console: wait for a pattern, type an answer, wait for the next.
//!
//! Main types: [`Script`], what is to happen, and [`Progress`], how far it has. Pure: bytes go in, bytes to type come out.
//!
//! Patterns are regular expressions (`^` and `$` match at lines) and are tried in order, each from behind the previous
//! match. They see plain text: carriage returns and terminal control sequences are removed. A line is looked at as it
//! arrives, because a prompt has no end; so a pattern that must see a whole line ends in `\n`.

use anyhow::{Context as _, Result};
use regex::bytes::{Regex, RegexBuilder};

/// One pattern, and what is typed once it was seen.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pattern: Regex,
    answer: Option<Vec<u8>>,
}

/// All that must be seen, in this order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    steps: Vec<Step>,
}

impl Script {
    /// Appends a pattern to wait for.
    pub(crate) fn expect(&mut self, pattern: &str) -> Result<()> {
        let regex = RegexBuilder::new(pattern).multi_line(true).build();
        let pattern = regex.with_context(|| format!("`{pattern}` is not a regular expression"))?;
        self.steps.push(Step { pattern, answer: None });
        Ok(())
    }

    /// What to type after the last pattern so far; `\n`, `\r`, `\t`, `\e`, `\\` and `\xHH` are what they are in C.
    pub(crate) fn send(&mut self, text: &str) -> Result<()> {
        let answer = unescape(text).with_context(|| format!("`{text}` has a bad escape"))?;
        let step =
            self.steps.last_mut().context("there must be something to expect before something is sent")?;
        step.answer.get_or_insert_default().extend(answer);
        Ok(())
    }

    /// Whether nothing is expected at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

/// How far a script has come.
pub(crate) struct Progress {
    script: Script,
    next: usize,
    plain: Plain,
    /// Plain text from the beginning of a line on.
    lines: Vec<u8>,
    /// Where in `lines` the last match ended. What is before it stays, so that `^` means what it says.
    from: usize,
}

impl Progress {
    /// Nothing seen yet.
    pub(crate) fn new(script: Script) -> Self {
        Self { script, next: 0, plain: Plain::default(), lines: Vec::new(), from: 0 }
    }

    /// Takes console output; returns what is to be typed now.
    pub(crate) fn console(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.lines.extend(bytes.iter().filter_map(|&byte| self.plain.take(byte)));
        let mut answers = Vec::new();
        while let Some(step) = self.script.steps.get(self.next) {
            let Some(found) = step.pattern.find_at(&self.lines, self.from) else { break };
            answers.extend(step.answer.iter().flatten());
            self.next += 1;
            self.from = found.end();
        }
        self.forget_complete_lines();
        answers
    }

    /// Takes one line of the log, which a pattern may match as well; returns what is to be typed now.
    pub(crate) fn log_line(&mut self, line: &str) -> Vec<u8> {
        let Some(step) = self.script.steps.get(self.next) else { return Vec::new() };
        if !step.pattern.is_match(line.as_bytes()) {
            return Vec::new();
        }
        self.next += 1;
        step.answer.clone().unwrap_or_default()
    }

    /// The pattern waited for; nothing when all were seen.
    pub(crate) fn awaited(&self) -> Option<&str> {
        self.script.steps.get(self.next).map(|step| step.pattern.as_str())
    }

    /// Keeps searching cheap: a pattern that did not match by the end of the line it began in never will. (A pattern
    /// for several lines is two patterns.)
    fn forget_complete_lines(&mut self) {
        if let Some(end) = self.lines.iter().rposition(|&byte| byte == b'\n') {
            self.lines.drain(..=end);
            self.from = self.from.saturating_sub(end + 1);
        }
    }
}

/// Removes carriage returns and terminal control sequences (ECMA-48: ESC `[`, parameters, one final letter).
#[derive(Default)]
struct Plain {
    inside: Escape,
}

#[derive(Default)]
enum Escape {
    #[default]
    None,
    Begun,
    Parameters,
}

impl Plain {
    fn take(&mut self, byte: u8) -> Option<u8> {
        let (next, kept) = match (&self.inside, byte) {
            (_, 0x1b) => (Escape::Begun, None),
            (Escape::Begun, b'[') => (Escape::Parameters, None),
            (Escape::Parameters, 0x20..=0x3f) => (Escape::Parameters, None),
            (Escape::Begun | Escape::Parameters, _) | (Escape::None, b'\r') => (Escape::None, None),
            (Escape::None, _) => (Escape::None, Some(byte)),
        };
        self.inside = next;
        kept
    }
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let plain = if byte != b'\\' {
            byte
        } else {
            match rest.next()? {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'e' => 0x1b,
                b'\\' => b'\\',
                b'x' => {
                    let digits = [rest.next()?, rest.next()?];
                    u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?
                }
                _ => return None,
            }
        };
        bytes.push(plain);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::{Progress, Script, unescape};

    fn script(steps: &[(&str, &str)]) -> Progress {
        let mut script = Script::default();
        for (pattern, answer) in steps {
            script.expect(pattern).expect("valid pattern");
            script.send(answer).expect("valid answer");
        }
        Progress::new(script)
    }

    #[test]
    fn pattern_cut_into_pieces_is_seen() {
        let mut progress = script(&[("login: ", "root\\n")]);
        assert_eq!(progress.console(b"a login"), b"");
        assert_eq!(progress.console(b": "), b"root\n");
        assert_eq!(progress.awaited(), None);
    }

    #[test]
    fn next_pattern_is_looked_for_behind_the_previous_match_only() {
        let mut progress = script(&[("b", ""), ("a", "")]);
        progress.console(b"a b");
        assert_eq!(progress.awaited(), Some("a"));
    }

    #[test]
    fn line_begins_where_it_begins_and_not_behind_a_match() {
        let mut progress = script(&[("one", ""), ("^two", "")]);
        progress.console(b"one");
        progress.console(b"two\n");
        assert_eq!(progress.awaited(), Some("^two"));
        progress.console(b"two");
        assert_eq!(progress.awaited(), None);
    }

    #[test]
    fn two_patterns_in_one_piece_are_both_seen() {
        let mut progress = script(&[("one", "1"), ("two", "2")]);
        assert_eq!(progress.console(b"one\ntwo\n"), b"12");
    }

    #[test]
    fn lines_are_matched_without_their_carriage_returns_and_colours() {
        let mut progress = script(&[("^2\\n", "")]);
        progress.console(b"nproc\r\n\x1b[1;32m2\x1b[0m\r\n");
        assert_eq!(progress.awaited(), None);
    }

    #[test]
    fn log_line_counts_as_seen() {
        let mut progress = script(&[("vm debian: started", "x")]);
        assert_eq!(progress.log_line("INFO vm debian: started"), b"x");
        assert_eq!(progress.awaited(), None);
    }

    #[test]
    fn answer_without_a_pattern_is_refused() {
        assert!(Script::default().send("x").is_err());
    }

    #[test]
    fn escapes_are_those_of_c() {
        assert_eq!(unescape("a\\n\\x1d\\\\").expect("valid"), b"a\n\x1d\\");
        assert_eq!(unescape("\\q"), None);
        assert_eq!(unescape("\\x1"), None);
    }
}
