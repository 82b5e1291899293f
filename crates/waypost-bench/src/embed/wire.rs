//! Just enough gRPC for a load that costs little itself: HTTP/2 without a channel's queues, layers and clones.

use std::net::SocketAddr;
use std::task::Poll;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::client::{Builder, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderValue, Method, Request, Uri};
use prost::Message;
use tokio::net::TcpStream;
use waypost_proto::etcdserverpb as pb;
use waypost_proto::etcdserverpb::watch_request::RequestUnion;

/// A connection; a clone is another client on it.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    sender: SendRequest<Bytes>,
    address: SocketAddr,
}

/// A method with its URI, parsed once.
#[derive(Clone, Debug)]
pub(crate) struct Call(Uri);

/// A stream of watches.
#[derive(Debug)]
pub(crate) struct Watching {
    requests: SendStream<Bytes>,
    answers: RecvStream,
    buffer: BytesMut,
}

/// Windows as large as Go's client gives them at most.
const WINDOW: u32 = 16 << 20;
/// A flag and a length stand before every message.
const PREFIX: usize = 5;

/// A message with its prefix.
pub(crate) fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).expect("a small message"));
    message.encode(&mut frame).expect("room was made");
    frame.freeze()
}

// === impl Connection ===

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the server listens");
        stream.set_nodelay(true).expect("nodelay");
        let mut builder = Builder::new();
        builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW).enable_push(false);
        let (sender, connection) = builder.handshake(stream).await.expect("HTTP/2");
        tokio::spawn(async move {
            // It ends with the server.
            let _ = connection.await;
        });
        Self { sender, address }
    }

    pub(crate) fn call(&self, method: &str) -> Call {
        Call(format!("http://{}/etcdserverpb.{method}", self.address).parse().expect("a URI"))
    }

    async fn send(&mut self, call: &Call, body: Bytes, last: bool) -> (RecvStream, SendStream<Bytes>) {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = call.0.clone();
        let headers = request.headers_mut();
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("te", HeaderValue::from_static("trailers"));
        std::future::poll_fn(|context| self.sender.poll_ready(context)).await.expect("open");
        let (answer, mut stream) = self.sender.send_request(request, false).expect("sent");
        stream.send_data(body, last).expect("sent");
        (answer.await.expect("an answer").into_body(), stream)
    }

    /// One call; answers the message with its prefix.
    pub(crate) async fn unary(&mut self, call: &Call, body: Bytes) -> Bytes {
        let (mut answer, _stream) = self.send(call, body, true).await;
        let mut whole = Bytes::new();
        while let Some(chunk) = answer.data().await {
            let chunk = chunk.expect("data");
            answer.flow_control().release_capacity(chunk.len()).expect("received");
            whole = if whole.is_empty() { chunk } else { [whole, chunk].concat().into() };
        }
        let trailers = answer.trailers().await.expect("trailers").unwrap_or_default();
        assert_eq!(trailers.get("grpc-status").map(HeaderValue::as_bytes), Some(&b"0"[..]), "{trailers:?}");
        whole
    }

    /// A stream with so many watches of a prefix.
    pub(crate) async fn watch(&mut self, prefix: &str, watches: usize) -> Watching {
        let call = self.call("Watch/Watch");
        let mut end = prefix.as_bytes().to_vec();
        *end.last_mut().expect("a prefix") += 1;
        let create = pb::WatchCreateRequest {
            key: prefix.to_owned().into(),
            range_end: end.into(),
            ..Default::default()
        };
        let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let request = frame(&request);
        let (answers, requests) = self.send(&call, request.clone(), false).await;
        let mut watching = Watching { requests, answers, buffer: BytesMut::new() };
        for _ in 1..watches {
            watching.requests.send_data(request.clone(), false).expect("sent");
        }
        for _ in 0..watches {
            assert!(watching.next().await.created);
        }
        watching
    }
}

// === impl Watching ===

impl Watching {
    /// The next answer.
    pub(crate) async fn next(&mut self) -> pb::WatchResponse {
        loop {
            if let Some(message) = self.message() {
                return message;
            }
            let chunk = self.answers.data().await.expect("open").expect("data");
            self.received(&chunk);
        }
    }

    /// The events that have arrived and were not counted yet; waits for one at least.
    pub(crate) async fn events(&mut self) -> usize {
        let mut events = self.next().await.events.len();
        while let Some(message) = self.message() {
            events += message.events.len();
        }
        std::future::poll_fn(|context| {
            while let Poll::Ready(Some(chunk)) = self.answers.poll_data(context) {
                self.received(&chunk.expect("data"));
                while let Some(message) = self.message() {
                    events += message.events.len();
                }
            }
            Poll::Ready(())
        })
        .await;
        events
    }

    fn received(&mut self, chunk: &Bytes) {
        self.answers.flow_control().release_capacity(chunk.len()).expect("received");
        self.buffer.extend_from_slice(chunk);
    }

    fn message(&mut self) -> Option<pb::WatchResponse> {
        let length = self.buffer.get(1..PREFIX).map(|mut length| length.get_u32() as usize)?;
        if self.buffer.len() < PREFIX + length {
            return None;
        }
        let mut message = self.buffer.split_to(PREFIX + length).freeze();
        message.advance(PREFIX);
        Some(pb::WatchResponse::decode(message).expect("a message"))
    }
}
