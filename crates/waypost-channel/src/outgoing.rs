//! The body of a request on its way to one endpoint, kept so that it can go to another.

use crate::length::{Lengths, Limit};
use crate::replay::{Reader, Replay, Store};
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
    /// It is still being made, or is too large to be kept: can be sent again while all of it is there.
    Stream(Arc<Replay>, Reader),
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
pub(crate) struct Claim {
    payload: Mutex<Option<Payload>>,
    /// What is still being made of it; `None` if the server gets all of it at once.
    replay: Option<Arc<Replay>>,
}

// === impl Payload ===

impl Payload {
    /// Takes whatever is there at once, up to `limit` bytes; what is still to come is kept in the `store`, up to the same limit. Fails
    /// when the body does, and when it has a message that is too long.
    pub(crate) fn take(
        mut body: Body,
        limit: usize,
        longest: Limit,
        store: &Arc<Store>,
    ) -> Result<Self, Status> {
        // What is not there yet is awaited where it is sent.
        let mut cx = Context::from_waker(Waker::noop());
        let mut whole = Whole::default();
        let mut size = 0_usize;
        let mut lengths = Lengths::new(longest);
        let stream = |begun: Whole, rest, lengths| {
            let replay = Replay::new(begun.into_frames(), rest, lengths, limit, store);
            Self::Stream(Arc::new(replay), Reader::default())
        };
        while !body.is_end_stream() {
            match Pin::new(&mut body).poll_frame(&mut cx) {
                Poll::Ready(None) => break,
                Poll::Ready(Some(Err(status))) => return Err(status),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        let refuse = |long| Status::resource_exhausted(format!("the request has {long}"));
                        lengths.pass(&data).map_err(refuse)?;
                        size = size.saturating_add(data.len());
                        whole.push(data);
                        if size > limit {
                            return Ok(stream(whole, body, lengths));
                        }
                    }
                    Err(frame) => whole.trailers = frame.into_trailers().ok().map(Box::new),
                },
                Poll::Pending => return Ok(stream(whole, body, lengths)),
            }
        }
        Ok(Self::Whole(whole))
    }

    /// The same for another attempt, if [`renew`](Self::renew) says so then.
    pub(crate) fn copy(&self) -> Self {
        match self {
            Self::Whole(whole) => Self::Whole(whole.clone()),
            Self::Stream(replay, reader) => Self::Stream(Arc::clone(replay), *reader),
        }
    }

    /// Before it is sent once more: whether all of it is still there. The attempt before gets no more of it.
    pub(crate) fn renew(&mut self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Stream(replay, reader) => match replay.rewind() {
                Some(next) => {
                    *reader = next;
                    true
                }
                None => false,
            },
        }
    }

    /// There will be no further attempt: what was sent need not be kept.
    pub(crate) fn commit(&self) {
        if let Self::Stream(replay, _) = self {
            replay.commit();
        }
    }

    pub(crate) fn is_whole(&self) -> bool {
        matches!(self, Self::Whole(_))
    }

    fn replay(&self) -> Option<&Arc<Replay>> {
        match self {
            Self::Whole(_) => None,
            Self::Stream(replay, _) => Some(replay),
        }
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
        let replay = payload.replay().cloned();
        let claim = Arc::new(Claim { payload: Mutex::new(Some(payload)), replay });
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
        match &mut self.sending {
            None => Poll::Ready(Some(Err(Status::cancelled("the request was taken back")))),
            Some(Payload::Whole(whole)) => Poll::Ready(whole.pop().map(Ok)),
            Some(Payload::Stream(replay, reader)) => replay.poll(*reader, cx),
        }
    }

    /// `false` until the first frame was asked for: a request whose body was not asked for has not been sent.
    fn is_end_stream(&self) -> bool {
        match &self.sending {
            None => false,
            Some(Payload::Whole(whole)) => whole.is_empty(),
            Some(Payload::Stream(replay, reader)) => replay.is_end(*reader),
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if let Some(Payload::Stream(replay, reader)) = &self.sending {
            replay.leave(*reader);
        }
    }
}

// === impl Claim ===

impl Claim {
    /// The payload, unless the attempt has begun to send it; it never will after this.
    pub(crate) fn take(&self) -> Option<Payload> {
        self.payload.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn replay(&self) -> Option<&Arc<Replay>> {
        self.replay.as_ref()
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

    fn take(body: Body, limit: usize) -> Result<Payload, Status> {
        Payload::take(body, limit, Limit::NONE, &Arc::new(Store::new(1000)))
    }

    #[tokio::test]
    async fn a_body_that_is_there_is_sent_as_often_as_needed() {
        let mut payload = take(body(vec![data("ab"), data("c")]), 3).unwrap();
        for _ in 0..3 {
            let (outgoing, claim) = Outgoing::new(payload.copy());
            assert!(payload.renew());
            assert_eq!(outgoing.collect().await.unwrap().to_bytes(), "abc");
            assert!(claim.take().is_none());
        }
    }

    #[tokio::test]
    async fn a_body_that_is_not_there_yet_is_kept_and_one_that_is_too_large_is_not() {
        let large = take(body(vec![data("ab"), data("cd"), data("e")]), 3).unwrap();
        let (sender, receiver) = futures::channel::mpsc::unbounded::<Item>();
        sender.unbounded_send(Ok(data("abc"))).unwrap();
        let late = take(Body::new(StreamBody::new(receiver)), 100).unwrap();
        sender.unbounded_send(Ok(data("de"))).unwrap();
        drop(sender);
        for (mut payload, times) in [(large, 1), (late, 3)] {
            assert!(!payload.is_whole());
            for time in 1..=times {
                let (outgoing, _claim) = Outgoing::new(payload.copy());
                assert_eq!(outgoing.collect().await.unwrap().to_bytes(), "abcde");
                assert_eq!(payload.renew(), times > 1, "{time}");
            }
        }
    }

    #[tokio::test]
    async fn a_message_that_is_too_long_is_not_sent() {
        let message = |length: u8| {
            Frame::data(Bytes::from([&[0, 0, 0, 0, length][..], &vec![1; length.into()]].concat()))
        };
        let longest = Limit::lower(Some(8), Some(9));
        let limited = |frames| Payload::take(body(frames), 100, longest, &Arc::new(Store::new(0)));
        assert!(limited(vec![message(8), message(8)]).unwrap().is_whole());
        let refused = limited(vec![message(8), message(9)]).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert!(refused.message().contains("a message of 9 bytes"), "{refused}");
    }

    #[tokio::test]
    async fn a_body_that_was_not_asked_for_is_given_back() {
        let (outgoing, claim) = Outgoing::new(take(body(vec![data("ab")]), 10).unwrap());
        assert!(!outgoing.is_end_stream());
        assert!(claim.take().is_some());
        assert!(outgoing.collect().await.is_err());
    }
}
