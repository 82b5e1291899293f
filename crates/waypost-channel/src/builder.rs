//! How a channel is built.

use crate::backoff::Backoff;
use crate::channel::{Channel, Inner};
use crate::connector::{Connector, TcpConnector};
use crate::dial::Dial;
use crate::driver::{Driver, Inbox, now};
use crate::fleet::{self, Fleet, Outlook};
use crate::http2::Http2Dialer;
use crate::meter::Counters;
use crate::metrics::ChannelMetrics;
use crate::plan::Plan;
use crate::policy::Policy;
use crate::pool::{Board, Pool};
use crate::publisher::Publisher;
use crate::replay::Store;
use crate::service_config::ServiceConfig;
use crate::settings::{Client, Keepalive, RetryPolicy, Settings, Tuning};
use crate::shared::Shared;
use crate::steering::{Documents, Steering};
use crate::table::{Pace, Table};
use crate::wards::Wards;
use arc_swap::{ArcSwap, ArcSwapOption};
use futures::{Stream, StreamExt};
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use waypost_balance::{ClientNumber, OutlierSettings};
use waypost_discovery::Subscription;
use waypost_model::{Endpoint, Instance, Snapshot};

/// Builds a [`Channel`]. Every setting has a default that is fit for use.
///
/// ```no_run
/// use std::time::Duration;
/// use waypost_channel::{Channel, OutlierSettings, Policy};
/// # use waypost_model::Scope;
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (_, subscription) = waypost_discovery::subscription::channel(Scope::Service("greeter".parse()?));
/// let mut outliers = OutlierSettings::default();
/// outliers.consecutive_failures = Some(10);
/// let channel = Channel::builder(subscription)
///     .policy(Policy::peak_ewma())
///     .zone("eu-west-1a")
///     .slow_start(Duration::from_secs(30))
///     .outlier_detection(outliers)
///     .build();
/// // And later, with calls under way:
/// channel.set_policy(Policy::maglev().hash_on_header(http::HeaderName::from_static("x-user")));
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing happens before `build`"]
pub struct ChannelBuilder {
    subscription: Subscription,
    tuning: Tuning,
    connector: Arc<dyn Connector>,
    settings: Settings,
    metrics: Option<ChannelMetrics>,
    config: ServiceConfig,
    documents: Option<Documents>,
}

// === impl ChannelBuilder ===

impl ChannelBuilder {
    pub(crate) fn new(subscription: Subscription) -> Self {
        Self {
            subscription,
            tuning: Tuning::default(),
            connector: Arc::new(TcpConnector::new()),
            settings: Settings::default(),
            metrics: None,
            config: ServiceConfig::default(),
            documents: None,
        }
    }

    /// How calls are spread: [`round_robin`](Policy::round_robin) by default, as in gRPC. A [`Policy`], or one of
    /// [`balance`](crate::balance)'s. [`Channel::set_policy`] changes it later.
    pub fn policy(mut self, policy: impl Into<Policy>) -> Self {
        self.tuning.policy = policy.into();
        self
    }

    /// The zone that this client is in: calls stay in it as long as it has the capacity for them, whatever the policy, as
    /// [`balance::ZoneAware`](crate::balance::ZoneAware) says. By default zones do not matter.
    pub fn zone(mut self, zone: impl Into<Arc<str>>) -> Self {
        self.settings.front.zone = Some(zone.into());
        self
    }

    /// How much more than its fair part of the capacity the own [`zone`](Self::zone) is trusted with: 1.4 by default, at
    /// least 1.
    pub fn zone_headroom(mut self, headroom: f64) -> Self {
        self.settings.front.zone_headroom = Some(headroom);
        self
    }

    /// An endpoint that joins, reconnects or returns from an ejection gets its full share only after this time, and less
    /// before, as [`balance::SlowStart`](crate::balance::SlowStart) says. By default it gets its share at once. Without
    /// effect under the policies that hash.
    pub fn slow_start(mut self, window: impl Into<Option<Duration>>) -> Self {
        self.settings.front.slow_start = window.into();
        self
    }

