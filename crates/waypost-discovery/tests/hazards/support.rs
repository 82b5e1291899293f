//! What the hazards share: a client that writes as registrants do, and a reader that checks what it is told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use waypost_discovery::{Discovery, DiscoveryOptions, Subscription};
use waypost_etcd::{Client, ClientOptions, Delete, Put};
use waypost_model::{Change, Freshness, Instance, Layout, ServiceName, Snapshot, parse_layouts};

/// Longer than anything that is waited for here ever takes on a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn name(service: &str) -> ServiceName {
    service.parse().unwrap()
}

pub(crate) fn options(urls: impl IntoIterator<Item = String>) -> ClientOptions {
    ClientOptions::new(urls)
        .connect_timeout(Duration::from_millis(500))
        .request_timeout(Duration::from_secs(2))
        .keepalive(Duration::from_secs(5), Duration::from_secs(2))
}

pub(crate) fn client(url: &str) -> Client {
    Client::new(options([url.to_owned()])).unwrap()
}

pub(crate) fn grpc() -> Vec<Arc<dyn Layout>> {
    parse_layouts("grpc", None).unwrap()
}

pub(crate) fn discovery(client: &Client) -> Discovery {
    Discovery::new(client.clone(), DiscoveryOptions::new(grpc()))
}

/// How an instance of `service` at `10.0.0.{host}:80` is written.
pub(crate) fn entry(service: &str, host: u32, lease: i64) -> (Vec<u8>, Vec<u8>) {
    let instance = Instance::new(name(service), format!("10.0.0.{host}:80").parse().unwrap());
    let encoded = grpc()[0].encode(&instance, lease).unwrap();
    let entry = encoded.entries.into_iter().next().unwrap();
    (entry.key, entry.value)
}

/// Puts it, under a lease if that is not 0; answers the revision.
pub(crate) async fn put(client: &Client, service: &str, host: u32, lease: i64) -> i64 {
    let (key, value) = entry(service, host, lease);
    // Repeating it does no harm: a restarted etcd may break the connection under way.
    let answer = client.put(Put::new(key, value).lease(lease).idempotent()).await.unwrap();
    answer.header.unwrap().revision
}

pub(crate) async fn delete(client: &Client, service: &str, host: u32) -> i64 {
    let key = format!("services/{service}/10.0.0.{host}:80");
    let answer = client.delete(Delete::key(key)).await.unwrap();
    assert_eq!(answer.deleted, 1);
    answer.header.unwrap().revision
}

/// The last numbers of the addresses.
pub(crate) fn hosts(snapshot: &Snapshot) -> Vec<u32> {
    let number = |instance: &Arc<Instance>| {
        let address = instance.address();
        address.trim_start_matches("10.0.0.").trim_end_matches(":80").parse().unwrap()
    };
    let mut hosts: Vec<u32> = snapshot.instances().map(number).collect();
    hosts.sort_unstable();
    hosts
}

pub(crate) fn is_live(snapshot: &Snapshot) -> bool {
    snapshot.freshness().is_live()
}

pub(crate) fn cause(snapshot: &Snapshot) -> &str {
    match snapshot.freshness() {
        Freshness::Live => "live",
        Freshness::Stale { cause, .. } => cause,
    }
}

/// A reader that applies each difference to a set of its own, and fails when one does not fit: an instance added
/// twice, removed without being there, or a revision that goes back.
pub(crate) struct Follower {
    pub(crate) subscription: Subscription,
    seen: Arc<Snapshot>,
    set: BTreeSet<String>,
    /// How many snapshots it was told of.
    pub(crate) told: u32,
    /// The store may go back once it was restored or wiped.
    pub(crate) may_go_back: bool,
}

// === impl Follower ===

impl Follower {
    pub(crate) fn new(mut subscription: Subscription) -> Self {
        let seen = subscription.mark_seen();
        let set = seen.instances().map(|instance| instance.address()).collect();
        Self { subscription, seen, set, told: 0, may_go_back: false }
    }

    /// Waits for a snapshot of which `wanted` is true; the present one counts.
    pub(crate) async fn until(&mut self, what: &str, wanted: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let found = tokio::time::timeout(PATIENCE, async {
            while !wanted(&self.seen) {
                let newer = self.subscription.changed().await;
                self.see(newer);
            }
        });
        let found = found.await.is_ok();
        assert!(found, "never: {what}; last error {:?}; {:#?}", self.subscription.last_error(), self.seen);
        Arc::clone(&self.seen)
    }

    pub(crate) async fn until_hosts(&mut self, hosts: &[u32]) -> Arc<Snapshot> {
        self.until(&format!("live {hosts:?}"), |snapshot| is_live(snapshot) && self::hosts(snapshot) == hosts)
            .await
    }

    fn see(&mut self, newer: Arc<Snapshot>) {
        self.told += 1;
        assert!(
            self.may_go_back || newer.revision() >= self.seen.revision(),
            "revision {} after {}",
            newer.revision(),
            self.seen.revision()
        );
        for change in newer.changes_since(&self.seen) {
            match change {
                Change::Added { instance, .. } => assert!(self.set.insert(instance.address())),
                Change::Removed { instance, .. } => assert!(self.set.remove(&instance.address())),
                Change::Updated { before, after, .. } => {
                    assert!(self.set.remove(&before.address()));
                    assert!(self.set.insert(after.address()));
                }
            }
        }
        let shown: BTreeSet<String> = newer.instances().map(|instance| instance.address()).collect();
        assert_eq!(self.set, shown);
        self.seen = newer;
    }
}
