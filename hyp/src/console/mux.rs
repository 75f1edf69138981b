//! Many texts into one that a plain terminal can show.
//!
//! [`Mux`] decides whose bytes come next ([`Mux::choose`]) and turns them into
//! what goes out ([`Mux::accept`], [`Mux::staged`]). It holds no text of its
//! own beyond the few bytes being sent; the sources' rings are the buffers, so a
//! source that must wait simply isn't asked, and its ring fills up to the guest.
//!
//! **Lines.** The cursor stands either at the start of a line or in the *open*
//! line of one source. Each line starts with its source's tag: `[name] ` for a
//! VM if there are several, `entresol: ` for the hypervisor. While a line is
//! open the others wait until
//!   1. it ends; or
//!   2. nothing came for a moment: longer for the focused source, at whose
//!      prompt a person may be typing; or
//!   3. somebody has waited for [`Patience::hold`], or the line has reached
//!      [`LINE_LIMIT`] bytes.
//!
//! In cases 2 and 3 the mux breaks the line, and its rest comes later on a
//! tagged line of its own. A break never splits an escape sequence, a UTF-8
//! character or a `\r\n`, unless the source leaves it unfinished for
//! [`Patience::hold`].
//!
//! **Bytes.** `\n` goes out as `\r\n`, a bare `\r` is followed by the tag again
//! (a progress bar would overwrite it), and everything else goes out as it
//! came. Where the host decodes log frames ([`Frames::Sent`]) the stream also
//! carries them anywhere, as `0xFF frame 0x00`; a frame has no zero inside, and
//! a source's own 0xFF goes out as the empty frame `0xFF 0x00`.

use core::fmt::Write;

use super::ring::Taken;
use super::source::{Names, SOURCES, Source, SourceSet, VmIndex};
use super::stage::Stage;
use super::unit::Unit;

/// Most bytes to pass to one [`Mux::accept`].
pub const CHUNK: usize = 64;

/// Longest frame to pass to [`Mux::accept_frame`], its final zero included.
pub const FRAME_LIMIT: usize = 256;

/// Bytes of one line after which others may break it.
const LINE_LIMIT: u32 = 1024;

/// Starts a log frame where [`Frames::Sent`]; never part of UTF-8 text.
pub const FRAME_START: u8 = 0xff;

/// Ends a log frame.
pub const FRAME_END: u8 = 0x00;

/// Tag of the hypervisor's lines.
const OWN_TAG: &str = "entresol: ";

/// Shown where a person may type a command.
pub const PROMPT: &str = "entresol> ";

/// Whether the other end takes log frames out of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frames {
    /// A plain terminal: text only.
    Kept,
    /// A decoder listens.
    Sent,
}

/// How long the others wait for an open line, in ticks of the caller's clock.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Silence that ends the focused source's claim to its line.
    pub focused: u64,
    /// The same for everybody else.
    pub others: u64,
    /// After this long an open line is broken even if it still grows.
    pub hold: u64,
}

impl Patience {
    /// What reads well, for a clock of `frequency` Hz.
    pub const fn of_clock(frequency: u64) -> Self {
        Self { focused: frequency / 3, others: frequency / 50, hold: frequency }
    }
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Take at most this many bytes, and no more than to the end of a line,
    /// from this source, and pass them to [`Mux::accept`].
    Take(Source, usize),
    /// Somebody waits; ask again at this time, or when a source has more.
    WaitUntil(u64),
    /// Nobody has anything.
    Nothing,
}

/// A line that has begun on the screen and not ended.
struct Open {
    source: Source,
    length: u32,
    last_byte: u64,
    others_since: Option<u64>,
}

/// What the mux remembers of one source between its turns.
#[derive(Clone, Copy)]
struct Progress {
    unit: Unit,
    /// Its line was broken: the rest needs a tag even if lines have none.
    broken: bool,
}

/// The console's output side.
pub struct Mux {
    staged: Stage,
    names: Names,
    focus: Source,
    open: Option<Open>,
    progress: [Progress; SOURCES],
    last: Source,
    frames: Frames,
    patience: Patience,
}

