//! How long to wait before the next attempt: exponential, with full jitter, without a clock and without a source of
//! randomness.
//!
//! Full jitter (a uniform wait between zero and the ceiling) is what spreads a thousand processes that lost the same
//! etcd in the same moment.

use std::time::Duration;

/// The waits between attempts, and how many attempts have failed.
///
/// ```
/// use std::time::Duration;
/// use waypost_etcd::Backoff;
/// let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
/// let ceilings: Vec<u128> = (0..5).map(|_| backoff.fail(1.0).as_millis()).collect();
/// assert_eq!(ceilings, [100, 200, 400, 800, 1000]);
/// ```
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    eager: bool,
    failures: u32,
}

// === impl Backoff ===

impl Backoff {
    /// A schedule whose ceilings are `first`, twice that, four times that … `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest: longest.max(first), eager: false, failures: 0 }
    }

    /// The same, but after the first failure the next attempt is made at once: for what may go to another endpoint.
    pub fn eager(first: Duration, longest: Duration) -> Self {
        Self { eager: true, ..Self::new(first, longest) }
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Counts a failure and answers the wait before the next attempt. `random` is uniform in `0.0..1.0`.
    pub fn fail(&mut self, random: f64) -> Duration {
        let steps = if self.eager { self.failures.checked_sub(1) } else { Some(self.failures) };
        self.failures = self.failures.saturating_add(1);
        // 2^31 times any first wait is beyond any longest one that is in use; the shift cannot overflow.
        let ceiling = |steps: u32| self.first.saturating_mul(1 << steps.min(31)).min(self.longest);
        steps.map_or(Duration::ZERO, ceiling).mul_f64(random.clamp(0.0, 1.0))
    }

    /// A success: the next failure begins anew.
    pub fn succeed(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(10);

    #[test]
    fn ceilings_double_up_to_the_longest_and_start_again_after_a_success() {
        let mut backoff = Backoff::new(FIRST, LONGEST);
        let ceilings: Vec<u128> = (0..9).map(|_| backoff.fail(1.0).as_millis()).collect();
        assert_eq!(ceilings, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        backoff.succeed();
        assert_eq!(backoff.failures(), 0);
        assert_eq!(backoff.fail(1.0), FIRST);
    }

    #[test]
    fn an_eager_one_does_not_wait_the_first_time() {
        let mut backoff = Backoff::eager(FIRST, LONGEST);
        assert_eq!(
            [backoff.fail(1.0), backoff.fail(1.0), backoff.fail(1.0)],
            [Duration::ZERO, FIRST, FIRST * 2]
        );
    }

    proptest! {
        #[test]
        fn a_wait_is_within_the_longest(failures in 0_u32..200, random in 0.0_f64..1.0, eager: bool) {
            let mut backoff = if eager { Backoff::eager(FIRST, LONGEST) } else { Backoff::new(FIRST, LONGEST) };
            for _ in 0..failures {
                let _ = backoff.fail(0.5);
            }
            prop_assert!(backoff.fail(random) <= LONGEST);
            prop_assert_eq!(backoff.failures(), failures + 1);
        }
    }
}
