//! The generic timers of EL1, and deadlines on the virtual count.

use crate::machine::{PHYSICAL_TIMER_INTID, VIRTUAL_TIMER_INTID};
use crate::sysreg;

/// One of the two timers a guest has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// CNTV.
    Virtual,
    /// CNTP.
    Physical,
}

impl Timer {
    /// The INTID it raises.
    pub fn intid(self) -> u32 {
        match self {
            Self::Virtual => VIRTUAL_TIMER_INTID,
            Self::Physical => PHYSICAL_TIMER_INTID,
        }
    }

    /// Its count now, in ticks.
    pub fn now(self) -> u64 {
        match self {
            Self::Virtual => sysreg::cntvct(),
            Self::Physical => sysreg::cntpct(),
        }
    }

    /// Raises its interrupt once the count reaches `at`, until rearmed or stopped.
    pub fn arm(self, at: u64) {
        match self {
            Self::Virtual => {
                sysreg::set_cntv_cval(at);
                sysreg::set_cntv_ctl(1);
            }
            Self::Physical => {
                sysreg::set_cntp_cval(at);
                sysreg::set_cntp_ctl(1);
            }
        }
    }

    /// Withdraws its interrupt.
    pub fn stop(self) {
        match self {
            Self::Virtual => sysreg::set_cntv_ctl(0),
            Self::Physical => sysreg::set_cntp_ctl(0),
        }
    }
}

/// Ticks in `ms` milliseconds.
pub fn ticks(ms: u64) -> u64 {
    sysreg::cntfrq() / 1000 * ms
}

/// A point of virtual time after which waiting is a failure.
#[derive(Clone, Copy)]
pub struct Deadline(u64);

impl Deadline {
    /// `ms` milliseconds from now.
    pub fn after_ms(ms: u64) -> Self {
        Self(sysreg::cntvct() + ticks(ms))
    }

    /// Whether it has passed.
    pub fn has_passed(self) -> bool {
        sysreg::cntvct() >= self.0
    }

    /// Waits for `condition`; false if the deadline came first.
    pub fn wait(self, mut condition: impl FnMut() -> bool) -> bool {
        while !condition() {
            if self.has_passed() {
                return condition();
            }
        }
        true
    }
}

/// Lets `ms` milliseconds pass, taking interrupts that are not masked.
pub fn pause_ms(ms: u64) {
    Deadline::after_ms(ms).wait(|| false);
}
