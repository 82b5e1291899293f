//! The endpoints of a service, kept connected, and one of them for each call: a channel without its protocol.

use crate::dial::Dial;
use crate::driver::{Driver, now};
use crate::explain;
use crate::extension::HashKey;
use crate::fleet::Outlook;
use crate::lease::Lease;
use crate::policy::Policy;
use crate::settings::Tuning;
use crate::stats::ChannelStats;
use crate::table::{Asked, Table};
use arc_swap::ArcSwap;
use http::HeaderMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::DropGuard;
use waypost_balance::{EndpointState, OutlierSettings};
use waypost_discovery::Subscription;
use waypost_model::{Scope, Snapshot};

/// The endpoints of a service as the registry has them, each with what calls to it go over, and the policy that picks one of them
/// for each call.
///
/// This is what a [`Channel`](crate::Channel) is made of, for calls that are not gRPC: give it a [`Dial`] that connects as your
/// protocol does, or [`Unconnected`](crate::Unconnected) where the client connects by itself; take a [`Lease`] for each attempt of a
/// call and say how it ended. What happens to an instance (joining, moving, draining, reconnecting, ejection) is what happens in a channel.
///
/// Cheap to clone; clones share connections. When the last clone is dropped, the pool drops its connections; leases keep theirs.
///
/// ```no_run
/// use std::io;
/// use waypost_channel::{Channel, Outcome, Unconnected, Wish};
/// # use waypost_model::{Endpoint, Scope};
/// # async fn fetch(_: &Endpoint) -> io::Result<String> { Ok(String::new()) }
/// # async fn example() -> Result<String, Box<dyn std::error::Error>> {
/// // With etcd: `let subscription = discovery.service("pages".parse()?);`
/// # let (_, subscription) = waypost_discovery::subscription::channel(Scope::Service("pages".parse()?));
/// let pool = Channel::builder(subscription).pool(Unconnected);
/// let mut tried = Vec::new();
/// loop {
///     let lease = pool.lease(Wish::new().tried(&tried)).await?;
///     match fetch(lease.endpoint().endpoint()).await {
///         Ok(page) => {
///             lease.finished(Outcome::Ok);
///             return Ok(page);
///         }
///         Err(error) => {
///             tried.push(lease.finished(Outcome::Failed));
///             if tried.len() == 3 {
///                 return Err(error.into());
///             }
///         }
///     }
/// }
/// # }
/// ```
pub struct Pool<D: Dial> {
    inner: Arc<Inner<D>>,
}

/// What one attempt of a call asks for.
#[derive(Debug, Clone, Copy, Default)]
#[must_use = "it is for `Pool::lease`"]
pub struct Wish<'a> {
    pub(crate) tried: &'a [Arc<EndpointState>],
    pub(crate) key: Option<HashKey>,
    /// Where the key may be, if there is none.
    pub(crate) headers: Option<&'a HeaderMap>,
    pub(crate) wait_for_ready: bool,
    /// When the call began, where it is not now.
    pub(crate) since: Option<Instant>,
}

/// No endpoint is ready, and waiting for the first attempts to connect has not changed that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NotReady {
    pub(crate) reason: String,
}

struct Inner<D: Dial> {
    board: Arc<Board<D::Connection>>,
    subscription: Subscription,
    discovery_timeout: Duration,
    /// What the driver is told while it runs.
    tuning: watch::Sender<Tuning>,
    /// Woken for each new table.
    wake: watch::Receiver<()>,
    /// Until it runs.
    driver: Mutex<Option<Driver<D>>>,
    /// Set once the driver was started, so that calls need not lock.
    started: OnceLock<()>,
    /// Stops the driver with the last clone.
    _stop: DropGuard,
}

/// What the driver writes and calls read.
pub(crate) struct Board<C> {
    pub(crate) table: ArcSwap<Table<C>>,
    /// The snapshot that the table takes into account: stored after it.
    pub(crate) applied: ArcSwap<Snapshot>,
}

/// The service, as texts and metrics name it.
pub(crate) fn service_of(scope: &Scope) -> &str {
    match scope {
        Scope::Service(service) => service.as_str(),
        Scope::Catalog => "all services",
    }
}

// === impl Pool ===

impl<D: Dial> Pool<D> {
    pub(crate) fn new(
        driver: Driver<D>,
        tuning: watch::Sender<Tuning>,
        discovery_timeout: Duration,
        wake: watch::Receiver<()>,
        stop: DropGuard,
    ) -> Self {
        let pool = Self {
            inner: Arc::new(Inner {
                board: Arc::clone(&driver.board),
                subscription: driver.subscription.clone(),
                discovery_timeout,
                tuning,
                wake,
                driver: Mutex::new(Some(driver)),
                started: OnceLock::new(),
                _stop: stop,
            }),
        };
        if tokio::runtime::Handle::try_current().is_ok() {
            pool.start();
        }
        pool
    }

