//! Active health checks: `grpc.health.v1.Health/Watch` on each connection, as in gRFC A17.

use crate::backoff::Backoff;
use crate::exchange::Incoming;
use crate::length::Limit;
use crate::line::Http2;
use crate::outgoing::Payload;
use crate::replay::Store;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use http::uri::PathAndQuery;
use http::{Request, Response, Version};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;
use tonic::body::Body;
use tonic::{Code, Status, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// Whether an endpoint is fit for calls, or why it is not: each time that this changes.
pub(crate) type Fitness = BoxStream<'static, Result<(), Arc<str>>>;

/// Under which name the health of endpoints is asked for; `None` while it is not.
pub(crate) type Asked = watch::Receiver<Option<Arc<str>>>;

/// Follows the health of the server of one connection.
struct Watcher {
    connection: Http2,
    asked: Asked,
    backoff: Backoff,
    /// Streams in a row that have ended without a word.
    failures: u32,
    state: State,
}

enum State {
    /// The name is to be looked at.
    Begin,
    /// As long as another name is not asked for, nothing more is to be learnt.
    Settled,
    Watching(Box<Streaming<HealthCheckResponse>>),
    /// The stream has ended.
    Broken,
    /// A server that takes one call at a time would take no other while it is watched: it is asked again after a while.
    Resting,
}

/// Between two questions to such a server.
const REST: Duration = Duration::from_secs(5);

/// Requests on one connection, for clients that tonic generates.
struct OnConnection(Http2);

/// What the server of `connection` says of itself, for as long as this is polled.
pub(crate) fn follow(connection: Http2, asked: Asked, backoff: Backoff) -> Fitness {
    let watcher = Watcher { connection, asked, backoff, failures: 0, state: State::Begin };
    stream::unfold(watcher, async |mut watcher| {
        let verdict = watcher.next().await?;
        Some((verdict, watcher))
    })
    .boxed()
}

// === impl Watcher ===

impl Watcher {
    /// `None` when the channel is gone.
    async fn next(&mut self) -> Option<Result<(), Arc<str>>> {
        loop {
            match std::mem::replace(&mut self.state, State::Broken) {
                State::Begin => {
                    let Some(name) = self.asked.borrow_and_update().clone() else {
                        self.state = State::Settled;
                        return Some(Ok(()));
                    };
                    let opened = tokio::select! {
                        opened = open(self.connection.clone(), &name) => opened,
                        changed = self.asked.changed() => {
                            changed.ok()?;
                            self.state = State::Begin;
                            continue;
                        }
                    };
                    match opened {
                        Ok(stream) => self.state = State::Watching(Box::new(stream)),
                        Err(status) => return Some(self.ended(&status)),
                    }
                }
                State::Settled => {
                    self.asked.changed().await.ok()?;
                    self.state = State::Begin;
                }
                State::Watching(mut stream) => {
                    let message = tokio::select! {
                        message = stream.message() => message,
                        changed = self.asked.changed() => {
                            changed.ok()?;
                            self.state = State::Begin;
                            continue;
                        }
                    };
                    match message {
                        Ok(Some(answer)) => {
                            self.failures = 0;
                            let alone = self.connection.limit() == 1;
                            self.state = if alone { State::Resting } else { State::Watching(stream) };
                            return Some(read(answer));
                        }
                        Ok(None) => {
                            return Some(self.ended(&Status::unavailable("the server has ended the stream")));
                        }
                        Err(status) => return Some(self.ended(&status)),
                    }
                }
                State::Resting => {
                    tokio::select! {
                        () = tokio::time::sleep(REST) => {}
                        changed = self.asked.changed() => changed.ok()?,
                    }
                    self.state = State::Begin;
                }
                State::Broken => {
                    self.failures = self.failures.saturating_add(1);
                    let wait = self.backoff.delay(self.failures, fastrand::f64());
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        changed = self.asked.changed() => changed.ok()?,
                    }
                    self.state = State::Begin;
                }
            }
        }
    }

    /// What the end of a stream says.
    fn ended(&mut self, status: &Status) -> Result<(), Arc<str>> {
        if status.code() == Code::Unimplemented {
            // A17: it cannot be asked, so it is taken to be healthy, and not asked again.
            self.state = State::Settled;
            return Ok(());
        }
        self.state = State::Broken;
        Err(format!("its health cannot be watched: {:?}: {}", status.code(), status.message()).into())
    }
}

fn read(answer: HealthCheckResponse) -> Result<(), Arc<str>> {
    match answer.status() {
        ServingStatus::Serving => Ok(()),
        ServingStatus::NotServing => Err("its health service says NOT_SERVING".into()),
        ServingStatus::ServiceUnknown => Err("its health service says SERVICE_UNKNOWN".into()),
        ServingStatus::Unknown => Err("its health service says UNKNOWN".into()),
    }
}

async fn open(connection: Http2, service: &str) -> Result<Streaming<HealthCheckResponse>, Status> {
    let origin = connection.uri(PathAndQuery::from_static("/"));
    let mut client = HealthClient::with_origin(OnConnection(connection), origin);
    Ok(client.watch(HealthCheckRequest { service: service.to_owned() }).await?.into_inner())
}

// === impl OnConnection ===

impl tower::Service<Request<Body>> for OnConnection {
    type Response = Response<Incoming>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<Response<Incoming>, Self::Error>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // A connection that cannot take the request fails it.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let connection = self.0.clone();
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            parts.version = Version::HTTP_2;
            // It is there as a whole; nothing is kept of it.
            let nothing = Arc::new(Store::new(0));
            let payload = Payload::take(body, usize::MAX, Limit::NONE, &nothing)
                .map_err(|unmade| unmade.told("health"))?;
            let place = connection.enter().await?;
            match connection.send(place, Request::from_parts(parts, ()), payload) {
                Ok(exchange) => Ok(exchange.await?),
                Err(unsent) => Err(unsent.error.into()),
            }
        })
    }
}
