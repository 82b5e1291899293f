//! Fleets that are too large to be connected to as a whole: subsets, limits, connections on demand; through a connector of one's
//! own, since ten thousand servers do not fit on this machine.

use crate::support::{
    Fleet, Server, answers, builder, check, check_with, info, instance, ready, served_by, within,
};
use futures::future::BoxFuture;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use waypost_channel::balance::ClientNumber;
use waypost_channel::{
    Channel, Connector, EndpointStatus, HashKey, Outcome, Policy, Transport, Unconnected, Wish,
};
use waypost_model::{Endpoint, Instance, Status};

/// Connects to servers that are in this process, one behind every address.
#[derive(Debug, Clone, Default)]
struct InMemory {
    seen: Arc<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Addresses that were connected to.
    addresses: Mutex<BTreeSet<Endpoint>>,
    /// Connections that are open, or being made.
    open: AtomicUsize,
    /// The most that were at any time.
    most_open: AtomicUsize,
}

struct Open(Arc<Seen>);

impl Seen {
    fn open(self: &Arc<Self>) -> Open {
        let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_open.fetch_max(open, Ordering::SeqCst);
        Open(Arc::clone(self))
    }

    fn addresses(&self) -> usize {
        self.addresses.lock().unwrap().len()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Connector for InMemory {
    fn refuses(&self, _endpoint: &Endpoint) -> Option<String> {
        None
    }

    fn connect(&self, endpoint: Endpoint) -> BoxFuture<'static, io::Result<Transport>> {
        let open = self.seen.open();
        self.seen.addresses.lock().unwrap().insert(endpoint);
        Box::pin(async move {
            let (client, server) = tokio::io::duplex(16 << 10);
            tokio::spawn(async move {
                let _open = open;
                let service = service_fn(async |_| Ok::<_, Infallible>(answers::ok()));
                // Ends with the connection, in whatever way.
                let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(server), service)
                    .await;
            });
            Ok(Box::new(client) as Transport)
        })
    }
}

/// Connects to nobody, after a moment.
#[derive(Debug, Clone, Default)]
struct Nobody {
    seen: Arc<Seen>,
}

impl Connector for Nobody {
    fn refuses(&self, _endpoint: &Endpoint) -> Option<String> {
        None
    }

    fn connect(&self, endpoint: Endpoint) -> BoxFuture<'static, io::Result<Transport>> {
        let open = self.seen.open();
        self.seen.addresses.lock().unwrap().insert(endpoint);
        Box::pin(async move {
            tokio::task::yield_now().await;
            drop(open);
            Err(io::ErrorKind::ConnectionRefused.into())
        })
    }
}

fn address(n: usize) -> Endpoint {
    Endpoint::new(format!("10.1.{}.{}", n / 250, n % 250 + 1), 50051).unwrap()
}

fn fleet(size: usize) -> impl Iterator<Item = Instance> {
    (0..size).map(|n| instance(n, address(n)))
}

fn some(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).unwrap()
}

async fn keyed(channel: &Channel, key: usize) -> Endpoint {
    let prepare = |request: &mut tonic::Request<_>| {
        request.extensions_mut().insert(HashKey::of(key.to_string()));
    };
    info(&check_with(channel, prepare).await.unwrap()).endpoint().clone()
}

#[tokio::test]
async fn of_ten_thousand_endpoints_a_client_connects_to_its_subset() {
    let (_registry, subscription) = Fleet::with(fleet(10_000));
    let mut subsets = Vec::new();
    for client in ["frontend-1", "frontend-1", "frontend-2"] {
        let connector = InMemory::default();
        let channel = builder(subscription.clone())
            .connector(connector.clone())
            .subset(some(20))
            .client_id(client)
            .build();
        ready(&channel, 20).await;
        for _ in 0..200 {
            check(&channel).await.unwrap();
        }
        let used: BTreeSet<Endpoint> = channel
            .stats()
            .endpoints
            .iter()
            .filter(|at| at.calls > 0)
            .map(|at| at.endpoint.clone())
            .collect();
        assert_eq!((used.len(), connector.seen.addresses()), (20, 20));
        subsets.push(used);
    }
    assert_eq!(subsets[0], subsets[1]);
    assert!(subsets[0].intersection(&subsets[2]).count() < 10);
}

