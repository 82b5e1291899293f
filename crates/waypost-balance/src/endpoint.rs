//! One endpoint as pickers and calls see it: what it is, whether it takes calls, and what it carries.

use crate::affinity::hash_key;
use crate::latency::{Gauge, Sample, SharedGauge, Tick};
use crate::vitals::{CLOSED, EJECTED, LOSS, Seat, Vitals};
use arc_swap::ArcSwap;
use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use waypost_model::{Endpoint, Instance, InstanceKey};

/// One endpoint, shared between the picker and the calls that run on it.
///
/// It outlives a connection: an endpoint that reconnects keeps its state, so its history is not forgotten by a restart.
/// An instance that moves to another address gets a new one. A new state is [closed](Gate::Closed).
#[repr(C)]
pub struct EndpointState {
    // What every call needs comes first, beside the counts of the `Arc`: one line of the cache, or two.
    /// What picks read.
    seat: Seat,
    successes: AtomicU64,
    gauge: SharedGauge,
    consecutive_failures: AtomicU32,
    /// From when on its times are counted.
    epoch: Instant,
    failures: AtomicU64,
    cancelled: AtomicU64,
    endpoint: Endpoint,
    /// The address as text, and its hash: hashing policies ask every endpoint for both with each change of the set.
    authority: Arc<str>,
    authority_hash: u64,
    registered: ArcSwap<(InstanceKey, Arc<Instance>)>,
    since: Instant,
    /// When its slow start began, in nanoseconds from `since`; [`UNSET`] until its first call after it came or came back.
    warming: AtomicU64,
    annex: OnceLock<Box<dyn Any + Send + Sync>>,
}

/// Whether an endpoint takes calls at this instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Gate {
    /// It takes calls.
    Open,
    /// It is connected, but set aside because its calls go badly. It is picked only when nothing better is left.
    Ejected,
    /// It has no connection, or is leaving: it is never picked.
    Closed,
}

/// How a call ended, as far as the endpoint is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The endpoint did its work, whatever the answer was: a `NOT_FOUND` is work done.
    Ok,
    /// The endpoint answered that it could not do its work: `UNAVAILABLE`, `INTERNAL` and the like.
    Failed,
    /// The connection was lost before the call had ended.
    Lost,
    /// The caller gave the call up: it says nothing about the endpoint.
    Cancelled,
    /// The call never reached the endpoint: it is not counted as a call.
    NotSent,
}

/// A call under way: it counts as in flight until it is [finished](Started::finished) or dropped (then it was cancelled).
#[derive(Debug)]
#[must_use = "the call ends when this is dropped"]
pub struct Started {
    state: Arc<EndpointState>,
    at: Instant,
    /// Its latency is recorded: [`answered`](Self::answered) was called.
    measured: bool,
    finished: bool,
}

const UNSET: u64 = u64::MAX;

// === impl EndpointState ===

impl EndpointState {
    /// A new endpoint: closed, not ejected, with no calls. `endpoint` is the one of the instance's endpoints that
    /// calls go to.
    pub fn new(key: InstanceKey, endpoint: Endpoint, instance: Arc<Instance>, now: Instant) -> Self {
        let authority: Arc<str> = endpoint.authority().into();
        Self {
            seat: Seat::take(),
            successes: AtomicU64::new(0),
            gauge: SharedGauge::default(),
            consecutive_failures: AtomicU32::new(0),
            epoch: now,
            failures: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            endpoint,
            authority_hash: hash_key(authority.as_bytes()),
            authority,
            registered: ArcSwap::from_pointee((key, instance)),
            since: now,
            warming: AtomicU64::new(UNSET),
            annex: OnceLock::new(),
        }
    }

    /// Counts time from `epoch` on, rather than from when it became known: between endpoints that share one a pick need not know what time it is.
    /// Earlier than anything that will be told of it.
    pub fn counting_from(mut self, epoch: Instant) -> Self {
        self.epoch = epoch;
        self
    }

    /// What its times are counted from.
    pub fn epoch(&self) -> Instant {
        self.epoch
    }

    /// Which instance this is.
    pub fn key(&self) -> InstanceKey {
        self.registered.load().0.clone()
    }

