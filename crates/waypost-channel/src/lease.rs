//! One attempt of a call at one endpoint.

use crate::driver::now;
use std::fmt;
use std::sync::Arc;
use waypost_balance::{EndpointState, Outcome, Started};

/// An endpoint for one attempt of a call, which counts there as in flight until it is [finished](Self::finished) or dropped (then it
/// was cancelled, which says nothing about the endpoint).
#[must_use = "the attempt ends when this is dropped"]
pub struct Lease<C> {
    connection: C,
    started: Started,
}

// === impl Lease ===

impl<C> Lease<C> {
    pub(crate) fn new(connection: C, started: Started) -> Self {
        Self { connection, started }
    }

    /// What the attempt goes over. A clone of it outlives the lease.
    pub fn connection(&self) -> &C {
        &self.connection
    }

    /// What the attempt goes over.
    pub fn connection_mut(&mut self) -> &mut C {
        &mut self.connection
    }

    /// Where it goes to.
    pub fn endpoint(&self) -> &Arc<EndpointState> {
        self.started.endpoint()
    }

    /// The first answer has come: latency is measured up to here rather than to the end, which for a stream says nothing.
    pub fn answered(&mut self) {
        self.started.answered(now());
    }

    /// The attempt has ended. Answers the endpoint, for [`Wish::tried`](crate::Wish::tried).
    ///
    /// What the caller did wrong is [`Outcome::Ok`]: the endpoint did its work. [`Outcome::Failed`] and [`Outcome::Lost`] are what
    /// outlier detection ejects endpoints for.
    pub fn finished(self, outcome: Outcome) -> Arc<EndpointState> {
        let endpoint = Arc::clone(self.started.endpoint());
        self.started.finished(now(), outcome);
        endpoint
    }

    pub(crate) fn into_parts(self) -> (C, Started) {
        (self.connection, self.started)
    }
}

impl<C> fmt::Debug for Lease<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("endpoint", self.started.endpoint()).finish_non_exhaustive()
    }
}
