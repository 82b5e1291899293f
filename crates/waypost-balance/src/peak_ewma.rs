//! `peak_ewma`: the one of two that will answer sooner.

use crate::choose::lesser_of_two;
use crate::latency::{Fallen, Gauge};
use crate::{EndpointState, PickRequest, Picker, Policy, Roster};
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
}

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
        for endpoint in ready.newcomers(known) {
            endpoint.measure(gauge);
        }
        Arc::new(PeakEwmaPicker { ready, gauge, unmeasured, rate })
    }
}

// === impl PeakEwmaPicker ===

impl PeakEwmaPicker {
    #[expect(clippy::cast_precision_loss, reason = "a load, not a count")]
    fn load(&self, endpoint: &EndpointState, now: Instant) -> Fallen {
        let in_flight = endpoint.in_flight() as f32;
        match endpoint.fallen_latency(now, self.rate) {
            Some(latency) => Fallen { scale: latency.scale * (in_flight + 1.0), ..latency },
            None => Fallen { scale: self.unmeasured * in_flight, age: 0.0 },
        }
    }
}

impl Picker for PeakEwmaPicker {
    fn pick(&self, request: &PickRequest<'_>) -> Option<usize> {
        lesser_of_two(&self.ready, |endpoint| self.load(endpoint, request.now), request)
    }
}