/// Four clients, twenty connections each, eighty servers: one for each.
#[tokio::test]
async fn numbered_clients_share_a_fleet_evenly() {
    let (_registry, subscription) = Fleet::with(fleet(80));
    let mut clients = BTreeMap::new();
    for number in 0..4 {
        let connector = InMemory::default();
        let channel = builder(subscription.clone())
            .connector(connector.clone())
            .client_id("not counted")
            .client_number(ClientNumber::new("frontend", number))
            .subset(some(20))
            .build();
        ready(&channel, 20).await;
        for address in &*connector.seen.addresses.lock().unwrap() {
            *clients.entry(address.clone()).or_insert(0) += 1;
        }
    }
    assert_eq!((clients.len(), clients.values().max()), (80, Some(&1)));
}

#[tokio::test]
async fn a_limit_to_connections_is_a_subset_that_is_the_same_for_all_channels_of_a_process() {
    let (_registry, subscription) = Fleet::with(fleet(500));
    let connector = InMemory::default();
    for _ in 0..2 {
        let channel =
            builder(subscription.clone()).connector(connector.clone()).max_connections(some(8)).build();
        ready(&channel, 8).await;
    }
    assert_eq!(connector.seen.addresses(), 8);
}

#[tokio::test]
async fn connections_on_demand_are_made_for_calls_and_not_before() {
    let (_registry, subscription) = Fleet::with(fleet(10_000));
    let connector = InMemory::default();
    let channel = builder(subscription)
        .connector(connector.clone())
        .policy(Policy::maglev())
        .connect_on_demand(Duration::from_secs(3600))
        .build();
    within(channel.wait_for(|stats| stats.registered == 10_000)).await;
    assert_eq!(connector.seen.addresses(), 0);
    // Three keys want three endpoints, and get them once they are connected.
    let mut owners = BTreeSet::new();
    for key in 0..3 {
        let mut owner = keyed(&channel, key).await;
        let before = owners.len();
        within(channel.wait_for(|stats| stats.ready() > before)).await;
        for _ in 0..1000 {
            let next = keyed(&channel, key).await;
            if std::mem::replace(&mut owner, next) == owner && !owners.contains(&owner) {
                break;
            }
            tokio::task::yield_now().await;
        }
        owners.insert(owner);
    }
    assert_eq!((owners.len(), connector.seen.addresses()), (3, 3));
    for key in 0..3 {
        assert!(owners.contains(&keyed(&channel, key).await));
    }
}

