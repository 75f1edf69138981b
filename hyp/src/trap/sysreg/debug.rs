//! The self-hosted debug registers of one vCPU.
//!
//! MDCR_EL2.{TDA, TDOSA, TDRA} trap every access, so that the hardware's debug
//! registers hold nothing for a vCPU that does not debug and need no switching:
//! that is nearly all of them nearly always. A vCPU's own values live here. What
//! the guest may see is the least that the architecture allows, two breakpoints and
//! two watchpoints (`ID_AA64DFR0_EL1` in [`fields`](super::fields)).
//!
//! Debugging inside the guest works, because what the guest arms is loaded:
//! [`DebugRegisters::hardware`] says what the CPU's registers must hold while this
//! vCPU runs. The vCPU loop writes it when an access was answered with
//! [`SysRegOutcome::DebugWritten`](super::SysRegOutcome::DebugWritten) and on every
//! switch to another vCPU. MDCR_EL2.TDE stays clear: debug exceptions are the
//! guest's own and cannot occur at EL2.
//!
//! Left out, and said so: linked and context-aware breakpoints (they need the
//! highest-numbered hardware breakpoints, while ours are the lowest) and the debug
//! communications channel, whose registers are RAZ/WI, as without a debugger.

use super::register::{
    DBGAUTHSTATUS_EL1, DBGBCR0_EL1, DBGBVR0_EL1, DBGCLAIMCLR_EL1, DBGCLAIMSET_EL1, DBGDTR_EL0, DBGDTRRX_EL0,
    DBGPRCR_EL1, DBGWCR0_EL1, DBGWVR0_EL1, MDCCINT_EL1, MDCCSR_EL0, MDRAR_EL1, MDSCR_EL1, OSDLR_EL1,
    OSDTRRX_EL1, OSDTRTX_EL1, OSECCR_EL1, OSLAR_EL1, OSLSR_EL1, SysReg,
};
use crate::exit::Direction;

/// Breakpoints, and watchpoints, that a guest has.
pub const PAIRS: usize = 2;

/// MDSCR_EL1 (DDI 0487, "MDSCR_EL1, Monitor Debug System Control Register").
mod mdscr {
    /// Software step.
    pub(super) const SS: u64 = 1 << 0;
    /// Traps EL0 accesses to the debug communications channel.
    pub(super) const TDCC: u64 = 1 << 12;
    /// Debug exceptions from EL1 itself.
    pub(super) const KDE: u64 = 1 << 13;
    /// Breakpoints, watchpoints and vector catch.
    pub(super) const MDE: u64 = 1 << 15;
    /// What a guest can set.
    pub(super) const WRITABLE: u64 = SS | TDCC | KDE | MDE;
}

/// DBGBCR<n>_EL1: E, PMC and BAS. HMC and SSC, which reach EL2, and BT and LBN, which link, stay zero.
const BREAKPOINT_CONTROL: u64 = 1 | 3 << 1 | 0xf << 5;
/// DBGWCR<n>_EL1: E, PAC, LSC, BAS and MASK; HMC, SSC, WT and LBN stay zero.
const WATCHPOINT_CONTROL: u64 = 1 | 3 << 1 | 3 << 3 | 0xff << 5 | 0x1f << 24;
/// DBGBVR<n>_EL1 and DBGWVR<n>_EL1 hold the address of a word.
const ADDRESS: u64 = !3;

/// OSLSR_EL1: the OS Lock is implemented (OSLM = 0b10).
const OS_LOCK_IMPLEMENTED: u64 = 1 << 3;
/// OSLSR_EL1.OSLK and OSLAR_EL1.OSLK.
const OS_LOCKED: u64 = 1 << 1;

/// A breakpoint's or watchpoint's two registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// DBGBVR<n>_EL1 or DBGWVR<n>_EL1.
    pub value: u64,
    /// DBGBCR<n>_EL1 or DBGWCR<n>_EL1.
    pub control: u64,
}

/// What the CPU's debug registers must hold while a vCPU runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HardwareDebug<'a> {
    /// MDSCR_EL1.
    pub mdscr_el1: u64,
    /// The breakpoints and watchpoints to load; `None` where MDSCR_EL1 keeps them all quiet.
    pub armed: Option<(&'a [Pair; PAIRS], &'a [Pair; PAIRS])>,
}

/// The debug registers of one vCPU.
#[derive(Clone, Debug)]
pub struct DebugRegisters {
    mdscr_el1: u64,
    /// OSLSR_EL1.OSLK. While it is set no debug exception is taken.
    os_locked: bool,
    claim_tags: u64,
    breakpoints: [Pair; PAIRS],
    watchpoints: [Pair; PAIRS],
}

impl Default for DebugRegisters {
    fn default() -> Self {
        Self::new()
    }
}

/// What became of an access to a debug register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Read, giving this.
    Value(u64),
    /// Written, and [`DebugRegisters::hardware`] may have changed.
    Changed,
    /// There is no such register, or it cannot be accessed this way.
    Undefined,
}

