//! What calls read: the picker, the connections behind it, and what to say when there is none.

use crate::extension::HashKey;
use crate::fleet::{Census, Outlook};
use crate::lease::Lease;
use crate::line::Http2;
use crate::policy::Policy;
use crate::pool::Wish;
use crate::wards::{Suspicion, Watched};
use http::HeaderName;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use waypost_balance::{EndpointState, PickRequest, Picker};
use waypost_model::Endpoint;

/// An immutable view of the fleet, replaced as a whole by the driver. Reading it is wait-free.
pub(crate) struct Table<C = Http2> {
    pub(crate) picker: Arc<dyn Picker>,
    /// Where the key of a call is that brings none of its own.
    pub(crate) hash_header: Option<HeaderName>,
    /// In the order that the picker was built for.
    pub(crate) connections: Arc<Vec<Arc<Connection<C>>>>,
    /// Where connections are made when calls come.
    pub(crate) on_demand: Option<Arc<OnDemand<C>>>,
    pub(crate) outlook: Outlook,
    pub(crate) census: Census,
}

/// A connection that takes calls.
pub(crate) struct Connection<C = Http2> {
    pub(crate) over: C,
    pub(crate) state: Arc<EndpointState>,
    pub(crate) suspicion: Arc<Suspicion>,
}

/// All endpoints that a call may go to, connected or not. A call that picks one without a connection asks for it, and goes to
/// one that has a connection meanwhile.
pub(crate) struct OnDemand<C = Http2> {
    pub(crate) picker: Arc<dyn Picker>,
    /// In the order that the picker was built for.
    pub(crate) slots: Box<[Slot<C>]>,
    pub(crate) wanted: mpsc::UnboundedSender<Endpoint>,
    /// Counts the sets of a pool, from 1 on.
    pub(crate) number: u64,
}

/// In which set a call has last asked for an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    in_set: u64,
}

pub(crate) struct Slot<C> {
    pub(crate) endpoint: Endpoint,
    pub(crate) connection: Option<Arc<Connection<C>>>,
    /// Asked for: once is enough for a table.
    pub(crate) asked: AtomicBool,
}

/// How much less often than asked for the servers want to be pinged.
#[derive(Debug)]
pub(crate) struct Pace(AtomicU32);

/// 20 s by 2 to the fifth is more than ten minutes, twice what the strictest default of a known server asks for.
const SLOWEST: u32 = 32;

// === impl Table ===

impl<C: Clone> Table<C> {
    pub(crate) fn empty(policy: &Policy, outlook: Outlook) -> Self {
        Self {
            picker: policy.idle(),
            hash_header: policy.hash_header().cloned(),
            connections: Arc::default(),
            on_demand: None,
            outlook,
            census: Census::default(),
        }
    }

    /// Picks an endpoint and counts the call as started there.
    ///
    /// With `asks`, one that is not connected to is asked for; says in which set, if there is no lease.
    pub(crate) fn pick(&self, now: Instant, wish: &Wish<'_>, asks: bool) -> Result<Lease<C>, Asked> {
        let random = || fastrand::u64(..);
        let in_header = || HashKey::in_header(wish.headers?, self.hash_header.as_ref()?);
        let hash = wish.key.or_else(in_header).map(HashKey::hash);
        let request = PickRequest::new(now, &random).with_hash(hash).with_exclude(wish.tried);
        let slot = self.on_demand.as_ref().and_then(|on_demand| on_demand.pick(&request, asks));
        let made = || self.connections.get(self.picker.pick(&request)?);
        let connection = slot.and_then(|slot| slot.connection.as_ref()).or_else(made);
        // Where there is no slot, as before the gates of a new set have opened, nothing was asked for.
        let asked = || if asks && slot.is_some() { self.set() } else { Asked::NOTHING };
        let connection = connection.ok_or_else(asked)?;
        let call = Watched::new(connection.state.started(now), &connection.suspicion);
        Ok(Lease::new(connection.over.clone(), call))
    }

    /// Asks for any endpoint, where nothing is connected to without being asked for.
    pub(crate) fn ask(&self, now: Instant) -> Asked {
        let random = || fastrand::u64(..);
        let ask =
            |on_demand: &Arc<OnDemand<C>>| on_demand.pick(&PickRequest::new(now, &random), true).map(drop);
        self.on_demand.as_ref().and_then(ask).map_or(Asked::NOTHING, |()| self.set())
    }

    /// Whether a call that has asked before is to ask for another endpoint: not of the same set, where the driver may not have heard of the
    /// first yet, and not while an attempt may still be what it waits for.
    pub(crate) fn asks_again(&self, asked: Asked) -> bool {
        self.census.undecided() == 0 && asked != self.set()
    }

    /// What asks for an endpoint here has asked in.
    fn set(&self) -> Asked {
        self.on_demand.as_ref().map_or(Asked::NOTHING, |on_demand| Asked { in_set: on_demand.number })
    }
}

// === impl Asked ===

impl Asked {
    pub(crate) const NOTHING: Self = Self { in_set: 0 };
}

// === impl OnDemand ===

impl<C> OnDemand<C> {
    /// The endpoint that is picked; if it has no connection, and with `asks`, it is asked for.
    fn pick(&self, request: &PickRequest<'_>, asks: bool) -> Option<&Slot<C>> {
        let slot = self.slots.get(self.picker.pick(request)?)?;
        if asks && slot.connection.is_none() && !slot.asked.swap(true, Ordering::Relaxed) {
            // The driver has ended: nobody is to be asked.
            let _ = self.wanted.send(slot.endpoint.clone());
        }
        Some(slot)
    }
}

// === impl Pace ===

impl Default for Pace {
    fn default() -> Self {
        Self(AtomicU32::new(1))
    }
}

impl Pace {
    /// A server has complained: all connections of the channel ping half as often from now on.
    pub(crate) fn slow_down(&self) {
        let doubled = |factor: u32| Some((factor * 2).min(SLOWEST));
        // The closure always answers `Some`.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, doubled);
    }

    pub(crate) fn stretch(&self, interval: Duration) -> Duration {
        interval.saturating_mul(self.0.load(Ordering::Relaxed))
    }
}
