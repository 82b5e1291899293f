//! The body of a request, kept so that it can go to another endpoint as long as none has it.

use crate::call::strip;
use crate::length::{Lengths, Limit};
use crate::replay::{Reader, Replay, Store, Unmade};
use crate::whole::{Chunk, Unwritten, Whole};
use bytes::Bytes;
use h2::{Reason, SendStream};
use http::header::TE;
use http_body::{Body as _, Frame};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
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

/// Sends a payload as its stream has room for it.
struct Upload {
    claim: Arc<Claim>,
    stream: SendStream<Chunk>,
    sending: Option<Payload>,
    /// Of the payload, while there is no room for it.
    next: Option<Bytes>,
    /// Once the last is with the connection.
    unwritten: Option<Unwritten>,
    /// There is no more to send, or nobody who would take it.
    over: bool,
}

/// Holds the payload until its stream is open, so that an attempt whose stream never was can give it back.
#[derive(Debug)]
pub(crate) struct Claim {
    payload: Mutex<Option<Payload>>,
    /// What is still being made of it, and as whom the attempt reads; `None` if the server gets all of it at once.
    replay: Option<(Arc<Replay>, Reader)>,
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
    ) -> Result<Self, Unmade> {
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
                Poll::Ready(Some(Err(status))) => return Err(Unmade::Failed(status)),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        lengths.pass(&data).map_err(Unmade::TooLong)?;
                        size = size.saturating_add(data.len());
                        whole.push(data);
                        if size > limit {
                            return Ok(stream(whole, body, lengths));
                        }
                    }
                    Err(frame) => {
                        if let Ok(mut trailers) = frame.into_trailers() {
                            strip(&mut trailers);
                            trailers.remove(TE);
                            whole.end_with(trailers);
                        }
                    }
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

    /// Whether there may be [another](Self::another).
    pub(crate) fn is_open(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Stream(replay, _) => replay.is_open(),
        }
    }

    /// The same for an attempt beside this one, if all of it is still there.
    pub(crate) fn another(&self) -> Option<Self> {
        match self {
            Self::Whole(whole) => Some(Self::Whole(whole.clone())),
            Self::Stream(replay, _) => Some(Self::Stream(Arc::clone(replay), replay.join()?)),
        }
    }

    /// There will be no further attempt, and those beside the one with this payload are not wanted: what was sent need not be kept.
    pub(crate) fn commit(&self) {
        if let Self::Stream(replay, reader) = self {
            replay.commit(*reader);
        }
    }

    /// Whether the call is committed to an attempt with another payload than this.
    pub(crate) fn is_replaced(&self) -> bool {
        match self {
            Self::Whole(_) => false,
            Self::Stream(replay, reader) => replay.is_for_another(*reader),
        }
    }

    fn replay(&self) -> Option<(&Arc<Replay>, Reader)> {
        match self {
            Self::Whole(_) => None,
            Self::Stream(replay, reader) => Some((replay, *reader)),
        }
    }

    /// The next frame, when it is there.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self {
            Self::Whole(whole) => Poll::Ready(whole.pop().map(Ok)),
            Self::Stream(replay, reader) => replay.poll(*reader, cx),
        }
    }

    fn is_end(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_empty(),
            Self::Stream(replay, reader) => replay.is_end(*reader),
        }
    }
}

// === impl Upload ===

impl Upload {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        let Self { claim, stream, sending, next, unwritten, over: _ } = self;
        loop {
            if let Poll::Ready(reset) = stream.poll_reset(cx) {
                return Poll::Ready(reset.map(|_| ()));
            }
            if sending.is_none() {
                // Room means that the stream is open.
                if !ready!(room(stream, cx))? {
                    return Poll::Ready(Ok(()));
                }
                *sending = claim.take();
            }
            // It was taken back.
            let Some(payload) = sending else { return Poll::Ready(Ok(())) };
            let data = match next.take() {
                Some(data) => data,
                None => match ready!(payload.poll_frame(cx)).map(|frame| frame.map(Frame::into_data)) {
                    Some(Ok(Ok(data))) => data,
                    Some(Ok(Err(frame))) => {
                        return Poll::Ready(stream.send_trailers(frame.into_trailers().unwrap_or_default()));
                    }
                    // The server is told that the call is cancelled; its caller learns why.
                    Some(Err(_)) => {
                        stream.send_reset(Reason::CANCEL);
                        return Poll::Ready(Ok(()));
                    }
                    None => return Poll::Ready(send_last(stream, unwritten, Bytes::new())),
                },
            };
            if !data.is_empty() {
                match room(stream, cx)? {
                    Poll::Ready(true) => {}
                    Poll::Ready(false) => return Poll::Ready(Ok(())),
                    Poll::Pending => {
                        *next = Some(data);
                        return Poll::Pending;
                    }
                }
            }
            if payload.is_end() {
                return Poll::Ready(send_last(stream, unwritten, data));
            }
            if !data.is_empty() {
                stream.send_data(data.into(), false)?;
            }
        }
    }
}