impl Mux {
    /// An empty screen, the cursor at the start of a line.
    pub const fn new(patience: Patience) -> Self {
        Self {
            staged: Stage::new(),
            names: Names::new(),
            focus: Source::Prompt,
            open: None,
            progress: [Progress { unit: Unit::GROUND, broken: false }; SOURCES],
            last: Source::Prompt,
            frames: Frames::Kept,
            patience,
        }
    }

    /// Makes `vm` known by `name`. With the second VM lines get tags.
    pub fn name(&mut self, vm: VmIndex, name: &str) {
        self.names.set(vm, name);
    }

    /// Who the VMs are.
    pub const fn names(&self) -> &Names {
        &self.names
    }

    /// Sets whose partial lines are waited for longer.
    pub const fn set_focus(&mut self, focus: Source) {
        self.focus = focus;
    }

    /// Sets how log frames and bytes that look like them are treated.
    pub const fn set_frames(&mut self, frames: Frames) {
        self.frames = frames;
    }

    /// How log frames are treated.
    pub const fn frames(&self) -> Frames {
        self.frames
    }

    /// Sets the pace, once the clock is known.
    pub const fn set_patience(&mut self, patience: Patience) {
        self.patience = patience;
    }

    /// Ends `source`'s line, on the screen too if it is open there. What comes
    /// next from `source` begins a new line, not the rest of a broken one.
    pub fn end_line(&mut self, source: Source) {
        if self.open.as_ref().is_some_and(|open| open.source == source) {
            self.break_line();
        }
        if let Some(progress) = self.progress.get_mut(source.slot()) {
            progress.broken = false;
        }
    }

    /// Whose turn it is at `now` if the sources in `ready` have bytes. Ask only
    /// when nothing is staged.
    pub fn choose(&mut self, now: u64, ready: SourceSet) -> Choice {
        let last = self.last;
        let Some(open) = &mut self.open else {
            return turn(ready, last);
        };
        let others = ready.without(open.source);
        if others.is_empty() {
            open.others_since = None;
            return turn(ready, last);
        }
        let out_of_patience = open.others_since.get_or_insert(now).saturating_add(self.patience.hold);
        let in_unit = self.progress.get(open.source.slot()).is_some_and(|progress| progress.unit.is_open());
        if ready.contains(open.source) {
            if now < out_of_patience && open.length < LINE_LIMIT {
                return Choice::Take(open.source, CHUNK);
            }
            if in_unit {
                // Byte by byte, so as to stop at the very end of the unit.
                return Choice::Take(open.source, 1);
            }
        } else {
            let silence =
                if open.source == self.focus { self.patience.focused } else { self.patience.others };
            let quiet = open.last_byte.saturating_add(silence).min(out_of_patience);
            let breakable = if in_unit { out_of_patience } else { quiet };
            if now < breakable {
                return Choice::WaitUntil(breakable);
            }
        }
        turn(others, last)
    }

    /// Stages `bytes` of `source`, taken at `now` as [`Mux::choose`] said, after
    /// a mark for what is missing before them.
    pub fn accept(&mut self, source: Source, now: u64, taken: Taken, bytes: &[u8]) {
        self.last = source;
        if taken.lost != 0 {
            self.mark_loss(source, taken.lost);
        }
        let mut rest = bytes.get(..taken.count).unwrap_or(bytes);
        while let Some((&byte, after)) = rest.split_first() {
            self.accept_byte(source, now, byte);
            rest = self.accept_plain(source, after);
        }
    }

    /// Stages one log frame, which ends with its only zero. Where frames aren't
    /// sent it does nothing.
    pub fn accept_frame(&mut self, frame: &[u8]) {
        if self.frames == Frames::Sent {
            self.staged.push(FRAME_START);
            for &byte in frame {
                self.staged.push(byte);
            }
        }
    }

    /// What to send next; call [`Mux::advance`] once some of it is sent.
    #[inline]
    pub fn staged(&self) -> &[u8] {
        self.staged.unsent()
    }

