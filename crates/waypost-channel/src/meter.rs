//! What is counted of each endpoint, and of a channel as a whole: in atomics, read when someone asks.

use crate::code::{self, CODES};
use crate::stats::CallStats;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tonic::Code;

/// How long calls have taken, counted in buckets.
///
/// ```
/// # use waypost_channel::LatencyHistogram;
/// # fn example(latency: LatencyHistogram) {
/// if let Some(median) = latency.quantile(0.5) {
///     println!("{} calls, half of them within {median:?}", latency.count());
/// }
/// # }
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct LatencyHistogram {
    counts: [u64; BUCKETS],
    sum: Duration,
}

/// Calls that have ended, by status: only codes that have occurred.
pub type CodeCounts = Vec<(Code, u64)>;

/// What is counted of one endpoint, besides what balancing needs. What most calls count is close together.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Meter {
    pub(crate) picks: AtomicU64,
    pub(crate) codes: Codes,
    pub(crate) latency: Latency,
}

/// What is counted of the calls of a channel.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) codes: Codes,
    pub(crate) latency: Latency,
    pub(crate) retries: AtomicU64,
    pub(crate) hedges: AtomicU64,
    pub(crate) unprocessed: AtomicU64,
    pub(crate) rejected_configs: AtomicU64,
}

/// By gRPC code.
#[derive(Debug, Default)]
pub(crate) struct Codes([AtomicU64; CODES]);

/// A [`LatencyHistogram`] that is counted in.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Latency {
    nanos: AtomicU64,
    counts: [AtomicU64; BUCKETS],
}

const BUCKETS: usize = BOUNDS.len() + 1;
/// Upper bounds of all buckets but the last, in microseconds: two or three for each power of ten.
const BOUNDS: [u64; 16] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000,
];

/// One more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

// === impl Meter ===

impl Meter {
    /// An attempt has ended so; `took` unless that says nothing about the endpoint.
    pub(crate) fn ended(&self, code: Code, took: Option<Duration>) {
        self.codes.count(code);
        if let Some(took) = took {
            self.latency.record(took);
        }
    }
}

/// Adds up what is counted in several places.
pub(crate) fn sum(counts: impl IntoIterator<Item = (Code, u64)>) -> CodeCounts {
    let mut sums: BTreeMap<i32, u64> = BTreeMap::new();
    for (code, count) in counts {
        *sums.entry(i32::from(code)).or_default() += count;
    }
    sums.into_iter().map(|(code, count)| (code.into(), count)).collect()
}

// === impl Counters ===

impl Counters {
    /// A call has ended for its caller.
    pub(crate) fn ended(&self, code: Code, took: Duration) {
        self.codes.count(code);
        self.latency.record(took);
    }

    pub(crate) fn read(&self) -> CallStats {
        let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CallStats {
            codes: self.codes.counts(),
            latency: self.latency.read(),
            retries: number(&self.retries),
            hedges: number(&self.hedges),
            unprocessed: number(&self.unprocessed),
            rejected_configs: number(&self.rejected_configs),
        }
    }
}

// === impl Codes ===

impl Codes {
    pub(crate) fn count(&self, code: Code) {
        self.0[code::index(code)].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> CodeCounts {
        let counts = self
            .0
            .iter()
            .zip(0..)
            .map(|(count, number)| (Code::from_i32(number), count.load(Ordering::Relaxed)));
        counts.filter(|(_, count)| *count > 0).collect()
    }
}

// === impl Latency ===

impl Latency {
    pub(crate) fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < micros);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        // Wraps after 584 years of calls.
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> LatencyHistogram {
        LatencyHistogram {
            counts: std::array::from_fn(|bucket| self.counts[bucket].load(Ordering::Relaxed)),
            sum: Duration::from_nanos(self.nanos.load(Ordering::Relaxed)),
        }
    }
}

// === impl LatencyHistogram ===

impl LatencyHistogram {
    /// How many calls.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How long all of them took together.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    pub(crate) fn plus(&self, other: &Self) -> Self {
        Self {
            counts: std::array::from_fn(|bucket| self.counts[bucket] + other.counts[bucket]),
            sum: self.sum.saturating_add(other.sum),
        }
    }

    /// The buckets: their upper bounds, each with the calls above the bound before it; the last has no bound.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> + '_ {
        let bounds = BOUNDS.iter().map(|micros| Some(Duration::from_micros(*micros)));
        bounds.chain([None]).zip(self.counts)
    }

    /// The time within which this share of the calls (0.5: half) had ended, interpolated within its bucket; above the highest bound,
    /// that bound. `None` if there were no calls.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let all = self.count();
        if all == 0 {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let (rank, number) = (share.clamp(0.0, 1.0) * all as f64, |count: u64| count as f64);
        let (mut below, mut low) = (0, Duration::ZERO);
        for (bound, count) in self.buckets() {
            let Some(high) = bound else { break };
            if count > 0 && number(below + count) >= rank {
                let part = ((rank - number(below)) / number(count)).clamp(0.0, 1.0);
                return Some(low + high.saturating_sub(low).mul_f64(part));
            }
            below += count;
            low = high;
        }
        Some(low)
    }
}

impl fmt::Debug for LatencyHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LatencyHistogram")
            .field("count", &self.count())
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantiles_are_within_their_buckets() {
        let latency = Latency::default();
        assert_eq!(latency.read().quantile(0.5), None);
        for ms in 1..=100 {
            latency.record(Duration::from_millis(ms));
        }
        let read = latency.read();
        assert_eq!((read.count(), read.sum()), (100, Duration::from_millis(5050)));
        assert_eq!(read.quantile(0.5), Some(Duration::from_millis(50)));
        assert_eq!(read.quantile(1.0), Some(Duration::from_millis(100)));
        latency.record(Duration::MAX);
        assert_eq!(latency.read().quantile(1.0), Some(Duration::from_secs(30)));
    }

    proptest! {
        #[test]
        fn no_share_makes_it_panic(share in any::<f64>(), micros in prop::collection::vec(any::<u64>(), 1..20)) {
            let latency = Latency::default();
            for micros in micros {
                latency.record(Duration::from_micros(micros));
            }
            prop_assert!(latency.read().quantile(share).is_some());
        }
    }
}
