//! The log: `error! warn! info! debug! trace!` for whoever develops or debugs.
//!
//! What everybody should see is said as text ([`crate::console`]); the log is
//! for detail. On the target its statements are defmt's: the format strings
//! stay in the ELF file, and what is sent or kept is a short binary frame of an
//! index, a time and the values, in defmt's default encoding (rzCOBS). A frame is
//! put together here, one per CPU at a time, and handed over whole to
//! [`Queues::push_frame`](crate::console::Queues::push_frame), which keeps the
//! latest ones in memory or, on request, sends them to a host that decodes them.
//!
//! On the host the macros have the same names and do nothing: there is no
//! linker script that would keep defmt's symbols apart.
//!
//! EL2 runs with interrupts masked and never nests, so that a CPU is in at most
//! one log statement, but for one case: a [`defmt::Format`] that fails and a
//! failure's report that logs. The inner statement is then left out.
#![cfg_attr(target_os = "none", expect(unsafe_code, reason = "defmt's logger is an unsafe trait"))]

use crate::console::mux::FRAME_LIMIT;

/// One log statement on its way to becoming a frame.
pub struct Assembly {
    encoder: defmt::Encoder,
    frame: [u8; FRAME_LIMIT],
    length: usize,
    /// Statements that have begun and not ended: 1, or more if nested.
    depth: u32,
}

impl Assembly {
    /// No statement has begun.
    pub const fn new() -> Self {
        Self { encoder: defmt::Encoder::new(), frame: [0; FRAME_LIMIT], length: 0, depth: 0 }
    }

    /// A statement begins.
    pub fn begin(&mut self) {
        self.depth += 1;
        if self.depth == 1 {
            self.length = 0;
            // What the encoder wants to write before its very first frame is a
            // separator; our frames are delimited already.
            self.encoder.start_frame(|_| {});
        }
    }

    /// The statement contributes `bytes`.
    pub fn add(&mut self, bytes: &[u8]) {
        if self.depth == 1 {
            let Self { encoder, frame, length, .. } = self;
            encoder.write(bytes, |encoded| append(frame, length, encoded));
        }
    }

    /// The statement ends. Gives its frame, with the final zero, unless it was
    /// a nested one or has become too long to be decoded.
    pub fn end(&mut self) -> Option<&[u8]> {
        self.depth = self.depth.saturating_sub(1);
        if self.depth != 0 {
            return None;
        }
        let Self { encoder, frame, length, .. } = self;
        encoder.end_frame(|encoded| append(frame, length, encoded));
        frame.get(..*length)
    }
}

impl Default for Assembly {
    fn default() -> Self {
        Self::new()
    }
}

/// Adds `encoded` at `length`, which counts on past the end of `frame`.
fn append(frame: &mut [u8; FRAME_LIMIT], length: &mut usize, encoded: &[u8]) {
    for &byte in encoded {
        if let Some(slot) = frame.get_mut(*length) {
            *slot = byte;
        }
        *length += 1;
    }
}

#[cfg(target_os = "none")]
#[allow(unused_imports, reason = "not every level has a statement at all times")]
pub(crate) use defmt::{debug, error, info, trace, warn};

#[cfg(target_os = "none")]
mod target {
    use super::Assembly;
    use crate::{arch, console::QUEUES, percpu::MAX_CPUS};
    use spin::Mutex;

    /// One statement per CPU. Only its own CPU ever locks an element, and only
    /// for a moment: the locks say so to the compiler and cost next to nothing.
    static ASSEMBLIES: [Mutex<Assembly>; MAX_CPUS] = [const { Mutex::new(Assembly::new()) }; MAX_CPUS];

    fn this_cpu<T>(work: impl FnOnce(&mut Assembly) -> T) -> Option<T> {
        // `try_lock`: should a crash in the middle of this ever log, it must
        // not wait for itself.
        ASSEMBLIES.get(arch::cpu_index())?.try_lock().map(|mut assembly| work(&mut assembly))
    }

    #[defmt::global_logger]
    struct Logger;

    // SAFETY: each CPU has its own assembly, exclusively borrowed for each call,
    // so that calls from different CPUs and nested calls don't mix.
    unsafe impl defmt::Logger for Logger {
        fn acquire() {
            this_cpu(Assembly::begin);
        }

        unsafe fn flush() {}

        unsafe fn write(bytes: &[u8]) {
            this_cpu(|assembly| assembly.add(bytes));
        }

        unsafe fn release() {
            this_cpu(|assembly| {
                if let Some(frame) = assembly.end() {
                    QUEUES.push_frame(frame);
                }
            });
        }
    }

    // Microseconds since the counter started.
    defmt::timestamp!("{=u64:us}", {
        let (counter, frequency) = (arch::counter(), arch::counter_frequency().max(1));
        // In two steps, so that no product overflows.
        counter / frequency * 1_000_000 + counter % frequency * 1_000_000 / frequency
    });
}

/// Takes what a log statement takes, and does nothing.
#[cfg(not(target_os = "none"))]
#[allow(unused_macros, reason = "as below")]
macro_rules! discard {
    ($format:literal $(, $argument:expr)* $(,)?) => {
        if false {
            $(let _ = &$argument;)*
        }
    };
}

#[cfg(not(target_os = "none"))]
#[allow(unused_imports, reason = "not every level has a statement at all times")]
pub(crate) use {discard as debug, discard as error, discard as info, discard as trace, discard as warn};

#[cfg(test)]
mod tests {
    use super::{Assembly, FRAME_LIMIT};

    #[test]
    fn a_frame_has_one_zero_and_it_is_the_last() {
        let mut assembly = Assembly::new();
        for _ in 0..2 {
            assembly.begin();
            assembly.add(&[0x11, 0x22, 0x00]);
            assembly.add(&[0x00, 0x33]);
            // From the table in defmt's encoding/rzcobs.rs: the bytes that are
            // not zero, then a mask of where the zeros were.
            assert_eq!(assembly.end(), Some([0x11, 0x22, 0x33, 0x6c, 0x00].as_slice()));
        }
    }

    #[test]
    fn a_nested_statement_is_left_out() {
        let mut assembly = Assembly::new();
        assembly.begin();
        assembly.add(&[1]);
        assembly.begin();
        assembly.add(&[2]);
        assert_eq!(assembly.end(), None);
        assembly.add(&[3]);
        assert_eq!(assembly.end(), Some([1, 3, 0x7c, 0].as_slice()));
    }

    #[test]
    fn a_statement_too_long_gives_no_frame_and_spoils_none() {
        let mut assembly = Assembly::new();
        assembly.begin();
        assembly.add(&[7; 2 * FRAME_LIMIT]);
        assert_eq!(assembly.end(), None);
        assembly.begin();
        assembly.add(&[1]);
        assert_eq!(assembly.end(), Some([1, 0x7e, 0].as_slice()));
    }

    #[test]
    fn the_hosts_statements_take_arguments_and_do_nothing() {
        let mut evaluated = 0;
        super::info!("{=u8}", {
            evaluated += 1;
            evaluated
        });
        assert_eq!(evaluated, 0);
    }
}
