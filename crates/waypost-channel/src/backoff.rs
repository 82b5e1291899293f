//! How long to wait before connecting again.

use std::time::Duration;

/// Waiting times between attempts to connect to one endpoint: exponential, with jitter.
///
/// gRPC's own (1 s growing to 120 s) keeps an instance that was restarted out of service for a minute; instances here are
/// known to be registered, so they are tried sooner. The first attempt after a connection that had held is made at once.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Backoff {
    /// Before the second attempt: 50 ms by default.
    pub base: Duration,
    /// How much longer each further wait is: 1.6 by default; less than 1 counts as 1.
    pub factor: f64,
    /// The longest wait, before jitter: 5 s by default.
    pub max: Duration,
    /// Each wait is longer or shorter by up to this share of it: 0.2 by default, at most 1.
    pub jitter: f64,
}

// === impl Backoff ===

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_millis(50), factor: 1.6, max: Duration::from_secs(5), jitter: 0.2 }
    }
}

impl Backoff {
    /// With another first and longest wait.
    pub fn new(base: Duration, max: Duration) -> Self {
        Self { base, max, ..Self::default() }
    }

    /// The wait after `failures` attempts in a row have failed (at least 1); `random` is uniform in `0.0..1.0`.
    pub(crate) fn delay(&self, failures: u32, random: f64) -> Duration {
        let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
        let grown = self.base.as_secs_f64() * self.factor.max(1.0).powi(exponent);
        let capped = grown.min(self.max.as_secs_f64());
        let jittered = capped * (1.0 + self.jitter.clamp(0.0, 1.0) * (2.0 * random - 1.0));
        Duration::try_from_secs_f64(jittered).unwrap_or(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn waits_grow_to_the_longest() {
        let backoff = Backoff { jitter: 0.0, ..Backoff::default() };
        let delays: Vec<_> = [1, 2, 3, 10, u32::MAX].map(|n| backoff.delay(n, 0.5).as_millis()).to_vec();
        assert_eq!(delays, [50, 80, 128, 3435, 5000]);
    }

    proptest! {
        #[test]
        fn no_input_makes_it_panic_or_wait_longer_than_twice_the_longest(
            base in any::<u64>(), max in 0_u64..1_000_000_000, factor in any::<f64>(), jitter in any::<f64>(),
            failures in any::<u32>(), random in 0.0..1.0,
        ) {
            let max = Duration::from_millis(max);
            let backoff = Backoff { base: Duration::from_millis(base), factor, max, jitter };
            prop_assert!(backoff.delay(failures, random) <= max * 2);
        }
    }
}
