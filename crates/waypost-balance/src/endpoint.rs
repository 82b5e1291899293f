//! One endpoint as pickers and calls see it: what it is, whether it takes calls, and what it carries.

use crate::affinity::hash_key;
use crate::latency::{Fallen, Gauge, Latency, Sample, Tick};
use crate::padded::CachePadded;
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
pub struct EndpointState {
    endpoint: Endpoint,
    /// The address as text, and its hash: hashing policies ask every endpoint for both with each change of the set.
    authority: Arc<str>,
    authority_hash: u64,
    registered: ArcSwap<(InstanceKey, Arc<Instance>)>,
    since: Instant,
    /// When its slow start began, in nanoseconds from `since`; [`UNSET`] until its first call after it came or came back.
    warming: AtomicU64,
    failures: AtomicU64,
    annex: OnceLock<Box<dyn Any + Send + Sync>>,
    load: CachePadded<Load>,
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

const CLOSED: u32 = 1;
const EJECTED: u32 = 2;
/// One of the [losses](EndpointState::lose), which are counted in the bits above.
const LOSS: u32 = 4;
const UNSET: u64 = u64::MAX;

/// What picks read and calls write: 64 bytes, so that an endpoint costs a pick one cache line. 10,000 of them are 640 KB, more than
/// many second-level caches have. Whoever picks an endpoint writes to it next, so nothing is gained by a line for what is only read.
#[derive(Debug)]
struct Load {
    /// From when on times are counted.
    epoch: Instant,
    latency: Latency,
    calls: AtomicU64,
    successes: AtomicU64,
    in_flight: AtomicU32,
    consecutive_failures: AtomicU32,
    /// [`CLOSED`] and [`EJECTED`] are independent: a connection that comes back does not end an ejection. Above them the losses that
    /// were not settled yet. Calls are taken while all of it is 0.
    gate: AtomicU32,
}

const _: () = assert!(size_of::<Load>() <= 64);

// === impl EndpointState ===

impl EndpointState {
    /// A new endpoint: closed, not ejected, with no calls. `endpoint` is the one of the instance's endpoints that
    /// calls go to.
    pub fn new(key: InstanceKey, endpoint: Endpoint, instance: Arc<Instance>, now: Instant) -> Self {
        let load = Load {
            epoch: now,
            latency: Latency::default(),
            calls: AtomicU64::new(0),
            successes: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            consecutive_failures: AtomicU32::new(0),
            gate: AtomicU32::new(CLOSED),
        };
        let registered = ArcSwap::from_pointee((key, instance));
        let warming = AtomicU64::new(UNSET);
        let load = CachePadded::new(load);
        let authority: Arc<str> = endpoint.authority().into();
        let authority_hash = hash_key(authority.as_bytes());
        let (failures, annex) = (AtomicU64::new(0), OnceLock::new());
        Self { endpoint, authority, authority_hash, registered, since: now, warming, failures, annex, load }
    }

    /// Counts time from `epoch` on, rather than from when it became known: of endpoints that share one a pick reckons once what time it is.
    /// Earlier than anything that will be told of it.
    pub fn counting_from(mut self, epoch: Instant) -> Self {
        self.load.epoch = epoch;
        self
    }

    /// What its times are counted from.
    pub fn epoch(&self) -> Instant {
        self.load.epoch
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
        match self.load.gate.load(Ordering::Acquire) {
            0 => Gate::Open,
            EJECTED => Gate::Ejected,
            _ => Gate::Closed,
        }
    }

    /// `true` while it is set aside, whether or not it has a connection.
    pub(crate) fn is_ejected(&self) -> bool {
        self.load.gate.load(Ordering::Acquire) & EJECTED != 0
    }

    /// `true` when the gate is [open](Gate::Open).
    pub fn admits(&self) -> bool {
        self.load.gate.load(Ordering::Acquire) == 0
    }

    /// The connection is ready: it takes calls, unless it is ejected, or a [loss](Self::lose) is still to be settled.
    pub fn open(&self) {
        self.load.gate.fetch_and(!CLOSED, Ordering::AcqRel);
    }

