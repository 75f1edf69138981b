//! The guest's UART: an Arm PrimeCell PL011 (DDI 0183), revision r1p5.
//!
//! [`Vpl011`] is one per VM and shared by its vCPUs. It knows nothing of the
//! machine around it: MMIO accesses come in with an offset, the interrupt line
//! goes out as a [`Level`], text goes to a ring that the console empties
//! ([`Vpl011::take_line`]), and typed bytes come from there
//! ([`Vpl011::receive`]).
//!
//! **The line is infinitely fast until the console falls behind.** A byte
//! written to DR enters the ring, and as long as the ring has more than a FIFO's
//! worth of room the byte counts as sent. Only the last [`FIFO_DEPTH`] places
//! of the ring are what the guest sees as its transmit FIFO, so a driver that
//! waits for TXFE, for TXFF to fall or for a transmit interrupt waits exactly
//! when the console can't take more.
//!
//! **Interrupts.** Receive and receive-timeout are levels: asserted while a
//! byte waits. The trigger level is taken as reached by any byte, as QEMU's
//! model does, because guests were written against that. Transmit is the
//! latched condition of the manual: set when the FIFO falls to the trigger
//! level, cleared by filling it above or through ICR; and set when the guest
//! enables it while the FIFO is low, so that no driver waits for an edge that
//! never comes.
//!
//! **Concurrency.** One spin lock per UART guards the state; whoever holds it
//! publishes FR, RIS and MIS as one word, from which those registers are read
//! without the lock. Every change of the interrupt line is reported to exactly
//! one caller, the one whose access caused it, as `Some(level)`. Two callers may
//! then race to the interrupt controller, so they apply [`Vpl011::line`], read
//! under the controller's own lock, and not the level they were told.

use core::sync::atomic::{AtomicU64, Ordering};

use spin::Mutex;

use crate::console::ring::{ByteRing, Taken};
use crate::mmio::Width;
use crate::vgic::Level;

/// Size of the register window in bytes.
pub const WINDOW: u64 = 0x1000;

/// Entries of each FIFO as the guest sees it (r1p5).
pub const FIFO_DEPTH: usize = 32;

/// Bytes of output one VM may have waiting for the console.
pub const TRANSMIT_RING: usize = 4096;

/// Typed bytes one VM may have waiting. Larger than the FIFO, so that pasted
/// text survives a guest that is slow to look.
const RECEIVE_RING: usize = 1024;

/// What a read gave.
#[must_use = "the interrupt line may have changed"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The bytes read, zero-extended.
    pub value: u64,
    /// The interrupt line's new level if this read changed it.
    pub line: Option<Level>,
}

/// What a write caused.
#[must_use = "the interrupt line may have changed and output may be waiting"]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// The interrupt line's new level if this write changed it.
    pub line: Option<Level>,
    /// Whether the console has something new to take.
    pub queued: bool,
}

/// What the console took from the transmit ring.
#[must_use = "the interrupt line may have changed"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// The bytes and the gap before them.
    pub taken: Taken,
    /// Whether the ring still holds something.
    pub more: bool,
    /// The interrupt line's new level if the guest now may write again.
    pub line: Option<Level>,
}

/// Register offsets (DDI 0183, "Summary of registers").
mod register {
    pub(super) const DR: u64 = 0x000;
    pub(super) const RSR_ECR: u64 = 0x004;
    pub(super) const FR: u64 = 0x018;
    pub(super) const ILPR: u64 = 0x020;
    pub(super) const IBRD: u64 = 0x024;
    pub(super) const FBRD: u64 = 0x028;
    pub(super) const LCR_H: u64 = 0x02c;
    pub(super) const CR: u64 = 0x030;
    pub(super) const IFLS: u64 = 0x034;
    pub(super) const IMSC: u64 = 0x038;
    pub(super) const RIS: u64 = 0x03c;
    pub(super) const MIS: u64 = 0x040;
    pub(super) const ICR: u64 = 0x044;
    pub(super) const DMACR: u64 = 0x048;
    /// First of the eight identification registers.
    pub(super) const IDENTIFICATION: u64 = 0xfe0;
}

