//! The console of last resort.
//!
//! When the hypervisor itself has failed, any lock may be held by the CPU that
//! failed and any of its data may be half changed. [`CrashWriter`] therefore uses
//! a copy of the UART's handle and nothing else, and waits for room itself.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use spin::Once;

use super::mux::{FRAME_END, Frames};
use super::port::Port;

/// Turns to wait for room before the UART counts as dead. Even at 9600 baud a
/// byte leaves within 1 ms, which is far fewer turns.
const TURNS: u32 = 1 << 22;

/// The copy of the port, and who may use it.
pub(super) struct Reserve<P> {
    port: Once<P>,
    taken: AtomicBool,
}

impl<P: Port> Reserve<P> {
    pub(super) const fn new() -> Self {
        Self { port: Once::new(), taken: AtomicBool::new(false) }
    }

    /// Keeps a copy of `port`; the first one counts.
    pub(super) fn keep(&self, port: P) {
        self.port.call_once(|| port);
    }

    /// The writer, for the first who asks.
    pub(super) fn take(&self, frames: Frames) -> Option<CrashWriter<P>> {
        let port = self.port.get()?.clone();
        // Relaxed: only who was first matters; the port is not shared by this.
        if self.taken.swap(true, Ordering::Relaxed) {
            return None;
        }
        let mut writer = CrashWriter { port: Some(port) };
        if frames == Frames::Sent {
            // A frame may have been under way; a decoder needs to see it end.
            writer.put(FRAME_END);
        }
        Some(writer)
    }
}

/// Writes text straight to the UART. See [`super::Console::crash_writer`].
pub struct CrashWriter<P> {
    /// `None` once the UART has stopped taking bytes.
    port: Option<P>,
}

impl<P: Port> CrashWriter<P> {
    fn put(&mut self, byte: u8) {
        let Some(port) = &mut self.port else { return };
        for _ in 0..TURNS {
            if port.try_put(byte) {
                return;
            }
            core::hint::spin_loop();
        }
        self.port = None;
    }
}

impl<P: Port> fmt::Write for CrashWriter<P> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.put(b'\r');
            }
            self.put(byte);
        }
        Ok(())
    }
}
