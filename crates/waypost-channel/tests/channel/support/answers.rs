//! What a server answers, frame by frame.

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use std::convert::Infallible;
use std::future::{Future, pending};
use std::sync::Arc;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tonic::Code;

pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;
/// Answers a request; the token kills the server.
pub(crate) type Handler =
    Arc<dyn Fn(Request<Incoming>, CancellationToken) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// `HealthCheckResponse { status: SERVING }` with the five bytes that gRPC puts before a message.
const SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 1];

pub(crate) fn handler<F>(
    answer: impl Fn(Request<Incoming>, CancellationToken) -> F + Send + Sync + 'static,
) -> Handler
where
    F: Future<Output = Response<Body>> + Send + 'static,
{
    Arc::new(move |request, kill| answer(request, kill).boxed())
}

/// Answers every request at once and well.
pub(crate) fn serving() -> Handler {
    handler(async |request, _| {
        // As a server does: first the whole request.
        let _ = request.into_body().collect().await;
        ok()
    })
}

pub(crate) fn ok() -> Response<Body> {
    response([message(), trailers(Code::Ok)])
}

/// A status without a message, in the headers.
pub(crate) fn in_headers(code: Code) -> Response<Body> {
    let mut response = response([]);
    response.headers_mut().extend(status(code));
    response
}

/// A failure with what the server says of further attempts.
pub(crate) fn pushing_back(code: Code, milliseconds: &'static str) -> Response<Body> {
    let mut response = in_headers(code);
    response.headers_mut().insert("grpc-retry-pushback-ms", HeaderValue::from_static(milliseconds));
    response
}

/// A message, and then a status that says it was for nothing.
pub(crate) fn in_trailers(code: Code) -> Response<Body> {
    response([message(), trailers(code)])
}

pub(crate) fn message() -> Frame<Bytes> {
    Frame::data(Bytes::from_static(SERVING))
}

pub(crate) fn trailers(code: Code) -> Frame<Bytes> {
    Frame::trailers(status(code))
}

pub(crate) fn response(frames: impl IntoIterator<Item = Frame<Bytes>>) -> Response<Body> {
    let frames: Vec<_> = frames.into_iter().collect();
    streamed(stream::iter(frames))
}

pub(crate) fn streamed(frames: impl futures::Stream<Item = Frame<Bytes>> + Send + 'static) -> Response<Body> {
    let body = StreamBody::new(frames.map(Ok));
    let mut response = Response::new(body.boxed_unsync());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

/// Headers and a message, and nothing more until `more`; then another message and a good end.
pub(crate) fn two_messages(more: Arc<Notify>) -> Response<Body> {
    let late = async move {
        more.notified().await;
        stream::iter([message(), trailers(Code::Ok)])
    };
    streamed(stream::iter([message()]).chain(late.flatten_stream()))
}

/// Headers and a message, then the server is killed.
pub(crate) fn dies_before_trailers(kill: CancellationToken) -> Response<Body> {
    let death = async move {
        // Both frames are on their way when the connection is cut: the next poll of the body comes after they were taken.
        tokio::task::yield_now().await;
        kill.cancel();
        pending::<Frame<Bytes>>().await
    };
    streamed(stream::iter([message()]).chain(death.into_stream()))
}

/// The server is killed while it works on the request.
pub(crate) async fn dies(kill: CancellationToken) -> Response<Body> {
    kill.cancel();
    pending().await
}

/// No answer. Tells when the call is cancelled.
pub(crate) async fn never(cancelled: Arc<Notify>) -> Response<Body> {
    let _told = Told(cancelled);
    pending().await
}

struct Told(Arc<Notify>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

fn status(code: Code) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("grpc-status", HeaderValue::from(i32::from(code)));
    headers
}
