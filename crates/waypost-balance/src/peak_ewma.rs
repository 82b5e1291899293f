//! `peak_ewma`: the one of two that will answer sooner.

use crate::choose::lesser_of_two;
use crate::latency::{Fallen, Gauge, Last};
use crate::{PickRequest, Picker, Policy, Roster};
use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Draws two endpoints at random and takes the one where the call is expected to end sooner: its latency, by a moving
/// average that follows rises at once, times the calls in flight there with this one.
///
/// It keeps calls away from an endpoint that is slow before calls have piled up there, which
/// [`LeastRequest`](crate::LeastRequest) only does after. Failures count as slowness, so that an endpoint that fails
/// fast does not look fast. The estimate falls while there are no calls, so that a shunned endpoint is tried again:
/// from ten times the others' latency after `decay * ln 10`, with one call.
///
/// The formula is that of Finagle's `PeakEwma` (see the load of power-of-two-choices balancers in its documentation).
/// An endpoint without a finished call costs nothing for its first call, and
/// [`failure_penalty`](Self::with_failure_penalty) for more.
///
/// Latency is recorded by [`Started::finished`](crate::Started::finished), or by
/// [`Started::answered`](crate::Started::answered) where a call goes on after its first answer.
#[derive(Debug, Clone)]
pub struct PeakEwma {
    decay: Duration,
    failure_penalty: Duration,
}

struct PeakEwmaPicker {
    ready: Roster,
    gauge: Gauge,
    unmeasured: f32,
    /// 1 through the decay in seconds.
    rate: f32,
    /// What all endpoints count their times from, if that is the same for all.
    epoch: Option<Instant>,
}

/// Between samples that are further apart than this, in seconds, it is the time of the pick that says which is older: ticks wrap.
const NEAR: f32 = 128.0;
const SHORTEST_DECAY: Duration = Duration::from_millis(1);

// === impl PeakEwma ===

impl Default for PeakEwma {
    fn default() -> Self {
        Self { decay: Duration::from_secs(10), failure_penalty: Duration::from_secs(10) }
    }
}

impl PeakEwma {
    /// The time in which the past loses all but 1/e of its weight: 10 s by default, at least 1 ms. Longer remembers
    /// slow endpoints for longer, shorter tries them again sooner.
    pub fn with_decay(mut self, decay: Duration) -> Self {
        self.decay = decay.max(SHORTEST_DECAY);
        self
    }

    /// The latency that an endpoint counts with when all its calls fail: 10 s by default. A single failure doubles
    /// its estimate, the nth in a row multiplies it by 2^n, until it is there. It should be well above the latency of
    /// any call.
    pub fn with_failure_penalty(mut self, penalty: Duration) -> Self {
        self.failure_penalty = penalty;
        self
    }
}

impl Policy for PeakEwma {
    fn name(&self) -> &'static str {
        "peak_ewma"
    }

    fn build(&self, ready: Roster, previous: Option<&dyn Picker>) -> Arc<dyn Picker> {
        // What has been learnt is kept in the endpoints, so it outlives pickers and connections.
        let gauge =
            Gauge { decay: self.decay.as_secs_f32(), failure_penalty: self.failure_penalty.as_secs_f32() };
        let (unmeasured, rate) = (gauge.failure_penalty, gauge.decay.recip());
        let previous = previous.and_then(|previous| (previous as &dyn Any).downcast_ref::<PeakEwmaPicker>());
        // To tell an endpoint what it knows is to write to it.
        let known = previous.filter(|known| known.gauge == gauge).map_or(&[][..], |known| &known.ready);
        let mut epoch = match previous {
            Some(previous) if !known.is_empty() => previous.epoch,
            _ => ready.first().map(|first| first.epoch()),
        };
        for endpoint in ready.newcomers(known) {
            endpoint.measure(gauge);
            epoch = epoch.filter(|epoch| *epoch == endpoint.epoch());
        }
        Arc::new(PeakEwmaPicker { ready, gauge, unmeasured, rate, epoch })
    }
}

// === impl PeakEwmaPicker ===

impl PeakEwmaPicker {
    /// Whether the first has no more load than the other.
    fn le(&self, one: usize, other: usize, now: Instant) -> bool {
        let vitals = self.ready.vitals();
        let [first, second] =
            [one, other].map(|index| (vitals[index].latency.last(), vitals[index].in_flight()));
        if let (Some(_), (Some(first), calls), (Some(second), others)) = (self.epoch, first, second) {
            // Until now both fall alike: what time it is need not be known.
            let older = second.at.seconds_from(first.at);
            if older.abs() < NEAR {
                let fallen =
                    |last: Last, calls, age| Fallen { scale: last.seconds * (number(calls) + 1.0), age };
                return fallen(first, calls, older * self.rate) <= fallen(second, others, 0.0);
            }
        }
        self.load(one, now) <= self.load(other, now)
    }

