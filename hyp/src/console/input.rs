//! Where typed bytes go.
//!
//! Keys go to the *focus*: one VM, or the hypervisor's prompt. Ctrl-] is the
//! prefix that speaks to the console itself; the byte after it is a command
//! ([`HELP`]). Ctrl-] twice sends one Ctrl-] to the focus.

use super::source::{VmIndex, VmSet};

/// The prefix, Ctrl-].
const PREFIX: u8 = 0x1d;

/// What follows the prefix, in one line.
pub const HELP: &str = "Ctrl-] then: 0-9 = that VM, n/p = next/previous VM, h = prompt, Ctrl-] = send Ctrl-]";

/// Who gets the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Focus {
    /// A guest.
    Vm(VmIndex),
    /// The hypervisor's prompt.
    Prompt,
}

/// What one typed byte means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routed {
    /// A key for the focus.
    Key(Focus, u8),
    /// The focus has moved, or was asked for again.
    Focused(Focus),
    /// A person asked for help or typed a command that doesn't exist.
    Help,
    /// Focus was asked for a VM that doesn't exist.
    NoSuchVm(usize),
    /// The prefix: more is to come.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Plain,
    Prefixed,
}

/// The state of the keyboard.
pub struct Router {
    state: State,
    focus: Focus,
    /// The VM that had the focus last.
    vm: Option<VmIndex>,
}

impl Router {
    /// Keys go to the prompt until some VM is chosen.
    pub const fn new() -> Self {
        Self { state: State::Plain, focus: Focus::Prompt, vm: None }
    }

    /// Who gets the keys.
    pub const fn focus(&self) -> Focus {
        self.focus
    }

    /// Moves the focus.
    pub const fn set_focus(&mut self, focus: Focus) {
        self.focus = focus;
        if let Focus::Vm(vm) = focus {
            self.vm = Some(vm);
        }
    }

    /// Leaves the prompt for the VM that had the focus before, or the first.
    pub fn leave_prompt(&mut self, vms: VmSet) -> Option<Focus> {
        let vm = self.vm.or_else(|| vms.iter().next())?;
        self.set_focus(Focus::Vm(vm));
        Some(self.focus)
    }

    /// Decides about one typed byte; `vms` are the VMs there are.
    pub fn feed(&mut self, byte: u8, vms: VmSet) -> Routed {
        match (self.state, byte) {
            (State::Plain, PREFIX) => {
                self.state = State::Prefixed;
                Routed::Nothing
            }
            (State::Plain, _) => Routed::Key(self.focus, byte),
            (State::Prefixed, _) => {
                self.state = State::Plain;
                self.command(byte, vms)
            }
        }
    }

    fn command(&mut self, byte: u8, vms: VmSet) -> Routed {
        match byte {
            PREFIX => Routed::Key(self.focus, PREFIX),
            b'0'..=b'9' => {
                let number = usize::from(byte - b'0');
                match VmIndex::new(number).filter(|&vm| vms.contains(vm)) {
                    Some(vm) => self.moved(Focus::Vm(vm)),
                    None => Routed::NoSuchVm(number),
                }
            }
            b'n' => {
                let next = vms.iter().find(|&vm| self.vm.is_some_and(|from| vm > from));
                self.moved_to_vm(next.or_else(|| vms.iter().next()))
            }
            b'p' => {
                let previous = vms.iter().rfind(|&vm| self.vm.is_some_and(|from| vm < from));
                self.moved_to_vm(previous.or_else(|| vms.iter().next_back()))
            }
            b'h' => self.moved(Focus::Prompt),
            _ => Routed::Help,
        }
    }

    fn moved_to_vm(&mut self, vm: Option<VmIndex>) -> Routed {
        vm.map_or(Routed::NoSuchVm(0), |vm| self.moved(Focus::Vm(vm)))
    }

    fn moved(&mut self, focus: Focus) -> Routed {
        self.set_focus(focus);
        Routed::Focused(focus)
    }
}

