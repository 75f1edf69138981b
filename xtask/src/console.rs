//! A running QEMU and its console: bytes in and out, log frames decoded, everything remembered for the report.
//!
//! Main types: [`Session`] and what [`Session::next`] returns, [`Event`]. Two threads read QEMU's output so that it never
//! waits for us; all decisions are made by whoever calls `next`. QEMU is killed when the session is dropped.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::frames::{Piece, Splitter};
use crate::log::Decoder;
use crate::process;

/// What a crash report of the hypervisor begins with, at the beginning of a line.
const CRASH: &str = "entresol: CRASH";

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// The console printed this.
    Console(Vec<u8>),
    /// The hypervisor logged this line.
    Log(String),
    /// QEMU itself complained.
    Complaint(Vec<u8>),
    /// QEMU has ended.
    Ended(ExitStatus),
    /// Nothing happened until the deadline.
    Deadline,
}

enum Output {
    Console(Vec<u8>),
    Complaint(Vec<u8>),
}

/// One run of QEMU.
pub(crate) struct Session {
    child: Child,
    input: Option<ChildStdin>,
    output: Receiver<Output>,
    splitter: Splitter,
    decoder: Option<Decoder>,
    /// Pieces that were separated but not returned yet.
    ready: VecDeque<Event>,
    transcript: Transcript,
}

impl Session {
    /// Starts `command` (of [`crate::qemu::command`]). Without a decoder, log frames are shown as bytes.
    pub(crate) fn start(mut command: Command, decoder: Option<Decoder>) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().with_context(|| format!("cannot start `{}`", process::words(&command)))?;
        let (sender, output) = channel();
        let input = child.stdin.take();
        if let Some(console) = child.stdout.take() {
            pass_on(console, sender.clone(), Output::Console);
        }
        if let Some(complaints) = child.stderr.take() {
            pass_on(complaints, sender, Output::Complaint);
        }
        let splitter = Splitter::default();
        let (ready, transcript) = (VecDeque::new(), Transcript::default());
        Ok(Self { child, input, output, splitter, decoder, ready, transcript })
    }

    /// Types `bytes` on the console. A QEMU that has just ended is noticed by [`Self::next`], not here.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(input) = &mut self.input else { return Ok(()) };
        match input.write_all(bytes).and_then(|()| input.flush()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                Err(error).context("cannot type on the console")
            }
            _ => Ok(()),
        }
    }

    /// Gives away the console's keyboard, for a thread that types what a person types.
    pub(crate) fn take_input(&mut self) -> Option<ChildStdin> {
        self.input.take()
    }

    /// Waits for the next thing to happen.
    pub(crate) fn next(&mut self, deadline: Option<Instant>) -> Result<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.transcript.record(&event);
                return Ok(event);
            }
            match self.receive(deadline) {
                Ok(Output::Console(bytes)) => {
                    let pieces = self.splitter.feed(&bytes);
                    self.queue(pieces);
                }
                Ok(Output::Complaint(bytes)) => self.ready.push_back(Event::Complaint(bytes)),
                Err(RecvTimeoutError::Timeout) => return Ok(Event::Deadline),
                Err(RecvTimeoutError::Disconnected) => {
                    let pieces = self.splitter.end();
                    if pieces.is_empty() {
                        return Ok(Event::Ended(self.child.wait()?));
                    }
                    self.queue(pieces);
                }
            }
        }
    }

    /// What was printed so far, for the report.
    pub(crate) fn transcript(&self) -> &Transcript {
        &self.transcript
    }

    fn receive(&self, deadline: Option<Instant>) -> Result<Output, RecvTimeoutError> {
        match deadline {
            Some(deadline) => self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())),
            None => self.output.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    fn queue(&mut self, pieces: Vec<Piece>) {
        for piece in pieces {
            let event = match piece {
                Piece::Text(text) => Event::Console(text),
                Piece::Frame(frame) => Event::Log(match &self.decoder {
                    Some(decoder) => decoder.line(&frame),
                    None => format!("{frame:02x?}"),
                }),
            };
            self.ready.push_back(event);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Either may fail only because QEMU has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Everything that was printed, as lines, and when.
pub(crate) struct Transcript {
    started: Instant,
    text: Vec<u8>,
    /// Log lines that arrived in the middle of a line of text: they come behind it, so that no line is torn.
    held: Vec<String>,
    /// Beginning of the first line not yet looked at for a crash report.
    unsearched: usize,
    crashed: bool,
}

impl Default for Transcript {
    fn default() -> Self {
        Self { started: Instant::now(), text: Vec::new(), held: Vec::new(), unsearched: 0, crashed: false }
    }
}

impl Transcript {
    fn record(&mut self, event: &Event) {
        match event {
            Event::Console(bytes) | Event::Complaint(bytes) => self.console(bytes),
            Event::Log(line) => {
                self.held.push(format!("| {line}\n"));
                self.release();
            }
            Event::Ended(_) | Event::Deadline => {}
        }
        self.search_for_crash();
    }

    fn console(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.text.extend(piece);
            self.release();
        }
    }

    /// Between two lines, what was held back takes its place.
    fn release(&mut self) {
        if self.text.last().is_none_or(|&byte| byte == b'\n') {
            self.text.extend(self.held.drain(..).flat_map(String::into_bytes));
        }
    }

    /// How long QEMU has been running.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether the hypervisor reported a fault of its own.
    pub(crate) fn shows_crash(&self) -> bool {
        self.crashed
    }

    /// All of it as text without empty lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.text).replace('\r', "");
        let text = format!("{text}\n{}", self.held.concat());
        text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
    }

    /// The last lines, indented, to be put below a message.
    pub(crate) fn last_words(&self) -> String {
        const LINES: usize = 15;
        let lines = self.lines();
        let last = &lines[lines.len().saturating_sub(LINES)..];
        if last.is_empty() { "    (no output at all)".into() } else { format!("    {}", last.join("\n    ")) }
    }
}

impl Transcript {
    fn search_for_crash(&mut self) {
        let new = self.text.get(self.unsearched..).unwrap_or_default();
        self.crashed |= new.split(|&byte| byte == b'\n').any(|line| line.starts_with(CRASH.as_bytes()));
        if let Some(end) = new.iter().rposition(|&byte| byte == b'\n') {
            self.unsearched += end + 1;
        }
    }
}

/// Copies what `source` yields to `sender`, in a thread that ends with either of them.
fn pass_on(mut source: impl Read + Send + 'static, sender: Sender<Output>, wrap: fn(Vec<u8>) -> Output) {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = source.read(&mut buffer) {
            let Some(bytes) = buffer.get(..length) else { return };
            if sender.send(wrap(bytes.to_vec())).is_err() {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::{Event, Transcript};

    fn lines(events: &[Event]) -> Vec<String> {
        let mut transcript = Transcript::default();
        events.iter().for_each(|event| transcript.record(event));
        transcript.lines()
    }

    fn console(text: &str) -> Event {
        Event::Console(text.into())
    }

    #[test]
    fn log_line_within_a_line_comes_behind_it() {
        let events = [console("one\ntw"), Event::Log("log".into()), console("o\nthree\n")];
        assert_eq!(lines(&events), ["one", "two", "| log", "three"]);
    }

    #[test]
    fn log_line_behind_a_prompt_is_not_lost() {
        assert_eq!(lines(&[console("# "), Event::Log("log".into())]), ["# ", "| log"]);
    }
}
