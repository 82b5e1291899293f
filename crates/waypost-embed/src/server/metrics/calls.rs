//! Calls of gRPC, by method and how they ended.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};

use super::Tallies;
use crate::server::gateway;

/// Every method that there is, by path.
#[derive(Debug)]
pub(in crate::server) struct Calls {
    methods: HashMap<String, Arc<Method>>,
}

/// Calls of one method.
#[derive(Debug)]
pub(super) struct Method {
    pub(super) service: &'static str,
    pub(super) name: &'static str,
    started: AtomicU64,
    /// By code.
    handled: [AtomicU64; CODES.len()],
}

/// Codes as Go's library names them, by number.
pub(super) const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// A call that has begun. Dropped before it ended, it was cancelled.
pub(in crate::server) struct Call {
    /// Of those that there are.
    method: Option<Arc<Method>>,
    ended: bool,
}

/// The answer to a call.
struct Counted {
    body: Body,
    call: Call,
}

// === impl Calls ===

impl Calls {
    pub(super) fn new() -> Self {
        let others = [("grpc.health.v1.Health", "Check"), ("grpc.health.v1.Health", "Watch")];
        let methods = gateway::methods().chain(others).map(|(service, name)| {
            let handled = std::array::from_fn(|_| AtomicU64::new(0));
            let method = Method { service, name, started: AtomicU64::new(0), handled };
            (format!("/{service}/{name}"), Arc::new(method))
        });
        Self { methods: methods.collect() }
    }

    /// In no order.
    pub(super) fn methods(&self) -> impl Iterator<Item = &Method> {
        self.methods.values().map(|method| &**method)
    }
}

// === impl Method ===

impl Method {
    pub(super) fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    /// Calls that ended, by the name of the code.
    pub(super) fn handled(&self) -> impl Iterator<Item = (&'static str, u64)> {
        CODES.into_iter().zip(&self.handled).map(|(code, count)| (code, count.load(Ordering::Relaxed)))
    }

    /// What kind of method it is, in the words of Go's metrics.
    pub(super) fn kind(&self) -> &'static str {
        match (self.service, self.name) {
            ("etcdserverpb.Watch", _) | (_, "LeaseKeepAlive") => "bidi_stream",
            (_, "Watch" | "Snapshot" | "Observe") => "server_stream",
            _ => "unary",
        }
    }
}

// === impl Call ===

impl Call {
    pub(in crate::server) fn begin(tallies: &Tallies, path: &str) -> Self {
        let method = tallies.calls.methods.get(path).cloned();
        if let Some(method) = &method {
            method.started.fetch_add(1, Ordering::Relaxed);
        }
        Self { method, ended: false }
    }

    /// Follows the answer to its end.
    pub(in crate::server) fn follow(mut self, response: Response<Body>) -> Response<Body> {
        // Refused before anything was answered, the status is in the headers.
        if self.look(response.headers()) {
            return response;
        }
        response.map(|body| Body::new(Counted { body, call: self }))
    }

    /// Whether headers or trailers say how it ended.
    fn look(&mut self, headers: &HeaderMap) -> bool {
        let Some(code) = headers.get("grpc-status") else { return false };
        self.end(Code::from_bytes(code.as_bytes()));
        true
    }

    fn end(&mut self, code: Code) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let counts = self.method.as_ref().map(|method| &method.handled);
        let place = usize::try_from(i32::from(code)).ok();
        if let Some(count) = counts.zip(place).and_then(|(counts, place)| counts.get(place)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

// === impl Counted ===

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.call.look(trailers);
                }
            }
            Some(Err(status)) => self.call.end(status.code()),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