impl Default for Router {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::{Focus, Routed, Router};
    use crate::console::source::{VmIndex, VmSet};

    fn vm(index: usize) -> VmIndex {
        VmIndex::new(index).expect("a small number")
    }

    /// VMs 0, 2 and 3 exist; keys go to 0.
    fn keyboard() -> (Router, VmSet) {
        let mut vms = VmSet::EMPTY;
        for index in [0, 2, 3] {
            vms.insert(vm(index));
        }
        let mut router = Router::new();
        router.set_focus(Focus::Vm(vm(0)));
        (router, vms)
    }

    /// What the last of `keys` did.
    fn typed(router: &mut Router, vms: VmSet, keys: &[u8]) -> Routed {
        keys.iter().fold(Routed::Nothing, |_, &key| router.feed(key, vms))
    }

    #[test]
    fn keys_go_to_the_focus() {
        let (mut router, vms) = keyboard();
        for key in (0..=u8::MAX).filter(|&key| key != 0x1d) {
            assert_eq!(router.feed(key, vms), Routed::Key(Focus::Vm(vm(0)), key));
        }
    }

    #[test]
    fn the_prefix_twice_sends_it_once() {
        let (mut router, vms) = keyboard();
        assert_eq!(router.feed(0x1d, vms), Routed::Nothing);
        assert_eq!(router.feed(0x1d, vms), Routed::Key(Focus::Vm(vm(0)), 0x1d));
        assert_eq!(router.feed(b'n', vms), Routed::Key(Focus::Vm(vm(0)), b'n'));
    }

    #[test]
    fn a_digit_focuses_that_vm() {
        let (mut router, vms) = keyboard();
        assert_eq!(typed(&mut router, vms, b"\x1d2"), Routed::Focused(Focus::Vm(vm(2))));
        assert_eq!(router.feed(b'x', vms), Routed::Key(Focus::Vm(vm(2)), b'x'));
    }

    #[test]
    fn a_digit_without_vm_moves_nothing() {
        let (mut router, vms) = keyboard();
        assert_eq!(typed(&mut router, vms, b"\x1d1"), Routed::NoSuchVm(1));
        assert_eq!(router.focus(), Focus::Vm(vm(0)));
    }

    #[test]
    fn next_and_previous_skip_gaps_and_go_round() {
        let (mut router, vms) = keyboard();
        let mut order = vec![];
        for key in *b"nnnpp" {
            if let Routed::Focused(Focus::Vm(vm)) = typed(&mut router, vms, &[0x1d, key]) {
                order.push(vm.index());
            }
        }
        assert_eq!(order, [2, 3, 0, 3, 2]);
    }

    #[test]
    fn the_prompt_gives_the_keys_back() {
        let (mut router, vms) = keyboard();
        typed(&mut router, vms, b"\x1d3");
        assert_eq!(typed(&mut router, vms, b"\x1dh"), Routed::Focused(Focus::Prompt));
        assert_eq!(router.feed(b'l', vms), Routed::Key(Focus::Prompt, b'l'));
        assert_eq!(router.leave_prompt(vms), Some(Focus::Vm(vm(3))));
    }

    #[test]
    fn without_vms_the_prompt_keeps_the_keys() {
        let mut router = Router::new();
        assert_eq!(typed(&mut router, VmSet::EMPTY, b"\x1dn"), Routed::NoSuchVm(0));
        assert_eq!(router.leave_prompt(VmSet::EMPTY), None);
        assert_eq!(router.focus(), Focus::Prompt);
    }

    #[test]
    fn any_other_key_after_the_prefix_helps() {
        let (mut router, vms) = keyboard();
        assert_eq!(typed(&mut router, vms, b"\x1d?"), Routed::Help);
        assert_eq!(typed(&mut router, vms, b"\x1d\x1b"), Routed::Help);
    }
}
