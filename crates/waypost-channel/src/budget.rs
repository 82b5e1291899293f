//! How many calls may be tried again: retries must not become the load that keeps a fleet down.

use crate::service_config::Throttling;
use crate::settings::RetryPolicy;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

/// The token bucket of gRFC A6, with a floor. Lock-free.
#[derive(Debug)]
pub(crate) struct Budget {
    /// In thousandths of a token.
    tokens: AtomicU32,
    max: u32,
    per_success: u32,
    floor_per_second: u32,
    start: Instant,
    /// The second since `start` in the upper half, retries granted by the floor within it in the lower.
    floor: AtomicU64,
}

/// A token, in the unit of the bucket.
const TOKEN: u32 = 1000;
/// gRFC A6 allows no larger bucket.
const MOST_TOKENS: u32 = 1000;

// === impl Budget ===

impl Budget {
    pub(crate) fn new(policy: &RetryPolicy, now: Instant) -> Self {
        let max = policy.max_tokens.min(MOST_TOKENS) * TOKEN;
        Self {
            tokens: AtomicU32::new(max),
            max,
            per_success: thousandths(policy.token_ratio),
            floor_per_second: policy.floor_per_second,
            start: now,
            floor: AtomicU64::new(0),
        }
    }

    /// As the service config asks for, without a floor; otherwise as the channel was built.
    pub(crate) fn of(throttling: Option<Throttling>, policy: &RetryPolicy, now: Instant) -> Self {
        let Some(throttling) = throttling else { return Self::new(policy, now) };
        let unlimited = Self::new(&policy.with_budget(throttling.max_tokens, 0.0, 0), now);
        Self { per_success: throttling.token_ratio_thousandths, ..unlimited }
    }

    /// A call went well.
    pub(crate) fn deposit(&self) {
        let more =
            |tokens: u32| (tokens < self.max).then(|| tokens.saturating_add(self.per_success).min(self.max));
        // Full: there is nothing to add.
        let _ = self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// A call failed in a way that could be tried again. Says whether it may be.
    pub(crate) fn withdraw(&self, now: Instant) -> bool {
        let less = |tokens: u32| Some(tokens.saturating_sub(TOKEN));
        let before = self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).unwrap_or_default();
        before.saturating_sub(TOKEN) > self.max / 2 || self.within_floor(now)
    }

    /// Whether more than half of the tokens are there. Takes none: for what has not failed.
    pub(crate) fn allows(&self) -> bool {
        self.tokens.load(Ordering::Relaxed) > self.max / 2
    }

    fn within_floor(&self, now: Instant) -> bool {
        let second = now.saturating_duration_since(self.start).as_secs() & u64::from(u32::MAX);
        let grant = |packed: u64| {
            let used = if packed >> 32 == second { packed & u64::from(u32::MAX) } else { 0 };
            (used < u64::from(self.floor_per_second)).then_some(second << 32 | (used + 1))
        };
        self.floor.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grant).is_ok()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0..=MOST_TOKENS tokens"
)]
fn thousandths(tokens: f64) -> u32 {
    let most = f64::from(MOST_TOKENS);
    (if tokens.is_nan() { 0.0 } else { tokens.clamp(0.0, most) } * f64::from(TOKEN)).round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn budget(max: u32, ratio: f64, floor: u32) -> (Budget, Instant) {
        let now = Instant::now();
        (Budget::new(&RetryPolicy::default().with_budget(max, ratio, floor), now), now)
    }

    #[test]
    fn there_are_retries_until_the_bucket_is_half_empty() {
        let (budget, now) = budget(10, 0.1, 0);
        let granted: Vec<_> = (0..7).map(|_| budget.withdraw(now)).collect();
        assert_eq!(granted, [true, true, true, true, false, false, false]);
        for _ in 0..31 {
            budget.deposit();
        }
        assert!(budget.withdraw(now), "3 + 3.1 - 1 is more than 5");
        assert!(!budget.withdraw(now));
    }

    #[test]
    fn the_floor_is_per_second() {
        let (budget, now) = budget(0, 0.0, 2);
        for second in [0, 1, 5] {
            let at = now + Duration::from_secs(second);
            assert_eq!([budget.withdraw(at), budget.withdraw(at), budget.withdraw(at)], [true, true, false]);
        }
    }

    proptest! {
        #[test]
        fn retries_are_at_most_half_the_bucket_and_the_share_of_successes(
            max in 0_u32..2000, ratio in 0.0..2.0, events in prop::collection::vec(any::<bool>(), 0..2000),
        ) {
            let (budget, now) = budget(max, ratio, 0);
            let (mut granted, mut successes) = (0_u32, 0_u32);
            for success in events {
                if success {
                    budget.deposit();
                    successes += 1;
                } else {
                    granted += u32::from(budget.withdraw(now));
                }
                let bound = f64::from(max.min(1000)) / 2.0 + f64::from(successes) * (ratio + 0.0005);
                prop_assert!(f64::from(granted) <= bound, "{granted} retries after {successes} successes");
            }
        }

        #[test]
        fn no_numbers_make_it_panic(max in any::<u32>(), ratio in any::<f64>(), floor in any::<u32>(), later in any::<u32>()) {
            let (budget, now) = budget(max, ratio, floor);
            for _ in 0..3 {
                budget.deposit();
                budget.withdraw(now + Duration::from_secs(u64::from(later)));
            }
        }
    }
}
