//! Damage to a tree, the same for the same seed.

/// A source of damage.
pub(crate) struct Mutator(u64);

impl Mutator {
    /// One that does always the same for `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Overwrites a few words, bytes or a stretch of `blob`. Words get what a tree gives a meaning to: tokens, small
    /// counts, the largest numbers.
    pub(crate) fn damage(&mut self, blob: &mut [u8]) {
        const WORDS: [u32; 9] = [0, 1, 2, 3, 4, 9, 0x7fff_ffff, 0x8000_0000, u32::MAX];
        for _ in 0..1 + self.below(8) {
            match self.below(4) {
                0 => {
                    let at = self.below(blob.len());
                    blob[at] = self.next() as u8;
                }
                1 => {
                    let (start, length) = (self.below(blob.len()), self.below(64));
                    let end = (start + length).min(blob.len());
                    blob[start..end].fill(self.next() as u8);
                }
                _ => {
                    // Half of these meet the header, which everything else hangs on.
                    let words = if self.below(2) == 0 { 10 } else { blob.len() / 4 };
                    let at = self.below(words) * 4;
                    let word = WORDS[self.below(WORDS.len())];
                    blob[at..at + 4].copy_from_slice(&word.to_be_bytes());
                }
            }
        }
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Xorshift64: enough to spread damage.
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
