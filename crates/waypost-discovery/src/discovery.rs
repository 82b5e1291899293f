//! The entrance: one watched set per scope, shared by everyone who asks for it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::Instrument;
use waypost_etcd::Client;
use waypost_model::{Scope, ServiceName, Snapshot};

use crate::driver::Driver;
use crate::metrics::{Counters, SetsCollector};
use crate::options::DiscoveryOptions;
use crate::reader::{NoCatalog, Reader};
use crate::subscription::{Publisher, Subscription, channel_described};

/// Discovery of services in one etcd cluster. Cheap to clone; clones share their watches.
///
/// Subscriptions live on when it is dropped.
///
/// ```no_run
/// use waypost_discovery::{Discovery, DiscoveryOptions};
/// use waypost_etcd::{Client, ClientOptions};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::new(ClientOptions::new(["http://127.0.0.1:2379"]))?;
/// let discovery = Discovery::new(client, DiscoveryOptions::new(waypost_model::parse_layouts("grpc", None)?));
///
/// let mut greeter = discovery.service("greeter".parse()?);
/// let mut seen = greeter.ready().await;
/// loop {
///     let now = greeter.changed().await;
///     for change in now.changes_since(&seen) {
///         println!("{change:?}");
///     }
///     seen = now;
/// }
/// # }
/// ```
#[derive(Clone)]
pub struct Discovery {
    sets: Arc<Sets>,
}

/// What the clones of a discovery and its tasks share.
pub(crate) struct Sets {
    pub(crate) client: Client,
    pub(crate) options: DiscoveryOptions,
    pub(crate) counters: Counters,
    /// An entry lives as long as the task that publishes to it.
    watched: Mutex<BTreeMap<Watched, Publisher>>,
}

/// What one task watches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Watched {
    Catalog,
    Service(ServiceName),
}

// === impl Discovery ===

impl Discovery {
    /// Discovery through `client`. Does no I/O until something is asked for.
    pub fn new(client: Client, options: DiscoveryOptions) -> Self {
        Self {
            sets: Arc::new(Sets {
                client,
                options,
                counters: Counters::default(),
                watched: Mutex::new(BTreeMap::new()),
            }),
        }
    }

    /// Follows one service. Answers at once; [`Subscription::ready`] waits for what etcd says.
    ///
    /// The first subscription of a service starts one task with one watch stream, which the others share; it ends
    /// when the last of them is dropped.
    ///
    /// # Panics
    ///
    /// When called outside a tokio runtime, as `tokio::spawn` does.
    pub fn service(&self, service: ServiceName) -> Subscription {
        let key = Watched::Service(service.clone());
        self.sets.subscribe(key, || Reader::service(service, &self.sets.options.layouts))
    }

    /// Follows every service under the prefixes of the layouts.
    ///
    /// The grace for empty sets is about the catalog as a whole: a service of it that vanishes is gone at once.
    ///
    /// # Errors
    ///
    /// [`NoCatalog`] when a layout has no prefix that bounds its services (`fields`; `grpc` and `go-zero` with an
    /// empty prefix): the whole key space is not read.
    ///
    /// # Panics
    ///
    /// When called outside a tokio runtime, as `tokio::spawn` does.
    pub fn catalog(&self) -> Result<Subscription, NoCatalog> {
        let reader = Reader::catalog(&self.sets.options.layouts)?;
        Ok(self.sets.subscribe(Watched::Catalog, || reader))
    }

    /// Where the instances of a service are read from: `layout grpc, prefix services`.
    pub fn describe(&self) -> String {
        crate::reader::describe(&self.sets.options.layouts)
    }

    /// Adds the metrics of this discovery to a registry that the caller owns:
    ///
    /// | name | kind | |
    /// |---|---|---|
    /// | `waypost_discovery_instances{service}` | gauge | instances in the newest snapshot |
    /// | `waypost_discovery_staleness_seconds{service}` | gauge | for how long it has been stale; 0 while live |
    /// | `waypost_discovery_skipped{service}` | gauge | values in etcd that do not decode |
    /// | `waypost_discovery_resets_total` | counter | times a set was read again since history was gone |
    /// | `waypost_discovery_changes_total` | counter | instances added, updated or removed |
    ///
    /// The catalog is the service `*`. A service that nobody is subscribed to has no series.
    pub fn register_metrics(&self, registry: &mut prometheus_client::registry::Registry) {
        self.sets.counters.register(registry);
        registry.register_collector(Box::new(SetsCollector::new(&self.sets)));
    }
}

impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discovery")
            .field("options", &self.sets.options)
            .field("watched", &self.sets.watched().keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

// === impl Sets ===

impl Sets {
    /// The newest snapshot of each watched set.
    pub(crate) fn snapshots(&self) -> Vec<Arc<Snapshot>> {
        self.watched().values().map(Publisher::snapshot).collect()
    }

    fn subscribe(self: &Arc<Self>, key: Watched, reader: impl FnOnce() -> Reader) -> Subscription {
        let mut watched = self.watched();
        if let Some(publisher) = watched.get(&key) {
            return publisher.subscribe();
        }
        let reader = reader();
        let (publisher, subscription) =
            channel_described(reader.scope.clone(), crate::reader::describe(&reader.layouts));
        let span = match &reader.scope {
            Scope::Service(service) => tracing::info_span!("discovery", %service),
            Scope::Catalog => tracing::info_span!("discovery", service = "*"),
        };
        watched.insert(key.clone(), publisher.clone());
        drop(watched);
        tokio::spawn(Arc::clone(self).serve(key, publisher, reader).instrument(span));
        subscription
    }

    async fn serve(self: Arc<Self>, key: Watched, publisher: Publisher, reader: Reader) {
        let mut driver = Driver::new(&self, publisher.clone(), Arc::new(reader));
        tokio::select! {
            biased;
            () = self.unused(&key, &publisher) => {}
            never = driver.run() => match never {},
        }
        driver.finish().await;
    }

    /// Returns when nobody is subscribed, and nobody can be any more.
    async fn unused(&self, key: &Watched, publisher: &Publisher) {
        loop {
            publisher.closed().await;
            let mut watched = self.watched();
            // Whoever subscribes holds this lock.
            if publisher.subscriptions() == 0 {
                watched.remove(key);
                return;
            }
        }
    }

    fn watched(&self) -> MutexGuard<'_, BTreeMap<Watched, Publisher>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
