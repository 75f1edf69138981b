//! The hypervisor's prompt: a line editor and the commands it understands.
//!
//! [`Editor`] turns keys into a line and echoes them; [`parse`] turns a line
//! into a [`Request`] or into a [`Complaint`] that says what would have been
//! right. What a [`Command`] does is the business
//! of whoever reads the keyboard.

use core::{fmt, str};

use heapless::Vec;

use super::source::{Names, VmIndex};
use crate::vcpu_set::MAX_VCPUS;

/// Longest line that can be typed.
const LINE: usize = 80;

/// What can be asked for, one line each.
pub const HELP: [&str; 10] = [
    "list                    the VMs and what they are doing",
    "start|stop|restart VM   by name or number",
    "pause|resume VM",
    "regs VM [vcpu]          registers",
    "exits VM [vcpu]         how often and why the guest came to the hypervisor",
    "focus VM                give it the keyboard",
    "log                     the log frames kept so far, for `cargo xtask decode`",
    "poweroff, reboot        the machine",
    "help                    this text",
    "Ctrl-D leaves the prompt",
];

/// What a line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Show [`HELP`].
    Help,
    /// Give a VM the keyboard.
    Focus(VmIndex),
    /// Show the log frames kept in memory.
    Log,
    /// Something that is not the console's business.
    Order(Command),
}

/// What a person wants done to a VM or to the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Show all VMs.
    List,
    /// Start a VM that is off.
    Start(VmIndex),
    /// Stop a VM at once.
    Stop(VmIndex),
    /// Stop a VM and start it anew.
    Restart(VmIndex),
    /// Halt a VM's vCPUs where they are.
    Pause(VmIndex),
    /// Let them go on.
    Resume(VmIndex),
    /// Show the registers of one vCPU or all.
    Regs(VmIndex, Option<usize>),
    /// Show the exit counts of one vCPU or all.
    Exits(VmIndex, Option<usize>),
    /// Switch the machine off.
    PowerOff,
    /// Reset the machine.
    Reboot,
}

/// Why a line is no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Complaint<'a> {
    /// The first word.
    UnknownCommand(&'a str),
    /// No word where a VM belongs.
    WhichVm(&'a str),
    /// A word where a VM belongs.
    UnknownVm(&'a str),
    /// A word where a vCPU's number belongs.
    UnknownVcpu(&'a str),
    /// A word too many.
    Unexpected(&'a str),
}

impl fmt::Display for Complaint<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownCommand(word) => write!(formatter, "there is no command `{word}`; try `help`"),
            Self::WhichVm(command) => {
                write!(formatter, "`{command}` needs a VM, by name or number; `list` shows them")
            }
            Self::UnknownVm(word) => write!(formatter, "there is no VM `{word}`; `list` shows them"),
            Self::UnknownVcpu(word) => {
                write!(formatter, "`{word}` is no vCPU; they are numbered from 0 to {}", MAX_VCPUS - 1)
            }
            Self::Unexpected(word) => write!(formatter, "`{word}` is one word too many; try `help`"),
        }
    }
}

/// The request in `line`, or `None` if the line is blank.
pub fn parse<'a>(line: &'a str, names: &Names) -> Result<Option<Request>, Complaint<'a>> {
    let mut words = line.split_whitespace();
    let Some(command) = words.next() else { return Ok(None) };
    let mut vm = || {
        let word = words.next().ok_or(Complaint::WhichVm(command))?;
        names.find(word).ok_or(Complaint::UnknownVm(word))
    };
    let parsed = match command {
        "help" | "?" => Request::Help,
        "focus" => Request::Focus(vm()?),
        "log" => Request::Log,
        "list" => Request::Order(Command::List),
        "start" => Request::Order(Command::Start(vm()?)),
        "stop" => Request::Order(Command::Stop(vm()?)),
        "restart" => Request::Order(Command::Restart(vm()?)),
        "pause" => Request::Order(Command::Pause(vm()?)),
        "resume" => Request::Order(Command::Resume(vm()?)),
        "regs" => Request::Order(Command::Regs(vm()?, vcpu(words.next())?)),
        "exits" => Request::Order(Command::Exits(vm()?, vcpu(words.next())?)),
        "poweroff" => Request::Order(Command::PowerOff),
        "reboot" => Request::Order(Command::Reboot),
        _ => return Err(Complaint::UnknownCommand(command)),
    };
    match words.next() {
        None => Ok(Some(parsed)),
        Some(word) => Err(Complaint::Unexpected(word)),
    }
}

fn vcpu(word: Option<&str>) -> Result<Option<usize>, Complaint<'_>> {
    let Some(word) = word else { return Ok(None) };
    match word.parse() {
        Ok(number) if number < MAX_VCPUS => Ok(Some(number)),
        _ => Err(Complaint::UnknownVcpu(word)),
    }
}

/// What a key did to the line.
#[derive(Debug, PartialEq, Eq)]
pub enum Edited<'a> {
    /// The line goes on.
    Editing,
    /// Enter: this is the line, and the next key begins a new one.
    Line(&'a str),
    /// Ctrl-C or Ctrl-D: the person is done here.
    Leave,
}

/// The line being typed: printable ASCII, backspace, Ctrl-U.
pub struct Editor {
    line: Vec<u8, LINE>,
    /// Whether the last key finished the line in `line`.
    finished: Finished,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Finished {
    No,
    /// By `\r`: a `\n` that follows at once belongs to it.
    ByReturn,
    Yes,
}

impl Editor {
    /// An empty line.
    pub const fn new() -> Self {
        Self { line: Vec::new(), finished: Finished::No }
    }

