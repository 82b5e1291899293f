//! What is counted, and how `/metrics` tells it: under etcd's names where the meaning is etcd's, so that its dashboards work,
//! else under `waypost_embed_…`.
//!
//! The services and the writer count in plain atomics; the rest is asked for when somebody reads.

mod calls;
mod classic;
mod process;
mod scrape;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

pub(super) use self::calls::{Call, Calls};
pub(super) use self::scrape::{CONTENT_TYPE, scrape};

/// What is counted while the server runs.
#[derive(Debug)]
pub(super) struct Tallies {
    pub(super) calls: Calls,
    /// Bytes of connections, as they come in and go out inside of TLS.
    pub(super) received: Counter,
    pub(super) sent: Counter,
    pub(super) leases_granted: Counter,
    pub(super) leases_revoked: Counter,
    pub(super) leases_renewed: Counter,
    pub(super) leases_expired: Counter,
    pub(super) puts: Counter,
    pub(super) deletes: Counter,
    /// Requests that failed together with the batch that they were in.
    pub(super) failed: Counter,
    pub(super) healthy: Counter,
    pub(super) unhealthy: Counter,
    /// Seconds until a batch is on disk.
    pub(super) sync: Histogram,
    /// Requests in a batch.
    pub(super) batch: Histogram,
}

// === impl Tallies ===

impl Default for Tallies {
    /// Buckets of seconds are etcd's own: 1 ms to 8.192 s; with two below, since most syncs are faster here.
    fn default() -> Self {
        let syncs = [0.000_25, 0.000_5].into_iter().chain(exponential_buckets(0.001, 2.0, 14));
        Self {
            calls: Calls::new(),
            received: Counter::default(),
            sent: Counter::default(),
            leases_granted: Counter::default(),
            leases_revoked: Counter::default(),
            leases_renewed: Counter::default(),
            leases_expired: Counter::default(),
            puts: Counter::default(),
            deletes: Counter::default(),
            failed: Counter::default(),
            healthy: Counter::default(),
            unhealthy: Counter::default(),
            sync: Histogram::new(syncs),
            batch: Histogram::new(exponential_buckets(1.0, 4.0, 7)),
        }
    }
}