    /// Drops the first `count` of the bytes that [`Mux::staged`] gave.
    #[inline]
    pub fn advance(&mut self, count: usize) {
        self.staged.advance(count);
    }

    /// Stages the plain text that `bytes` begins with, if it continues the open
    /// line, and gives the rest. This is the common case, made short.
    fn accept_plain<'a>(&mut self, source: Source, bytes: &'a [u8]) -> &'a [u8] {
        let unit = self.progress.get(source.slot()).map(|progress| progress.unit);
        let (Some(open), Some(Unit::GROUND)) = (&mut self.open, unit) else { return bytes };
        let count = bytes.iter().take_while(|byte| matches!(byte, 0x20..=0x7e)).count();
        let (plain, rest) = bytes.split_at(count);
        open.length = open.length.saturating_add(count as u32);
        self.staged.push_all(plain);
        rest
    }

    fn accept_byte(&mut self, source: Source, now: u64, byte: u8) {
        let begins = self.open.as_ref().is_none_or(|open| open.source != source);
        if begins {
            self.break_line();
            self.open = Some(Open { source, length: 0, last_byte: now, others_since: None });
            self.stage_tag(source);
        }
        let slot = source.slot();
        let unit = self.progress.get(slot).map_or(Unit::GROUND, |progress| progress.unit);
        let after_return = unit.is_return() && !begins;
        match byte {
            b'\n' if !after_return => self.staged.push_all(b"\r\n"),
            b'\n' | b'\r' => self.staged.push(byte),
            _ => {
                if after_return {
                    self.stage_tag(source);
                }
                self.staged.push(byte);
                if byte == FRAME_START && self.frames == Frames::Sent {
                    self.staged.push(FRAME_END);
                }
            }
        }
        if let Some(progress) = self.progress.get_mut(slot) {
            progress.unit = unit.after(byte);
            progress.broken &= byte != b'\n';
        }
        if byte == b'\n' {
            self.open = None;
        } else if let Some(open) = &mut self.open {
            open.length = open.length.saturating_add(1);
            open.last_byte = now;
        }
    }

    fn mark_loss(&mut self, source: Source, lost: u32) {
        self.break_line();
        match source {
            // It has a tag even where lines have none.
            Source::Vm(vm) => self.stage_name(vm),
            Source::Hypervisor | Source::Prompt => self.staged.push_all(OWN_TAG.as_bytes()),
        }
        write!(self.staged, "... {lost} bytes dropped\r\n").expect("a stage never fails");
    }

    /// Brings the cursor to the start of a line.
    fn break_line(&mut self) {
        if let Some(open) = self.open.take() {
            self.staged.push_all(b"\r\n");
            if let Some(progress) = self.progress.get_mut(open.source.slot()) {
                progress.broken = true;
            }
        }
    }

    fn stage_tag(&mut self, source: Source) {
        let broken = self.progress.get(source.slot()).is_some_and(|progress| progress.broken);
        match source {
            Source::Vm(vm) if self.names.known().len() > 1 => self.stage_name(vm),
            Source::Hypervisor => self.staged.push_all(OWN_TAG.as_bytes()),
            // A fresh prompt shows itself.
            Source::Prompt if broken => self.staged.push_all(PROMPT.as_bytes()),
            Source::Vm(_) | Source::Prompt => {}
        }
    }

    fn stage_name(&mut self, vm: VmIndex) {
        self.staged.push(b'[');
        self.staged.push_all(self.names.get(vm).as_bytes());
        self.staged.push_all(b"] ");
    }
}

/// Who in `ready` comes after `last`: the hypervisor every other time, since its
/// lines explain the rest, and the others in turn. The prompt comes when those
/// lines are through: they are the answer to what was typed before it.
fn turn(ready: SourceSet, last: Source) -> Choice {
    let own = Source::Hypervisor;
    if ready.contains(own) && last != own {
        return Choice::Take(own, CHUNK);
    }
    let ready = if ready.contains(own) { ready.without(Source::Prompt) } else { ready };
    ready.next_after(last).map_or(Choice::Nothing, |source| Choice::Take(source, CHUNK))
}

#[cfg(test)]
mod tests;
