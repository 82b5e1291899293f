//! The body of a response: followed to its end, since only then is the call over.

use crate::deadline::{Deadline, Passed};
use crate::ledger::{Record, UnderWay};
use crate::verdict::{code_of_trailers, status_of};
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::time::{Sleep, sleep_until};
use tonic::{Code, Status};

pin_project! {
    /// A response's body on its way to the caller.
    pub(crate) struct Tracked {
        // What was held back before it was clear that the response would be passed on.
        held: VecDeque<Bytes>,
        #[pin]
        rest: Incoming,
        #[pin]
        deadline: Option<Sleep>,
        under_way: Option<(UnderWay, Record)>,
    }
}

/// A complete response body.
#[derive(Debug, Default)]
pub(crate) struct Complete {
    frames: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
}

/// What holding back a response comes to.
pub(crate) enum Held {
    Complete(Complete),
    /// It is larger than what is held back.
    TooLarge(VecDeque<Bytes>, Incoming),
    Lost(hyper::Error),
    Passed,
}

// === impl Tracked ===

impl Tracked {
    pub(crate) fn new(
        held: VecDeque<Bytes>,
        rest: Incoming,
        deadline: Deadline,
        under_way: Option<(UnderWay, Record)>,
    ) -> Self {
        Self { held, rest, deadline: deadline.0.map(sleep_until), under_way }
    }
}

impl Body for Tracked {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.project();
        if let Some(data) = this.held.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Poll::Ready(frame) = this.rest.poll_frame(cx) {
            return Poll::Ready(match frame {
                Some(Ok(frame)) => {
                    if let Some(trailers) = frame.trailers_ref()
                        && let Some((attempt, call)) = this.under_way.take()
                    {
                        let code = code_of_trailers(trailers).unwrap_or(Code::Unknown);
                        attempt.ended(code);
                        call.ended(code);
                    }
                    Some(Ok(frame))
                }
                Some(Err(error)) => {
                    let under_way = this.under_way.take();
                    let context =
                        under_way.as_ref().map_or_else(String::new, |(attempt, _)| attempt.context());
                    let status = status_of(&error, &context);
                    if let Some((attempt, call)) = under_way {
                        attempt.lost(status.code());
                        call.ended(status.code());
                    }
                    Some(Err(status))
                }
                None => {
                    // A server that ends a response without trailers says nothing of the call.
                    if let Some((attempt, call)) = this.under_way.take() {
                        attempt.lost(Code::Unknown);
                        call.ended(Code::Unknown);
                    }
                    None
                }
            });
        }
        let Some(deadline) = this.deadline.as_pin_mut() else { return Poll::Pending };
        ready!(deadline.poll(cx));
        let Some((attempt, call)) = this.under_way.take() else { return Poll::Ready(None) };
        let status = passed(&attempt.context());
        attempt.ended(status.code());
        call.ended(status.code());
        Poll::Ready(Some(Err(status)))
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.held.is_empty() { self.rest.size_hint() } else { SizeHint::default() }
    }
}

/// The deadline passed before the endpoint had answered.
pub(crate) fn passed(context: &str) -> Status {
    Status::deadline_exceeded(format!("{context}: no complete answer before the deadline"))
}

// === impl Complete ===

impl Complete {
    pub(crate) fn code(&self) -> Option<Code> {
        self.trailers.as_ref().and_then(code_of_trailers)
    }

    pub(crate) fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_ref()
    }
}

impl Body for Complete {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let data = self.frames.pop_front().map(Frame::data);
        Poll::Ready(data.or_else(|| self.trailers.take().map(Frame::trailers)).map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.trailers.is_none()
    }
}

// === impl Held ===

impl Held {
    /// Reads a response to its end, or until it is larger than `limit` bytes.
    pub(crate) async fn read(mut body: Incoming, limit: usize, deadline: Deadline) -> Self {
        let mut complete = Complete::default();
        let mut size = 0_usize;
        loop {
            let frame = match deadline.limit(body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Self::Lost(error),
                Ok(None) => return Self::Complete(complete),
                Err(Passed) => return Self::Passed,
            };
            match frame.into_data() {
                Ok(data) => {
                    size = size.saturating_add(data.len());
                    complete.frames.push_back(data);
                    if size > limit {
                        return Self::TooLarge(complete.frames, body);
                    }
                }
                Err(frame) => complete.trailers = frame.into_trailers().ok(),
            }
        }
    }
}
