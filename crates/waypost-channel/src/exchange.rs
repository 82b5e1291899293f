//! A request that a connection has, and the response to it: without a task of its own, but for a request that is still being made.

use crate::outgoing::{Claim, Payload};
use crate::replay::Replay;
use crate::traffic::InFlight;
use crate::whole::{Answered, Chunk, Sending};
use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::Response;
use http_body::{Body, Frame};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

/// The headers of a response, when they have come. Dropped, the request is cancelled.
pub(crate) struct Exchange {
    response: ResponseFuture,
    upload: Upload,
    /// Until the response takes it.
    in_flight: Option<InFlight>,
    /// It has failed before the server could know of it.
    untouched: bool,
}

/// The body of a response. Dropped before its end, the request is cancelled.
pub(crate) struct Incoming {
    stream: RecvStream,
    /// What follows are trailers.
    all_data: bool,
    /// Nothing follows. What becomes of the stream then is not the reader's concern.
    over: bool,
    /// Ends with the response: nobody is left who would want to know what becomes of the rest of the request.
    upload: Option<Rest>,
    /// Until its end has been read.
    in_flight: Option<InFlight>,
}

/// Why there is no response, or no more of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Severed {
    #[error(transparent)]
    Http2(#[from] h2::Error),
    #[error("the server has not answered a ping within {0:?}")]
    Silent(Duration),
    /// While the request waited for its turn.
    #[error("the server takes no more calls on this connection")]
    Left,
}

/// The body of the request.
enum Upload {
    /// The connection has all of it; the response takes what it has not written.
    Whole(Option<Sending>),
    /// It is still being made.
    Going(Box<Going>),
}

/// An upload with a task of its own.
struct Going {
    claim: Arc<Claim>,
    task: Option<AbortOnDropHandle<()>>,
}

/// What the server may not have got of a request when its response begins. Dropped, it is taken back.
#[expect(dead_code, reason = "what counts is their drop")]
enum Rest {
    Unwritten(Answered),
    Unmade(AbortOnDropHandle<()>),
}

// === impl Exchange ===

impl Exchange {
    pub(crate) fn new(
        in_flight: InFlight,
        response: ResponseFuture,
        stream: SendStream<Chunk>,
        payload: Payload,
    ) -> Self {
        let upload = match payload {
            Payload::Whole(whole) => Upload::Whole(Some(whole.send(stream))),
            Payload::Stream(..) => {
                let claim = Claim::new(payload);
                let task = AbortOnDropHandle::new(tokio::spawn(Arc::clone(&claim).upload(stream)));
                Upload::Going(Box::new(Going { claim, task: Some(task) }))
            }
        };
        Self { response, upload, in_flight: Some(in_flight), untouched: false }
    }

    /// The request, if it is still being made.
    pub(crate) fn replay(&self) -> Option<&Arc<Replay>> {
        match &self.upload {
            Upload::Whole(_) => None,
            Upload::Going(going) => going.claim.replay(),
        }
    }

    /// Whether the call was committed to another attempt, which alone gets what is still to come of the request.
    pub(crate) fn is_replaced(&self) -> bool {
        matches!(&self.upload, Upload::Going(going) if going.claim.is_replaced())
    }

    /// After it has failed: whether the server cannot know of it; and what was not read of the request.
    pub(crate) fn unsent(&self) -> (bool, Option<Payload>) {
        let unread = match &self.upload {
            Upload::Whole(_) => None,
            Upload::Going(going) => going.claim.take(),
        };
        (self.untouched, unread)
    }
}

impl Future for Exchange {
    type Output = Result<Response<Incoming>, Severed>;

    /// Must not be polled again when it has answered.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = ready!(Pin::new(&mut self.response).poll(cx));
        let Some(in_flight) = self.in_flight.take() else { return Poll::Pending };
        let response = match response {
            Ok(response) => response,
            Err(error) => {
                self.untouched = !in_flight.has_posted(self.response.stream_id().as_u32());
                return Poll::Ready(Err(in_flight.severed(error)));
            }
        };
        let upload = match &mut self.upload {
            Upload::Whole(sending) => sending.take().map(|sending| Rest::Unwritten(sending.answered())),
            Upload::Going(going) => going.task.take().map(Rest::Unmade),
        };
        Poll::Ready(Ok(response.map(|stream| Incoming {
            stream,
            all_data: false,
            over: false,
            upload,
            in_flight: Some(in_flight),
        })))
    }
}

impl Drop for Exchange {
    /// Given up. The response may have come all the same, with the request unread: then it is not for the library to end the stream.
    fn drop(&mut self) {
        let (Some(in_flight), Upload::Whole(Some(sending))) = (&self.in_flight, &mut self.upload) else {
            return;
        };
        if sending.is_unwritten() && in_flight.has_posted(self.response.stream_id().as_u32()) {
            sending.take_back();
        }
    }
}

// === impl Incoming ===

impl Incoming {
    /// Gives the place back if nothing is to come, and says whether: the server may have ended the response before it was known which one
    /// that was.
    pub(crate) fn settle(&mut self) -> bool {
        let ended = self.stream.is_end_stream();
        if ended {
            self.end();
        }
        ended
    }

    /// All of it has been read. The place is free, and for the connection too, which counts a call while its request goes on.
    fn end(&mut self) {
        self.over = true;
        self.upload = None;
        self.in_flight = None;
    }

    /// What is wrong, if anything is: a server that needs no more of the request resets the stream with `NO_ERROR` behind its
    /// response (RFC 9113, 8.1). The next call may have its place.
    fn ended(&mut self, error: h2::Error) -> Option<Severed> {
        let in_flight = self.in_flight.take();
        (error.reason() != Some(Reason::NO_ERROR)).then(|| match in_flight {
            Some(in_flight) => in_flight.severed(error),
            None => error.into(),
        })
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = Severed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Severed>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if !self.all_data {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Fails only for a stream that has ended, whose room is nobody's concern.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(self.ended(error).map(Err)),
                None => self.all_data = true,
            }
        }
        Poll::Ready(match ready!(self.stream.poll_trailers(cx)) {
            Ok(trailers) => {
                self.end();
                trailers.map(|trailers| Ok(Frame::trailers(trailers)))
            }
            Err(error) => self.ended(error).map(Err),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.stream.is_end_stream()
    }
}
