//! One attempt of a call at one endpoint.

use crate::driver::now;
use crate::wards::Watched;
use std::fmt;
use std::sync::Arc;
use waypost_balance::{EndpointState, Outcome};

/// An endpoint for one attempt of a call, which counts there as in flight until it is [finished](Self::finished) or dropped (then it
/// was cancelled, which says nothing about the endpoint).
#[must_use = "the attempt ends when this is dropped"]
pub struct Lease<C> {
    connection: C,
    call: Watched,
}

// === impl Lease ===

impl<C> Lease<C> {
    pub(crate) fn new(connection: C, call: Watched) -> Self {
        Self { connection, call }
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
        self.call.endpoint()
    }

    /// The first answer has come: latency is measured up to here rather than to the end, which for a stream says nothing.
    pub fn answered(&mut self) {
        self.call.answered(now());
    }

    /// The attempt has ended. Answers the endpoint, for [`Wish::tried`](crate::Wish::tried).
    ///
    /// What the caller did wrong is [`Outcome::Ok`]: the endpoint did its work. [`Outcome::Failed`] and [`Outcome::Lost`] are what
    /// outlier detection ejects endpoints for.
    pub fn finished(self, outcome: Outcome) -> Arc<EndpointState> {
        self.call.finished(now(), outcome)
    }

    pub(crate) fn into_parts(self) -> (C, Watched) {
        (self.connection, self.call)
    }
}

impl<C> fmt::Debug for Lease<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("endpoint", self.call.endpoint()).finish_non_exhaustive()
    }
}
