//! An HTTP/2 connection as calls see it. They hand their requests to it themselves, and are woken by it with what has come: nobody
//! is in between whom one of two threads would have to wake.

use crate::exchange::{Exchange, Severed};
use crate::outgoing::Payload;
use crate::traffic::{InFlight, Traffic};
use crate::whole::Chunk;
use h2::client::SendRequest;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Uri};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// An HTTP/2 connection, and how requests name its server. It closes when the last clone is gone and the last request is over.
#[derive(Clone)]
pub(crate) struct Http2(Arc<Line>);

struct Line {
    sender: SendRequest<Chunk>,
    scheme: Scheme,
    authority: Authority,
    traffic: Arc<Traffic>,
}

/// A request that the connection has not taken.
pub(crate) struct Unsent {
    pub(crate) error: Severed,
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

    /// A place for a request, if the server takes one more now and nobody waits for that.
    pub(crate) fn try_enter(&self) -> Option<InFlight> {
        self.0.traffic.try_enter()
    }

    /// A place for a request, when the server takes one more: in the order of asking. Fails when the connection takes no more requests.
    /// Cancel safe: of a call that no longer waits nothing is left.
    pub(crate) async fn enter(&self) -> Result<InFlight, Severed> {
        self.0.traffic.enter().await
    }

    /// How many requests the server takes at a time.
    pub(crate) fn limit(&self) -> usize {
        self.0.traffic.limit()
    }

    /// Hands a request to the connection, which sends it as soon as it knows of the place as well. The place is given back when the server
    /// has ended the response, or the caller drops that.
    pub(crate) fn send(
        &self,
        mut place: InFlight,
        request: Request<()>,
        payload: Payload,
    ) -> Result<Exchange, Unsent> {
        let mut sender = self.0.sender.clone();
        let headers_only = matches!(&payload, Payload::Whole(whole) if whole.is_empty());
        match sender.send_request(request, headers_only) {
            Ok((response, stream)) => {
                if matches!(payload, Payload::Whole(_)) {
                    // h2 locks for this.
                    place.is_on(|| response.stream_id().as_u32());
                }
                Ok(Exchange::new(place, response, stream, payload))
            }
            Err(error) => {
                let mut cx = Context::from_waker(Waker::noop());
                let wrong = matches!(sender.poll_ready(&mut cx), Poll::Ready(Ok(())));
                if !wrong && !error.is_io() {
                    // There are 2³⁰ requests in a connection; or it has broken the protocol, and may take its time to close. Of one that
                    // is lost what drives it tells why.
                    self.0.traffic.leave();
                }
                Err(Unsent { error: error.into(), payload, wrong })
            }
        }
    }
}

/// Whether an error was made here, by what was asked of the connection.
pub(crate) fn is_users(error: &h2::Error) -> bool {
    error.reason().is_none() && !error.is_io()
}
