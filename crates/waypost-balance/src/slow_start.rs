//! Slow start: an endpoint that has just come, or come back, gets its full share by and by.

use crate::choose::scale;
use crate::{EndpointState, PickRequest, Picker, Policy, Roster};
use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Puts a slow start in front of a policy: an endpoint that is new, has reconnected, or returns from an ejection gets
/// a tenth of its share at first, and more from call to call until it has all of it after
/// [`window`](Self::with_window). Caches are cold then, code is not compiled, pools are empty; and one that was
/// ejected may fail again.
///
/// As in Envoy, the share after the time `t` is `max(least, (t / window) ^ (1 / aggression))`. The time counts from
/// the first call after it came or came back. The share is kept by refusing picks: of an endpoint whose share is a
/// fifth four picks of five are taken back, and the policy is asked again, up to four times for a call. Where
/// everything is new, so that there is nothing to compare with, one of the picks counts.
///
/// For the policies that do not hash: under one that does, the same pick comes back, so nothing changes.
///
/// ```
/// use std::time::Duration;
/// use waypost_balance::{LeastRequest, SlowStart};
///
/// let policy = SlowStart::new(LeastRequest::default()).with_window(Duration::from_secs(60));
/// ```
#[derive(Debug, Clone)]
pub struct SlowStart<P> {
    policy: P,
    ramp: Ramp,
}

/// How the share grows.
#[derive(Debug, Clone, Copy)]
struct Ramp {
    window: Duration,
    aggression: f64,
    least: f64,
}

struct SlowStartPicker {
    ready: Roster,
    picker: Arc<dyn Picker>,
    ramp: Ramp,
}

/// How often a pick is taken back for one call.
const MOST_REFUSALS: u32 = 4;

// === impl SlowStart ===

impl<P: Policy> SlowStart<P> {
    /// Over 30 s, in a straight line from a tenth.
    pub fn new(policy: P) -> Self {
        Self { policy, ramp: Ramp { window: Duration::from_secs(30), aggression: 1.0, least: 0.1 } }
    }

    /// How long it takes: 30 s by default. None at all for a window of zero.
    pub fn with_window(mut self, window: Duration) -> Self {
        self.ramp.window = window;
        self
    }

    /// Above 1 the share grows fast first and slowly then; below 1 the other way round. 1 by default; at least 0.1.
    pub fn with_aggression(mut self, aggression: f64) -> Self {
        self.ramp.aggression = aggression.max(0.1);
        self
    }

    /// The share to begin with, between 0.01 and 1: 0.1 by default.
    pub fn with_least_share(mut self, share: f64) -> Self {
        self.ramp.least = share.clamp(0.01, 1.0);
        self
    }
}

impl<P: Policy> Policy for SlowStart<P> {
    fn name(&self) -> &'static str {
        self.policy.name()
    }

    fn build(&self, ready: Roster, previous: Option<&dyn Picker>) -> Arc<dyn Picker> {
        let previous = previous.and_then(|previous| (previous as &dyn Any).downcast_ref::<SlowStartPicker>());
        // Who was not in the last set has come, or come back.
        let known = previous.map_or(&[][..], |previous| &previous.ready);
        for endpoint in ready.newcomers(known) {
            endpoint.restart_slow_start();
        }
        let picker = self.policy.build(ready.clone(), previous.map(|previous| &*previous.picker));
        Arc::new(SlowStartPicker { ready, picker, ramp: self.ramp })
    }
}

// === impl Ramp ===

impl Ramp {
    /// The share of an endpoint, in (0, 1].
    fn share(&self, endpoint: &EndpointState, now: Instant) -> f64 {
        let warm_for = endpoint.warm_for(now);
        if warm_for >= self.window {
            return 1.0;
        }
        // Not 0, since `warm_for` is less.
        let part = warm_for.as_secs_f64() / self.window.as_secs_f64();
        part.powf(self.aggression.recip()).max(self.least)
    }
}

// === impl SlowStartPicker ===

impl Picker for SlowStartPicker {
    fn pick(&self, request: &PickRequest<'_>) -> Option<usize> {
        let mut picked = self.picker.pick(request)?;
        let mut share = self.ramp.share(self.ready.get(picked)?, request.now);
        if share >= 1.0 || chance(request, share) {
            return Some(picked);
        }
        // Among picks that were all refused, one counts by its share of the sum of the shares.
        let mut sum = share;
        for _ in 0..MOST_REFUSALS {
            let next = self.picker.pick(request)?;
            share = self.ramp.share(self.ready.get(next)?, request.now);
            if share >= 1.0 || chance(request, share) {
                return Some(next);
            }
            sum += share;
            if chance(request, share / sum) {
                picked = next;
            }
        }
        Some(picked)
    }
}

fn chance(request: &PickRequest<'_>, probability: f64) -> bool {
    const STEPS: u64 = 1 << 32;
    #[expect(clippy::cast_precision_loss, reason = "both are 2^32 at most")]
    let drawn = scale((request.random)(), STEPS) as f64 / STEPS as f64;
    drawn < probability
}