impl DebugRegisters {
    /// As out of reset: the OS Lock is set, nothing is armed.
    pub const fn new() -> Self {
        let quiet = [Pair { value: 0, control: 0 }; PAIRS];
        Self { mdscr_el1: 0, os_locked: true, claim_tags: 0, breakpoints: quiet, watchpoints: quiet }
    }

    /// What the CPU's registers must hold while this vCPU runs. The CPU's own OS Lock is open.
    pub const fn hardware(&self) -> HardwareDebug<'_> {
        let mdscr_el1 = if self.os_locked { self.mdscr_el1 & mdscr::TDCC } else { self.mdscr_el1 };
        let armed =
            if mdscr_el1 & mdscr::MDE == 0 { None } else { Some((&self.breakpoints, &self.watchpoints)) };
        HardwareDebug { mdscr_el1, armed }
    }

    /// Answers a trapped access; `value` is what the guest writes.
    pub(super) fn access(&mut self, register: SysReg, direction: Direction, value: u64) -> Answer {
        match direction {
            Direction::Read => self.read(register).map_or(Answer::Undefined, Answer::Value),
            Direction::Write => self.write(register, value).map_or(Answer::Undefined, |()| Answer::Changed),
        }
    }

    fn read(&mut self, register: SysReg) -> Option<u64> {
        Some(match register {
            MDSCR_EL1 => self.mdscr_el1,
            OSLSR_EL1 => OS_LOCK_IMPLEMENTED | if self.os_locked { OS_LOCKED } else { 0 },
            DBGCLAIMSET_EL1 => 0xff,
            DBGCLAIMCLR_EL1 => self.claim_tags,
            // No external debugger, no double lock, no debug ROM, an idle communications channel.
            MDCCINT_EL1 | OSDTRRX_EL1 | OSDTRTX_EL1 | OSECCR_EL1 | MDRAR_EL1 | OSDLR_EL1 | DBGPRCR_EL1
            | DBGAUTHSTATUS_EL1 | MDCCSR_EL0 | DBGDTR_EL0 | DBGDTRRX_EL0 => 0,
            _ => return self.slot(register).map(|(held, _)| *held),
        })
    }

    fn write(&mut self, register: SysReg, value: u64) -> Option<()> {
        match register {
            MDSCR_EL1 => self.mdscr_el1 = value & mdscr::WRITABLE,
            OSLAR_EL1 => self.os_locked = value & 1 != 0,
            DBGCLAIMSET_EL1 => self.claim_tags |= value & 0xff,
            DBGCLAIMCLR_EL1 => self.claim_tags &= !value,
            MDCCINT_EL1 | OSDTRRX_EL1 | OSDTRTX_EL1 | OSECCR_EL1 | OSDLR_EL1 | DBGPRCR_EL1 | DBGDTR_EL0
            | DBGDTRRX_EL0 => {}
            _ => {
                let (held, writable) = self.slot(register)?;
                *held = value & writable;
            }
        }
        Some(())
    }

    /// The value of a breakpoint or watchpoint register and the bits of it that a guest can set.
    fn slot(&mut self, register: SysReg) -> Option<(&mut u64, u64)> {
        let number = register.crm() as usize;
        Some(match register.array() {
            DBGBVR0_EL1 => (&mut self.breakpoints.get_mut(number)?.value, ADDRESS),
            DBGBCR0_EL1 => (&mut self.breakpoints.get_mut(number)?.control, BREAKPOINT_CONTROL),
            DBGWVR0_EL1 => (&mut self.watchpoints.get_mut(number)?.value, ADDRESS),
            DBGWCR0_EL1 => (&mut self.watchpoints.get_mut(number)?.control, WATCHPOINT_CONTROL),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::register::*;
    use super::{Answer, DebugRegisters, Pair};
    use crate::exit::Direction::{Read, Write};

    const DBGBVR1_EL1: SysReg = SysReg::new(2, 0, 0, 1, 4);
    const DBGBCR1_EL1: SysReg = SysReg::new(2, 0, 0, 1, 5);
    const DBGBCR2_EL1: SysReg = SysReg::new(2, 0, 0, 2, 5);

    /// A vCPU after the guest wrote these registers in order.
    fn after(writes: &[(SysReg, u64)]) -> DebugRegisters {
        let mut debug = DebugRegisters::new();
        for &(register, value) in writes {
            assert_eq!(debug.access(register, Write, value), Answer::Changed, "{register:?}");
        }
        debug
    }

    fn read(debug: &mut DebugRegisters, register: SysReg) -> Answer {
        debug.access(register, Read, 0)
    }

    #[test]
    fn os_lock_is_set_out_of_reset() {
        assert_eq!(read(&mut DebugRegisters::new(), OSLSR_EL1), Answer::Value(0b1010));
    }

    #[test]
    fn os_lock_opens() {
        assert_eq!(read(&mut after(&[(OSLAR_EL1, 0)]), OSLSR_EL1), Answer::Value(0b1000));
    }

    #[test]
    fn locked_vcpu_arms_nothing() {
        let debug = after(&[(MDSCR_EL1, 0xa001)]);
        assert_eq!((debug.hardware().mdscr_el1, debug.hardware().armed), (0, None));
    }

    #[test]
    fn software_step_reaches_the_hardware() {
        let debug = after(&[(OSLAR_EL1, 0), (MDSCR_EL1, 0x2001)]);
        assert_eq!((debug.hardware().mdscr_el1, debug.hardware().armed), (0x2001, None));
    }

    #[test]
    fn armed_breakpoint_reaches_the_hardware() {
        // What Linux writes for a 4-byte breakpoint at EL0.
        let debug =
            after(&[(OSLAR_EL1, 0), (DBGBVR1_EL1, 0x40_0580), (DBGBCR1_EL1, 0x1e5), (MDSCR_EL1, 0x8000)]);
        let (breakpoints, _) = debug.hardware().armed.expect("MDE is set");
        assert_eq!(breakpoints[1], Pair { value: 0x40_0580, control: 0x1e5 });
    }

    #[test]
    fn breakpoint_cannot_reach_el2_or_link() {
        let mut debug = after(&[(DBGBCR1_EL1, u64::MAX)]);
        assert_eq!(read(&mut debug, DBGBCR1_EL1), Answer::Value(0x1e7));
    }

    #[test]
    fn watchpoint_keeps_its_mask_and_cannot_reach_el2_or_link() {
        let mut debug = after(&[(DBGWCR0_EL1, u64::MAX)]);
        assert_eq!(read(&mut debug, DBGWCR0_EL1), Answer::Value(0x1f00_1fff));
    }

    #[test]
    fn value_registers_hold_word_addresses() {
        let mut debug = after(&[(DBGWVR0_EL1, 0xffff_8000_0000_1007)]);
        assert_eq!(read(&mut debug, DBGWVR0_EL1), Answer::Value(0xffff_8000_0000_1004));
    }

    #[test]
    fn breakpoints_and_watchpoints_are_apart() {
        let mut debug = after(&[(DBGBVR0_EL1, 0x1000), (DBGWVR0_EL1, 0x2000)]);
        assert_eq!(read(&mut debug, DBGBVR0_EL1), Answer::Value(0x1000));
    }

    #[test]
    fn third_breakpoint_does_not_exist() {
        let mut debug = DebugRegisters::new();
        assert_eq!(
            [read(&mut debug, DBGBCR2_EL1), debug.access(DBGBCR2_EL1, Write, 1)],
            [Answer::Undefined; 2]
        );
    }

    #[test]
    fn status_registers_cannot_be_written_nor_the_lock_read() {
        let mut debug = DebugRegisters::new();
        assert_eq!(
            [debug.access(OSLSR_EL1, Write, 0), debug.access(OSLAR_EL1, Read, 0)],
            [Answer::Undefined; 2]
        );
    }

    #[test]
    fn double_lock_is_read_as_zero_and_written_in_vain() {
        assert_eq!(read(&mut after(&[(OSDLR_EL1, 1)]), OSDLR_EL1), Answer::Value(0));
    }

    #[test]
    fn claim_tags_are_set_and_cleared_bit_by_bit() {
        let mut debug = after(&[(DBGCLAIMSET_EL1, 0x1f3), (DBGCLAIMCLR_EL1, 0x31)]);
        assert_eq!(read(&mut debug, DBGCLAIMCLR_EL1), Answer::Value(0xc2));
    }

    #[test]
    fn all_claim_tags_exist() {
        assert_eq!(read(&mut DebugRegisters::new(), DBGCLAIMSET_EL1), Answer::Value(0xff));
    }

    #[test]
    fn monitor_control_keeps_what_a_guest_can_set() {
        assert_eq!(read(&mut after(&[(MDSCR_EL1, u64::MAX)]), MDSCR_EL1), Answer::Value(0xb001));
    }

    #[test]
    fn lock_leaves_the_trap_of_the_communications_channel() {
        assert_eq!(after(&[(MDSCR_EL1, u64::MAX)]).hardware().mdscr_el1, 0x1000);
    }

    #[test]
    fn registers_of_an_absent_debugger_are_idle() {
        let idle = [
            MDCCINT_EL1,
            OSDTRRX_EL1,
            OSDTRTX_EL1,
            OSECCR_EL1,
            MDRAR_EL1,
            OSDLR_EL1,
            DBGPRCR_EL1,
            DBGAUTHSTATUS_EL1,
            MDCCSR_EL0,
            DBGDTR_EL0,
            DBGDTRRX_EL0,
        ];
        for register in idle {
            let mut debug = DebugRegisters::new();
            let writable = debug.access(register, Write, u64::MAX) == Answer::Changed;
            let read_only = [MDRAR_EL1, DBGAUTHSTATUS_EL1, MDCCSR_EL0].contains(&register);
            assert_eq!(
                (read(&mut debug, register), writable),
                (Answer::Value(0), !read_only),
                "{register:?}"
            );
        }
    }
}
