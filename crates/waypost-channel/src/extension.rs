//! What a caller says with a call, and what it is told with the response: extensions of the request and of the response.

use std::fmt;
use std::sync::Arc;
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

/// Found in a response's extensions: which instance has answered.
///
/// Missing in a response that no instance has sent: one that says why the call failed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EndpointInfo {
    /// The identity of the instance.
    pub key: InstanceKey,
    /// The instance as registered when the call was made.
    pub instance: Arc<Instance>,
    /// Which of its endpoints.
    pub endpoint: Endpoint,
    /// How many endpoints the call was sent to, this one included: 1 unless it was tried again.
    pub attempts: u32,
}

impl fmt::Display for EndpointInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.key.service, self.key.id, self.endpoint)
    }
}
