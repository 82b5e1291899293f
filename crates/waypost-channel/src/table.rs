//! What calls read: the picker, the connections behind it, and what to say when there is none.

use crate::extension::HashKey;
use crate::fleet::{Census, Outlook};
use crate::http2::Http2;
use crate::lease::Lease;
use crate::policy::Policy;
use crate::pool::Wish;
use http::HeaderName;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use waypost_balance::{EndpointState, PickRequest, Picker};

/// An immutable view of the fleet, replaced as a whole by the driver. Reading it is wait-free.
pub(crate) struct Table<C = Http2> {
    pub(crate) picker: Arc<dyn Picker>,
    /// Where the key of a call is that brings none of its own.
    pub(crate) hash_header: Option<HeaderName>,
    /// In the order that the picker was built for.
    pub(crate) connections: Box<[Connection<C>]>,
    pub(crate) outlook: Outlook,
    pub(crate) census: Census,
}

/// A connection that takes calls.
#[derive(Clone)]
pub(crate) struct Connection<C = Http2> {
    pub(crate) over: C,
    pub(crate) state: Arc<EndpointState>,
}

/// How much less often than asked for the servers want to be pinged.
#[derive(Debug)]
pub(crate) struct Pace(AtomicU32);

/// 20 s by 2 to the fifth is more than ten minutes, twice what the strictest default of a known server asks for.
const SLOWEST: u32 = 32;

// === impl Table ===

impl<C: Clone> Table<C> {
    pub(crate) fn empty(policy: &Policy, outlook: Outlook) -> Self {
        let picker = policy.rule().build(Arc::from([]), None);
        let hash_header = policy.hash_header().cloned();
        Self { picker, hash_header, connections: Box::default(), outlook, census: Census::empty() }
    }

    /// Picks an endpoint and counts the call as started there.
    pub(crate) fn pick(&self, now: Instant, wish: &Wish<'_>) -> Option<Lease<C>> {
        let random = || fastrand::u64(..);
        let in_header = || HashKey::in_header(wish.headers?, self.hash_header.as_ref()?);
        let hash = wish.key.or_else(in_header).map(HashKey::hash);
        let request = PickRequest::new(now, &random).with_hash(hash).with_exclude(wish.tried);
        let connection = self.connections.get(self.picker.pick(&request)?)?;
        Some(Lease::new(connection.over.clone(), connection.state.started(now)))
    }
}

// === impl Pace ===

impl Default for Pace {
    fn default() -> Self {
        Self(AtomicU32::new(1))
    }
}

impl Pace {
    /// A server has complained: connections made from now on ping half as often.
    pub(crate) fn slow_down(&self) {
        let doubled = |factor: u32| Some((factor * 2).min(SLOWEST));
        // The closure always answers `Some`.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, doubled);
    }

    pub(crate) fn stretch(&self, interval: Duration) -> Duration {
        interval.saturating_mul(self.0.load(Ordering::Relaxed))
    }
}
