//! Finished log frames that wait to be sent or asked for.
//!
//! A frame is what defmt's encoder makes of one log statement (rzCOBS): bytes
//! without a zero, then one zero. [`FrameRing`] keeps as many whole frames as
//! fit. When it is full, somebody's frame goes: the oldest while they are only
//! kept ([`FrameRing::keep`]), since a person who asks wants the latest; the new
//! one while they are being sent ([`FrameRing::offer`]), since a decoder wants no
//! hole in what it has begun to read.

/// A ring of `N` bytes of frames; `N` is a power of two.
pub struct FrameRing<const N: usize> {
    bytes: [u8; N],
    /// Bytes ever added and ever removed, modulo 2^32.
    added: u32,
    removed: u32,
    /// Frames that are gone without having been taken.
    dropped: u32,
}

impl<const N: usize> FrameRing<N> {
    /// An empty ring.
    pub const fn new() -> Self {
        const { assert!(N.is_power_of_two() && N < 1 << 31) };
        Self { bytes: [0; N], added: 0, removed: 0, dropped: 0 }
    }

    /// Adds `frame`, its final zero included, in place of the oldest ones.
    pub fn keep(&mut self, frame: &[u8]) {
        while self.room() < frame.len() && self.room() < N {
            self.skip();
            self.dropped = self.dropped.saturating_add(1);
        }
        self.offer(frame);
    }

    /// Adds `frame` if there is room.
    pub fn offer(&mut self, frame: &[u8]) {
        if self.room() < frame.len() {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        for &byte in frame {
            if let Some(slot) = self.bytes.get_mut(self.added as usize % N) {
                *slot = byte;
            }
            self.added = self.added.wrapping_add(1);
        }
    }

    /// Takes the oldest frame into `buffer`; its final zero is the last byte
    /// given. A frame longer than `buffer` loses its end.
    pub fn take<'a>(&mut self, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        let mut count = 0;
        while let Some(byte) = self.next() {
            if let Some(slot) = buffer.get_mut(count) {
                *slot = byte;
                count += 1;
            }
            if byte == 0 {
                return buffer.get(..count);
            }
        }
        None
    }

    /// Whether no frame is inside.
    pub const fn is_empty(&self) -> bool {
        self.added == self.removed
    }

    /// Frames dropped since this was last asked.
    pub const fn take_dropped(&mut self) -> u32 {
        core::mem::replace(&mut self.dropped, 0)
    }

    const fn room(&self) -> usize {
        N - self.added.wrapping_sub(self.removed) as usize
    }

    fn skip(&mut self) {
        while self.next().is_some_and(|byte| byte != 0) {}
    }

    fn next(&mut self) -> Option<u8> {
        if self.is_empty() {
            return None;
        }
        let byte = self.bytes.get(self.removed as usize % N).copied();
        self.removed = self.removed.wrapping_add(1);
        byte
    }
}

impl<const N: usize> Default for FrameRing<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::FrameRing;

    fn all<const N: usize>(ring: &mut FrameRing<N>) -> Vec<Vec<u8>> {
        let mut buffer = [0; 16];
        std::iter::from_fn(|| ring.take(&mut buffer).map(<[u8]>::to_vec)).collect()
    }

    #[test]
    fn kept_frames_are_the_latest() {
        let mut ring = FrameRing::<8>::new();
        for frame in [b"ab\0", b"cd\0", b"ef\0", b"gh\0"] {
            ring.keep(frame);
        }
        assert_eq!(all(&mut ring), [b"ef\0", b"gh\0"]);
        assert_eq!((ring.take_dropped(), ring.take_dropped()), (2, 0));
    }

    #[test]
    fn frames_being_sent_are_never_pushed_out() {
        let mut ring = FrameRing::<8>::new();
        for frame in [b"ab\0", b"cd\0", b"ef\0"] {
            ring.offer(frame);
        }
        assert_eq!(all(&mut ring), [b"ab\0", b"cd\0"]);
        assert_eq!(ring.take_dropped(), 1);
    }

    #[test]
    fn a_frame_larger_than_the_ring_is_dropped() {
        let mut ring = FrameRing::<4>::new();
        ring.keep(b"abcdefg\0");
        assert!(ring.is_empty());
        assert_eq!(ring.take_dropped(), 1);
    }
}