    /// The connection is gone, or the endpoint leaves: no pick returns it from now on, in whatever picker it still stands.
    pub fn close(&self) {
        self.load.gate.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// The connection is gone, says whoever has it, for whoever [opens](Self::open) and [closes](Self::close) the gate and will hear
    /// of it later: it stays closed at least until that [settles](Self::settle_loss) this, whatever it opens before.
    pub fn lose(&self) {
        self.load.gate.fetch_add(LOSS, Ordering::AcqRel);
    }

    /// Closes the gate as [`close`](Self::close) does; one [loss](Self::lose) has been heard of.
    pub fn settle_loss(&self) {
        let settled = |word: u32| Some(word.checked_sub(LOSS).unwrap_or(word) | CLOSED);
        // The closure always answers `Some`.
        let _ = self.load.gate.fetch_update(Ordering::AcqRel, Ordering::Acquire, settled);
    }

    /// Sets it aside for its failures. Returns `false` if it was already.
    pub fn eject(&self) -> bool {
        self.load.gate.fetch_or(EJECTED, Ordering::AcqRel) & EJECTED == 0
    }

    /// Ends an ejection: it takes calls again, with a [slow start](crate::SlowStart) where there is one, and with no
    /// failures in a row. Returns `false` if it was not ejected.
    pub fn readmit(&self) -> bool {
        self.load.consecutive_failures.store(0, Ordering::Relaxed);
        self.restart_slow_start();
        self.lift_ejection()
    }

    /// Takes calls for the time being: nothing is forgotten. Returns `false` if it was not ejected.
    pub(crate) fn lift_ejection(&self) -> bool {
        self.load.gate.fetch_and(!EJECTED, Ordering::AcqRel) & EJECTED != 0
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
        self.load.in_flight.load(Ordering::Relaxed)
    }

    /// Calls that have ended here, but for those that never reached it.
    pub fn calls(&self) -> u64 {
        self.load.calls.load(Ordering::Relaxed)
    }

    /// Calls that ended as [`Outcome::Ok`].
    pub fn successes(&self) -> u64 {
        self.load.successes.load(Ordering::Relaxed)
    }

    /// Calls that ended as [`Outcome::Failed`] or [`Outcome::Lost`].
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Failures since the last call that went well.
    pub fn consecutive_failures(&self) -> u32 {
        self.load.consecutive_failures.load(Ordering::Relaxed)
    }

    /// How long its calls take at present, by the average that [`PeakEwma`](crate::PeakEwma) keeps: it follows rises
    /// at once, falls slowly, and counts failures as slowness. `None` before the first call has ended, and under
    /// policies that do not measure.
    pub fn latency(&self, now: Instant) -> Option<Duration> {
        let seconds = self.load.latency.estimate(self.tick(now))?;
        Some(Duration::try_from_secs_f32(seconds).unwrap_or(Duration::MAX))
    }

    /// The same, for comparing.
    pub(crate) fn fallen_latency(&self, now: Tick, rate: f32) -> Option<Fallen> {
        self.load.latency.fallen(now, rate)
    }

    /// Measures latency from now on.
    pub(crate) fn measure(&self, gauge: Gauge) {
        self.load.latency.measure(gauge);
    }

    pub(crate) fn tick(&self, now: Instant) -> Tick {
        Tick::between(self.load.epoch, now)
    }

    /// A call starts here.
    pub fn started(self: &Arc<Self>, now: Instant) -> Started {
        self.load.in_flight.fetch_add(1, Ordering::Relaxed);
        Started { state: Arc::clone(self), at: now, measured: false, finished: false }
    }

    /// A call has ended. `took` is how long it took, unless that is not known or was recorded before.
    fn ended(&self, outcome: Outcome, at: Instant, took: Option<Duration>) {
        let sample = match outcome {
            Outcome::Ok => {
                self.load.successes.fetch_add(1, Ordering::Relaxed);
                self.load.consecutive_failures.store(0, Ordering::Relaxed);
                took.map(Sample::Answered)
            }
            Outcome::Failed | Outcome::Lost => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                let before = self.load.consecutive_failures.fetch_add(1, Ordering::Relaxed);
                Some(Sample::Failed(took.unwrap_or_default(), before.saturating_add(1)))
            }
            Outcome::Cancelled => took.map(Sample::AtLeast),
            Outcome::NotSent => None,
        };
        if let Some(sample) = sample {
            self.load.latency.record(self.tick(at), sample);
        }
        if outcome != Outcome::NotSent {
            self.load.calls.fetch_add(1, Ordering::Relaxed);
        }
        // Last, so that whoever sees no call in flight also sees the call counted.
        self.load.in_flight.fetch_sub(1, Ordering::Release);
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
            self.state.load.latency.record(self.state.tick(now), Sample::Answered(took));
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
    use crate::Gate;
    use std::time::Instant;

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
