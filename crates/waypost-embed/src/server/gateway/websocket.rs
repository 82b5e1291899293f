//! Streams of the JSON gateway over `WebSocket`s, as the proxy in front of etcd's gateway has them: each message of the client
//! is a JSON document, each of the server a line of what the gateway answers.
//!
//! That is what a web page needs to ask more than once on one stream: `fetch` sends no body that goes on.

use std::convert::Infallible;

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use http::header::{
    AUTHORIZATION, CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use prost_reflect::MethodDescriptor;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tonic::body::Body;

use super::{JSON_FACTOR, call};
use crate::server::front::Front;
use crate::server::plain;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Documents between the socket and the call.
const AHEAD: usize = 4;

/// Whether a request asks for a WebSocket.
pub(in crate::server) fn is_asked(headers: &HeaderMap) -> bool {
    lists(headers, &CONNECTION, "upgrade") && lists(headers, &UPGRADE, "websocket")
}

/// Agrees to a WebSocket, and serves it.
pub(in crate::server) fn answer(
    front: Front,
    method: &'static MethodDescriptor,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let headers = request.headers();
    let version = headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
    let Some(key) = headers.get(SEC_WEBSOCKET_KEY).filter(|key| version && !key.is_empty()) else {
        let mut response = plain::text(StatusCode::BAD_REQUEST, "Bad Request\n");
        response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return response;
    };
    let accepted = HeaderValue::from_str(&derive_accept_key(key.as_bytes()));
    let token = token(headers);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answered = response.headers_mut();
    answered.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    answered.insert(UPGRADE, HeaderValue::from_static("websocket"));
    // Base64 is a value.
    answered.extend(accepted.ok().map(|accepted| (SEC_WEBSOCKET_ACCEPT, accepted)));
    if token.is_some() {
        answered.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("Bearer"));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let stop = front.stop.clone();
        let serving = async {
            match upgrade.await {
                Ok(connection) => serve(front, method, token, connection).await,
                Err(error) => tracing::debug!(%error, "a connection did not become a WebSocket"),
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = serving => {}
        }
    });
    response
}

/// Serves a WebSocket until one side ends it.
async fn serve(
    front: Front,
    method: &'static MethodDescriptor,
    token: Option<HeaderValue>,
    connection: Upgraded,
) {
    let limit = front.message_limit().saturating_mul(JSON_FACTOR);
    let config = WebSocketConfig::default().max_message_size(Some(limit)).max_frame_size(Some(limit));
    let socket = Socket::from_raw_socket(TokioIo::new(connection), Role::Server, Some(config)).await;
    let (outgoing, incoming) = socket.split();
    let (sender, documents) = mpsc::channel(AHEAD);
    let documents = ReceiverStream::new(documents).map(|document| Ok::<_, Infallible>(Frame::data(document)));
    let mut request = Request::new(StreamBody::new(documents));
    request.headers_mut().extend(token.map(|token| (AUTHORIZATION, token)));
    let ended = tokio::select! {
        ended = read(incoming, sender) => ended,
        ended = write(outgoing, call(front, method, request)) => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a WebSocket ended");
    }
}

/// Passes on what the client says, until it ends the WebSocket; what the protocol answers by itself is answered meanwhile.
async fn read(mut incoming: SplitStream<Socket>, sender: mpsc::Sender<Bytes>) -> Result<(), Error> {
    while let Some(message) = incoming.next().await {
        let document = match message? {
            Message::Text(text) => Bytes::from(text),
            Message::Binary(bytes) => bytes,
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => continue,
        };
        for piece in [document, Bytes::from_static(b"\n")] {
            // A call that has ended says so in its answer.
            let _ = sender.send(piece).await;
        }
    }
    Ok(())
}

/// Passes on what the call answers, and ends the WebSocket after it.
async fn write(
    mut outgoing: SplitSink<Socket, Message>,
    call: impl Future<Output = Response<Body>>,
) -> Result<(), Error> {
    let mut body = call.await.into_body();
    while let Some(Ok(frame)) = body.frame().await {
        // The gateway puts each line into a frame of its own.
        if let Some(line) = frame.data_ref().map(|line| line.trim_ascii_end()) {
            outgoing.send(Message::text(String::from_utf8_lossy(line).into_owned())).await?;
        }
    }
    outgoing.close().await
}

/// The token, which a web page can only show as the second of two protocols, of which the first is `Bearer`.
fn token(headers: &HeaderMap) -> Option<HeaderValue> {
    let (scheme, token) = headers.get(SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?.split_once(',')?;
    let shown = format!("Bearer {}", token.trim());
    HeaderValue::from_str(&shown).ok().filter(|_| scheme.trim().eq_ignore_ascii_case("bearer"))
}

/// Whether a header's list has this word.
fn lists(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|each| each.trim().eq_ignore_ascii_case(word))
}
