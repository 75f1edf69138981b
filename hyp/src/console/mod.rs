//! One UART for everybody: the guests' consoles, the hypervisor's lines, its
//! prompt and its log.
//!
//! [`Console`] joins the parts, each of which is plain data and knows nothing of
//! locks or hardware:
//! - [`mux`] decides whose bytes go out and what a plain terminal shows;
//! - [`input`] decides who gets a key, [`prompt`] what a typed line means;
//! - [`ring`] and [`frames`] hold what waits: text in each guest's
//!   [`Vpl011`] and in the hypervisor's own ring, log frames in theirs;
//! - [`port`] is the physical UART.
//!
//! **Who moves the bytes.** [`Console::pump`] moves what can be moved and says
//! when to call it again ([`Next`]). It is called by whoever has made something
//! ready, by the UART's transmit interrupt, and by a
//! CPU's loop that finds [`Console::is_due`]. It never waits: if another CPU
//! is pumping, that one will see the new bytes.
//!
//! **The ready word** has one bit per source with something to take, one for log
//! frames, and one ([`ARMED`]) while the UART is full and its transmit interrupt
//! will call. A producer adds its bytes, then sets its bit; the pump clears the
//! bit, then takes. So a set bit may be stale but bytes are never without one.
//! After unlocking, the pump looks at the word once more: a producer that failed
//! to get the lock set its bit before it tried (both sides are sequentially
//! consistent), so one of the two sees the other.
//!
//! **Locks.** `front` is held while moving; inside it at most one of a guest
//! UART's, the text's and the frames' locks, never two of those.

mod crash;
pub mod frames;
pub mod input;
pub mod mux;
pub mod port;
pub mod prompt;
pub mod ring;
pub mod source;
mod stage;
mod typing;
mod unit;

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};

use heapless::String;
use spin::Mutex;

use crate::vpl011::{TRANSMIT_RING, Vpl011};
pub use crash::CrashWriter;
use frames::FrameRing;
use input::{Focus, Router};
use mux::{CHUNK, Choice, FRAME_LIMIT, Frames, Mux, Patience};
use port::{Port, Switch};
use prompt::Editor;
use ring::{ByteRing, Taken};
use source::{MAX_VMS, Source, SourceSet, VmIndex, VmSet};
pub use typing::Received;

/// Longest line of [`Console::say`]; more is cut.
const LINE: usize = 640;

/// Bytes one [`Console::pump`] sends at most before it lets its CPU look at
/// something else: about 100 us of register writes on the slowest board.
const BUDGET: u32 = 256;

/// Times [`Console::flush`] finds the UART full before it gives up on it.
const FLUSH_TURNS: u32 = 1 << 24;

/// Bit of the ready word: log frames wait to be sent.
const FRAMES_READY: u32 = 1 << 30;

/// Bit of the ready word: the UART is full and will interrupt.
const ARMED: u32 = 1 << 31;

/// What waits to be shown, and the ready word. All its bytes are zero at first,
/// so that [`QUEUES`] costs the image file nothing.
pub struct Queues {
    uarts: [Vpl011; MAX_VMS],
    text: Mutex<ByteRing<TRANSMIT_RING>>,
    frames: Mutex<FrameRing<4096>>,
    ready: AtomicU32,
    /// Copy of the mux's [`Frames`], for those who don't hold its lock.
    frames_sent: AtomicBool,
}

/// The machine's.
pub static QUEUES: Queues = Queues::new();

impl Queues {
    /// Nothing waits anywhere.
    pub const fn new() -> Self {
        Self {
            uarts: [const { Vpl011::new() }; MAX_VMS],
            text: Mutex::new(ByteRing::new()),
            frames: Mutex::new(FrameRing::new()),
            ready: AtomicU32::new(0),
            frames_sent: AtomicBool::new(false),
        }
    }

    /// The UART of `vm`.
    pub fn uart(&self, vm: VmIndex) -> &Vpl011 {
        // A VmIndex is below MAX_VMS; the remainder lets the compiler see it.
        &self.uarts[vm.index() % MAX_VMS]
    }

    /// Adds one finished log frame, which ends with its only zero. It never
    /// waits and never sends.
    pub fn push_frame(&self, frame: &[u8]) {
        if self.frames_sent.load(Ordering::Relaxed) {
            self.frames.lock().offer(frame);
            self.ready.fetch_or(FRAMES_READY, Ordering::SeqCst);
        } else {
            self.frames.lock().keep(frame);
        }
    }