fn send_last(
    stream: &mut SendStream<Chunk>,
    unwritten: &mut Option<Unwritten>,
    data: Bytes,
) -> Result<(), h2::Error> {
    let (chunk, last) = Chunk::last(data);
    *unwritten = Some(last);
    stream.send_data(chunk, true)
}

/// When there is room for data; `false` if the stream has ended.
fn room(stream: &mut SendStream<Chunk>, cx: &mut Context<'_>) -> Poll<Result<bool, h2::Error>> {
    while stream.capacity() == 0 {
        stream.reserve_capacity(1);
        if ready!(stream.poll_capacity(cx)).transpose()?.is_none() {
            return Poll::Ready(Ok(false));
        }
    }
    Poll::Ready(Ok(true))
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.over {
            // What makes the request has panicked, or the response has ended. Without an end of the request the call would wait for one,
            // or others for its place on the connection.
            let panics = std::thread::panicking();
            self.stream.send_reset(if panics { Reason::INTERNAL_ERROR } else { Reason::CANCEL });
        }
        if let Some(Payload::Stream(replay, reader)) = &self.sending {
            replay.leave(*reader);
        }
    }
}

// === impl Claim ===

impl Claim {
    pub(crate) fn new(payload: Payload) -> Arc<Self> {
        let replay = payload.replay().map(|(replay, reader)| (Arc::clone(replay), reader));
        Arc::new(Self { payload: Mutex::new(Some(payload)), replay })
    }

    /// Sends the payload over this stream, once that is open: h2 gives no room to one that is not.
    pub(crate) async fn upload(self: Arc<Self>, stream: SendStream<Chunk>) {
        let mut upload =
            Upload { claim: self, stream, sending: None, next: None, unwritten: None, over: false };
        let sent = std::future::poll_fn(|cx| upload.poll(cx)).await;
        if sent.is_err() {
            // As in `Whole::send`.
            upload.stream.send_reset(Reason::CANCEL);
        } else if let Some(unwritten) = &mut upload.unwritten {
            unwritten.over().await;
        }
        upload.over = true;
    }

    /// The payload, unless it is being sent; it never will be after this.
    pub(crate) fn take(&self) -> Option<Payload> {
        self.payload.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn replay(&self) -> Option<&Arc<Replay>> {
        self.replay.as_ref().map(|(replay, _)| replay)
    }

    /// Whether the call is committed to another attempt.
    pub(crate) fn is_replaced(&self) -> bool {
        self.replay.as_ref().is_some_and(|(replay, reader)| replay.is_for_another(*reader))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use http_body_util::StreamBody;

    type Item = Result<Frame<Bytes>, Status>;

    fn body(frames: Vec<Frame<Bytes>>) -> Body {
        Body::new(StreamBody::new(stream::iter(frames.into_iter().map(Item::Ok))))
    }

    fn data(text: &'static str) -> Frame<Bytes> {
        Frame::data(Bytes::from_static(text.as_bytes()))
    }

    fn take(body: Body, limit: usize) -> Result<Payload, Status> {
        Payload::take(body, limit, Limit::NONE, &Arc::new(Store::new(1000))).map_err(|unmade| unmade.told(""))
    }

    fn text(mut payload: Payload) -> String {
        let mut text = String::new();
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(frame)) = payload.poll_frame(&mut cx) {
            text.push_str(std::str::from_utf8(&frame.unwrap().into_data().unwrap()).unwrap());
        }
        text
    }

    #[test]
    fn a_body_that_is_there_is_sent_as_often_as_needed() {
        let mut payload = take(body(vec![data("ab"), data("c")]), 3).unwrap();
        for _ in 0..3 {
            assert!(payload.renew());
            assert_eq!(text(payload.copy()), "abc");
        }
    }

    #[test]
    fn a_body_that_is_not_there_yet_is_kept_and_one_that_is_too_large_is_not() {
        let large = take(body(vec![data("ab"), data("cd"), data("e")]), 3).unwrap();
        let (sender, receiver) = futures::channel::mpsc::unbounded::<Item>();
        sender.unbounded_send(Ok(data("abc"))).unwrap();
        let late = take(Body::new(StreamBody::new(receiver)), 100).unwrap();
        sender.unbounded_send(Ok(data("de"))).unwrap();
        drop(sender);
        for (mut payload, times) in [(large, 1), (late, 3)] {
            assert!(matches!(payload, Payload::Stream(..)));
            for time in 1..=times {
                assert_eq!(text(payload.copy()), "abcde");
                assert_eq!(payload.renew(), times > 1, "{time}");
            }
        }
    }

    #[test]
    fn a_message_that_is_too_long_is_not_sent() {
        let message = |length: u8| {
            Frame::data(Bytes::from([&[0, 0, 0, 0, length][..], &vec![1; length.into()]].concat()))
        };
        let longest = Limit::lower(Some(8), Some(9));
        let limited = |frames| Payload::take(body(frames), 100, longest, &Arc::new(Store::new(0)));
        assert!(matches!(limited(vec![message(8), message(8)]), Ok(Payload::Whole(_))));
        let refused = limited(vec![message(8), message(9)]).unwrap_err().told("greeter /Say");
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert!(
            refused.message().contains("greeter /Say: the request has a message of 9 bytes"),
            "{refused}"
        );
    }
}