    /// Connects to so many endpoints rather than to all: for fleets so large that connections from every client to every server
    /// are a burden. Which ones depends on who this client is, as [`balance::Subset`](crate::balance::Subset) says: by its
    /// [`client_number`](Self::client_number) the endpoints' loads are even, by its [`client_id`](Self::client_id) as even as chance. One that
    /// cannot be connected to is stood in for by the next.
    ///
    /// Weights, zones and hashes then count among the endpoints of the subset: calls with one key go to one endpoint from one
    /// client, and to another from another client.
    pub fn subset(mut self, size: NonZeroUsize) -> Self {
        self.settings.extent.subset = Some(size);
        self
    }

    /// The name of this client, by which its [`subset`](Self::subset) is chosen: of its pod, host or instance. It is to differ
    /// from client to client, and to survive a restart. By default a random one, the same for all channels of the process. In
    /// place of a [`client_number`](Self::client_number) that was set before.
    pub fn client_id(mut self, id: impl Into<String>) -> Self {
        self.settings.extent.client = Client::Named(id.into());
        self
    }

    /// The number of this client, by which its [`subset`](Self::subset) is chosen, so that all endpoints have as many
    /// clients but for a few: for clients that are numbered from 0 without gaps, and whose subsets have one size, as
    /// [`Subset::numbered`](crate::balance::Subset::numbered) says. A [`ClientNumber`] with the name of the group of clients, or a number alone
    /// where all clients of the service are one group. In place of a [`client_id`](Self::client_id) that was set before.
    ///
    /// ```no_run
    /// # use std::num::NonZeroUsize;
    /// # use waypost_channel::Channel;
    /// # use waypost_channel::balance::ClientNumber;
    /// # use waypost_model::Scope;
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (_, subscription) = waypost_discovery::subscription::channel(Scope::Service("greeter".parse()?));
    /// // The name of a pod of a StatefulSet, `frontend-7`.
    /// let pod: ClientNumber = std::env::var("POD_NAME")?.parse()?;
    /// let channel =
    ///     Channel::builder(subscription).subset(NonZeroUsize::new(20).expect("not 0")).client_number(pod).build();
    /// # Ok(())
    /// # }
    /// ```
    pub fn client_number(mut self, client: impl Into<ClientNumber>) -> Self {
        self.settings.extent.client = Client::Numbered(client.into());
        self
    }

    /// Keeps at most so many connections: no limit by default. While an endpoint is replaced by another, there may be one more.
    /// Without [`connect_on_demand`](Self::connect_on_demand) this is the same as a [`subset`](Self::subset) of the size; with
    /// it, calls beyond the limit share the connections that there are.
    pub fn max_connections(mut self, most: NonZeroUsize) -> Self {
        self.settings.extent.most = Some(most);
        self
    }

    /// Connects to an endpoint when a call picks it rather than as soon as it is known, and closes connections that no call has
    /// used for `idle` (and at most half as long again): for fleets of which this client needs little, as under a policy that
    /// hashes. By default all are connected to at once.
    ///
    /// The policy picks among all endpoints. A call that picks one without a connection has it connected, and goes itself to one
    /// that is connected meanwhile; if there is none, it waits.
    pub fn connect_on_demand(mut self, idle: Duration) -> Self {
        self.settings.extent.lazy = Some(idle);
        self
    }

    /// Makes at most so many attempts to connect at a time: 100 by default.
    pub fn max_connecting(mut self, attempts: NonZeroUsize) -> Self {
        self.settings.extent.attempts = attempts.get();
        self
    }

    /// When endpoints whose calls go badly are set aside: [`OutlierSettings::default`] by default, which are those of gRFC
    /// A50; `None` for never. [`Channel::set_outlier_detection`] changes it later.
    pub fn outlier_detection(mut self, settings: impl Into<Option<OutlierSettings>>) -> Self {
        self.tuning.outliers = settings.into();
        self
    }

    /// How endpoints are reached: a [`TcpConnector`] without TLS by default.
    pub fn connector(mut self, connector: impl Connector) -> Self {
        self.connector = Arc::new(connector);
        self
    }

