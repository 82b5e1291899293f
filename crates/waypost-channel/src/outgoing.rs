//! The body of a request on its way to one endpoint, kept so that it can go to another.

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use tonic::Status;
use tonic::body::Body;

/// A request's body before it is given to an attempt.
#[derive(Debug)]
pub(crate) enum Payload {
    /// All of it: can be sent any number of times. Every unary call is this.
    Whole(Whole),
    /// It is still being made, or is too large to be kept: can be sent once.
    Stream(VecDeque<Bytes>, Body),
}

/// A complete body: its frames are shared, not copied.
#[derive(Debug, Clone, Default)]
pub(crate) struct Whole {
    /// All that a unary call of usual size has.
    first: Option<Bytes>,
    /// Only with a first.
    rest: VecDeque<Bytes>,
    trailers: Option<Box<HeaderMap>>,
}

/// The body that an attempt sends. Takes the payload from its [`Claim`] when it is first asked for a frame.
#[derive(Debug)]
pub(crate) struct Outgoing {
    claim: Arc<Claim>,
    sending: Option<Payload>,
}

/// Holds the payload until the attempt begins to send it, so that one that never did can give it back.
#[derive(Debug)]
pub(crate) struct Claim(Mutex<Option<Payload>>);

// === impl Payload ===

impl Payload {
    /// Takes whatever is there at once, up to `limit` bytes.
    pub(crate) fn take(mut body: Body, limit: usize) -> Result<Self, Status> {
        // What is not there yet is awaited where it is sent.
        let mut cx = Context::from_waker(Waker::noop());
        let mut whole = Whole::default();
        let mut size = 0_usize;
        while !body.is_end_stream() {
            match Pin::new(&mut body).poll_frame(&mut cx) {
                Poll::Ready(None) => break,
                Poll::Ready(Some(Err(status))) => return Err(status),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        size = size.saturating_add(data.len());
                        whole.push(data);
                        if size > limit {
                            return Ok(Self::Stream(whole.into_frames(), body));
                        }
                    }
                    Err(frame) => whole.trailers = frame.into_trailers().ok().map(Box::new),
                },
                Poll::Pending => return Ok(Self::Stream(whole.into_frames(), body)),
            }
        }
        Ok(Self::Whole(whole))
    }

    /// Whether an attempt that has sent it leaves it for another.
    pub(crate) fn copy(&self) -> Option<Self> {
        match self {
            Self::Whole(whole) => Some(Self::Whole(whole.clone())),
            Self::Stream(..) => None,
        }
    }

    pub(crate) fn is_whole(&self) -> bool {
        matches!(self, Self::Whole(_))
    }
}

// === impl Whole ===

impl Whole {
    fn push(&mut self, data: Bytes) {
        if self.first.is_none() {
            self.first = Some(data);
        } else {
            self.rest.push_back(data);
        }
    }

    fn pop(&mut self) -> Option<Frame<Bytes>> {
        let data = self.first.take().or_else(|| self.rest.pop_front());
        data.map(Frame::data).or_else(|| self.trailers.take().map(|trailers| Frame::trailers(*trailers)))
    }

    fn is_empty(&self) -> bool {
        self.first.is_none() && self.rest.is_empty() && self.trailers.is_none()
    }

    fn into_frames(self) -> VecDeque<Bytes> {
        let Self { first, mut rest, .. } = self;
        if let Some(first) = first {
            rest.push_front(first);
        }
        rest
    }
}

// === impl Outgoing ===

impl Outgoing {
    pub(crate) fn new(payload: Payload) -> (Self, Arc<Claim>) {
        let claim = Arc::new(Claim(Mutex::new(Some(payload))));
        (Self { claim: Arc::clone(&claim), sending: None }, claim)
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.sending.is_none() {
            self.sending = self.claim.take();
        }
        let frame = match &mut self.sending {
            None => Some(Err(Status::cancelled("the request was taken back"))),
            Some(Payload::Whole(whole)) => whole.pop().map(Ok),
            Some(Payload::Stream(prefix, rest)) => match prefix.pop_front() {
                Some(data) => Some(Ok(Frame::data(data))),
                None => return Pin::new(rest).poll_frame(cx),
            },
        };
        Poll::Ready(frame)
    }

    /// `false` until the first frame was asked for: a request whose body was not asked for has not been sent.
    fn is_end_stream(&self) -> bool {
        match &self.sending {
            None => false,
            Some(Payload::Whole(whole)) => whole.is_empty(),
            Some(Payload::Stream(prefix, rest)) => prefix.is_empty() && rest.is_end_stream(),
        }
    }
}

// === impl Claim ===

impl Claim {
    /// The payload, unless the attempt has begun to send it; it never will after this.
    pub(crate) fn take(&self) -> Option<Payload> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use http_body_util::{BodyExt, StreamBody};

    type Item = Result<Frame<Bytes>, Status>;

    fn body(frames: Vec<Frame<Bytes>>) -> Body {
        Body::new(StreamBody::new(stream::iter(frames.into_iter().map(Item::Ok))))
    }

    fn data(text: &'static str) -> Frame<Bytes> {
        Frame::data(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn a_body_that_is_there_is_sent_as_often_as_needed() {
        let payload = Payload::take(body(vec![data("ab"), data("c")]), 3).unwrap();
        for _ in 0..3 {
            let (outgoing, claim) = Outgoing::new(payload.copy().unwrap());
            assert_eq!(outgoing.collect().await.unwrap().to_bytes(), "abc");
            assert!(claim.take().is_none());
        }
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_or_not_there_yet_is_sent_once_and_whole() {
        let large = Payload::take(body(vec![data("ab"), data("cd"), data("e")]), 3).unwrap();
        let (sender, receiver) = futures::channel::mpsc::unbounded::<Item>();
        sender.unbounded_send(Ok(data("abc"))).unwrap();
        let late = Payload::take(Body::new(StreamBody::new(receiver)), 100).unwrap();
        sender.unbounded_send(Ok(data("de"))).unwrap();
        drop(sender);
        for payload in [large, late] {
            assert!(payload.copy().is_none());
            let (outgoing, _claim) = Outgoing::new(payload);
            assert_eq!(outgoing.collect().await.unwrap().to_bytes(), "abcde");
        }
    }

    #[tokio::test]
    async fn a_body_that_was_not_asked_for_is_given_back() {
        let (outgoing, claim) = Outgoing::new(Payload::take(body(vec![data("ab")]), 10).unwrap());
        assert!(!outgoing.is_end_stream());
        assert!(claim.take().is_some());
        assert!(outgoing.collect().await.is_err());
    }
}
