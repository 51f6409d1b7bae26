//! Chance that repeats.

use std::sync::{Mutex, PoisonError};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::Entropy;

/// A generator that gives the same bytes for the same seed. Not for production: its secrets can be guessed.
#[derive(Debug)]
pub struct SeededEntropy {
    generator: Mutex<StdRng>,
}

impl SeededEntropy {
    /// A generator with this seed.
    pub fn new(seed: u64) -> Self {
        Self { generator: Mutex::new(StdRng::seed_from_u64(seed)) }
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        self.generator.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let draw = |seed| {
            let entropy: Box<dyn Entropy> = Box::new(SeededEntropy::new(seed));
            [entropy.next_u64(), entropy.next_u64()]
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
