//! How long calls take on an endpoint: a moving average that follows rises at once and falls slowly.
//!
//! The peak-sensitive, exponentially weighted moving average of Finagle's `PeakEwma`. After a sample `s`, `dt` after
//! the last one and with the decay `tau`:
//!
//! ```text
//! estimate = s                                            if s > estimate   (a peak is believed at once)
//! estimate = estimate * e^(-dt/tau) + s * (1 - e^(-dt/tau))   otherwise
//! ```
//!
//! and between samples the estimate falls by `e^(-dt/tau)`, so that an endpoint that is shunned is tried again.

use std::cmp::Ordering;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// What to measure, and how failures count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Gauge {
    /// `tau`, in seconds; above 0.
    pub(crate) decay: f32,
    /// The estimate that failures lead to, in seconds.
    pub(crate) failure_penalty: f32,
}

/// One call, as far as the average is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sample {
    /// It was answered after this time.
    Answered(Duration),
    /// It failed after this time, as the nth in a row.
    Failed(Duration, u32),
    /// It was given up after this time: the answer would have taken at least as long.
    AtLeast(Duration),
}

/// The [`Gauge`] of one endpoint: two `f32` in a word, so that readers see no mixture. 0: nothing is measured.
#[derive(Debug, Default)]
pub(crate) struct SharedGauge(AtomicU64);

/// The average of one endpoint in seconds (an `f32`, above 0) and the [`Tick`] of the last sample, in a word. 0: there is no sample yet.
#[derive(Debug)]
pub(crate) struct Estimate(AtomicU64);

/// What an [`Estimate`] was at its last sample.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Last {
    pub(crate) seconds: f32,
    pub(crate) at: Tick,
}

/// An estimate that is to be compared with another's: what is left of `scale` after `age`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fallen {
    /// Finite, not below 0.
    pub(crate) scale: f32,
    /// Multiples of the decay, from any time that is the same for both.
    pub(crate) age: f32,
}

/// Time since the endpoint's epoch, in steps of 2^17 ns (131 µs). It wraps after 6.5 days, which an endpoint
/// without a call for that long sees as an estimate that has fallen by less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tick(u32);

const TICK_BITS: u32 = 17;
const TICK_SECONDS: f32 = 131_072e-9;

/// Below this an estimate no longer falls: it is to stay a number above 0.
const LEAST: f32 = 1e-9;

/// A sample that has lost the race for the word so often is dropped: the others were as recent.
const TRIES: usize = 8;

/// The nth failure in a row multiplies the estimate by 2^n, up to this n.
const MOST_DOUBLINGS: u32 = 16;

// === impl Tick ===

impl Tick {
    pub(crate) fn between(epoch: Instant, now: Instant) -> Self {
        Self::at(now.saturating_duration_since(epoch))
    }

    #[expect(clippy::cast_possible_truncation, reason = "it is meant to wrap")]
    fn at(since_epoch: Duration) -> Self {
        // Of more than 584 years the rest.
        let nanos =
            since_epoch.as_secs().wrapping_mul(1_000_000_000).wrapping_add(since_epoch.subsec_nanos().into());
        Self((nanos >> TICK_BITS) as u32)
    }

    /// Seconds from `earlier` to this; 0 if `earlier` is the later one.
    pub(crate) fn seconds_since(self, earlier: Self) -> f32 {
        self.seconds_from(earlier).max(0.0)
    }

    /// Seconds from `other` to this; below 0 if `other` is the later one.
    #[expect(clippy::cast_precision_loss, reason = "seven digits of a duration are enough")]
    pub(crate) fn seconds_from(self, other: Self) -> f32 {
        self.0.wrapping_sub(other.0).cast_signed() as f32 * TICK_SECONDS
    }
}

// === impl SharedGauge ===

impl SharedGauge {
    /// Measures from now on.
    pub(crate) fn set(&self, gauge: Gauge) {
        self.0.store(pack(gauge.decay, gauge.failure_penalty.to_bits()), Relaxed);
    }

    /// What was [set](Self::set) last.
    pub(crate) fn get(&self) -> Option<Gauge> {
        let word = self.0.load(Relaxed);
        let (decay, penalty) = unpack(word);
        (word != 0).then_some(Gauge { decay, failure_penalty: f32::from_bits(penalty) })
    }
}

// === impl Estimate ===

impl Estimate {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// There was no sample.
    pub(crate) fn forget(&self) {
        self.0.store(0, Relaxed);
    }

    /// What it has fallen to at `now`, in seconds; `None` before the first sample.
    pub(crate) fn at(&self, gauge: Gauge, now: Tick) -> Option<f32> {
        self.last().map(|last| last.fallen(gauge, now))
    }