/// UARTPeriphID0-3 and UARTPCellID0-3: part 0x011, designer Arm (0x41),
/// revision 3 (r1p5: 32-deep FIFOs), and the PrimeCell mark.
const IDENTIFICATION: [u8; 8] = [0x11, 0x10, 0x34, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

/// UARTFR. The modem inputs are shown as asserted: nobody hangs up.
const FR_CTS_DSR_DCD: u32 = 0b111;
const FR_BUSY: u32 = 1 << 3;
const FR_RXFE: u32 = 1 << 4;
const FR_TXFF: u32 = 1 << 5;
const FR_RXFF: u32 = 1 << 6;
const FR_TXFE: u32 = 1 << 7;

/// Bits common to UARTIMSC, UARTRIS, UARTMIS and UARTICR.
const INT_RX: u32 = 1 << 4;
const INT_TX: u32 = 1 << 5;
const INT_RT: u32 = 1 << 6;
const INT_OE: u32 = 1 << 10;
const INT_ALL: u32 = 0x7ff;

/// Overrun error, in UARTRSR and in UARTDR.
const RSR_OE: u32 = 1 << 3;
const DR_OE: u32 = 1 << 11;

const LCR_H_FEN: u32 = 1 << 4;
const CR_LBE: u32 = 1 << 7;

/// One PL011.
pub struct Vpl011 {
    /// FR in bits 0-15, RIS in 16-31, MIS in 32-47.
    published: AtomicU64,
    state: Mutex<State>,
}

impl Vpl011 {
    /// A UART without power: [`Vpl011::reset`] it before a guest sees it. All
    /// its bytes are zero, so that a static array of them costs the image
    /// nothing.
    pub const fn new() -> Self {
        let state =
            State { registers: Registers::UNPOWERED, sent: ByteRing::new(), received: ByteRing::new() };
        Self { published: AtomicU64::new(0), state: Mutex::new(state) }
    }

    /// The reset state, for a VM that starts or restarts. What the guest has
    /// already sent is kept: its last words are the ones that matter.
    pub fn reset(&self) -> Option<Level> {
        self.change(|state| {
            state.registers = Registers::RESET;
            state.received.clear();
        })
        .1
    }

    /// A guest's load of `width` bytes at `offset`. Holes read as zero.
    #[inline]
    pub fn read(&self, offset: u64, width: Width) -> Reading {
        // The one register that drivers poll comes first and takes no lock.
        if offset == register::FR {
            return Reading { value: self.published() & 0xffff & width.mask(), line: None };
        }
        self.read_other(offset, width)
    }

    #[inline(never)]
    fn read_other(&self, offset: u64, width: Width) -> Reading {
        let mut line = None;
        let value = match offset & !3 {
            register::DR if offset == register::DR => {
                let value;
                (value, line) = self.change(State::read_data);
                u64::from(value)
            }
            register::FR => self.published() & 0xffff,
            register::RIS => self.published() >> 16 & 0xffff,
            register::MIS => self.published() >> 32 & 0xffff,
            // A DR access that is not at DR itself must not eat a byte.
            register::DR => 0,
            aligned => u64::from(self.state.lock().read(aligned)),
        };
        Reading { value: value >> (8 * (offset & 3)) & width.mask(), line }
    }

    /// A guest's store of the low `width` bytes of `value` at `offset`. Stores
    /// to holes and read-only registers, and stores into the middle of a
    /// register, do nothing.
    pub fn write(&self, offset: u64, width: Width, value: u64) -> Effects {
        let value = (value & width.mask()) as u32;
        let (queued, line) = self.change(|state| state.write(offset, value));
        Effects { line, queued }
    }

    /// A byte typed at this guest. It is lost, and the guest told of the
    /// overrun, if [`Vpl011::receive_room`] was zero.
    #[must_use = "the interrupt line may have changed"]
    pub fn receive(&self, byte: u8) -> Option<Level> {
        self.change(|state| state.receive(byte)).1
    }

    /// Typed bytes that can still wait here.
    pub fn receive_room(&self) -> usize {
        self.state.lock().received.room()
    }

    /// Level of the interrupt line right now.
    #[inline]
    pub fn line(&self) -> Level {
        line_of(self.published())
    }

    /// Whether output waits in what the guest sees as its transmit FIFO.
    #[inline]
    pub fn is_backed_up(&self) -> bool {
        self.published() & u64::from(FR_TXFE) == 0
    }

    /// For the console: output up to the end of the line or of `buffer`.
    pub fn take_line(&self, buffer: &mut [u8]) -> Drained {
        let ((taken, more), line) = self.change(|state| {
            let was_above = state.is_above_trigger();
            let taken = state.sent.take_line(buffer);
            if was_above && !state.is_above_trigger() {
                state.registers.latched |= INT_TX;
            }
            (taken, !state.sent.is_empty())
        });
        Drained { taken, more, line }
    }

    #[inline]
    fn published(&self) -> u64 {
        // Relaxed: the word is complete in itself, and a guest that polls it
        // on one vCPU while another writes has no order to expect.
        self.published.load(Ordering::Relaxed)
    }

    /// Runs `change` under the lock, publishes, and says whether the interrupt
    /// line moved.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> (T, Option<Level>) {
        let mut state = self.state.lock();
        let result = change(&mut state);
        let summary = state.summary();
        let before = line_of(self.published());
        self.published.store(summary, Ordering::Relaxed);
        let after = line_of(summary);
        (result, (before != after).then_some(after))
    }
}

