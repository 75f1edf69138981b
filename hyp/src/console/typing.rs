//! The console's input side: keys to guests, and the prompt.

use super::input::{Focus, HELP as KEYS, Routed};
use super::mux::{FRAME_LIMIT, PROMPT};
use super::port::Port;
use super::prompt::{self, Command, Edited, Editor, Request};
use super::source::{Source, VmSet};
use super::{Console, Front, Pumped};

/// Bytes one [`Console::receive`] takes at most.
const BUDGET: usize = 128;

/// What arrived at the keyboard.
#[must_use = "guests may have keys to read, and somebody may have asked for something"]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// As from [`Console::pump`], for keys as well as for echo.
    pub pumped: Pumped,
    /// What a person asked for at the prompt. Call
    /// [`Console::command_done`] once it is done and its lines are said.
    pub command: Option<Command>,
}

impl<P: Port> Console<'_, P> {
    /// Answers the UART's receive interrupt, or polls it. Returns early if a
    /// command was typed; the rest of the keys then waits for the next call.
    pub fn receive(&self, now: u64) -> Received {
        let mut changed = VmSet::EMPTY;
        let mut command = None;
        let mut front = self.front.lock();
        for _ in 0..BUDGET {
            let Some(byte) = front.port.as_mut().and_then(P::try_get) else { break };
            let vms = front.mux.names().known();
            match front.router.feed(byte, vms) {
                Routed::Key(Focus::Vm(vm), key) => {
                    if self.uart(vm).receive(key).is_some() {
                        changed.insert(vm);
                    }
                }
                Routed::Key(Focus::Prompt, key) => {
                    command = self.key_at_prompt(&mut front, key);
                    if command.is_some() {
                        break;
                    }
                }
                Routed::Focused(focus) => self.announce(&mut front, focus),
                Routed::Help => self.queues.queue_line(format_args!("{KEYS}")),
                Routed::NoSuchVm(number) => self.queues.queue_line(format_args!("there is no VM {number}")),
                Routed::Nothing => {}
            }
        }
        drop(front);
        let mut pumped = self.pump(now);
        pumped.changed = pumped.changed.union(changed);
        Received { pumped, command }
    }

    /// Shows the prompt again after a command that [`Console::receive`] gave.
    pub fn command_done(&self) {
        let mut front = self.front.lock();
        if front.router.focus() == Focus::Prompt {
            self.show_prompt(&mut front);
        }
    }

    /// One key at the prompt. Requests about the console itself are met here;
    /// orders are returned.
    fn key_at_prompt(&self, front: &mut Front<P>, key: u8) -> Option<Command> {
        let Front { editor, prompt, mux, router, .. } = front;
        let edited = editor.feed(key, |echo| prompt.push_whole(&[echo]));
        self.queues.mark(Source::Prompt);
        let line = match edited {
            Edited::Editing => return None,
            Edited::Leave => {
                match router.leave_prompt(mux.names().known()) {
                    Some(focus) => self.announce(front, focus),
                    None => self.show_prompt(front),
                }
                return None;
            }
            Edited::Line(line) => line,
        };
        match prompt::parse(line, mux.names()) {
            Ok(None) => {}
            Ok(Some(Request::Help)) => {
                for line in prompt::HELP {
                    self.queues.queue_line(format_args!("{line}"));
                }
                self.queues.queue_line(format_args!("{KEYS}"));
            }
            Ok(Some(Request::Focus(vm))) => {
                self.announce(front, Focus::Vm(vm));
                return None;
            }
            Ok(Some(Request::Log)) => self.queue_log(),
            Ok(Some(Request::Order(command))) => return Some(command),
            Err(complaint) => self.queues.queue_line(format_args!("{complaint}")),
        }
        self.show_prompt(front);
        None
    }

    /// Moves the focus and says so.
    fn announce(&self, front: &mut Front<P>, focus: Focus) {
        front.focus(focus);
        match focus {
            Focus::Vm(vm) => {
                let name = front.mux.names().get(vm);
                self.queues.queue_line(format_args!("keys go to {name}; Ctrl-] ? for help"));
            }
            Focus::Prompt => {
                self.queues.queue_line(format_args!("keys go to the hypervisor; `help`, or Ctrl-D to leave"));
                self.show_prompt(front);
            }
        }
    }

    fn show_prompt(&self, front: &mut Front<P>) {
        front.prompt.push_whole(&[PROMPT.as_bytes()]);
        self.queues.mark(Source::Prompt);
    }

    /// Queues as many of the kept log frames as fit, as lines of hexadecimal.
    fn queue_log(&self) {
        let mut shown = 0;
        let mut buffer = [0; FRAME_LIMIT];
        // Twice a frame, its tag and a last line must fit.
        while self.queues.text.lock().room() > 3 * FRAME_LIMIT {
            let mut frames = self.queues.frames.lock();
            let Some(frame) = frames.take(&mut buffer) else { break };
            drop(frames);
            self.queues.queue_line(format_args!("log {}", Hexadecimal(frame)));
            shown += 1;
        }
        let more = !self.queues.frames.lock().is_empty();
        self.queues.queue_line(format_args!(
            "{shown} log frames; {}",
            if more { "`log` again for more" } else { "that is all" }
        ));
    }
}

impl<P> Front<P> {
    /// Moves the focus. A line half typed at the prompt is forgotten.
    pub(super) fn focus(&mut self, focus: Focus) {
        self.editor = Editor::new();
        self.prompt.clear();
        self.mux.end_line(Source::Prompt);
        self.router.set_focus(focus);
        self.mux.set_focus(match focus {
            Focus::Vm(vm) => Source::Vm(vm),
            Focus::Prompt => Source::Prompt,
        });
    }
}

/// Bytes as pairs of digits.
struct Hexadecimal<'a>(&'a [u8]);

impl core::fmt::Display for Hexadecimal<'_> {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}
