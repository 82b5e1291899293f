//! When endpoints are ejected, and for how long.

use super::member::Tally;
use crate::{EndpointState, Gate};
use std::time::Duration;

/// What counts as an outlier. The defaults are those of A50, with every rule on.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct OutlierSettings {
    /// How often success rates and failure percentages are looked at: 10 s by default, at least 1 ms.
    pub interval: Duration,
    /// How long an ejection lasts, times the number of times that the endpoint was ejected: 30 s by default. That
    /// number falls by one with each interval that ends without the endpoint being ejected.
    pub base_ejection_time: Duration,
    /// The longest that an ejection lasts: 300 s by default, and at least as long as the base.
    pub max_ejection_time: Duration,
    /// No more are ejected once so many percent of all endpoints are: 10 by default. One may always be, unless it is 0.
    pub max_ejection_percent: u8,
    /// While less than so many percent of all endpoints take calls and are not ejected, ejected ones are used as
    /// well: 50 by default, 0 for never. If most of the fleet looks bad, the fault is likely elsewhere, and the few
    /// that look good would go down under the calls of all.
    pub panic_threshold: u8,
    /// Ejects an endpoint after so many failures in a row: 5 by default.
    pub consecutive_failures: Option<u32>,
    /// Ejects endpoints whose success rate is far below that of the others.
    pub success_rate: Option<SuccessRate>,
    /// Ejects endpoints of whose calls so many fail, whatever the others do.
    pub failure_percentage: Option<FailurePercentage>,
}

/// Ejects an endpoint whose success rate in an interval is below `mean - stdev * factor`, over all endpoints with
/// enough calls.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SuccessRate {
    /// How many standard deviations below the mean: 1.9 by default.
    pub stdev_factor: f64,
    /// How many percent of those that it would eject are ejected, by chance: 100 by default, 0 for none.
    pub enforcement_percentage: u8,
    /// Endpoints with enough calls that there must be, for there to be a mean: 5 by default.
    pub minimum_hosts: usize,
    /// Calls in an interval that are enough: 100 by default.
    pub request_volume: u64,
}

/// Ejects an endpoint of whose calls in an interval more than a threshold have failed.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FailurePercentage {
    /// In percent: 85 by default.
    pub threshold: u8,
    /// How many percent of those that it would eject are ejected, by chance: 100 by default, 0 for none.
    pub enforcement_percentage: u8,
    /// Endpoints that there must be: 5 by default.
    pub minimum_hosts: usize,
    /// Calls in an interval that are enough: 50 by default.
    pub request_volume: u64,
}

const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);
/// A century: no time is so far off that it cannot be told.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 86_400);

// === impl OutlierSettings ===

impl Default for OutlierSettings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_percent: 10,
            panic_threshold: 50,
            consecutive_failures: Some(5),
            success_rate: Some(SuccessRate::default()),
            failure_percentage: Some(FailurePercentage::default()),
        }
    }
}

impl OutlierSettings {
    /// Whether failures in a row are enough to [examine](super::OutlierDetector::examine) an endpoint. For every call
    /// that fails: it reads two words.
    pub fn suspects(&self, endpoint: &EndpointState) -> bool {
        self.consecutive_failures.is_some_and(|most| endpoint.consecutive_failures() >= most.max(1))
            && endpoint.gate() != Gate::Ejected
    }

    pub(super) fn interval(&self) -> Duration {
        self.interval.clamp(SHORTEST_INTERVAL, LONGEST)
    }

    /// The nth ejection.
    pub(super) fn ejection_time(&self, nth: u32) -> Duration {
        let most = self.max_ejection_time.max(self.base_ejection_time);
        self.base_ejection_time.saturating_mul(nth).min(most).min(LONGEST)
    }
}

// === impl SuccessRate ===

impl Default for SuccessRate {
    fn default() -> Self {
        Self { stdev_factor: 1.9, enforcement_percentage: 100, minimum_hosts: 5, request_volume: 100 }
    }
}

impl SuccessRate {
    /// What every endpoint has to reach; `None` if there are too few with enough calls.
    pub(super) fn threshold(&self, tallies: &[Tally]) -> Option<f64> {
        let rates: Vec<f64> = tallies
            .iter()
            .filter(|tally| tally.volume() >= self.request_volume)
            .map(Tally::success_rate)
            .collect();
        if rates.is_empty() || rates.len() < self.minimum_hosts {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "a number of endpoints")]
        let count = rates.len() as f64;
        let mean = rates.iter().sum::<f64>() / count;
        let variance = rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / count;
        Some(mean - variance.sqrt() * self.stdev_factor)
    }
}

// === impl FailurePercentage ===

impl Default for FailurePercentage {
    fn default() -> Self {
        Self { threshold: 85, enforcement_percentage: 100, minimum_hosts: 5, request_volume: 50 }
    }
}
