//! How long to wait before the next attempt: exponential, with full jitter, so that a fleet that lost etcd in one
//! moment does not come back to it in one.

use std::time::Duration;

/// The upper bound of the first wait; it doubles with each attempt.
const FIRST: Duration = Duration::from_millis(100);

/// No wait is longer.
const LONGEST: Duration = Duration::from_secs(5);

/// Attempts since the last success.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    attempts: u32,
}

// === impl Backoff ===

impl Backoff {
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }

    /// The wait before the next attempt: none before the first, then anything up to the bound.
    pub(crate) fn next_wait(&mut self) -> Duration {
        let attempt = self.attempts;
        self.attempts = self.attempts.saturating_add(1);
        if attempt == 0 { Duration::ZERO } else { bound(attempt).mul_f64(fastrand::f64()) }
    }
}

fn bound(attempt: u32) -> Duration {
    FIRST.saturating_mul(1 << (attempt - 1).min(16)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_at_once_and_the_rest_are_bounded() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next_wait(), Duration::ZERO);
        for attempt in 1..100 {
            assert!(backoff.next_wait() <= bound(attempt));
            assert!(bound(attempt) <= LONGEST);
        }
        backoff.reset();
        assert_eq!(backoff.next_wait(), Duration::ZERO);
    }
}
