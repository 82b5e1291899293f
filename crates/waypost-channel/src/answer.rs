//! What an endpoint has answered, before it is clear that the caller gets it.

use crate::deadline::Deadline;
use crate::exchange::Incoming;
use crate::incoming::{Complete, Passing, Tracked};
use crate::ledger::{Record, UnderWay};
use crate::length::Limit;
use crate::resend::Pushback;
use http::Response;
use http::response::Parts;
use tonic::Code;
use tonic::body::Body;

/// An answer. Dropped, it is given up.
pub(crate) struct Answer {
    parts: Parts,
    body: Content,
}

enum Content {
    /// Headers have come, and perhaps a part of the body; the status is still to come.
    Begun {
        body: Passing,
        attempt: UnderWay,
    },
    /// All of it, in the headers; what a server may have sent besides is not gRPC's.
    InHeaders {
        code: Code,
        rest: Incoming,
    },
    Whole {
        code: Code,
        body: Complete,
    },
}

// === impl Answer ===

impl Answer {
    pub(crate) fn begun(parts: Parts, body: Passing, attempt: UnderWay) -> Self {
        Self { parts, body: Content::Begun { body, attempt } }
    }

    /// An answer that ends with its headers keeps nothing of its connection.
    pub(crate) fn in_headers(parts: Parts, code: Code, mut rest: Incoming) -> Self {
        if rest.settle() {
            return Self::whole(parts, code, Complete::default());
        }
        Self { parts, body: Content::InHeaders { code, rest } }
    }

    pub(crate) fn whole(parts: Parts, code: Code, body: Complete) -> Self {
        Self { parts, body: Content::Whole { code, body } }
    }

    /// The status, if the answer is complete.
    pub(crate) fn code(&self) -> Option<Code> {
        match &self.body {
            Content::Begun { .. } => None,
            Content::InHeaders { code, .. } | Content::Whole { code, .. } => Some(*code),
        }
    }

    /// What the server says of further attempts.
    pub(crate) fn pushback(&self) -> Pushback {
        match &self.body {
            Content::Whole { body, .. } => Pushback::of(body.trailers().unwrap_or(&self.parts.headers)),
            _ => Pushback::of(&self.parts.headers),
        }
    }

    /// The call ends with this.
    pub(crate) fn deliver(self, record: Record, deadline: Deadline) -> Response<Body> {
        let body = match self.body {
            Content::Begun { body, attempt } => {
                Body::new(Tracked::new(body, deadline, Some((attempt, record))))
            }
            Content::InHeaders { code, rest } => {
                record.ended(code);
                Body::new(Tracked::new(Passing::new(rest, Limit::NONE, None), deadline, None))
            }
            Content::Whole { code, body } => {
                record.ended(code);
                Body::new(body)
            }
        };
        Response::from_parts(self.parts, body)
    }
}
