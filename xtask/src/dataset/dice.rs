//! Random numbers that are the same on every machine: ChaCha8, integers, and own helpers.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

/// A random stream, determined by the seed and a label, so that streams are independent of one another.
pub(super) struct Dice(ChaCha8Rng);

impl Dice {
    /// The stream with this label.
    pub(super) fn new(seed: u64, label: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(seed.to_le_bytes());
        hash.update(label.as_bytes());
        Self(ChaCha8Rng::from_seed(hash.finalize().into()))
    }

    /// A uniform whole number from 0 to `n - 1`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        let n = u32::try_from(n).expect("small pools");
        assert!(n > 0, "nothing to choose from");
        let fair = u32::MAX - u32::MAX % n;
        loop {
            let drawn = self.0.next_u32();
            if drawn < fair {
                return (drawn % n) as usize;
            }
        }
    }

    /// True with a probability of `percent` %.
    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// A random one of `items`.
    pub(super) fn choose<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// Shuffles `items` (Fisher–Yates).
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last + 1);
            items.swap(last, other);
        }
    }
}