#[tokio::test]
async fn on_demand_a_client_keeps_to_its_limit_and_its_calls_share_what_there_is() {
    let (_registry, subscription) = Fleet::with(fleet(1_000));
    let connector = InMemory::default();
    let channel = builder(subscription)
        .connector(connector.clone())
        .policy(Policy::least_request())
        .connect_on_demand(Duration::from_secs(3600))
        .max_connections(some(5))
        .build();
    for _ in 0..500 {
        check(&channel).await.unwrap();
    }
    ready(&channel, 5).await;
    assert_eq!(connector.seen.most_open.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn a_channel_on_demand_can_be_waited_for_like_any_other() {
    let server = Server::healthy().await;
    let (_registry, subscription) = Fleet::of(&[&server]);
    let channel = builder(subscription).connect_on_demand(Duration::from_secs(3600)).build();
    within(channel.ready()).await.unwrap();
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_connection_on_demand_that_no_call_uses_is_closed_and_made_again() {
    let server = Server::healthy().await;
    let (_registry, subscription) = Fleet::of(&[&server]);
    let channel = builder(subscription).connect_on_demand(Duration::from_millis(50)).build();
    for connections in 1..=2 {
        check(&channel).await.unwrap();
        assert_eq!(server.connections(), connections);
        within(channel.wait_for(|stats| stats.endpoints[0].state == EndpointStatus::Idle)).await;
    }
}

/// Connects as [`InMemory`] does, once it may.
#[derive(Debug, Clone, Default)]
struct Patient {
    behind: InMemory,
    may: CancellationToken,
}

impl Connector for Patient {
    fn refuses(&self, _endpoint: &Endpoint) -> Option<String> {
        None
    }

    fn connect(&self, endpoint: Endpoint) -> BoxFuture<'static, io::Result<Transport>> {
        let (connected, may) = (self.behind.connect(endpoint), self.may.clone());
        Box::pin(async move {
            may.cancelled().await;
            connected.await
        })
    }
}

/// As the first of a fleet do that was empty, or not read, when the channel began.
#[tokio::test]
async fn what_joins_on_demand_is_there_for_calls_that_wait() {
    let (registry, subscription) = Fleet::with([instance(0, address(0)).with_status(Status::Down)]);
    let channel = builder(subscription)
        .connector(InMemory::default())
        .connect_on_demand(Duration::from_secs(3600))
        .build();
    within(channel.wait_for(|stats| stats.down == 1)).await;
    registry.put(instance(1, address(1)));
    assert_eq!(served_by(&check(&channel).await.unwrap()), 1);
    registry.change([instance(2, address(2))], [1]);
    within(channel.wait_for(|stats| stats.endpoints.iter().any(|at| at.endpoint == address(2)))).await;
    assert_eq!(served_by(&check(&channel).await.unwrap()), 2);
}

#[tokio::test]
async fn a_call_on_demand_connects_to_one_endpoint_however_long_it_waits() {
    let (registry, subscription) = Fleet::with(fleet(50));
    let connector = Patient::default();
    let channel = builder(subscription)
        .connector(connector.clone())
        .policy(Policy::round_robin())
        .connect_on_demand(Duration::from_secs(3600))
        .build();
    let call = tokio::spawn({
        let channel = channel.clone();
        async move { check(&channel).await }
    });
    let connecting = |stats: &waypost_channel::ChannelStats| {
        stats.endpoints.iter().any(|at| at.state == EndpointStatus::Connecting)
    };
    within(channel.wait_for(connecting)).await;
    // Each makes another table, which wakes the call.
    for joined in 50..60 {
        registry.put(instance(joined, address(joined)));
        within(channel.wait_for(|stats| stats.registered == joined + 1)).await;
    }
    connector.may.cancel();
    within(call).await.unwrap().unwrap();
    assert_eq!(connector.behind.seen.addresses(), 1);
}

/// Dead ones are not waited for for ever, and are named.
#[tokio::test]
async fn on_demand_a_fleet_that_is_dead_is_an_error() {
    let (_registry, subscription) = Fleet::with(fleet(5));
    let connector = Nobody::default();
    let channel = builder(subscription)
        .connector(connector.clone())
        .connect_on_demand(Duration::from_secs(3600))
        .build();
    let error = check(&channel).await.unwrap_err();
    assert!(error.message().contains("connection refused"), "{error}");
    assert_eq!(connector.seen.addresses(), 5);
}

#[tokio::test]
async fn ten_thousand_endpoints_are_not_connected_to_all_at_once() {
    let (_registry, subscription) = Fleet::with(fleet(10_000));
    let connector = Nobody::default();
    let channel = builder(subscription).connector(connector.clone()).max_connecting(some(40)).build();
    within(async {
        while connector.seen.addresses() < 10_000 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(connector.seen.most_open.load(Ordering::SeqCst), 40);
    drop(channel);
}

/// While the set changes again and again, every pick finds an endpoint, and none that has left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn picks_go_on_while_a_set_of_ten_thousand_changes() {
    let (registry, subscription) = Fleet::with(fleet(10_000));
    let pool = Channel::builder(subscription).policy(Policy::peak_ewma()).pool(Unconnected);
    within(pool.wait_for(|stats| stats.ready() == 10_000)).await;
    let stop = CancellationToken::new();
    let picking = tokio::task::spawn_blocking({
        let (pool, stop) = (pool.clone(), stop.clone());
        move || {
            let mut picks = 0_u64;
            while !stop.is_cancelled() {
                let lease = pool.try_lease(&Wish::new()).expect("thousands are ready");
                lease.finished(Outcome::Ok);
                picks += 1;
            }
            picks
        }
    });
    for change in 0..10 {
        let joined = instance(10_000 + change, address(10_000 + change));
        registry.change([joined], [change]);
        let left = address(change);
        within(pool.wait_for(|stats| {
            let joined = stats.endpoints.iter().any(|at| at.endpoint == address(10_000 + change));
            joined
                && stats.endpoints.iter().all(|at| at.endpoint != left || at.state == EndpointStatus::Leaving)
        }))
        .await;
    }
    stop.cancel();
    assert!(within(picking).await.unwrap() > 0);
    assert_eq!(pool.stats().registered, 10_000);
}
