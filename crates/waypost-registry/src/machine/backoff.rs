//! The schedule of retries: exponential, with full jitter, without a clock and without a source of randomness.
//!
//! Full jitter (a uniform delay between zero and the ceiling) from the first retry on is what spreads a thousand
//! registrants that lost the same etcd at the same moment.

use std::time::Duration;

/// How long to wait before the next attempt, and how many attempts there have been.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    base: Duration,
    cap: Duration,
    attempt: u32,
}

// === impl Backoff ===

impl Backoff {
    /// A schedule whose ceilings are `base`, `2·base`, `4·base` … `cap`.
    pub(crate) fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap: cap.max(base), attempt: 0 }
    }

    /// Failures since the last success.
    pub(crate) fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Counts a failure and answers the delay before the next attempt. `random` is uniform in `0.0..1.0`.
    pub(crate) fn fail(&mut self, random: f64) -> Duration {
        let ceiling = self.ceiling();
        self.attempt = self.attempt.saturating_add(1);
        ceiling.mul_f64(random.clamp(0.0, 1.0))
    }

    /// A success: the next failure starts from `base` again.
    pub(crate) fn succeed(&mut self) {
        self.attempt = 0;
    }

    fn ceiling(&self) -> Duration {
        // 2^31 times any base is beyond any cap that is in use; the shift cannot overflow.
        self.base.saturating_mul(1 << self.attempt.min(31)).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ceilings_double_up_to_the_cap_and_start_again_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        let ceilings: Vec<u128> = (0..9).map(|_| backoff.fail(1.0).as_millis()).collect();
        assert_eq!(ceilings, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        backoff.succeed();
        assert_eq!(backoff.attempt(), 0);
        assert_eq!(backoff.fail(1.0), Duration::from_millis(100));
    }

    proptest! {
        #[test]
        fn a_delay_is_within_its_ceiling(failures in 0_u32..200, random in 0.0_f64..1.0) {
            let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
            for _ in 0..failures {
                let _ = backoff.fail(0.5);
            }
            prop_assert!(backoff.fail(random) <= Duration::from_secs(10));
            prop_assert_eq!(backoff.attempt(), failures + 1);
        }
    }
}