impl Default for Vpl011 {
    fn default() -> Self {
        Self::new()
    }
}

const fn line_of(summary: u64) -> Level {
    if summary >> 32 == 0 { Level::Low } else { Level::High }
}

struct State {
    registers: Registers,
    sent: ByteRing<TRANSMIT_RING>,
    received: ByteRing<RECEIVE_RING>,
}

/// What a reset clears.
struct Registers {
    ilpr: u32,
    ibrd: u32,
    fbrd: u32,
    lcr_h: u32,
    cr: u32,
    ifls: u32,
    imsc: u32,
    dmacr: u32,
    /// RSR_OE or zero: there is no line that could garble a byte.
    rsr: u32,
    /// Raw interrupts that stay until cleared: TX and OE. RX and RT follow
    /// from the receive ring.
    latched: u32,
    /// DR_OE until the next read of DR has carried it.
    data_error: u32,
}

impl Registers {
    const UNPOWERED: Self = Self {
        ilpr: 0,
        ibrd: 0,
        fbrd: 0,
        lcr_h: 0,
        cr: 0,
        ifls: 0,
        imsc: 0,
        dmacr: 0,
        rsr: 0,
        latched: 0,
        data_error: 0,
    };

    const RESET: Self = Self {
        // RXE and TXE; UARTEN is off. As in QEMU's model bytes flow anyhow:
        // many small guests print without any set-up.
        cr: 0x300,
        // Both triggers at one half.
        ifls: 0x12,
        ..Self::UNPOWERED
    };
}

impl State {
    /// FR, RIS and MIS as [`Vpl011::published`] keeps them.
    const fn summary(&self) -> u64 {
        let raw = self.raw_interrupts();
        let masked = raw & self.registers.imsc;
        self.flags() as u64 | (raw as u64) << 16 | (masked as u64) << 32
    }

    const fn flags(&self) -> u32 {
        let unsent = self.unsent();
        let waiting = self.received.len();
        let mut flags = FR_CTS_DSR_DCD;
        flags |= if unsent == 0 { FR_TXFE } else { FR_BUSY };
        if unsent >= self.depth() {
            flags |= FR_TXFF;
        }
        if waiting == 0 {
            flags |= FR_RXFE;
        }
        if waiting >= self.depth() {
            flags |= FR_RXFF;
        }
        flags
    }

