//! An HTTP/2 connection as calls see it. They hand their requests to it themselves, and are woken by it with what has come: nobody
//! is in between whom one of two threads would have to wake.

use crate::exchange::{Exchange, Severed};
use crate::outgoing::{Chunk, Payload};
use h2::client::SendRequest;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Uri};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// An HTTP/2 connection, and how requests name its server. It closes when the last clone is gone and the last request is over.
#[derive(Clone)]
pub(crate) struct Http2(Arc<Line>);

struct Line {
    sender: SendRequest<Chunk>,
    scheme: Scheme,
    authority: Authority,
    traffic: Arc<Traffic>,
}

/// What the calls on a connection, the task that drives it, and the one that looks after it tell each other.
#[derive(Debug)]
pub(crate) struct Traffic {
    began: Instant,
    /// When the server was last heard, in nanoseconds after `began`.
    heard: AtomicU64,
    in_flight: AtomicUsize,
    /// Somebody waits for the next request.
    dormant: AtomicBool,
    busy: Notify,
    /// The connection takes no more requests.
    pub(crate) left: CancellationToken,
    /// Set when the server has not answered a ping for so long.
    pub(crate) silent: OnceLock<Duration>,
}

/// A request under way, from when it is sent to the end of its response.
pub(crate) struct InFlight(Http2);

/// A request that the connection has not taken.
pub(crate) struct Unsent {
    pub(crate) error: h2::Error,
    pub(crate) payload: Payload,
    /// It is the request that is wrong: no other connection would take it.
    pub(crate) wrong: bool,
}

// === impl Http2 ===

impl Http2 {
    pub(crate) fn new(
        sender: SendRequest<Chunk>,
        scheme: Scheme,
        authority: Authority,
        traffic: Arc<Traffic>,
    ) -> Self {
        Self(Arc::new(Line { sender, scheme, authority, traffic }))
    }

    /// Where this is, on this server.
    pub(crate) fn uri(&self, path: PathAndQuery) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.0.scheme.clone());
        parts.authority = Some(self.0.authority.clone());
        parts.path_and_query = Some(path);
        // All three parts are there, so this never falls back.
        Uri::from_parts(parts).unwrap_or_default()
    }

    /// Hands a request to the connection. Beyond the number of requests that the server takes at a time it waits there for its turn.
    pub(crate) fn send(&self, request: Request<()>, payload: Payload) -> Result<Exchange, Unsent> {
        let mut sender = self.0.sender.clone();
        match sender.send_request(request, false) {
            Ok((response, stream)) => {
                Ok(Exchange::new(InFlight::begin(self.clone()), response, stream, payload))
            }
            Err(error) => {
                let mut cx = Context::from_waker(Waker::noop());
                let wrong = matches!(sender.poll_ready(&mut cx), Poll::Ready(Ok(())));
                if !wrong && is_users(&error) {
                    // There are 2³⁰ requests in a connection.
                    self.0.traffic.left.cancel();
                }
                Err(Unsent { error, payload, wrong })
            }
        }
    }
}

/// Whether an error was made here, by what was asked of the connection.
pub(crate) fn is_users(error: &h2::Error) -> bool {
    error.reason().is_none() && !error.is_io()
}

// === impl Traffic ===

impl Traffic {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            heard: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            dormant: AtomicBool::new(false),
            busy: Notify::new(),
            left: CancellationToken::new(),
            silent: OnceLock::new(),
        }
    }

    /// Something has come from the server.
    pub(crate) fn hear(&self) {
        let nanos = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.heard.store(nanos, Ordering::Relaxed);
    }

    /// When something last came.
    pub(crate) fn heard(&self) -> Instant {
        self.began + Duration::from_nanos(self.heard.load(Ordering::Relaxed))
    }

    /// A request is under way.
    pub(crate) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        if self.dormant.load(Ordering::SeqCst) && self.dormant.swap(false, Ordering::SeqCst) {
            self.busy.notify_one();
        }
    }

    /// It is over.
    pub(crate) fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
    }

    /// Waits until a request is under way. One waits at a time.
    pub(crate) async fn busy(&self) {
        loop {
            self.dormant.store(true, Ordering::SeqCst);
            if self.in_flight.load(Ordering::SeqCst) > 0 {
                self.dormant.store(false, Ordering::SeqCst);
                return;
            }
            self.busy.notified().await;
        }
    }
}

// === impl InFlight ===

impl InFlight {
    fn begin(over: Http2) -> Self {
        over.0.traffic.begin();
        Self(over)
    }

    /// Why it has ended: h2 knows only that nobody drives the connection any more when it was given up.
    pub(crate) fn severed(&self, error: h2::Error) -> Severed {
        match self.0.0.traffic.silent.get() {
            Some(silence) if error.is_io() => Severed::Silent(*silence),
            _ => error.into(),
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.0.traffic.end();
    }
}