    /// An endpoint for one attempt of a call, waiting for one if that may help: while first attempts to connect are under way and
    /// nothing has been read from the registry, or, with [`Wish::wait_for_ready`], for as long as it takes.
    ///
    /// Fails with what is registered, since when, what was read, and what failed. Cancel safe.
    pub async fn lease(&self, wish: Wish<'_>) -> Result<Lease<D::Connection>, NotReady> {
        match self.lease_now(&wish) {
            Ok(lease) => Ok(lease),
            Err(asked) => self.lease_after(wish, asked).await,
        }
    }

    /// An endpoint if there is one at this instant; otherwise what was asked for.
    pub(crate) fn lease_now(&self, wish: &Wish<'_>) -> Result<Lease<D::Connection>, Asked> {
        self.start();
        self.inner.board.table.load().pick(now(), wish, true)
    }

    /// What [`lease`](Self::lease) does when there is none at once.
    pub(crate) async fn lease_after(
        &self,
        wish: Wish<'_>,
        mut asked: Asked,
    ) -> Result<Lease<D::Connection>, NotReady> {
        let begun = wish.since.unwrap_or_else(Instant::now);
        let mut wake = self.inner.wake.clone();
        loop {
            // Before the table is read: whatever is published after that wakes.
            wake.mark_unchanged();
            // Before the table too: if it holds, the table takes into account what the caller can have seen.
            let applied = self.inner.board.applied.load();
            let current = Arc::ptr_eq(&applied, &self.inner.subscription.snapshot());
            drop(applied);
            let (lease, outlook) = {
                let table = self.inner.board.table.load();
                let mut lease = table.pick(now(), &wish, false).ok();
                if lease.is_none() && table.asks_again(asked) {
                    match table.pick(now(), &wish, true) {
                        Ok(found) => lease = Some(found),
                        Err(again) => asked = again,
                    }
                }
                (lease, table.outlook)
            };
            if let Some(lease) = lease {
                return Ok(lease);
            }
            let patience = match outlook {
                _ if wish.wait_for_ready => None,
                Outlook::Unread => begun.checked_add(self.inner.discovery_timeout),
                Outlook::Ready | Outlook::Connecting => None,
                Outlook::Unavailable if !current => None,
                Outlook::Unavailable => return Err(self.unready()),
            };
            self.news(&mut wake, patience).await?;
        }
    }

    /// An endpoint for one attempt of a call, if there is one at this instant. Wait-free.
    pub fn try_lease(&self, wish: &Wish<'_>) -> Option<Lease<D::Connection>> {
        self.lease_now(wish).ok()
    }

    /// Waits until at least one endpoint is ready.
    ///
    /// Fails with the reason that a call would get: when nothing is registered, when the first attempt to connect to each
    /// endpoint has failed, and when nothing could be read from the registry in time. Cancel safe.
    pub async fn ready(&self) -> Result<(), NotReady> {
        self.start();
        let unread_until = Instant::now().checked_add(self.inner.discovery_timeout);
        let mut wake = self.inner.wake.clone();
        let mut asked = Asked::NOTHING;
        loop {
            wake.mark_unchanged();
            let (outlook, ready) = {
                let table = self.inner.board.table.load();
                if table.asks_again(asked) {
                    asked = table.ask(now());
                }
                (table.outlook, table.connections.iter().any(|connection| connection.state.admits()))
            };
            let patience = match outlook {
                Outlook::Ready if ready => return Ok(()),
                Outlook::Unavailable => return Err(self.unready()),
                Outlook::Unread => unread_until,
                Outlook::Ready | Outlook::Connecting => None,
            };
            self.news(&mut wake, patience).await?;
        }
    }

    /// The endpoints and what they carry, as of now.
    pub fn stats(&self) -> ChannelStats {
        ChannelStats::of(&self.inner.board.table.load().census)
    }

    /// Waits until `condition` holds for the [`stats`](Self::stats), and answers them. Looks each time that an endpoint comes,
    /// goes, is connected or lost; a condition on counters alone is not looked at in between. Cancel safe; ends with the last
    /// stats if the pool's task ends.
    pub async fn wait_for(&self, mut condition: impl FnMut(&ChannelStats) -> bool) -> ChannelStats {
        self.start();
        let mut wake = self.inner.wake.clone();
        loop {
            wake.mark_unchanged();
            let stats = self.stats();
            if condition(&stats) || wake.changed().await.is_err() {
                return stats;
            }
        }
    }

