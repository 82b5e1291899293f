//! Bare channels, each call on the next: what so many connections cost without discovery, health or choice.

use http::{Request, Response};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::transport::Channel;
use tower::Service;

/// A transport for generated clients. Clones share the turns.
#[derive(Clone)]
pub(crate) struct Turns {
    channels: Vec<Channel>,
    next: Arc<AtomicUsize>,
    /// Whose turn it is, once this was asked whether it is ready.
    chosen: Option<usize>,
}

// === impl Turns ===

impl Turns {
    /// There is at least one.
    pub(crate) fn new(channels: Vec<Channel>) -> Self {
        Self { channels, next: Arc::default(), chosen: None }
    }
}

impl Service<Request<Body>> for Turns {
    type Response = Response<Body>;
    type Error = tonic::transport::Error;
    type Future = <Channel as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let next = || self.next.fetch_add(1, Ordering::Relaxed) % self.channels.len();
        let chosen = *self.chosen.get_or_insert_with(next);
        self.channels[chosen].poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let chosen = self.chosen.take().unwrap_or_default();
        self.channels[chosen].call(request)
    }
}
