//! A server without a network, for tests and fuzz targets: requests go in as the bytes that gRPC has, and so come the answers.

use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full, StreamBody};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::{Code, Status};

#[cfg(test)]
use super::engine::Engine;
use super::front::Front;
use super::options::Builder;
use super::{StartError, gateway, run, service};
use crate::storage::Store;

/// A server of which only the services are there.
pub(crate) struct Inside {
    front: Front,
    stop: CancellationToken,
    free: CancellationToken,
    writer: JoinHandle<()>,
}

/// An answer that is being read.
pub(crate) struct Reply {
    body: Body,
    bytes: BytesMut,
    /// Known once the answer has ended.
    status: Option<Status>,
}

/// The sending half of a call whose requests are a stream; dropped, the stream ends.
pub(crate) struct Sender(mpsc::Sender<Result<hyper::body::Frame<Bytes>, Status>>);

/// Bytes of a message's head: whether it is compressed, and its length.
const HEAD: usize = 5;
/// What the end of everything may take.
const PATIENCE: Duration = Duration::from_secs(60);

// === impl Inside ===

impl Inside {
    /// Starts on a store.
    pub(crate) fn start(store: Store, builder: Builder) -> Result<Self, StartError> {
        let Builder { name, options, .. } = builder;
        let free = CancellationToken::new();
        let guard = free.clone().drop_guard();
        let (engine, writer) =
            run::load(store, Path::new("inside"), name, Vec::new(), false, options, guard)?;
        let stop = CancellationToken::new();
        let services = service::all(&engine.in_lane(), &stop);
        let front = Front { services, engine, stop: stop.clone(), metrics_only: false };
        Ok(Self { front, stop, free, writer })
    }

    /// What the services ask.
    #[cfg(test)]
    pub(super) fn engine(&self) -> &Engine {
        &self.front.engine
    }

    /// Calls a method with the bytes of one message, be they one or not.
    pub(crate) async fn call(&self, path: &'static str, message: &[u8]) -> Reply {
        self.ask(path, Body::new(Full::new(framed(message)))).await
    }

    /// What the JSON gateway says to a body. `None`: it does not know the path.
    pub(crate) async fn json(&self, path: &str, body: &[u8]) -> Option<http::Response<Body>> {
        let method = gateway::method(path)?;
        let request = http::Request::new(Full::new(Bytes::copy_from_slice(body)));
        Some(gateway::call(self.front.clone(), method, request).await)
    }

    /// Calls a method whose requests are a stream.
    pub(crate) async fn stream(&self, path: &'static str) -> (Sender, Reply) {
        let (sender, receiver) = mpsc::channel(64);
        let body = Body::new(StreamBody::new(ReceiverStream::new(receiver)));
        (Sender(sender), self.ask(path, body).await)
    }

    /// Calls a method with one message, for one message.
    pub(crate) async fn unary<A: Message + Default>(
        &self,
        path: &'static str,
        message: &impl Message,
    ) -> Result<A, Status> {
        let mut reply = self.call(path, &message.encode_to_vec()).await;
        let first = reply.message().await?;
        let decoded = A::decode(first.ok_or_else(|| Status::internal("no answer"))?);
        decoded.map_err(|error| Status::internal(error.to_string()))
    }

    async fn ask(&self, path: &'static str, body: Body) -> Reply {
        let request = http::Request::builder()
            .method(http::Method::POST)
            .uri(path)
            .header(http::header::CONTENT_TYPE, "application/grpc")
            .header(http::header::TE, "trailers");
        let mut request = request.body(body).unwrap_or_default();
        *request.uri_mut() = http::Uri::from_static(path);
        let (head, body) = self.front.clone().grpc(request).await.into_parts();
        Reply { body, bytes: BytesMut::new(), status: Status::from_header_map(&head.headers) }
    }

    /// Ends it in good order. `false`: something goes on.
    pub(crate) async fn end(self) -> bool {
        let Self { front, stop, free, writer } = self;
        stop.cancel();
        drop(front);
        let ended = tokio::time::timeout(PATIENCE, free.cancelled()).await.is_ok();
        ended && writer.join().is_ok()
    }
}

// === impl Sender ===

impl Sender {
    /// Sends the bytes of one message, be they one or not. Waits while the server does not read.
    pub(crate) async fn send(&self, message: &[u8]) {
        // A server that has ended the call says so in its answer.
        let _ = self.0.send(Ok(hyper::body::Frame::data(framed(message)))).await;
    }
}

// === impl Reply ===

impl Reply {
    /// The next message. `None`: the call has ended well. Cancel safe.
    pub(crate) async fn message(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.taken() {
                return Ok(Some(message));
            }
            if let Some(status) = &self.status {
                return if status.code() == Code::Ok { Ok(None) } else { Err(status.clone()) };
            }
            match self.body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.bytes.extend_from_slice(&data),
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        self.status = Status::from_header_map(&trailers);
                    }
                },
                Some(Err(status)) => self.status = Some(status),
                None => self.status = Some(Status::internal("an answer without a status")),
            }
        }
    }

    /// A message that is there as a whole.
    fn taken(&mut self) -> Option<Bytes> {
        let length = usize::try_from(self.bytes.get(1..HEAD)?.get_u32()).ok()?;
        self.bytes.get(HEAD..HEAD + length)?;
        self.bytes.advance(HEAD);
        Some(self.bytes.split_to(length).freeze())
    }
}

fn framed(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEAD + message.len());
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    bytes.put_slice(message);
    bytes.freeze()
}