    #[cold]
    fn load(&self, index: usize, now: Instant) -> Fallen {
        let vitals = self.ready.vitals()[index];
        let calls = number(vitals.in_flight());
        match vitals.latency.last() {
            Some(last) => {
                let age = self.ready[index].tick(now).seconds_since(last.at) * self.rate;
                Fallen { scale: last.seconds * (calls + 1.0), age }
            }
            None => Fallen { scale: self.unmeasured * calls, age: 0.0 },
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a load, not a count")]
fn number(calls: u32) -> f32 {
    calls as f32
}

impl Picker for PeakEwmaPicker {
    fn pick(&self, request: &PickRequest<'_>) -> Option<usize> {
        lesser_of_two(&self.ready, |one, other| self.le(one, other, request.now), request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::fleet;
    use crate::{EndpointState, Outcome};
    use std::cell::Cell;

    /// Of ten, with latencies and calls under way, what a thousand picks come to a minute after `now`.
    fn picks(ready: &[Arc<EndpointState>], picker: &dyn Picker, now: Instant) -> Vec<Option<usize>> {
        let mut calls = Vec::new();
        for (nth, endpoint) in (0_u32..).zip(ready) {
            let began = now + Duration::from_secs(u64::from(nth * 7 % 11));
            endpoint
                .started(began)
                .finished(began + Duration::from_millis(10) * (nth * 3 % 7 + 1), Outcome::Ok);
            calls.extend((0..nth % 3).map(|_| endpoint.started(began)));
        }
        let dice = Cell::new(1_u64);
        let random = || {
            dice.set(dice.get().wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1));
            dice.get()
        };
        let now = now + Duration::from_secs(60);
        (0..1000).map(|_| picker.pick(&PickRequest::new(now, &random))).collect()
    }

    /// In half of which ticks wrap.
    #[test]
    fn an_endpoint_without_a_call_for_days_is_not_taken_for_the_newer_one() {
        const DAYS: Duration = Duration::from_secs(4 * 86_400);
        let epoch = Instant::now();
        let now = epoch + Duration::from_secs(1);
        let shared = fleet(2, epoch);
        let mixed = [fleet(1, epoch), fleet(1, now)].concat();
        for fleet in [shared, mixed] {
            let picker = PeakEwma::default().build(fleet.clone().into(), None);
            fleet[0].started(now).finished(now + Duration::from_millis(1), Outcome::Ok);
            fleet[1].started(now + DAYS).finished(now + DAYS + Duration::from_millis(1), Outcome::Ok);
            let _busy: Vec<_> = (0..100).map(|_| fleet[1].started(now + DAYS)).collect();
            for random in [0, u64::MAX] {
                assert_eq!(picker.pick(&PickRequest::new(now + DAYS, &|| random)), Some(0));
            }
        }
    }

    #[test]
    fn it_picks_the_same_whatever_times_are_counted_from() {
        let now = Instant::now();
        // Of ticks the same part has passed.
        let earlier = |endpoint: Arc<EndpointState>, nth: u32| {
            let endpoint = Arc::into_inner(endpoint).unwrap();
            Arc::new(endpoint.counting_from(now.checked_sub(Duration::from_nanos(131_072) * nth).unwrap()))
        };
        let one = fleet(10, now);
        let each: Vec<_> = fleet(10, now).into_iter().zip(1..).map(|(at, nth)| earlier(at, nth)).collect();
        let build = |ready: &[Arc<EndpointState>], previous| {
            PeakEwma::default().build(ready.to_vec().into(), previous)
        };
        let epoch =
            |picker: &dyn Picker| (picker as &dyn Any).downcast_ref::<PeakEwmaPicker>().unwrap().epoch;

        let (first, mixed) = (build(&one[..4], None), build(&each, None));
        let all = build(&one, Some(&*first));
        assert_eq!((epoch(&*first), epoch(&*all), epoch(&*mixed)), (Some(now), Some(now), None));
        assert_eq!(epoch(&*build(&[&one[..9], &each[9..]].concat(), Some(&*first))), None);
        assert_eq!(picks(&one, &*all, now), picks(&each, &*mixed, now));
    }
}
