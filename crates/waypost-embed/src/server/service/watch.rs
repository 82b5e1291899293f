//! `etcdserverpb.Watch`: one task for each stream, between the client and the hub.
//!
//! It speaks HTTP itself, not through the generated server, which would encode each answer by itself and hand it over
//! alone. Here events that many watches get are encoded once, and all that waits for a stream goes out as one piece.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};
use hyper::body::Frame;
use tokio::sync::mpsc;
use tonic::Status;
use tonic::body::Body;
use tonic::codec::{Codec as _, Streaming};
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic_prost::ProstCodec;
use waypost_proto::etcdserverpb::watch_request::RequestUnion;
use waypost_proto::etcdserverpb::{WatchCreateRequest, WatchRequest, watch_server};

use super::Service;
use crate::error::Refusal;
use crate::server::engine::Follow;
use crate::server::status;
use crate::watch::Head;

/// The service, for the routes.
#[derive(Clone)]
pub(super) struct WatchServer {
    pub(super) service: Service,
    /// Bytes of a request at most.
    pub(super) limit: usize,
}

/// What a stream is answered, as it goes over the connection.
struct Answers {
    pieces: mpsc::Receiver<Result<Bytes, Status>>,
    done: bool,
}

const METHOD: &str = "/etcdserverpb.Watch/Watch";
/// Pieces between the task and the connection; answers that wait in the hub come on top.
const AHEAD: usize = 2;
/// Bytes after which a piece is sent though more waits.
const PIECE: usize = 64 << 10;

// === impl WatchServer ===

impl NamedService for WatchServer {
    const NAME: &'static str = watch_server::SERVICE_NAME;
}

impl tower::Service<http::Request<Body>> for WatchServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != METHOD {
            return ready(Ok(Status::unimplemented("").into_http()));
        }
        let (parts, body) = request.into_parts();
        let encoding = parts.headers.get("grpc-encoding").filter(|encoding| *encoding != "identity");
        if let Some(encoding) = encoding {
            let encoding = String::from_utf8_lossy(encoding.as_bytes());
            let reason = format!("Content is compressed with `{encoding}` which isn't supported");
            return ready(Ok(Status::unimplemented(reason).into_http()));
        }
        let decoder = ProstCodec::<(), WatchRequest>::default().decoder();
        let requests = Streaming::new_request(decoder, body, None, Some(self.limit));
        let (sender, pieces) = mpsc::channel(AHEAD);
        let metadata = MetadataMap::from_headers(parts.headers);
        tokio::spawn(self.service.clone().serve_watch(metadata, requests, sender));
        let mut response = http::Response::new(Body::new(Answers { pieces, done: false }));
        let kind = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
        ready(Ok(response))
    }
}

// === impl Answers ===

impl hyper::body::Body for Answers {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.done {
            return Poll::Ready(None);
        }
        let status = match ready!(self.pieces.poll_recv(cx)) {
            Some(Ok(piece)) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        self.done = true;
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }
}

// === impl Service ===

impl Service {
    async fn serve_watch(
        self,
        metadata: MetadataMap,
        mut requests: Streaming<WatchRequest>,
        sender: mpsc::Sender<Result<Bytes, Status>>,
    ) {
        let mut follow = Follow::open(&self.engine);
        let mut head = Head::new(self.engine.header_at(0));
        // A client that has nothing more to ask goes on to be told, as from etcd, until it resets the stream.
        let mut asks = true;
        loop {
            // A full queue has something to send, so that this is looked at again.
            let congested = follow.is_congested();
            let next = async {
                let permit = sender.reserve().await.map_err(|_| None)?;
                follow.ready().await.map_err(Some)?;
                Ok::<_, Option<Refusal>>(permit)
            };
            let request = tokio::select! {
                () = self.stop.cancelled() => {
                    // The client may have gone, or not read what was sent before.
                    let _ = sender.try_send(Err(status(&Refusal::Stopped)));
                    return;
                }
                next = next => match next {
                    Ok(permit) => {
                        let mut piece = BytesMut::with_capacity(follow.size(PIECE));
                        while piece.len() < PIECE && let Some(response) = follow.take() {
                            response.frame(&mut head, &mut piece);
                        }
                        permit.send(Ok(piece.freeze()));
                        continue;
                    }
                    Err(Some(refusal)) => {
                        let _ = sender.send(Err(status(&refusal))).await;
                        return;
                    }
                    Err(None) => return,
                },
                request = requests.message(), if asks && !congested => request,
                () = sender.closed() => return,
            };
            let request_union = match request {
                Ok(Some(WatchRequest { request_union })) => request_union,
                Ok(None) => {
                    asks = false;
                    continue;
                }
                // The connection broke, or what came is no request.
                Err(_) => return,
            };
            match request_union {
                Some(RequestUnion::CreateRequest(create)) => {
                    follow.create(&create, self.may_watch(&metadata, &create));
                }
                Some(RequestUnion::CancelRequest(cancel)) => follow.cancel(cancel.watch_id),
                Some(RequestUnion::ProgressRequest(_)) => follow.progress(),
                None => {}
            }
        }
    }

    fn may_watch(&self, metadata: &MetadataMap, request: &WatchCreateRequest) -> Result<(), Refusal> {
        let who = self.caller(metadata)?;
        self.engine.policy().may_watch(&who, request)
    }
}
