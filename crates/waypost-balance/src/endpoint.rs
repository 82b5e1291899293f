//! One endpoint as pickers and calls see it: what it is, whether it takes calls, and what it carries.

use crate::padded::CachePadded;
use arc_swap::ArcSwap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;
use waypost_model::{Endpoint, Instance, InstanceKey};

/// One endpoint, shared between the picker and the calls that run on it.
///
/// It outlives a connection: an endpoint that reconnects keeps its state, so its history is not forgotten by a restart.
/// An instance that moves to another address gets a new one. A new state is [closed](Gate::Closed).
pub struct EndpointState {
    endpoint: Endpoint,
    registered: ArcSwap<(InstanceKey, Arc<Instance>)>,
    since: Instant,
    /// [`CLOSED`] and [`EJECTED`] are independent: a connection that comes back does not end an ejection.
    gate: CachePadded<AtomicU8>,
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
    finished: bool,
}

const CLOSED: u8 = 1;
const EJECTED: u8 = 2;

/// What every call writes.
#[derive(Debug, Default)]
struct Load {
    in_flight: AtomicU32,
    calls: AtomicU64,
    failures: AtomicU64,
    consecutive_failures: AtomicU32,
}

// === impl EndpointState ===

impl EndpointState {
    /// A new endpoint: closed, not ejected, with no calls. `endpoint` is the one of the instance's endpoints that calls go to.
    pub fn new(key: InstanceKey, endpoint: Endpoint, instance: Arc<Instance>, now: Instant) -> Self {
        let gate = CachePadded::default();
        AtomicU8::store(&gate, CLOSED, Ordering::Relaxed);
        let registered = ArcSwap::from_pointee((key, instance));
        Self { endpoint, registered, since: now, gate, load: CachePadded::default() }
    }

    /// Which instance this is.
    pub fn key(&self) -> InstanceKey {
        self.registered.load().0.clone()
    }

    /// The address that calls go to. It never changes.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
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

    /// When this endpoint became known: the start of its slow start.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Whether it takes calls now.
    pub fn gate(&self) -> Gate {
        match self.gate.load(Ordering::Acquire) {
            0 => Gate::Open,
            bits if bits & CLOSED != 0 => Gate::Closed,
            _ => Gate::Ejected,
        }
    }

    /// `true` when the gate is [open](Gate::Open).
    pub fn admits(&self) -> bool {
        self.gate.load(Ordering::Acquire) == 0
    }

    /// The connection is ready: it takes calls, unless it is ejected.
    pub fn open(&self) {
        self.gate.fetch_and(!CLOSED, Ordering::AcqRel);
    }

    /// The connection is gone, or the endpoint leaves: no pick returns it from now on, in whatever picker it still stands.
    pub fn close(&self) {
        self.gate.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// Sets it aside for its failures. Returns `false` if it was already.
    pub fn eject(&self) -> bool {
        self.gate.fetch_or(EJECTED, Ordering::AcqRel) & EJECTED == 0
    }

    /// Ends an ejection. Returns `false` if there was none.
    pub fn readmit(&self) -> bool {
        self.gate.fetch_and(!EJECTED, Ordering::AcqRel) & EJECTED != 0
    }

    /// Calls that have started here and have not ended, streams included.
    pub fn in_flight(&self) -> u32 {
        self.load.in_flight.load(Ordering::Relaxed)
    }

    /// Calls that have ended here, but for those that never reached it.
    pub fn calls(&self) -> u64 {
        self.load.calls.load(Ordering::Relaxed)
    }

    /// Calls that ended as [`Outcome::Failed`] or [`Outcome::Lost`].
    pub fn failures(&self) -> u64 {
        self.load.failures.load(Ordering::Relaxed)
    }

    /// Failures since the last call that went well.
    pub fn consecutive_failures(&self) -> u32 {
        self.load.consecutive_failures.load(Ordering::Relaxed)
    }

    /// A call starts here.
    pub fn started(self: &Arc<Self>, now: Instant) -> Started {
        self.load.in_flight.fetch_add(1, Ordering::Relaxed);
        Started { state: Arc::clone(self), at: now, finished: false }
    }

    fn ended(&self, outcome: Outcome) {
        match outcome {
            Outcome::Ok => self.load.consecutive_failures.store(0, Ordering::Relaxed),
            Outcome::Failed | Outcome::Lost => {
                self.load.failures.fetch_add(1, Ordering::Relaxed);
                self.load.consecutive_failures.fetch_add(1, Ordering::Relaxed);
            }
            Outcome::Cancelled | Outcome::NotSent => {}
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

    /// The call has ended at `now`.
    pub fn finished(mut self, _now: Instant, outcome: Outcome) {
        self.finished = true;
        self.state.ended(outcome);
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if !self.finished {
            self.state.ended(Outcome::Cancelled);
        }
    }
}
