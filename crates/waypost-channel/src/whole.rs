//! A whole request on its way: handed to the library at once, and followed until that has encoded it.

use bytes::{Buf, Bytes};
use h2::{Reason, SendStream};
use http::HeaderMap;
use http_body::Frame;
use std::collections::VecDeque;
use std::convert::Infallible;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

/// A complete body: its frames are shared, not copied.
#[derive(Debug, Clone, Default)]
pub(crate) struct Whole {
    /// All that a unary call of usual size has.
    first: Option<Bytes>,
    more: Option<Box<More>>,
}

/// What few requests have.
#[derive(Debug, Clone, Default)]
struct More {
    /// Only with a first.
    rest: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
}

/// A frame on its way to the connection.
#[derive(Debug)]
pub(crate) struct Chunk {
    data: Bytes,
    /// Of a request, whose last data this is.
    _tail: Option<Tail>,
}

/// Gone when the library has encoded what it goes with, or never will.
type Tail = oneshot::Sender<Infallible>;

/// What the library has of a request and has not encoded: while the server gives no room for it, or other requests are before it.
#[derive(Debug)]
pub(crate) struct Unwritten(oneshot::Receiver<Infallible>);

/// A whole request that the library has.
pub(crate) struct Sending {
    stream: SendStream<Chunk>,
    unwritten: Unwritten,
}

/// The same, of which the response has begun. Dropped, what is unwritten of it is taken back: a server that has answered before it has read
/// the request may give no room for the rest, and the stream would count as long as that is there.
pub(crate) struct Answered(Sending);

// === impl Whole ===

impl Whole {
    /// Hands all of it to the stream, whether or not there is room for it yet: it is in memory in any case. Without
    /// [anything](Self::is_empty) the stream has ended with its headers.
    pub(crate) fn send(self, mut stream: SendStream<Chunk>) -> Sending {
        let Self { first, more } = self;
        let More { rest, trailers } = more.map(|more| *more).unwrap_or_default();
        let (tail, unwritten) = Unwritten::new();
        let (mut tail, follows) = (Some(tail), trailers.is_some());
        let mut left = usize::from(first.is_some()) + rest.len();
        let mut sent = Ok(());
        for data in first.into_iter().chain(rest) {
            left -= 1;
            let chunk = Chunk { data, _tail: tail.take_if(|_| left == 0) };
            sent = sent.and_then(|()| stream.send_data(chunk, left == 0 && !follows));
        }
        if let Some(trailers) = trailers {
            sent = sent.and_then(|()| stream.send_trailers(trailers));
        }
        if sent.is_err() {
            // If it has ended already the response says how, and this does nothing. If not, it would never end.
            stream.send_reset(Reason::CANCEL);
        }
        Sending { stream, unwritten }
    }

    /// They end the request.
    pub(crate) fn end_with(&mut self, trailers: HeaderMap) {
        self.more.get_or_insert_default().trailers = Some(trailers);
    }

    pub(crate) fn push(&mut self, data: Bytes) {
        if self.first.is_none() {
            self.first = Some(data);
        } else {
            self.more.get_or_insert_default().rest.push_back(data);
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Frame<Bytes>> {
        let Self { first, more } = self;
        let data = first.take().or_else(|| more.as_mut()?.rest.pop_front());
        data.map(Frame::data).or_else(|| more.as_mut()?.trailers.take().map(Frame::trailers))
    }

    /// Whether it is headers and nothing more.
    pub(crate) fn is_empty(&self) -> bool {
        let nothing_in = |more: &More| more.rest.is_empty() && more.trailers.is_none();
        self.first.is_none() && self.more.as_deref().is_none_or(nothing_in)
    }

    pub(crate) fn into_frames(self) -> VecDeque<Bytes> {
        let Self { first, more } = self;
        let mut rest = more.map(|more| more.rest).unwrap_or_default();
        if let Some(first) = first {
            rest.push_front(first);
        }
        rest
    }
}

// === impl Chunk ===

impl Chunk {
    /// The last of a request, and what tells when it is encoded.
    pub(crate) fn last(data: Bytes) -> (Self, Unwritten) {
        let (tail, unwritten) = Unwritten::new();
        (Self { data, _tail: Some(tail) }, unwritten)
    }
}

impl From<Bytes> for Chunk {
    fn from(data: Bytes) -> Self {
        Self { data, _tail: None }
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.data.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.data
    }

    fn advance(&mut self, count: usize) {
        self.data.advance(count);
    }
}

// === impl Unwritten ===

impl Unwritten {
    /// And what goes with the last of it.
    fn new() -> (Tail, Self) {
        let (tail, unwritten) = oneshot::channel();
        (tail, Self(unwritten))
    }

    fn is_over(&mut self) -> bool {
        matches!(self.0.try_recv(), Err(TryRecvError::Closed))
    }

    /// Until it is encoded, or will not be. Cancel safe.
    pub(crate) async fn over(&mut self) {
        // Nothing is ever sent.
        let _ = (&mut self.0).await;
    }
}

// === impl Sending ===

impl Sending {
    pub(crate) fn answered(self) -> Answered {
        Answered(self)
    }

    /// Takes back what is unwritten, if anything is. Not of a stream that is not open yet: the library would open it to send all of it, and
    /// the reset behind that; it leaves out what nobody holds.
    pub(crate) fn take_back(&mut self) {
        if self.is_unwritten() {
            self.stream.send_reset(Reason::CANCEL);
        }
    }

    pub(crate) fn is_unwritten(&mut self) -> bool {
        !self.unwritten.is_over()
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        self.0.take_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_gone() {
        let (mut chunk, mut unwritten) = Chunk::last(Bytes::from_static(b"ab"));
        assert_eq!((chunk.get_u8(), chunk.remaining(), unwritten.is_over()), (b'a', 1, false));
        drop(chunk);
        assert!(unwritten.is_over() && unwritten.is_over());
    }
}