    /// The address that calls go to. It never changes.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(crate) fn authority(&self) -> &Arc<str> {
        &self.authority
    }

    pub(crate) fn authority_hash(&self) -> u64 {
        self.authority_hash
    }

    /// That of the instance as last registered.
    pub(crate) fn weight(&self) -> u32 {
        self.registered.load().1.weight
    }

    /// What a user of this crate keeps with each endpoint for as long as that is known, as counters of its own: made by the first
    /// who asks. `None` if it is of another type, that somebody else has asked for first.
    pub fn annex<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Option<&T> {
        self.annex.get_or_init(|| Box::new(make())).downcast_ref()
    }

    /// What is kept there by [`annex`](Self::annex), if anything of this type is.
    pub fn annexed<T: Any>(&self) -> Option<&T> {
        self.annex.get()?.downcast_ref()
    }

    /// Key and instance of the last registration.
    pub fn registration(&self) -> Arc<(InstanceKey, Arc<Instance>)> {
        self.registered.load_full()
    }

    /// The instance as last registered: weight, zone, version and metadata may change while the endpoint stays.
    pub fn instance(&self) -> Arc<Instance> {
        Arc::clone(&self.registered.load().1)
    }

    /// Takes a newer registration of the same address: another weight, or another key. Pickers read weights and zones when
    /// they are built, so a picker is to be built after this.
    pub fn set_instance(&self, key: InstanceKey, instance: Arc<Instance>) {
        self.registered.store(Arc::new((key, instance)));
    }

    /// When this endpoint became known.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Whether it takes calls now.
    pub fn gate(&self) -> Gate {
        self.seat.gate()
    }

    /// `true` when the gate is [open](Gate::Open).
    pub fn admits(&self) -> bool {
        self.seat.admits()
    }

    /// The connection is ready: it takes calls, unless it is ejected, or a [loss](Self::lose) is still to be settled.
    pub fn open(&self) {
        self.seat.gate.fetch_and(!CLOSED, Ordering::AcqRel);
    }

    /// The connection is gone, or the endpoint leaves: no pick returns it from now on, in whatever picker it still stands.
    pub fn close(&self) {
        self.seat.gate.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// The connection is gone, says whoever has it, for whoever [opens](Self::open) and [closes](Self::close) the gate and will hear
    /// of it later: it stays closed at least until that [settles](Self::settle_loss) this, whatever it opens before.
    pub fn lose(&self) {
        self.seat.gate.fetch_add(LOSS, Ordering::AcqRel);
    }

    /// Closes the gate as [`close`](Self::close) does; one [loss](Self::lose) has been heard of.
    pub fn settle_loss(&self) {
        let settled = |word: u32| Some(word.checked_sub(LOSS).unwrap_or(word) | CLOSED);
        // The closure always answers `Some`.
        let _ = self.seat.gate.fetch_update(Ordering::AcqRel, Ordering::Acquire, settled);
    }

    /// Sets it aside for its failures. Returns `false` if it was already.
    pub fn eject(&self) -> bool {
        self.seat.gate.fetch_or(EJECTED, Ordering::AcqRel) & EJECTED == 0
    }

    /// Ends an ejection: it takes calls again, with a [slow start](crate::SlowStart) where there is one, and with no
    /// failures in a row. Returns `false` if it was not ejected.
    pub fn readmit(&self) -> bool {
        self.consecutive_failures.store(0, Ordering::Relaxed);
        self.restart_slow_start();
        self.lift_ejection()
    }

    /// Takes calls for the time being: nothing is forgotten. Returns `false` if it was not ejected.
    pub(crate) fn lift_ejection(&self) -> bool {
        self.seat.gate.fetch_and(!EJECTED, Ordering::AcqRel) & EJECTED != 0
    }

    /// The next call begins its slow start.
    pub(crate) fn restart_slow_start(&self) {
        self.warming.store(UNSET, Ordering::Relaxed);
    }

    /// How long it has been taking calls since it came or came back. Asked for the first time, that is no time.
    pub(crate) fn warm_for(&self, now: Instant) -> Duration {
        let now = u64::try_from(now.saturating_duration_since(self.since).as_nanos()).unwrap_or(UNSET - 1);
        let begun = match self.warming.load(Ordering::Relaxed) {
            // Whoever comes second here comes at the same time: its store changes nothing that matters.
            UNSET => {
                self.warming.store(now, Ordering::Relaxed);
                now
            }
            begun => begun,
        };
        Duration::from_nanos(now.saturating_sub(begun))
    }

    /// Calls that have started here and have not ended, streams included.
    pub fn in_flight(&self) -> u32 {
        self.seat.in_flight.load(Ordering::Acquire)
    }

    /// Calls that have ended here, but for those that never reached it.
    pub fn calls(&self) -> u64 {
        self.successes() + self.failures() + self.cancelled.load(Ordering::Relaxed)
    }

    /// Calls that ended as [`Outcome::Ok`].
    pub fn successes(&self) -> u64 {
        self.successes.load(Ordering::Relaxed)
    }

    /// Calls that ended as [`Outcome::Failed`] or [`Outcome::Lost`].
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Failures since the last call that went well.
    pub fn consecutive_failures(&self) -> u32 {
        self.consecutive_failures.load(Ordering::Relaxed)
    }

    /// How long its calls take at present, by the average that [`PeakEwma`](crate::PeakEwma) keeps: it follows rises
    /// at once, falls slowly, and counts failures as slowness. `None` before the first call has ended, and under
    /// policies that do not measure.
    pub fn latency(&self, now: Instant) -> Option<Duration> {
        let seconds = self.seat.latency.at(self.gauge.get()?, self.tick(now))?;
        Some(Duration::try_from_secs_f32(seconds).unwrap_or(Duration::MAX))
    }

    /// Measures latency from now on.
    pub(crate) fn measure(&self, gauge: Gauge) {
        self.gauge.set(gauge);
    }

    fn record(&self, at: Instant, sample: Sample) {
        if let Some(gauge) = self.gauge.get() {
            self.seat.latency.record(gauge, self.tick(at), sample);
        }
    }

    /// What picks read of it. To be kept no longer than this is.
    pub(crate) fn vitals(&self) -> &'static Vitals {
        self.seat.vitals()
    }

    pub(crate) fn tick(&self, now: Instant) -> Tick {
        Tick::between(self.epoch, now)
    }

    /// A call starts here.
    pub fn started(self: &Arc<Self>, now: Instant) -> Started {
        self.seat.in_flight.fetch_add(1, Ordering::Relaxed);
        Started { state: Arc::clone(self), at: now, measured: false, finished: false }
    }

    /// A call has ended. `took` is how long it took, unless that is not known or was recorded before.
    fn ended(&self, outcome: Outcome, at: Instant, took: Option<Duration>) {
        let sample = match outcome {
            Outcome::Ok => {
                self.successes.fetch_add(1, Ordering::Relaxed);
                self.consecutive_failures.store(0, Ordering::Relaxed);
                took.map(Sample::Answered)
            }
            Outcome::Failed | Outcome::Lost => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                let before = self.consecutive_failures.fetch_add(1, Ordering::Relaxed);
                Some(Sample::Failed(took.unwrap_or_default(), before.saturating_add(1)))
            }
            Outcome::Cancelled => {
                self.cancelled.fetch_add(1, Ordering::Relaxed);
                took.map(Sample::AtLeast)
            }
            Outcome::NotSent => None,
        };
        if let Some(sample) = sample {
            self.record(at, sample);
        }
        // Last, so that whoever sees no call in flight also sees the call counted.
        self.seat.in_flight.fetch_sub(1, Ordering::Release);
    }
}

