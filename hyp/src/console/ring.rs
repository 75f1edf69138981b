//! A fixed ring of text bytes that remembers what it had to refuse.
//!
//! Every source of console output owns one: each guest's UART
//! ([`crate::vpl011`]) and the hypervisor's own lines. The producer pushes
//! single bytes or whole lines, the console takes runs that end with a line
//! ([`ByteRing::take_line`]). Bytes that did not fit are counted, and the count
//! comes out at the very place in the stream where they are missing, so that a
//! reader of the console can never mistake a gap for silence.

/// What one [`ByteRing::take_line`] gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Bytes written to the caller's buffer.
    pub count: usize,
    /// Bytes that are missing from the stream *before* those.
    pub lost: u32,
}

/// A ring of `N` bytes; `N` is a power of two.
pub struct ByteRing<const N: usize> {
    bytes: [u8; N],
    /// Bytes ever pushed, modulo 2^32.
    pushed: u32,
    /// Bytes ever taken, modulo 2^32; `pushed - taken` are inside.
    taken: u32,
    /// Bytes refused since the last gap was reported.
    lost: u32,
    /// Value of `pushed` at the first of them.
    lost_at: u32,
}

impl<const N: usize> ByteRing<N> {
    /// An empty ring.
    pub const fn new() -> Self {
        const { assert!(N.is_power_of_two() && N < 1 << 31) };
        Self { bytes: [0; N], pushed: 0, taken: 0, lost: 0, lost_at: 0 }
    }

    /// Bytes inside.
    pub const fn len(&self) -> usize {
        self.pushed.wrapping_sub(self.taken) as usize
    }

    /// Whether there is nothing to take, not even a gap to report.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0 && self.lost == 0
    }

    /// Bytes that still fit.
    pub const fn room(&self) -> usize {
        N - self.len()
    }

    /// Forgets everything inside.
    pub const fn clear(&mut self) {
        self.taken = self.pushed;
        self.lost = 0;
    }

    /// Adds `byte`, or counts it as lost if the ring is full.
    pub fn push(&mut self, byte: u8) {
        if self.len() < N {
            self.store(byte);
        } else {
            self.lose(1);
        }
    }

    /// Adds all of `parts`, one behind the other, or, if they don't fit, none:
    /// half a line helps nobody, and what follows it would be read as its end.
    pub fn push_whole(&mut self, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length <= self.room() {
            for &byte in parts.iter().copied().flatten() {
                self.store(byte);
            }
        } else {
            self.lose(length as u32);
        }
    }

    /// Takes bytes up to and with the next `\n`, the next gap, or as many as
    /// `buffer` holds. A gap is reported once, by the call that reaches it.
    pub fn take_line(&mut self, buffer: &mut [u8]) -> Taken {
        let mut lost = 0;
        if self.lost != 0 && self.taken == self.lost_at {
            lost = core::mem::take(&mut self.lost);
        }
        let end = if self.lost == 0 { self.pushed } else { self.lost_at };
        let mut count = 0;
        for slot in buffer {
            if self.taken == end {
                break;
            }
            let byte = self.load(self.taken);
            self.taken = self.taken.wrapping_add(1);
            *slot = byte;
            count += 1;
            if byte == b'\n' {
                break;
            }
        }
        Taken { count, lost }
    }

    fn store(&mut self, byte: u8) {
        let at = self.pushed as usize % N;
        if let Some(slot) = self.bytes.get_mut(at) {
            *slot = byte;
        }
        self.pushed = self.pushed.wrapping_add(1);
    }

    fn load(&self, at: u32) -> u8 {
        self.bytes.get(at as usize % N).copied().unwrap_or(0)
    }

    fn lose(&mut self, count: u32) {
        if self.lost == 0 {
            self.lost_at = self.pushed;
        }
        self.lost = self.lost.saturating_add(count);
    }
}

impl<const N: usize> Default for ByteRing<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::{ByteRing, Taken};

    fn take<const N: usize>(ring: &mut ByteRing<N>) -> (Vec<u8>, u32) {
        let mut buffer = [0; 16];
        let Taken { count, lost } = ring.take_line(&mut buffer);
        (buffer[..count].to_vec(), lost)
    }

    #[test]
    fn a_take_ends_with_the_line() {
        let mut ring = ByteRing::<16>::new();
        ring.push_whole(&[b"one\n", b"two"]);
        assert_eq!(take(&mut ring), (b"one\n".to_vec(), 0));
        assert_eq!(take(&mut ring), (b"two".to_vec(), 0));
        assert_eq!(take(&mut ring), (b"".to_vec(), 0));
    }

    #[test]
    fn bytes_keep_their_order_across_the_wrap() {
        let mut ring = ByteRing::<4>::new();
        for round in 0..10u8 {
            ring.push_whole(&[&[round, round + 100, round + 50]]);
            assert_eq!(take(&mut ring).0, [round, round + 100, round + 50]);
        }
    }

    #[test]
    fn a_gap_is_reported_where_it_is() {
        let mut ring = ByteRing::<4>::new();
        for byte in *b"abcdXY" {
            ring.push(byte);
        }
        let mut two = [0; 2];
        assert_eq!(ring.take_line(&mut two), Taken { count: 2, lost: 0 });
        ring.push_whole(&[b"e"]);
        assert_eq!(take(&mut ring), (b"cd".to_vec(), 0));
        assert_eq!(take(&mut ring), (b"e".to_vec(), 2));
    }

    #[test]
    fn losses_that_nobody_saw_yet_add_up() {
        let mut ring = ByteRing::<2>::new();
        ring.push_whole(&[b"abc"]);
        assert!(!ring.is_empty(), "the gap is news");
        ring.push_whole(&[b"ab"]);
        ring.push(b'z');
        assert_eq!(take(&mut ring), (b"ab".to_vec(), 4));
        assert!(ring.is_empty());
    }
}