    /// As the last sample has left it; `None` before the first.
    pub(crate) fn last(&self) -> Option<Last> {
        Last::of(self.0.load(Relaxed))
    }

    pub(crate) fn record(&self, gauge: Gauge, now: Tick, sample: Sample) {
        let mut word = self.0.load(Relaxed);
        for _ in 0..TRIES {
            let Some(next) = gauge.after(Last::of(word), now, sample) else { return };
            let next = pack(next.max(LEAST), now.0);
            match self.0.compare_exchange_weak(word, next, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(found) => word = found,
            }
        }
    }
}

#[cfg(test)]
impl Estimate {
    pub(crate) fn is_known(&self) -> bool {
        self.0.load(Relaxed) != 0
    }
}

// === impl Last ===

impl Last {
    fn of(word: u64) -> Option<Self> {
        (word != 0).then(|| {
            let (seconds, at) = unpack(word);
            Self { seconds, at: Tick(at) }
        })
    }

    /// What it has fallen to at `now`, in seconds.
    fn fallen(self, gauge: Gauge, now: Tick) -> f32 {
        self.seconds * kept(gauge, now.seconds_since(self.at))
    }
}

// === impl Fallen ===

impl Fallen {
    /// Whether it is less than the other, and whether it is greater, as far as that shows without the exponential: `1 - x <= e^-x`, and
    /// `e^-x <= 1 / (1 + x)` for all `x` above -1. Neither branches, since of two endpoints either may be better.
    fn bounds(self, other: Self) -> (bool, bool) {
        let older = self.age - other.age;
        (self.scale < other.scale * (1.0 + older), self.scale * (1.0 - older) > other.scale)
    }

    /// Whichever is older has fallen by more, so that one exponential does for both.
    #[cold]
    fn exactly(self, other: Self) -> Option<Ordering> {
        let older = self.age - other.age;
        if older >= 0.0 {
            (self.scale * (-older).exp()).partial_cmp(&other.scale)
        } else {
            self.scale.partial_cmp(&(other.scale * older.exp()))
        }
    }
}

impl PartialOrd for Fallen {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match self.bounds(*other) {
            (true, false) => Some(Ordering::Less),
            (false, true) => Some(Ordering::Greater),
            _ => self.exactly(*other),
        }
    }

    fn le(&self, other: &Self) -> bool {
        let (less, greater) = self.bounds(*other);
        if less == greater { self.exactly(*other).is_some_and(Ordering::is_le) } else { less }
    }
}

impl PartialEq for Fallen {
    fn eq(&self, other: &Self) -> bool {
        self.partial_cmp(other) == Some(Ordering::Equal)
    }
}

// === impl Gauge ===

impl Gauge {
    /// The estimate after `sample`; `None` if it says nothing.
    fn after(self, known: Option<Last>, now: Tick, sample: Sample) -> Option<f32> {
        let fallen = known.map(|last| last.fallen(self, now));
        match (sample, known) {
            (Sample::Answered(took), None) => Some(took.as_secs_f32()),
            (Sample::Answered(took), Some(last)) => {
                let (took, kept) = (took.as_secs_f32(), kept(self, now.seconds_since(last.at)));
                Some(if took > last.seconds { took } else { last.seconds * kept + took * (1.0 - kept) })
            }
            // How fast it fails must not make it attractive. One failure among many calls that go well doubles the
            // estimate; an endpoint that only fails is at the penalty after a few calls, whatever its calls used to
            // take.
            (Sample::Failed(took, _), None) => Some(took.as_secs_f32().max(self.failure_penalty)),
            (Sample::Failed(took, in_a_row), Some(_)) => {
                let base = fallen.unwrap_or(LEAST).max(took.as_secs_f32());
                #[expect(clippy::cast_precision_loss, reason = "2^16 at most")]
                let grown = base * (1_u32 << in_a_row.min(MOST_DOUBLINGS)) as f32;
                Some(grown.min(self.failure_penalty.max(base)))
            }
            (Sample::AtLeast(took), known) => {
                let took = took.as_secs_f32();
                (known.is_none() || took > fallen.unwrap_or(0.0)).then_some(took)
            }
        }
    }
}

/// What is left of an estimate after `seconds`.
fn kept(gauge: Gauge, seconds: f32) -> f32 {
    (-seconds / gauge.decay).exp()
}

fn pack(high: f32, low: u32) -> u64 {
    (u64::from(high.to_bits()) << 32) | u64::from(low)
}