impl fmt::Debug for EndpointState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointState")
            .field("id", &self.registered.load().0.id)
            .field("endpoint", &self.endpoint)
            .field("gate", &self.gate())
            .field("in_flight", &self.in_flight())
            .field("calls", &self.calls())
            .field("failures", &self.failures())
            .finish_non_exhaustive()
    }
}

// === impl Started ===

impl Started {
    /// The endpoint that the call runs on.
    pub fn endpoint(&self) -> &Arc<EndpointState> {
        &self.state
    }

    /// When the call started.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// The first answer has come at `now`: latency is measured up to here rather than to the end. For calls that go
    /// on for long after it, as streams do: how long they last says nothing about the endpoint.
    pub fn answered(&mut self, now: Instant) {
        if !self.measured {
            self.measured = true;
            let took = now.saturating_duration_since(self.at);
            self.state.record(now, Sample::Answered(took));
        }
    }

    /// The call has ended at `now`. Its latency is recorded, unless it was [answered](Self::answered) before: of a
    /// call that went well as it is, of one that failed as slowness, of one that was cancelled as "at least so long".
    pub fn finished(mut self, now: Instant, outcome: Outcome) {
        self.finished = true;
        let took = (!self.measured).then(|| now.saturating_duration_since(self.at));
        self.state.ended(outcome, now, took);
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if !self.finished {
            self.state.ended(Outcome::Cancelled, self.at, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::latency::Gauge;
    use crate::{Gate, Outcome};
    use std::time::{Duration, Instant};

    #[test]
    fn nothing_is_recorded_unless_it_is_measured() {
        let (now, state) = (Instant::now(), crate::fixture::fleet(1, Instant::now()).remove(0));
        let call = || state.started(now).finished(now + Duration::from_millis(1), Outcome::Ok);
        call();
        assert_eq!(state.latency(now), None);
        state.measure(Gauge { decay: 10.0, failure_penalty: 10.0 });
        assert_eq!(state.latency(now), None);
        call();
        assert!(state.latency(now).is_some());
    }

    #[test]
    fn a_loss_keeps_the_gate_closed_until_it_is_settled_whatever_opens_it() {
        let state = crate::fixture::fleet(1, Instant::now()).remove(0);
        state.lose();
        state.lose();
        state.open();
        assert_eq!(state.gate(), Gate::Closed);
        state.settle_loss();
        state.open();
        assert!(!state.admits(), "one of two");
        state.settle_loss();
        assert_eq!(state.gate(), Gate::Closed, "until it is opened");
        state.eject();
        state.open();
        assert_eq!(state.gate(), Gate::Ejected);
        state.readmit();
        assert!(state.admits());
        // Of one that nobody has told of.
        state.settle_loss();
        state.open();
        assert!(state.admits());
    }
}
