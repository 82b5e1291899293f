//! Servers on real sockets that can be killed at any point of a call, and a registry made by hand.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test whose setup is broken must fail at once")]

pub(crate) mod answers;
pub(crate) mod wire;

use answers::Handler;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::{Response, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tower::Service as _;
use waypost_channel::{Backoff, Channel, ChannelBuilder, EndpointInfo};
use waypost_discovery::subscription::{Publisher, Subscription, channel_described};
use waypost_model::{
    Endpoint, Existence, Freshness, Instance, InstanceId, InstanceKey, Scope, ServiceName, Snapshot,
    SnapshotParts,
};

/// Longer than anything here takes, on a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A gRPC server on loopback.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    calls: watch::Sender<usize>,
    connections: watch::Sender<usize>,
    handler: Handler,
    life: Life,
}

/// What ends with a server.
#[derive(Clone)]
struct Life {
    /// Closes everything at once, with a reset: what the kernel does for a process that was killed.
    kill: CancellationToken,
    /// Closes the listener and sends GOAWAY.
    leave: CancellationToken,
    tasks: TaskTracker,
}

/// Instances of one service, published as a registry would.
pub(crate) struct Fleet {
    publisher: Publisher,
    instances: Mutex<(i64, BTreeMap<InstanceKey, Arc<Instance>>)>,
}

// === impl Server ===

impl Server {
    pub(crate) async fn start(handler: Handler) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], waypost_testkit::free_port()));
        let mut server = Self {
            address,
            calls: watch::Sender::new(0),
            connections: watch::Sender::new(0),
            handler,
            life: Life::new(),
        };
        server.listen().await;
        server
    }

    pub(crate) async fn healthy() -> Self {
        Self::start(answers::serving()).await
    }

    /// Listens again on the same address.
    pub(crate) async fn restart(&mut self) {
        self.life = Life::new();
        self.listen().await;
    }

    async fn listen(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("the port is ours");
        let (life, handler) = (self.life.clone(), Arc::clone(&self.handler));
        let (calls, connections) = (self.calls.clone(), self.connections.clone());
        self.life.tasks.spawn(async move {
            loop {
                let stream = tokio::select! {
                    () = life.kill.cancelled() => return,
                    () = life.leave.cancelled() => return,
                    accepted = listener.accept() => accepted.expect("loopback").0,
                };
                stream.set_zero_linger().expect("a socket");
                connections.send_modify(|count| *count += 1);
                let (handler, calls) = (Arc::clone(&handler), calls.clone());
                let kill = life.kill.clone();
                let service = service_fn(move |request| {
                    calls.send_modify(|count| *count += 1);
                    let answer = handler(request, kill.clone());
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                let executor = Tracked(life.clone());
                let connection = hyper::server::conn::http2::Builder::new(executor)
                    .serve_connection(TokioIo::new(stream), service);
                let life = life.clone();
                life.tasks.clone().spawn(async move {
                    let mut connection = std::pin::pin!(connection);
                    let ended = tokio::select! {
                        () = life.kill.cancelled() => return,
                        () = life.leave.cancelled() => None,
                        ended = &mut connection => Some(ended),
                    };
                    if ended.is_none() {
                        connection.as_mut().graceful_shutdown();
                        tokio::select! {
                            () = life.kill.cancelled() => {}
                            _ = connection => {}
                        }
                    }
                });
            }
        });
    }

    /// As SIGKILL: listener and connections are gone, calls and all.
    pub(crate) async fn kill(&self) {
        self.life.kill.cancel();
        self.life.tasks.close();
        self.life.tasks.wait().await;
    }

    /// As a well-behaved SIGTERM: no new connections, GOAWAY, calls go on. Does not wait for them.
    pub(crate) fn leave(&self) {
        self.life.leave.cancel();
        self.life.tasks.close();
    }

    /// Until the last call has ended after [`leave`](Self::leave).
    pub(crate) async fn left(&self) {
        self.life.tasks.wait().await;
    }

    /// Requests that have arrived.
    pub(crate) fn calls(&self) -> usize {
        *self.calls.borrow()
    }

    /// Waits for that many requests.
    pub(crate) async fn called(&self, count: usize) {
        within(self.calls.subscribe().wait_for(|calls| *calls >= count)).await.expect("the server lives");
    }

    pub(crate) fn connections(&self) -> usize {
        *self.connections.borrow()
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        self.address.into()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.life.kill.cancel();
    }
}

impl Life {
    fn new() -> Self {
        Self { kill: CancellationToken::new(), leave: CancellationToken::new(), tasks: TaskTracker::new() }
    }
}

/// Streams are known to the server, and end when their connection does: were they ended one by one, each would still send a
/// `RST_STREAM`, which a killed process does not.
#[derive(Clone)]
struct Tracked(Life);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Tracked {
    fn execute(&self, task: F) {
        hyper::rt::Executor::execute(&TokioExecutor::new(), self.0.tasks.track_future(task));
    }
}

// === impl Fleet ===

impl Fleet {
    /// A service of which nothing has been read yet.
    pub(crate) fn unread() -> (Self, Subscription) {
        let (publisher, subscription) =
            channel_described(Scope::Service(service()), "layout grpc, prefix services/");
        (Self { publisher, instances: Mutex::default() }, subscription)
    }

    /// A service with these servers, under the ids `0`, `1`, …
    pub(crate) fn of(servers: &[&Server]) -> (Self, Subscription) {
        Self::with(servers.iter().enumerate().map(|(n, server)| instance(n, server.endpoint())))
    }

    /// A service with these instances.
    pub(crate) fn with(instances: impl IntoIterator<Item = Instance>) -> (Self, Subscription) {
        let (fleet, subscription) = Self::unread();
        fleet.change(instances, []);
        (fleet, subscription)
    }

    pub(crate) fn put(&self, instance: Instance) {
        self.change([instance], []);
    }

    pub(crate) fn remove(&self, id: usize) {
        self.change([], [id]);
    }

    /// One snapshot with all of it.
    pub(crate) fn change(
        &self,
        put: impl IntoIterator<Item = Instance>,
        removed: impl IntoIterator<Item = usize>,
    ) {
        let mut state = self.instances.lock().unwrap();
        let (revision, instances) = &mut *state;
        *revision += 1;
        let existed = !instances.is_empty();
        for instance in put {
            instances.insert(InstanceKey::of(&instance, 0), Arc::new(instance));
        }
        for id in removed {
            instances.retain(|key, _| key.id != id.to_string().as_str());
        }
        let existence = match (instances.is_empty(), existed) {
            (false, _) => Existence::Present,
            (true, true) => Existence::Emptied,
            (true, false) => Existence::Absent,
        };
        assert!(self.publisher.publish(Snapshot::new(SnapshotParts {
            scope: Scope::Service(service()),
            revision: *revision,
            instances: instances.iter().map(|(key, value)| (key.clone(), Arc::clone(value))).collect(),
            freshness: Freshness::Live,
            existence,
            skipped: 0,
        })));
    }

    pub(crate) fn report_error(&self, error: &str) {
        self.publisher.report_error(Some(error.into()));
    }
}

pub(crate) fn service() -> ServiceName {
    "greeter".parse().unwrap()
}

pub(crate) fn instance(id: usize, endpoint: Endpoint) -> Instance {
    Instance::new(service(), endpoint).with_id(InstanceId::new(id.to_string()).unwrap())
}

/// An address on which nothing listens.
pub(crate) fn refused() -> Endpoint {
    Endpoint::new("127.0.0.1", waypost_testkit::free_port()).unwrap()
}

/// A channel whose waits are short enough for a test.
pub(crate) fn builder(subscription: Subscription) -> ChannelBuilder {
    let (base, max) = (Duration::from_millis(5), Duration::from_millis(50));
    Channel::builder(subscription).backoff(Backoff::new(base, max))
}

/// Waits until so many endpoints are ready.
pub(crate) async fn ready(channel: &Channel, count: usize) {
    within(channel.wait_for(|stats| stats.ready() == count)).await;
}

pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens in time")
}