#[expect(clippy::cast_possible_truncation, reason = "the two halves of the word")]
fn unpack(word: u64) -> (f32, u32) {
    (f32::from_bits((word >> 32) as u32), word as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    const GAUGE: Gauge = Gauge { decay: 10.0, failure_penalty: 10.0 };

    fn tick(ms: u32) -> Tick {
        Tick::at(MS * ms)
    }

    fn ms(latency: &Estimate, at: u32) -> f32 {
        latency.at(GAUGE, tick(at)).unwrap() * 1e3
    }

    #[test]
    fn a_peak_is_believed_at_once_and_forgotten_by_and_by() {
        let latency = Estimate::new();
        latency.record(GAUGE, tick(0), Sample::Answered(MS * 10));
        assert!((ms(&latency, 0) - 10.0).abs() < 0.01);
        latency.record(GAUGE, tick(1), Sample::Answered(MS * 100));
        assert!((ms(&latency, 1) - 100.0).abs() < 0.1);
        // Ten seconds later a fast call weighs 1 - 1/e.
        latency.record(GAUGE, tick(10_001), Sample::Answered(MS * 10));
        assert!((ms(&latency, 10_001) - (36.79 + 6.32)).abs() < 0.1, "{}", ms(&latency, 10_001));
        // Without calls it falls by e in ten seconds.
        assert!((ms(&latency, 20_001) - 43.11 / std::f32::consts::E).abs() < 0.1);
    }

    #[test]
    fn failures_double_the_estimate_up_to_the_penalty_and_never_lower_it() {
        let latency = Estimate::new();
        latency.record(GAUGE, tick(0), Sample::Answered(MS * 10));
        latency.record(GAUGE, tick(1), Sample::Failed(Duration::ZERO, 1));
        assert!((ms(&latency, 1) - 20.0).abs() < 0.1);
        for in_a_row in 2..=5 {
            latency.record(GAUGE, tick(1), Sample::Failed(Duration::ZERO, in_a_row));
        }
        assert!((ms(&latency, 1) - 10_000.0).abs() < 1.0, "{}", ms(&latency, 1));
        latency.record(GAUGE, tick(1), Sample::Failed(MS * 30_000, u32::MAX));
        assert!((ms(&latency, 1) - 30_000.0).abs() < 3.0, "{}", ms(&latency, 1));
    }

    #[test]
    fn a_first_call_that_fails_costs_the_penalty() {
        let latency = Estimate::new();
        latency.record(GAUGE, tick(0), Sample::Failed(MS, 1));
        assert!((ms(&latency, 0) - 10_000.0).abs() < 1.0);
    }

    #[test]
    fn a_call_given_up_can_only_raise_the_estimate() {
        let latency = Estimate::new();
        latency.record(GAUGE, tick(0), Sample::Answered(MS * 10));
        latency.record(GAUGE, tick(0), Sample::AtLeast(MS));
        assert!((ms(&latency, 0) - 10.0).abs() < 0.01);
        latency.record(GAUGE, tick(0), Sample::AtLeast(MS * 500));
        assert!((ms(&latency, 0) - 500.0).abs() < 0.1);
    }

    /// Alike, very different, and nothing at all.
    fn fallen() -> impl Strategy<Value = Fallen> {
        let scale = prop_oneof![4 => 0_f32..100.0, 4 => 1_f32..1.1, 1 => Just(0.0), 1 => 0_f32..1e9];
        let age = prop_oneof![4 => -50_f32..50.0, 4 => 0_f32..0.1, 1 => Just(0.0), 1 => 0_f32..1e9];
        (scale, age).prop_map(|(scale, age)| Fallen { scale, age })
    }

    proptest! {
        #[test]
        fn what_has_fallen_is_compared_as_what_is_left(
            one in fallen(), other in fallen(),
        ) {
            let left = |Fallen { scale, age }: Fallen| f64::from(scale) * (-f64::from(age)).exp();
            let compared = one.partial_cmp(&other).unwrap();
            prop_assert_eq!(other.partial_cmp(&one), Some(compared.reverse()));
            prop_assert_eq!(one <= other, compared.is_le());
            let (one, other) = (left(one), left(other));
            // Where seven digits tell them apart.
            if (one - other).abs() > 1e-4 * one.max(other) {
                prop_assert_eq!(Some(compared), one.partial_cmp(&other));
            }
        }
    }

    #[test]
    fn time_that_runs_backwards_counts_as_none() {
        let latency = Estimate::new();
        latency.record(GAUGE, tick(5_000), Sample::Answered(MS * 10));
        assert!((ms(&latency, 1_000) - 10.0).abs() < 0.01);
        latency.record(GAUGE, tick(1_000), Sample::Answered(Duration::ZERO));
        assert!(ms(&latency, 1_000) > 9.9);
    }
}