    /// Spreads calls by another policy from now on. Calls under way are not touched, and connections are kept: at no instant is
    /// there no endpoint to pick.
    pub fn set_policy(&self, policy: impl Into<Policy>) {
        let policy = policy.into();
        self.inner.tuning.send_modify(|tuning| tuning.policy = policy);
    }

    /// The policy by which calls are spread. One that was [set](Self::set_policy) just now is in effect a moment later.
    pub fn policy(&self) -> Policy {
        self.inner.tuning.borrow().policy().clone()
    }

    /// Sets endpoints aside by other rules from now on; `None` for never, which ends all ejections.
    pub fn set_outlier_detection(&self, settings: impl Into<Option<OutlierSettings>>) {
        let settings = settings.into();
        self.inner.tuning.send_modify(|tuning| tuning.outliers = settings);
    }

    /// When endpoints are set aside. What was [set](Self::set_outlier_detection) just now is in effect a moment later.
    pub fn outlier_detection(&self) -> Option<OutlierSettings> {
        self.inner.tuning.borrow().outliers().cloned()
    }

    /// What tells the driver while it runs.
    pub(crate) fn tuning(&self) -> watch::Sender<Tuning> {
        self.inner.tuning.clone()
    }

    /// Whether an endpoint takes calls that is none of these.
    pub(crate) fn has_others(&self, tried: &[Arc<EndpointState>]) -> bool {
        let table = self.inner.board.table.load();
        let untried = |state: &Arc<EndpointState>| !tried.iter().any(|tried| Arc::ptr_eq(tried, state));
        table.connections.iter().any(|connection| connection.state.admits() && untried(&connection.state))
    }

    /// Waits for a newer table than that of now.
    pub(crate) async fn changed(&self) {
        let mut wake = self.inner.wake.clone();
        wake.mark_unchanged();
        // The driver has ended: whoever looks at the table finds that out.
        let _ = wake.changed().await;
    }

    /// Starts the driver on the runtime of the caller, if it does not run yet.
    pub(crate) fn start(&self) {
        self.inner.started.get_or_init(|| {
            let driver = self.inner.driver.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(driver) = driver {
                tokio::spawn(driver.run());
            }
        });
    }

    /// Why a call finds no endpoint.
    pub(crate) fn unready(&self) -> NotReady {
        let table = self.inner.board.table.load();
        NotReady { reason: explain::unready(&table, self.service(), &self.inner.subscription) }
    }

    /// The service, as texts and metrics name it.
    pub(crate) fn service(&self) -> &str {
        service_of(self.inner.subscription.scope())
    }

    /// Waits for a newer table, with patience until then.
    async fn news(&self, wake: &mut watch::Receiver<()>, patience: Option<Instant>) -> Result<(), NotReady> {
        tokio::select! {
            news = wake.changed() => {
                news.map_err(|_| NotReady { reason: explain::ended(self.service()) })
            }
            () = tokio::time::sleep_until(patience.unwrap_or_else(Instant::now)), if patience.is_some() => {
                Err(self.unready())
            }
        }
    }
}

impl<D: Dial> Clone for Pool<D> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<D: Dial> fmt::Debug for Pool<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = self.stats();
        f.debug_struct("Pool")
            .field("service", &self.service())
            .field("registered", &stats.registered)
            .field("ready", &stats.ready())
            .finish_non_exhaustive()
    }
}

// === impl Wish ===

impl<'a> Wish<'a> {
    /// A first attempt, that fails when nothing is ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// The endpoints that the call has tried already: another is picked while there is one.
    pub fn tried(mut self, tried: &'a [Arc<EndpointState>]) -> Self {
        self.tried = tried;
        self
    }

    /// What keeps calls together under the policies that hash.
    pub fn key(mut self, key: impl Into<Option<HashKey>>) -> Self {
        self.key = key.into();
        self
    }

    /// The headers of the call: the key is looked for in the one that [`Policy::hash_on_header`] names, if there is none.
    pub fn headers(mut self, headers: &'a HeaderMap) -> Self {
        self.headers = Some(headers);
        self
    }

    /// Whether to wait for a ready endpoint for as long as it takes rather than fail: `false` by default. Give it a time limit.
    pub fn wait_for_ready(mut self, wait: bool) -> Self {
        self.wait_for_ready = wait;
        self
    }

    pub(crate) fn since(mut self, since: Instant) -> Self {
        self.since = Some(since);
        self
    }
}
