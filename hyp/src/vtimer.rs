//! The guest's timers.
//!
//! Guests own the virtual timer: EL2 needs no exit for it, only for its
//! interrupt. The physical timer (CNTP) is emulated here: it traps, because its
//! deadlines are in real time and the processor has only one set of EL1 physical
//! timer registers. Stock kernels use the virtual timer, so this has to be right
//! rather than fast.

use crate::vgic::Level;
use platform::intid::IntId;

/// The virtual timer's interrupt, the guest's and the processor's own.
pub const VTIMER: IntId = IntId::ppi(11);

/// The guest's physical timer interrupt.
pub const PTIMER: IntId = IntId::ppi(14);

/// CNTP_CTL_EL0 (DDI 0487): ENABLE.
const ENABLE: u64 = 1;
/// CNTP_CTL_EL0: IMASK.
const MASK: u64 = 2;
/// CNTP_CTL_EL0: ISTATUS.
const STATUS: u64 = 4;

/// One vCPU's physical timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhysicalTimer {
    control: u64,
    compare: u64,
    /// The line as the interrupt controller was last told.
    line: Level,
}

impl Default for PhysicalTimer {
    /// Off, as after reset.
    fn default() -> Self {
        Self { control: 0, compare: 0, line: Level::Low }
    }
}

/// Its three registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// CNTP_CTL_EL0.
    Control,
    /// CNTP_CVAL_EL0.
    Compare,
    /// CNTP_TVAL_EL0.
    Value,
}

impl PhysicalTimer {
    /// Reads a register when the counter is at `now`.
    pub fn read(&self, register: Register, now: u64) -> u64 {
        match register {
            Register::Control => self.control | if self.is_due(now) { STATUS } else { 0 },
            Register::Compare => self.compare,
            Register::Value => self.compare.wrapping_sub(now) & 0xffff_ffff,
        }
    }

    /// Writes a register when the counter is at `now`.
    pub fn write(&mut self, register: Register, value: u64, now: u64) {
        match register {
            Register::Control => self.control = value & (ENABLE | MASK),
            Register::Compare => self.compare = value,
            // TVAL is a signed 32-bit distance from now.
            Register::Value => self.compare = now.wrapping_add(value as u32 as i32 as i64 as u64),
        }
    }

    /// The interrupt line's new level, if it has changed since the last call.
    pub fn take_line_change(&mut self, now: u64) -> Option<Level> {
        let before = self.line;
        self.line = if self.control & MASK == 0 && self.is_due(now) { Level::High } else { Level::Low };
        (self.line != before).then_some(self.line)
    }

    /// When its line will go high, if it will. A line that is high stays so
    /// until the guest writes a register: there is nothing left to wait for.
    pub fn deadline(&self) -> Option<u64> {
        let is_waiting = self.control & (ENABLE | MASK) == ENABLE && self.line == Level::Low;
        is_waiting.then_some(self.compare)
    }

    fn is_due(&self, now: u64) -> bool {
        self.control & ENABLE != 0 && now >= self.compare
    }
}

#[cfg(test)]
mod tests {
    use super::{PhysicalTimer, Register};
    use crate::vgic::Level;

    #[test]
    fn value_is_a_signed_distance() {
        let mut timer = PhysicalTimer::default();
        timer.write(Register::Value, 0xffff_fff6, 100);
        assert_eq!(timer.read(Register::Compare, 100), 90);
        assert_eq!(timer.read(Register::Value, 100), 0xffff_fff6);
    }

    #[test]
    fn fires_at_its_deadline_and_not_before() {
        let mut timer = PhysicalTimer::default();
        timer.write(Register::Compare, 50, 0);
        timer.write(Register::Control, 1, 0);
        assert_eq!((timer.take_line_change(49), timer.take_line_change(50)), (None, Some(Level::High)));
        assert_eq!(timer.read(Register::Control, 50), 5);
    }

    #[test]
    fn has_no_deadline_left_once_it_has_fired() {
        let mut timer = PhysicalTimer::default();
        timer.write(Register::Compare, 50, 0);
        timer.write(Register::Control, 1, 0);
        assert_eq!(timer.deadline(), Some(50));
        let _ = timer.take_line_change(50);
        assert_eq!((timer.deadline(), timer.take_line_change(60)), (None, None));
    }

    #[test]
    fn line_falls_when_the_guest_moves_the_deadline() {
        let mut timer = PhysicalTimer::default();
        timer.write(Register::Compare, 50, 0);
        timer.write(Register::Control, 1, 0);
        let _ = timer.take_line_change(50);
        timer.write(Register::Compare, 90, 60);
        assert_eq!((timer.take_line_change(60), timer.deadline()), (Some(Level::Low), Some(90)));
    }

    #[test]
    fn masked_shows_its_status_but_does_not_fire() {
        let mut timer = PhysicalTimer::default();
        timer.write(Register::Compare, 50, 0);
        timer.write(Register::Control, 3, 0);
        assert_eq!((timer.take_line_change(60), timer.deadline()), (None, None));
        assert_eq!(timer.read(Register::Control, 60), 7);
    }

    #[test]
    fn disabled_shows_no_status() {
        let mut timer = PhysicalTimer::default();
        timer.write(Register::Compare, 0, 0);
        assert_eq!(timer.read(Register::Control, 60), 0);
    }
}