    /// Says that `source` has something, and returns the ready word before.
    #[inline]
    fn mark(&self, source: Source) -> u32 {
        self.ready.fetch_or(SourceSet::one(source).bits(), Ordering::SeqCst)
    }

    fn queue_line(&self, line: fmt::Arguments<'_>) {
        let mut buffer = LineBuffer(String::new());
        // An error means that the line was cut.
        let cut = buffer.write_fmt(line).is_err();
        let LineBuffer(text) = buffer;
        let end: &[u8] = if cut { b"...\n" } else { b"\n" };
        self.text.lock().push_whole(&[text.as_bytes(), end]);
        self.mark(Source::Hypervisor);
    }
}

impl Default for Queues {
    fn default() -> Self {
        Self::new()
    }
}

/// When a console wants to be pumped again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Next {
    /// When somebody has something to say, or another CPU is pumping.
    #[default]
    Idle,
    /// As soon as the CPU has looked at its other work.
    Now,
    /// At this time of the clock that `now` comes from, which is also
    /// [`Console::deadline`].
    At(u64),
    /// When the UART has room: its transmit interrupt is on, and
    /// [`Console::transmit_interrupt`] is the answer to it. A board without
    /// that interrupt calls the same every millisecond.
    Room,
}

/// What a pump did.
#[must_use = "guests may have room to write again, and more may be waiting"]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pumped {
    /// VMs whose UART's interrupt line has changed: apply [`Vpl011::line`].
    pub changed: VmSet,
    /// When to come back.
    pub next: Next,
}

/// The console.
pub struct Console<'a, P> {
    queues: &'a Queues,
    /// Whether [`Console::say`] leaves the sending to others.
    deferred: AtomicBool,
    /// When those in the ready word may be moved: 0 at once, `u64::MAX` if
    /// nobody has set a time. It only saves looking too often: where two CPUs
    /// write it at once, the worst is one pump too many.
    wait_end: AtomicU64,
    /// Ticks that a guest's byte waits for others.
    gathering: AtomicU64,
    front: Mutex<Front<P>>,
    reserve: crash::Reserve<P>,
}

/// What is touched by one CPU at a time.
struct Front<P> {
    port: Option<P>,
    mux: Mux,
    router: Router,
    editor: Editor,
    /// The prompt's text and echo.
    prompt: ByteRing<512>,
}

impl<'a, P: Port> Console<'a, P> {
    /// A console without a UART: what is said waits until [`Console::install`].
    pub const fn new(queues: &'a Queues) -> Self {
        let front = Front {
            port: None,
            mux: Mux::new(Patience::of_clock(0)),
            router: Router::new(),
            editor: Editor::new(),
            prompt: ByteRing::new(),
        };
        Self {
            queues,
            deferred: AtomicBool::new(false),
            wait_end: AtomicU64::new(u64::MAX),
            gathering: AtomicU64::new(0),
            front: Mutex::new(front),
            reserve: crash::Reserve::new(),
        }
    }

    /// Gives the console its UART and shows what was said so far. `frequency`
    /// is that of the clock behind every `now`, in Hz.
    pub fn install(&self, port: P, frequency: u64) {
        self.reserve.keep(port.clone());
        self.gathering.store(frequency / 1000, Ordering::Relaxed);
        let mut front = self.front.lock();
        front.port = Some(port);
        front.mux.set_patience(Patience::of_clock(frequency));
        drop(front);
        self.flush(0);
    }

    /// From here on interrupts and the CPUs' loops call [`Console::pump`], and
    /// [`Console::say`] no longer sends by itself.
    pub fn defer(&self) {
        self.deferred.store(true, Ordering::Relaxed);
    }

    /// Sends log frames to a host that decodes them, those kept so far first.
    pub fn send_frames(&self) {
        self.front.lock().mux.set_frames(Frames::Sent);
        self.queues.frames_sent.store(true, Ordering::Relaxed);
        self.queues.ready.fetch_or(FRAMES_READY, Ordering::SeqCst);
    }

    /// Makes `vm` known by `name`. The first VM gets the keyboard.
    pub fn add_vm(&self, vm: VmIndex, name: &str) {
        let mut front = self.front.lock();
        front.mux.name(vm, name);
        if front.mux.names().known().len() == 1 {
            front.focus(Focus::Vm(vm));
        }
    }

