//! What a caller says with a call, and what it is told with the response: extensions of the request and of the response.

use http::{HeaderMap, HeaderName};
use std::fmt;
use std::sync::Arc;
use waypost_balance::EndpointState;
use waypost_model::{Endpoint, Instance, InstanceKey};

/// Put into a request's extensions: the call may be processed twice, so it may be tried again after `UNAVAILABLE` and after a
/// lost connection.
///
/// For unary calls: the response is held back until it is complete (or larger than
/// [`response_limit`](crate::RetryPolicy::response_limit)), so that a server that dies in the middle of it costs nothing.
///
/// ```
/// let mut request = tonic::Request::new(());
/// request.extensions_mut().insert(waypost_channel::Idempotent);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idempotent;

/// Put into a request's extensions: whether the call waits for a ready endpoint until its deadline (for ever, if it has none)
/// rather than fail at once. Overrides the channel's own
/// [`wait_for_ready`](crate::ChannelBuilder::wait_for_ready).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitForReady(pub bool);

/// Put into a request's extensions: what keeps calls together under [`ring_hash`](crate::Policy::ring_hash) and
/// [`maglev`](crate::Policy::maglev). Calls with the same key go to the same endpoint. Counts more than the
/// [header](crate::Policy::hash_on_header) that the policy names.
///
/// ```
/// let mut request = tonic::Request::new(());
/// request.extensions_mut().insert(waypost_channel::HashKey::of("user 42"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashKey(u64);

/// Found in a response's extensions: which instance has answered.
///
/// As long as it is kept, so are the counters of the endpoint.
///
/// Missing in a response that no instance has sent: one that says why the call failed.
#[derive(Clone)]
pub struct EndpointInfo {
    // Not copies: each would be a count in another place, for every call.
    state: Arc<EndpointState>,
    registration: Arc<(InstanceKey, Arc<Instance>)>,
    attempts: u32,
}

// === impl HashKey ===

impl HashKey {
    /// The key, by its XXH64 with seed 0, as gRPC and Envoy hash headers.
    pub fn of(key: impl AsRef<[u8]>) -> Self {
        Self(waypost_balance::hash_key(key.as_ref()))
    }

    /// A hash of one's own. It is to be spread over all of `u64`.
    pub fn from_hash(hash: u64) -> Self {
        Self(hash)
    }

    /// The key in a header: its values, joined by commas where there are several (gRFC A76).
    pub(crate) fn in_header(headers: &HeaderMap, name: &HeaderName) -> Option<Self> {
        let mut values = headers.get_all(name).iter();
        let first = values.next()?;
        let Some(second) = values.next() else { return Some(Self::of(first)) };
        let mut joined = first.as_bytes().to_vec();
        for value in std::iter::once(second).chain(values) {
            joined.push(b',');
            joined.extend_from_slice(value.as_bytes());
        }
        Some(Self::of(joined))
    }

    pub(crate) fn hash(self) -> u64 {
        self.0
    }
}

// === impl EndpointInfo ===

impl EndpointInfo {
    pub(crate) fn new(state: Arc<EndpointState>, attempts: u32) -> Self {
        Self { registration: state.registration(), state, attempts }
    }

    /// The identity of the instance.
    pub fn key(&self) -> &InstanceKey {
        &self.registration.0
    }

    /// The instance as registered when the response came.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.registration.1
    }

    /// Which of its endpoints.
    pub fn endpoint(&self) -> &Endpoint {
        self.state.endpoint()
    }

    /// Which attempt of the call this was: 1 unless it was tried again. Under a `retryPolicy` those count that found no endpoint.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}

impl fmt::Debug for EndpointInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointInfo")
            .field("key", self.key())
            .field("endpoint", self.endpoint())
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for EndpointInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key();
        write!(f, "{} {} ({})", key.service, key.id, self.endpoint())
    }
}
