//! Methods that stream, one way or both.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use prost_reflect::MethodDescriptor;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::{Code, Status};

use super::message::{first_so_far, from_json, to_json};
use super::scan::Scan;
use super::{frames, http_status, refused, respond, to_grpc};
use crate::server::front::Front;

/// Messages between two tasks.
const AHEAD: usize = 4;

type Chunks = Result<Frame<Bytes>, Status>;

/// The JSON documents of a body.
struct Documents<B> {
    body: B,
    buffer: BytesMut,
    /// Of the document that the buffer begins with.
    scan: Scan,
    /// Bytes that one document may have.
    limit: usize,
    ended: bool,
}

/// The messages of an answer.
struct Messages {
    body: Body,
    buffer: BytesMut,
}

/// Calls a method; answers when there is a first message, or when there will be none.
pub(super) async fn call<B>(
    front: Front,
    method: &'static MethodDescriptor,
    headers: &HeaderMap,
    body: B,
    limit: usize,
) -> Result<Response<Body>, Status>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    let mut documents =
        Documents { body, buffer: BytesMut::new(), scan: Scan::default(), limit, ended: false };
    let (sender, receiver) = mpsc::channel::<Chunks>(AHEAD);
    // What is wrong with the first document is told by status.
    let first = documents.next(method).await.map_err(Status::unknown)?;
    let more = first.is_some();
    if let Some(message) = first.or_else(|| (!method.is_client_streaming()).then(Bytes::new)) {
        // There is room for one.
        let _ = sender.try_send(Ok(Frame::data(frames::frame(&message))));
    }
    if more && method.is_client_streaming() {
        tokio::spawn(documents.pass_on(method, sender));
    } else {
        drop(sender);
    }
    let body = Body::new(StreamBody::new(ReceiverStream::new(receiver)));
    let response = front.grpc(to_grpc(method, headers, body)).await;
    if let Err(status) = refused(response.headers()) {
        return Ok(failure(&status));
    }
    let mut messages = Messages { body: response.into_body(), buffer: BytesMut::new() };
    let line = match messages.next().await {
        Ok(Some(message)) => line(method, message).map_err(Status::internal)?,
        Ok(None) => return Ok(respond(StatusCode::OK, Body::empty())),
        Err(status) => return Ok(failure(&status)),
    };
    let (sender, receiver) = mpsc::channel::<Chunks>(AHEAD);
    let _ = sender.try_send(Ok(Frame::data(line)));
    tokio::spawn(messages.write_to(method, sender));
    Ok(respond(StatusCode::OK, Body::new(StreamBody::new(ReceiverStream::new(receiver)))))
}

/// A message of the answer.
fn line(method: &MethodDescriptor, message: Bytes) -> Result<Bytes, String> {
    let json = to_json(method.output(), message)?;
    Ok([&br#"{"result":"#[..], &json, b"}\n"].concat().into())
}

/// What ends a stream too early.
fn error_line(status: &Status) -> Bytes {
    let http = http_status(status.code());
    let error = json!({
        "grpc_code": i32::from(status.code()),
        "http_code": http.as_u16(),
        "message": status.message(),
        "http_status": http.canonical_reason().unwrap_or_default(),
    });
    json!({ "error": error }).to_string().into()
}

fn failure(status: &Status) -> Response<Body> {
    respond(http_status(status.code()), Body::new(Full::new(error_line(status))))
}

// === impl Documents ===

impl<B> Documents<B>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    /// The next document as it goes over the wire. `None`: there is no more.
    async fn next(&mut self, method: &MethodDescriptor) -> Result<Option<Bytes>, String> {
        loop {
            if self.scan.is_ready(&self.buffer)
                && let Some((value, end)) = first_so_far(&self.buffer)?
            {
                let _ = self.buffer.split_to(end);
                self.scan = Scan::default();
                return from_json(method.input(), value).map(Some);
            }
            if self.ended {
                let rest = self.buffer.iter().all(u8::is_ascii_whitespace);
                return if rest { Ok(None) } else { Err("unexpected EOF".to_owned()) };
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(chunk) = frame.data_ref() {
                        self.buffer.extend_from_slice(chunk);
                    }
                }
                Some(Err(error)) => return Err(error.to_string()),
                None => self.ended = true,
            }
            if self.buffer.len() > self.limit {
                return Err("a document is too long".to_owned());
            }
        }
    }

    /// Passes on what else comes, until the call ends.
    async fn pass_on(mut self, method: &MethodDescriptor, sender: mpsc::Sender<Chunks>) {
        loop {
            let next = tokio::select! {
                () = sender.closed() => return,
                next = self.next(method) => next,
            };
            match next {
                Ok(Some(message)) => {
                    if sender.send(Ok(Frame::data(frames::frame(&message)))).await.is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => return tracing::debug!(error, "the rest of a stream is passed over"),
            }
        }
    }
}

// === impl Messages ===

impl Messages {
    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = frames::next(&mut self.buffer) {
                return Ok(Some(message));
            }
            let Some(frame) = self.body.frame().await.transpose()? else { return Ok(None) };
            match frame.into_data() {
                Ok(chunk) => self.buffer.extend_from_slice(&chunk),
                Err(frame) => {
                    if let Some(trailers) = frame.trailers_ref() {
                        refused(trailers)?;
                    }
                }
            }
        }
    }

    async fn write_to(mut self, method: &MethodDescriptor, sender: mpsc::Sender<Chunks>) {
        loop {
            let next = tokio::select! {
                () = sender.closed() => return,
                next = self.next() => next,
            };
            let (line, last) = match next {
                Ok(Some(message)) => match line(method, message) {
                    Ok(line) => (line, false),
                    Err(error) => (error_line(&Status::new(Code::Internal, error)), true),
                },
                Ok(None) => return,
                Err(status) => (error_line(&status), true),
            };
            if sender.send(Ok(Frame::data(line))).await.is_err() || last {
                return;
            }
        }
    }
}