    /// The UART of `vm`.
    pub fn uart(&self, vm: VmIndex) -> &'a Vpl011 {
        self.queues.uart(vm)
    }

    /// Adds a line of the hypervisor's; its tag comes by itself. It never waits, except before
    /// [`Console::defer`], when there is nobody else to send it.
    pub fn say(&self, line: fmt::Arguments<'_>) {
        self.queues.queue_line(line);
        self.wait_end.store(0, Ordering::SeqCst);
        if !self.deferred.load(Ordering::Relaxed) {
            self.flush(0);
        }
    }

    /// `vm`'s UART has queued output. A byte waits a moment for others, since
    /// moving one costs nearly as much as moving a line; only the first one
    /// has the caller come back ([`Next::At`]). When the UART's own FIFO fills,
    /// there is enough to move.
    #[inline]
    pub fn guest_wrote(&self, vm: VmIndex, now: u64) -> Pumped {
        let bit = SourceSet::one(Source::Vm(vm)).bits();
        let before = self.queues.ready.fetch_or(bit, Ordering::SeqCst);
        if before & ARMED != 0 {
            return Pumped::default();
        }
        if self.uart(vm).is_backed_up() {
            return self.pump(now);
        }
        if before & bit != 0 {
            return Pumped::default();
        }
        let end = now.saturating_add(self.gathering.load(Ordering::Relaxed));
        self.wait_end.fetch_min(end, Ordering::SeqCst);
        Pumped { changed: VmSet::EMPTY, next: Next::At(end) }
    }

    /// Whether [`Console::pump`] has something to do at `now`.
    #[inline]
    pub fn is_due(&self, now: u64) -> bool {
        let ready = self.queues.ready.load(Ordering::Relaxed);
        let end = self.wait_end.load(Ordering::Relaxed);
        ready != 0 && ready & ARMED == 0 && (now >= end || end == u64::MAX)
    }

    /// Until when somebody waits, for more bytes or for another's line, if so:
    /// some CPU should then be awake and pump.
    ///
    /// There is none while nobody has anything to send, or while the UART's
    /// interrupt is what goes on with it: a moment that has passed and that no
    /// pump moves on would interrupt guests again and again, and sooner than
    /// the UART ever could.
    pub fn deadline(&self) -> Option<u64> {
        let ready = self.queues.ready.load(Ordering::Relaxed);
        let end = self.wait_end.load(Ordering::Relaxed);
        (ready != 0 && ready & ARMED == 0 && end != u64::MAX).then_some(end)
    }

    /// Moves bytes to the UART until it is full, nobody has more, or those who
    /// have more must wait.
    pub fn pump(&self, now: u64) -> Pumped {
        let mut pumped = Pumped::default();
        let mut budget = BUDGET;
        loop {
            let Some(mut front) = self.front.try_lock() else { return pumped };
            let seen = self.run(&mut front, now, &mut budget, &mut pumped);
            drop(front);
            // Pairs with the SeqCst read-modify-write in `mark`: whoever set a
            // bit and then failed to lock is seen here.
            fence(Ordering::SeqCst);
            if self.queues.ready.load(Ordering::Relaxed) & !seen == 0 {
                return pumped;
            }
        }
    }

    /// Answers the UART's transmit interrupt.
    pub fn transmit_interrupt(&self, now: u64) -> Pumped {
        self.disarm(&mut self.front.lock());
        self.pump(now)
    }

    /// Sends everything, waiting for the UART: for the time before interrupts,
    /// and before the machine goes off. Line changes are for nobody then.
    pub fn flush(&self, mut now: u64) {
        let mut turns = 0;
        while turns < FLUSH_TURNS {
            let mut pumped = Pumped::default();
            let mut front = self.front.lock();
            self.disarm(&mut front);
            self.run(&mut front, now, &mut BUDGET.clone(), &mut pumped);
            drop(front);
            match pumped.next {
                Next::Idle => return,
                Next::Now => {}
                // Nobody's pause is worth waiting for now.
                Next::At(time) => now = time,
                Next::Room => turns += 1,
            }
        }
    }

    /// The console for a crash record: uses no lock, waits for the UART, and is
    /// given out once, so that a crash within a crash (or on a second CPU)
    /// gets `None` and must stay silent. Shows first what was about to be
    /// shown, as far as that is possible without waiting for a lock.
    pub fn crash_writer(&self) -> Option<CrashWriter<P>> {
        let sent = self.queues.frames_sent.load(Ordering::Relaxed);
        let mut writer = self.reserve.take(if sent { Frames::Sent } else { Frames::Kept })?;
        let _ = writer.write_str("\n");
        if let Some(mut text) = self.queues.text.try_lock() {
            let mut chunk = [0; CHUNK];
            loop {
                let Taken { count, .. } = text.take_line(&mut chunk);
                let line = chunk.get(..count).unwrap_or(&[]);
                if line.is_empty() {
                    break;
                }
                let _ = writer.write_str(core::str::from_utf8(line).unwrap_or("?"));
            }
        }
        Some(writer)
    }

    fn disarm(&self, front: &mut Front<P>) {
        if let Some(port) = &mut front.port {
            port.set_transmit_interrupt(Switch::Off);
        }
        self.queues.ready.fetch_and(!ARMED, Ordering::SeqCst);
    }

    /// One turn of the pump with the lock held. Returns the ready bits that it
    /// has seen and that need no further look.
    fn run(&self, front: &mut Front<P>, now: u64, budget: &mut u32, pumped: &mut Pumped) -> u32 {
        // Before `ready` is read, so that a guest that isn't seen there has its
        // deadline after this.
        self.wait_end.store(u64::MAX, Ordering::SeqCst);
        let Front { port: Some(port), mux, prompt, .. } = front else {
            return u32::MAX;
        };
        loop {
            let staged = mux.staged();
            let sent = staged.iter().take_while(|&&byte| port.try_put(byte)).count();
            let is_full = sent < staged.len();
            mux.advance(sent);
            if is_full {
                self.queues.ready.fetch_or(ARMED, Ordering::SeqCst);
                port.set_transmit_interrupt(Switch::On);
                pumped.next = Next::Room;
                return u32::MAX;
            }
            *budget = budget.saturating_sub(sent as u32);
            if *budget == 0 {
                pumped.next = Next::Now;
                return u32::MAX;
            }
            let ready = self.queues.ready.load(Ordering::SeqCst);
            if ready & FRAMES_READY != 0 {
                self.take_frame(mux);
                continue;
            }
            match mux.choose(now, SourceSet::from_bits(ready)) {
                Choice::Take(source, limit) => self.take(source, limit, now, mux, prompt, pumped),
                Choice::WaitUntil(time) => {
                    self.wait_end.store(time, Ordering::SeqCst);
                    pumped.next = Next::At(time);
                    return ready;
                }
                Choice::Nothing => {
                    pumped.next = Next::Idle;
                    return ready;
                }
            }
        }
    }

    fn take(
        &self,
        source: Source,
        limit: usize,
        now: u64,
        mux: &mut Mux,
        prompt: &mut ByteRing<512>,
        pumped: &mut Pumped,
    ) {
        let bit = SourceSet::one(source).bits();
        self.queues.ready.fetch_and(!bit, Ordering::SeqCst);
        let mut chunk = [0; CHUNK];
        let buffer = &mut chunk[..limit.min(CHUNK)];
        let (taken, more) = match source {
            Source::Vm(vm) => {
                let drained = self.uart(vm).take_line(buffer);
                if drained.line.is_some() {
                    pumped.changed.insert(vm);
                }
                (drained.taken, drained.more)
            }
            Source::Hypervisor => {
                let mut text = self.queues.text.lock();
                (text.take_line(buffer), !text.is_empty())
            }
            Source::Prompt => (prompt.take_line(buffer), !prompt.is_empty()),
        };
        if more {
            self.queues.ready.fetch_or(bit, Ordering::SeqCst);
        }
        mux.accept(source, now, taken, buffer);
    }

    fn take_frame(&self, mux: &mut Mux) {
        self.queues.ready.fetch_and(!FRAMES_READY, Ordering::SeqCst);
        let mut buffer = [0; FRAME_LIMIT];
        let mut frames = self.queues.frames.lock();
        if let Some(frame) = frames.take(&mut buffer) {
            mux.accept_frame(frame);
        }
        if !frames.is_empty() {
            self.queues.ready.fetch_or(FRAMES_READY, Ordering::SeqCst);
        }
        let dropped = frames.take_dropped();
        drop(frames);
        if dropped != 0 {
            self.queues.queue_line(format_args!("... {dropped} log frames dropped"));
        }
    }
}

/// Text that is cut where it no longer fits, not dropped whole.
struct LineBuffer(String<LINE>);

impl Write for LineBuffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            self.0.push(character).map_err(|_| fmt::Error)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