    /// Applies one key; what the terminal should show for it goes to `echo`.
    pub fn feed(&mut self, key: u8, mut echo: impl FnMut(&[u8])) -> Edited<'_> {
        let finished = core::mem::replace(&mut self.finished, Finished::No);
        if finished != Finished::No {
            self.line.clear();
        }
        match key {
            b'\n' if finished == Finished::ByReturn => {}
            b'\r' | b'\n' => {
                echo(b"\n");
                self.finished = if key == b'\r' { Finished::ByReturn } else { Finished::Yes };
                return Edited::Line(str::from_utf8(&self.line).unwrap_or(""));
            }
            // Ctrl-C, Ctrl-D.
            0x03 | 0x04 => {
                self.line.clear();
                return Edited::Leave;
            }
            // Backspace and Delete; Ctrl-U.
            0x08 | 0x7f => self.erase(1, echo),
            0x15 => self.erase(LINE, echo),
            0x20..=0x7e => self.add(key, echo),
            _ => {}
        }
        Edited::Editing
    }

    fn add(&mut self, key: u8, mut echo: impl FnMut(&[u8])) {
        if self.line.push(key).is_ok() {
            echo(&[key]);
        }
    }

    /// Erases up to `count` characters from the end.
    fn erase(&mut self, count: usize, mut echo: impl FnMut(&[u8])) {
        for _ in 0..count.min(self.line.len()) {
            self.line.pop();
            // Back, over it, and back again.
            echo(b"\x08 \x08");
        }
    }
}

impl Default for Editor {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::{Command, Complaint, Edited, Editor, Request, parse};
    use crate::console::source::{Names, VmIndex};

    fn names() -> Names {
        let mut names = Names::new();
        for (index, name) in ["debian", "rt"].into_iter().enumerate() {
            names.set(VmIndex::new(index).expect("small"), name);
        }
        names
    }

    const RT: VmIndex = VmIndex::new(1).expect("small");

    /// The lines that `keys` give, and what the terminal shows of them.
    fn typed(keys: &[u8]) -> (Vec<String>, Vec<u8>) {
        let mut editor = Editor::new();
        let (mut lines, mut screen) = (vec![], vec![]);
        for &key in keys {
            match editor.feed(key, |text| screen.extend_from_slice(text)) {
                Edited::Editing => {}
                Edited::Line(line) => lines.push(line.to_owned()),
                Edited::Leave => lines.push("(left)".to_owned()),
            }
        }
        (lines, screen)
    }

    #[test]
    fn every_command_is_understood() {
        let expected = [
            ("help", Request::Help),
            ("?", Request::Help),
            ("focus rt", Request::Focus(RT)),
            ("log", Request::Log),
            ("list", Request::Order(Command::List)),
            ("start rt", Request::Order(Command::Start(RT))),
            ("stop rt", Request::Order(Command::Stop(RT))),
            ("restart 1", Request::Order(Command::Restart(RT))),
            ("pause rt", Request::Order(Command::Pause(RT))),
            ("resume rt", Request::Order(Command::Resume(RT))),
            ("regs rt", Request::Order(Command::Regs(RT, None))),
            ("  regs   rt  0 ", Request::Order(Command::Regs(RT, Some(0)))),
            ("exits rt 7", Request::Order(Command::Exits(RT, Some(7)))),
            ("poweroff", Request::Order(Command::PowerOff)),
            ("reboot", Request::Order(Command::Reboot)),
        ];
        for (line, request) in expected {
            assert_eq!(parse(line, &names()), Ok(Some(request)), "{line}");
        }
    }

    #[test]
    fn a_blank_line_is_no_command_and_no_mistake() {
        assert_eq!(parse("  ", &names()), Ok(None));
    }

    #[test]
    fn mistakes_are_named() {
        let expected = [
            ("lost", Complaint::UnknownCommand("lost")),
            ("stop", Complaint::WhichVm("stop")),
            ("stop windows", Complaint::UnknownVm("windows")),
            ("regs rt 8", Complaint::UnknownVcpu("8")),
            ("regs rt -1", Complaint::UnknownVcpu("-1")),
            ("list rt", Complaint::Unexpected("rt")),
            ("regs rt 0 1", Complaint::Unexpected("1")),
        ];
        for (line, complaint) in expected {
            assert_eq!(parse(line, &names()), Err(complaint), "{line}");
        }
    }

    #[test]
    fn a_complaint_says_what_to_do() {
        let complaint = parse("stop", &names()).expect_err("it lacks the VM");
        assert_eq!(complaint.to_string(), "`stop` needs a VM, by name or number; `list` shows them");
    }

    #[test]
    fn return_newline_and_both_end_one_line() {
        assert_eq!(typed(b"a\rb\nc\r\n\r").0, ["a", "b", "c", ""]);
    }

    #[test]
    fn backspace_erases_on_the_screen_too() {
        let (lines, screen) = typed(b"\x7flisx\x08t\r");
        assert_eq!(lines, ["list"]);
        assert_eq!(screen, b"lisx\x08 \x08t\n");
    }

    #[test]
    fn ctrl_u_empties_the_line() {
        assert_eq!(typed(b"reboot\x15list\r").0, ["list"]);
    }

    #[test]
    fn leaving_forgets_the_line() {
        assert_eq!(typed(b"rebo\x03list\r\x04").0, ["(left)", "list", "(left)"]);
    }

    #[test]
    fn keys_beyond_the_line_and_controls_do_nothing() {
        let long = [[b'x'; 100].as_slice(), b"\x01\x1b\xff\r"].concat();
        assert_eq!(typed(&long).0, ["x".repeat(80)]);
    }
}
