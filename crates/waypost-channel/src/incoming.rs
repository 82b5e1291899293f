//! The body of a response: followed to its end, since only then is the call over.

use crate::deadline::{Deadline, Passed};
use crate::exchange::{Incoming, Severed};
use crate::ledger::{Record, UnderWay};
use crate::length::{Lengths, Limit, TooLong};
use crate::replay::{Replay, Unmade};
use crate::verdict::{code_of_trailers, status_of};
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use pin_project_lite::pin_project;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Code, Status};

pin_project! {
    /// A response's body on its way to the caller.
    pub(crate) struct Tracked {
        body: Passing,
        #[pin]
        deadline: Option<Sleep>,
        under_way: Option<(UnderWay, Record)>,
    }
}

/// A response's body, whose messages may be only so long.
pub(crate) struct Passing {
    /// What was held back before it was clear that the response would be passed on.
    held: VecDeque<Bytes>,
    /// `None` once a message was too long or the deadline has passed: its stream is reset.
    rest: Option<Incoming>,
    lengths: Lengths,
    /// The next to be told of.
    long: Option<TooLong>,
    /// The request, if it is still being made.
    replay: Option<Arc<Replay>>,
}

/// What a response can break off with.
pub(crate) enum Broken {
    Lost(Severed),
    TooLong(TooLong),
    /// The request could not be made to its end.
    Unmade(Unmade),
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
    TooLarge(Passing),
    Broken(Broken),
    Passed,
}

// === impl Passing ===

impl Passing {
    pub(crate) fn new(rest: Incoming, longest: Limit, replay: Option<Arc<Replay>>) -> Self {
        Self { held: VecDeque::new(), rest: Some(rest), lengths: Lengths::new(longest), long: None, replay }
    }

    /// The data that is passed on of a frame.
    fn measure(&mut self, mut frame: Frame<Bytes>) -> Result<Frame<Bytes>, Broken> {
        let Some(data) = frame.data_mut() else { return Ok(frame) };
        if let Err(long) = self.lengths.pass(data) {
            self.rest = None;
            data.truncate(long.before);
            if data.is_empty() {
                return Err(Broken::TooLong(long));
            }
            self.long = Some(long);
        }
        Ok(frame)
    }

    /// Nobody gets the rest: its stream is reset, whether or not the caller drops the body.
    fn give_up(&mut self) {
        (self.rest, self.long) = (None, None);
        self.held.clear();
    }

    fn broken(&self, error: Severed) -> Broken {
        let failure = self.replay.as_ref().and_then(|replay| replay.failure());
        failure.map_or(Broken::Lost(error), Broken::Unmade)
    }
}

impl Body for Passing {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(data) = self.held.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(long) = self.long.take() {
            return Poll::Ready(Some(Err(Broken::TooLong(long))));
        }
        let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(rest).poll_frame(cx));
        Poll::Ready(frame.map(|frame| match frame {
            Ok(frame) => self.measure(frame),
            Err(error) => Err(self.broken(error)),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.long.is_none() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.rest {
            Some(rest) if self.held.is_empty() => rest.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

// === impl Broken ===

impl Broken {
    /// What the caller is told. The attempt, if it has not ended before, ends with it.
    pub(crate) fn end(self, attempt: Option<UnderWay>) -> Status {
        let context = attempt.as_ref().map_or_else(String::new, UnderWay::context);
        match self {
            Self::Lost(error) => {
                let status = status_of(&error, &context);
                if let Some(attempt) = attempt {
                    attempt.lost(status.code());
                }
                status
            }
            Self::TooLong(long) => {
                let status = Status::resource_exhausted(format!("{context}: the answer has {long}"));
                if let Some(attempt) = attempt {
                    attempt.ended(status.code());
                }
                status
            }
            Self::Unmade(unmade) => unmade.told(&context),
        }
    }
}

// === impl Tracked ===

impl Tracked {
    pub(crate) fn new(body: Passing, deadline: Deadline, under_way: Option<(UnderWay, Record)>) -> Self {
        Self { body, deadline: deadline.0.map(sleep_until), under_way }
    }
}

impl Body for Tracked {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut this = self.project();
        // The timer is asked for only when there is nothing to read, and a server may always be faster than its reader.
        let late =
            this.deadline.as_ref().as_pin_ref().is_some_and(|sleep| sleep.deadline() <= Instant::now());
        if !(late && this.under_way.is_some())
            && let Poll::Ready(frame) = Pin::new(&mut *this.body).poll_frame(cx)
        {
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
                Some(Err(broken)) => {
                    let (attempt, call) = this.under_way.take().unzip();
                    let status = broken.end(attempt);
                    if let Some(call) = call {
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
        if !late {
            let Some(deadline) = this.deadline.as_mut().as_pin_mut() else { return Poll::Pending };
            ready!(deadline.poll(cx));
        }
        this.body.give_up();
        let Some((attempt, call)) = this.under_way.take() else { return Poll::Ready(None) };
        let status = passed(&attempt.context());
        attempt.ended(status.code());
        call.ended(status.code());
        Poll::Ready(Some(Err(status)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
    pub(crate) async fn read(mut body: Passing, limit: usize, deadline: Deadline) -> Self {
        let mut complete = Complete::default();
        let mut size = 0_usize;
        loop {
            let frame = match deadline.limit(body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(broken))) => return Self::Broken(broken),
                Ok(None) => return Self::Complete(complete),
                Err(Passed) => return Self::Passed,
            };
            match frame.into_data() {
                Ok(data) => {
                    size = size.saturating_add(data.len());
                    complete.frames.push_back(data);
                    if size > limit {
                        return Self::TooLarge(Passing { held: complete.frames, ..body });
                    }
                }
                Err(frame) => complete.trailers = frame.into_trailers().ok(),
            }
        }
    }
}
