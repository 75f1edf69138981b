//! Random seeds for guests.
//!
//! Each guest gets its own, in its device tree (`rng-seed`, `kaslr-seed`).
//! They are drawn from ChaCha20, keyed once at boot with everything here that
//! an attacker inside a guest can't know: the seed that firmware put into our
//! own device tree, the processor's random numbers where it has them, and the
//! counter. Without the first two the counter alone is a weak key; boot says so.

use crate::arch;
use crate::guest::dtb::RNG_SEED_LEN;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A source of seeds.
pub struct Seeds(ChaCha20Rng);

/// How good the key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quality {
    /// Firmware or the processor gave us random bytes.
    Good,
    /// Only the counter.
    Weak,
}

impl Seeds {
    /// Keyed from firmware's `seed` (any length), the processor and the counter.
    pub fn new(seed: &[u8]) -> (Self, Quality) {
        let mut key = [0u8; 32];
        let mut mix = |at: usize, bytes: &[u8]| {
            let slots = (0..key.len()).cycle().skip(at).take(bytes.len());
            for (slot, byte) in slots.zip(bytes) {
                key[slot % 32] ^= byte;
            }
        };
        mix(0, &arch::counter().to_le_bytes());
        mix(8, seed);
        let mut processor = false;
        for at in [0, 8, 16, 24] {
            if let Some(number) = arch::random() {
                mix(at, &number.to_le_bytes());
                processor = true;
            }
        }
        let quality = if processor || seed.len() >= 16 { Quality::Good } else { Quality::Weak };
        (Self(ChaCha20Rng::from_seed(key)), quality)
    }

    /// A guest's `rng-seed`.
    pub fn seed(&mut self) -> [u8; RNG_SEED_LEN] {
        let mut seed = [0; RNG_SEED_LEN];
        self.0.fill_bytes(&mut seed);
        seed
    }

    /// A guest's `kaslr-seed`.
    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }
}

#[cfg(test)]
mod tests {
    use super::Seeds;

    #[test]
    fn no_two_seeds_are_alike() {
        let (mut seeds, _) = Seeds::new(&[7; 32]);
        let (first, second) = (seeds.seed(), seeds.seed());
        assert_ne!(first, second);
        assert_ne!(seeds.number(), seeds.number());
    }

    #[test]
    fn firmware_seed_changes_everything() {
        let ((mut one, _), (mut other, _)) = (Seeds::new(&[1; 32]), Seeds::new(&[2; 32]));
        assert_ne!(one.seed(), other.seed());
    }
}