    /// How long an attempt to connect may take, up to the server's HTTP/2 greeting: 5 s by default. A call that finds no
    /// endpoint waits for first attempts under way, so this is also the longest that it waits for those.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = timeout;
        self
    }

    /// How long a call waits for the first answer of the registry: 5 s by default.
    pub fn discovery_timeout(mut self, timeout: Duration) -> Self {
        self.settings.discovery_timeout = timeout;
        self
    }

    /// How long calls may go on on an instance that has left or drains: 30 s by default. Then its connection is closed, and
    /// calls that are left fail as `UNAVAILABLE`. Long-lived streams to fleets that are rolled want more.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.settings.drain_timeout = timeout;
        self
    }

    /// How long a call may take with all its attempts, if it does not ask for less by `grpc-timeout`: no limit by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = Some(timeout);
        self
    }

    /// The longest message that a request may have, in bytes as it is sent: no limit by default. A service config may set a lower
    /// one (`maxRequestMessageBytes`). A call with a longer message fails as `RESOURCE_EXHAUSTED`; of a stream, what came before is sent.
    pub fn max_request_message_bytes(mut self, bytes: u32) -> Self {
        self.settings.max_request_message_bytes = Some(bytes);
        self
    }

    /// The longest message that a response may have, in bytes as it is sent: no limit by default, but tonic's clients have one of their
    /// own, 4 MiB unless they are told otherwise. A service config may set a lower one (`maxResponseMessageBytes`). A longer message
    /// is not read: the call fails as `RESOURCE_EXHAUSTED`, which is not held against the endpoint.
    pub fn max_response_message_bytes(mut self, bytes: u32) -> Self {
        self.settings.max_response_message_bytes = Some(bytes);
        self
    }

    /// HTTP/2 pings: [`Keepalive::default`] by default; `None` for no pings.
    pub fn keepalive(mut self, keepalive: impl Into<Option<Keepalive>>) -> Self {
        self.settings.keepalive = keepalive.into();
        self
    }

    /// The waits between attempts to connect: [`Backoff::default`] by default.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.settings.backoff = backoff;
        self
    }

    /// When calls are tried again: [`RetryPolicy::default`] by default.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.settings.retry = policy;
        self
    }

    /// Methods that may be processed twice, as `/package.Service/Method`, as if each of their calls were marked
    /// [`Idempotent`](crate::Idempotent). For unary methods.
    pub fn idempotent_methods(mut self, paths: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.settings.idempotent.extend(paths.into_iter().map(Into::into));
        self
    }

    /// Every method may be processed twice. For services of unary methods that only read.
    pub fn all_idempotent(mut self) -> Self {
        self.settings.all_idempotent = true;
        self
    }

    /// Whether calls wait for a ready endpoint until their deadline rather than fail at once: `false` by default. A call may
    /// say otherwise by [`WaitForReady`](crate::WaitForReady).
    pub fn wait_for_ready(mut self, wait: bool) -> Self {
        self.settings.wait_for_ready = wait;
        self
    }

    /// Asks every endpoint for its health by `grpc.health.v1.Health/Watch`, as gRFC A17 says, under the name of a service, which may
    /// be empty for the server as a whole. By default nothing is asked, and what is connected takes calls. A service config may ask
    /// as well, by `healthCheckConfig`.
    ///
    /// An endpoint that does not say `SERVING` gets no calls, those under way go on; one that serves no health service is taken to
    /// be healthy. If the stream breaks, the endpoint gets no calls until it is watched again, after a
    /// [`Backoff`](Self::backoff).
    pub fn health_check(mut self, service: impl Into<Arc<str>>) -> Self {
        self.settings.health_check = Some(service.into());
        self
    }

    /// What the service says of how it wants to be called: nothing by default. What it says counts more than the other settings
    /// here.
    pub fn service_config(mut self, config: ServiceConfig) -> Self {
        self.config = config;
        self
    }

    /// Takes service configs as they come, as JSON: each replaces the one before, `None` brings back the one from
    /// [`service_config`](Self::service_config). One that is invalid is counted and named in a warning and in
    /// [`Channel::service_config_error`], and the last good one stays in use. Calls do not wait for the first. The stream is dropped
    /// with the channel.
    pub fn service_config_updates(
        mut self,
        documents: impl Stream<Item = Option<String>> + Send + 'static,
    ) -> Self {
        self.documents = Some(documents.boxed());
        self
    }

    /// Counts this channel in `metrics`.
    pub fn metrics(mut self, metrics: &ChannelMetrics) -> Self {
        self.metrics = Some(metrics.clone());
        self
    }

    /// The channel. Its task starts at once within a tokio runtime, and elsewhere with the first call.
    pub fn build(mut self) -> Channel {
        let metrics = self.metrics.take();
        let documents = Mutex::new(self.documents.take());
        let own = Arc::new(std::mem::take(&mut self.config));
        let settings = Arc::new(self.settings.clone());
        let shared = Arc::new(Shared {
            plan: ArcSwap::from_pointee(Plan::new(Arc::clone(&own), &settings.retry)),
            counters: Counters::default(),
            kept: Arc::new(Store::new(settings.retry.streams_limit)),
            config_error: ArcSwapOption::empty(),
            scope: self.subscription.scope().clone(),
        });
        let (health, asked) = watch::channel(settings.health_check.clone());
        let dialer = Http2Dialer {
            connector: Arc::clone(&self.connector),
            keepalive: settings.keepalive,
            pace: Arc::new(Pace::default()),
            asked,
            backoff: settings.backoff,
        };
        let pool = self.pool(dialer);
        let steering = Steering {
            shared: Arc::clone(&shared),
            settings: Arc::clone(&settings),
            tuning: pool.tuning(),
            health,
            own,
        };
        steering.adopt(None);
        let stop = CancellationToken::new();
        let inner = Arc::new(Inner {
            shared,
            settings,
            pool,
            steering,
            documents,
            started: OnceLock::new(),
            stop: stop.clone(),
            _stop: stop.drop_guard(),
        });
        if tokio::runtime::Handle::try_current().is_ok() {
            inner.start();
        }
        if let Some(metrics) = metrics {
            metrics.add(&inner);
        }
        Channel::from_inner(inner)
    }

    /// What the channel is made of, for calls that are not gRPC: the same endpoints and policy, connected to by `dialer`. Its task
    /// starts at once within a tokio runtime, and elsewhere with the first lease.
    ///
    /// What is set for gRPC calls (timeout, retries, idempotent methods, waiting, pings, metrics) and the connector mean nothing to it.
    pub fn pool<D: Dial>(self, dialer: D) -> Pool<D> {
        let Self { subscription, tuning, settings, .. } = self;
        let dialer = Arc::new(dialer);
        let routing = Arc::clone(&dialer);
        let fleet = fleet::Settings {
            backoff: settings.backoff,
            drain: settings.drain_timeout,
            reach: settings.extent.reach(),
            route: Box::new(move |instance| route(&*routing, instance)),
        };
        let empty = Arc::new(Snapshot::absent(subscription.scope().clone()));
        let nothing = Table::empty(tuning.policy(), Outlook::Unread);
        let board = Arc::new(Board {
            table: ArcSwap::from_pointee(nothing),
            applied: ArcSwap::new(Arc::clone(&empty)),
        });
        let (wake, woken) = watch::channel(());
        let (asking, wanted) = mpsc::unbounded_channel();
        let (wards, suspects) = Wards::new(tuning.outliers().cloned(), now());
        let (tuning, tuned) = watch::channel(tuning);
        let stop = CancellationToken::new();
        let driver = Driver {
            subscription,
            fleet: Fleet::new(fleet, empty, fastrand::u64(..), now()),
            wards,
            publisher: Publisher::new(Arc::clone(&board), settings.front, wake, asking),
            tuned,
            dialer,
            connect_timeout: settings.connect_timeout,
            board,
            inbox: Inbox { wanted, suspects },
            stop: stop.clone(),
        };
        Pool::new(driver, tuning, settings.discovery_timeout, woken, stop.drop_guard())
    }
}

impl fmt::Debug for ChannelBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelBuilder")
            .field("subscription", &self.subscription)
            .field("tuning", &self.tuning)
            .field("connector", &self.connector)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// The first of an instance's endpoints that the dialer can connect to.
fn route(dialer: &impl Dial, instance: &Instance) -> Result<Endpoint, Arc<str>> {
    let mut first_refusal = None;
    for endpoint in &instance.endpoints {
        match dialer.refuses(endpoint) {
            None => return Ok(endpoint.clone()),
            Some(reason) => first_refusal = first_refusal.or(Some(reason)),
        }
    }
    Err(first_refusal.unwrap_or_default().into())
}