    const fn raw_interrupts(&self) -> u32 {
        let receive = if self.received.is_empty() {
            0
        } else if self.has_fifos() {
            INT_RX | INT_RT
        } else {
            INT_RX
        };
        self.registers.latched | receive
    }

    const fn has_fifos(&self) -> bool {
        self.registers.lcr_h & LCR_H_FEN != 0
    }

    const fn depth(&self) -> usize {
        if self.has_fifos() { FIFO_DEPTH } else { 1 }
    }

    /// Bytes in the transmit FIFO as the guest sees it.
    const fn unsent(&self) -> usize {
        FIFO_DEPTH.saturating_sub(self.sent.room())
    }

    /// Whether the transmit FIFO is fuller than the level in IFLS.TXIFLSEL.
    const fn is_above_trigger(&self) -> bool {
        let trigger = match (self.has_fifos(), self.registers.ifls & 7) {
            (false, _) => 0,
            (true, 0) => FIFO_DEPTH / 8,
            (true, 1) => FIFO_DEPTH / 4,
            (true, 3) => FIFO_DEPTH / 4 * 3,
            (true, 4) => FIFO_DEPTH / 8 * 7,
            // One half; the reserved values too.
            (true, _) => FIFO_DEPTH / 2,
        };
        self.unsent() > trigger
    }

    fn read_data(&mut self) -> u32 {
        let mut byte = [0];
        let _ = self.received.take_line(&mut byte);
        u32::from(byte[0]) | core::mem::take(&mut self.registers.data_error)
    }

    /// The registers that are neither DR nor published; zero for holes.
    fn read(&self, aligned: u64) -> u32 {
        let registers = &self.registers;
        match aligned {
            register::RSR_ECR => registers.rsr,
            register::ILPR => registers.ilpr,
            register::IBRD => registers.ibrd,
            register::FBRD => registers.fbrd,
            register::LCR_H => registers.lcr_h,
            register::CR => registers.cr,
            register::IFLS => registers.ifls,
            register::IMSC => registers.imsc,
            register::DMACR => registers.dmacr,
            register::IDENTIFICATION.. => {
                let index = (aligned - register::IDENTIFICATION) / 4;
                IDENTIFICATION.get(index as usize).copied().map_or(0, u32::from)
            }
            _ => 0,
        }
    }

    /// Returns whether the console has something new to take.
    fn write(&mut self, offset: u64, value: u32) -> bool {
        let registers = &mut self.registers;
        match offset {
            register::DR if registers.cr & CR_LBE != 0 => self.receive(value as u8),
            register::DR => {
                self.send(value as u8);
                return true;
            }
            register::RSR_ECR => registers.rsr = 0,
            register::ILPR => registers.ilpr = value & 0xff,
            register::IBRD => registers.ibrd = value & 0xffff,
            register::FBRD => registers.fbrd = value & 0x3f,
            register::LCR_H => {
                // Switching the FIFOs on or off empties the receiver.
                if (registers.lcr_h ^ value) & LCR_H_FEN != 0 {
                    self.received.clear();
                }
                registers.lcr_h = value & 0xff;
            }
            register::CR => registers.cr = value & 0xff87,
            register::IFLS => registers.ifls = value & 0x3f,
            register::IMSC => {
                let enabled = value & !registers.imsc;
                registers.imsc = value & INT_ALL;
                if enabled & INT_TX != 0 && !self.is_above_trigger() {
                    self.registers.latched |= INT_TX;
                }
            }
            register::ICR => registers.latched &= !value,
            register::DMACR => registers.dmacr = value & 7,
            _ => {}
        }
        false
    }

    fn send(&mut self, byte: u8) {
        self.sent.push(byte);
        if self.is_above_trigger() {
            self.registers.latched &= !INT_TX;
        } else {
            self.registers.latched |= INT_TX;
        }
    }

    fn receive(&mut self, byte: u8) {
        if self.received.room() == 0 {
            self.registers.rsr |= RSR_OE;
            self.registers.data_error = DR_OE;
            self.registers.latched |= INT_OE;
        } else {
            self.received.push(byte);
        }
    }
}

#[cfg(test)]
mod tests;