/// Waits until so many calls are under way, or more.
pub(crate) async fn busy(channel: &Channel, calls: u64) {
    within(async {
        while channel.stats().in_flight() < calls {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// One call of any kind, until the response begins.
pub(crate) fn send(
    channel: &Channel,
    request: http::Request<Body>,
) -> impl Future<Output = http::Response<Body>> + Send + 'static {
    let answer = channel.clone().call(request);
    async move { within(answer).await.unwrap_or_else(|never| match never {}) }
}

/// One unary call.
pub(crate) async fn check(channel: &Channel) -> Result<Response<HealthCheckResponse>, Status> {
    check_with(channel, |_| {}).await
}

/// One unary call that may be processed twice.
pub(crate) async fn check_idempotent(channel: &Channel) -> Result<Response<HealthCheckResponse>, Status> {
    check_with(channel, |request| {
        request.extensions_mut().insert(waypost_channel::Idempotent);
    })
    .await
}

pub(crate) async fn check_with(
    channel: &Channel,
    prepare: impl FnOnce(&mut tonic::Request<HealthCheckRequest>),
) -> Result<Response<HealthCheckResponse>, Status> {
    let mut request = tonic::Request::new(HealthCheckRequest::default());
    prepare(&mut request);
    within(HealthClient::new(channel.clone()).check(request)).await
}

/// The id of the instance that has answered.
pub(crate) fn served_by<T>(response: &Response<T>) -> usize {
    info(response).key().id.as_str().parse().unwrap()
}

pub(crate) fn info<T>(response: &Response<T>) -> &EndpointInfo {
    response.extensions().get().expect("an instance has answered")
}

/// Tells a test that a handler got to some point.
pub(crate) fn signal() -> Arc<Notify> {
    Arc::new(Notify::new())
}
