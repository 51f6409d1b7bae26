//! Chance that one seed decides: each part of a run draws from a stream of its own.

use std::sync::Arc;
use std::time::Duration;

use webhook_core::Entropy;
use webhook_core::testing::SeededEntropy;

/// One stream of random numbers.
#[derive(Clone, Debug)]
pub(crate) struct Chance {
    entropy: Arc<dyn Entropy>,
}

impl Chance {
    /// The stream of that name.
    pub(crate) fn new(seed: u64, stream: &str) -> Self {
        // FNV-1a: all it has to do is tell names apart.
        let name = stream
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Self { entropy: Arc::new(SeededEntropy::new(seed ^ name)) }
    }

    pub(crate) fn entropy(&self) -> Arc<dyn Entropy> {
        Arc::clone(&self.entropy)
    }

    /// A number below `bound`.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.entropy.next_u64() % bound.max(1)
    }

    /// True so many times in a thousand.
    pub(crate) fn hits(&self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// A time from `least` to `most`, in whole milliseconds.
    pub(crate) fn between(&self, least: Duration, most: Duration) -> Duration {
        let (least, most) = (millis(least), millis(most));
        Duration::from_millis(least + self.below(most.saturating_sub(least) + 1))
    }

    pub(crate) fn pick<'a, T>(&self, of: &'a [T]) -> Option<&'a T> {
        of.get(usize::try_from(self.below(of.len() as u64)).unwrap_or(0))
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
