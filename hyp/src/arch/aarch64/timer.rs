//! The generic timer (DDI 0487, "The Generic Timer"): the counter, EL2's own
//! timer (CNTHP, PPI 26) and the guest's virtual timer (CNTV, PPI 27).
#![expect(unsafe_code, reason = "system registers")]

use super::sysreg::{read, write};
use core::sync::atomic::{AtomicU64, Ordering};

/// CNT*_CTL: enabled.
const ENABLE: u64 = 1;
/// CNT*_CTL: interrupt masked.
const MASK: u64 = 2;

/// The physical counter, ordered after earlier instructions.
pub fn counter() -> u64 {
    super::instruction_sync();
    read!("cntpct_el0")
}

/// The frequency that the device tree gives, 0 if it gives none.
static FREQUENCY: AtomicU64 = AtomicU64::new(0);

/// The device tree gives the counter's frequency in Hz: firmware got CNTFRQ_EL0
/// wrong, or there was none to set it.
pub fn set_counter_frequency(hz: u32) {
    FREQUENCY.store(u64::from(hz), Ordering::Relaxed);
}

/// Its frequency in Hz; 0 if nobody has said.
pub fn counter_frequency() -> u64 {
    match FREQUENCY.load(Ordering::Relaxed) {
        0 => read!("cntfrq_el0"),
        hz => hz,
    }
}

/// Arms EL2's timer: PPI 26 once the counter reaches `deadline`.
pub fn arm_el2_timer(deadline: u64) {
    write!("cnthp_cval_el2", deadline);
    write!("cnthp_ctl_el2", ENABLE);
}

/// Disarms EL2's timer. Its line falls before this returns, so that an interrupt
/// that is deactivated next does not come once more.
pub fn disarm_el2_timer() {
    write!("cnthp_ctl_el2", 0);
    super::instruction_sync();
}

/// Whether the virtual timer in the processor holds its interrupt line high.
pub fn virtual_timer_is_raised() -> bool {
    const STATUS: u64 = 4;
    read!("cntv_ctl_el0") & (ENABLE | MASK | STATUS) == ENABLE | STATUS
}

/// The guest's virtual timer, at rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VirtualTimer {
    /// CNTV_CTL_EL0.
    pub control: u64,
    /// CNTV_CVAL_EL0, in guest time.
    pub compare: u64,
}

impl VirtualTimer {
    /// Reads the timer out of the processor and stops it there.
    pub fn save() -> Self {
        let timer = Self { control: read!("cntv_ctl_el0"), compare: read!("cntv_cval_el0") };
        write!("cntv_ctl_el0", 0);
        super::instruction_sync();
        timer
    }

    /// Loads the timer; guest time is the physical counter minus `offset`.
    pub fn load(self, offset: u64) {
        write!("cntvoff_el2", offset);
        write!("cntv_cval_el0", self.compare);
        super::instruction_sync();
        write!("cntv_ctl_el0", self.control);
    }

    /// When it fires, in physical counter ticks; `None` if it never will. Guest
    /// time does not wrap (DDI 0487, "CompareValue view"), so neither does this.
    pub fn deadline(self, offset: u64) -> Option<u64> {
        (self.control & (ENABLE | MASK) == ENABLE).then(|| self.compare.saturating_add(offset))
    }
}
