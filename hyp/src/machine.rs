//! The whole machine: how it ends.

use crate::arch;
use crate::terminal::{self, say};
use platform::reset::Reset;
use spin::Once;

/// How this machine is switched off and reset; set once at boot.
static RESET: Once<Reset> = Once::new();

/// Tells how this machine ends.
pub fn set_reset(reset: Reset) {
    RESET.call_once(|| reset);
}

/// Switches the machine off; if it can't be, stops this CPU.
pub fn power_off() -> ! {
    terminal::flush();
    if let Some(reset) = RESET.get() {
        reset.power_off();
    }
    say!("this machine can't be switched off from here: halted");
    terminal::flush();
    halt()
}

/// Resets the machine; if it can't be, stops this CPU.
pub fn reset() -> ! {
    terminal::flush();
    if let Some(reset) = RESET.get() {
        reset.reset();
    }
    say!("this machine can't be reset from here: halted");
    terminal::flush();
    halt()
}

/// After a crash record: what state the machine is in nobody knows, so it is
/// reset where that is possible. QEMU then ends (`-no-reboot`).
pub fn crash() -> ! {
    if let Some(reset) = RESET.get() {
        reset.reset();
    }
    halt()
}

/// Stops this CPU.
pub fn halt() -> ! {
    loop {
        arch::wait_for_interrupt();
    }
}
