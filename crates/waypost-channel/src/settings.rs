//! What a channel is told when it is built.

use crate::backoff::Backoff;
use crate::fleet::Reach;
use crate::policy::{Front, Policy};
use crate::service_config::LoadBalancing;
use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use waypost_balance::{ClientNumber, OutlierSettings, Subset};

/// HTTP/2 pings that find a server which no longer answers.
///
/// Servers limit how often they may be pinged; grpc-go's own default is once in five minutes, counted anew with everything
/// that the server sends. So pings are sent only while calls are under way and nothing has arrived for an interval, and a
/// server that says `ENHANCE_YOUR_CALM` doubles the interval of the whole channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Keepalive {
    /// Silence before a ping: 20 s by default.
    pub interval: Duration,
    /// How long the answer may take before the connection is given up: 5 s by default.
    pub timeout: Duration,
    /// Whether to ping while no call is under way: `false` by default; many servers close connections for it.
    pub while_idle: bool,
}

/// When a call is tried again.
///
/// A call that was certainly not processed (its headers have not left, or the server has refused it by `GOAWAY` or `REFUSED_STREAM`) goes to
/// another endpoint, whatever is set here; from its second `REFUSED_STREAM` on that takes a token, as a retry does. Calls that are marked idempotent are also tried again after `UNAVAILABLE` and after
/// a lost connection, within this policy; those of a method with a `retryPolicy` or `hedgingPolicy` in the
/// [service config](crate::ServiceConfig) as that says.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// Attempts per idempotent call, the first included: 3 by default. 1 turns these retries off.
    pub max_attempts: u32,
    /// Size of the token bucket (gRFC A6): 100 by default, at most 1,000. It starts full; a failure that could be retried
    /// takes a token, and there are no retries while it is half empty or more.
    pub max_tokens: u32,
    /// Tokens that each call that goes well puts back: 0.1 by default.
    pub token_ratio: f64,
    /// Retries per second that are allowed however empty the bucket is: 10 by default.
    pub floor_per_second: u32,
    /// The waits before a retry that goes to an endpoint which the call has tried before: 25 ms growing to 1 s by default. One that
    /// goes to another endpoint does not wait.
    pub backoff: Backoff,
    /// What is kept of a request, in bytes, until its call is committed: 1 MiB by default. One that is larger, or has become larger
    /// while it is sent, is not sent again.
    pub request_limit: usize,
    /// What is kept of all requests of the channel together that are still being made while they are sent (streams), in bytes: 16 MiB by
    /// default. While there is no room, such a request is sent once. 0 keeps nothing of them.
    pub streams_limit: usize,
    /// Responses of idempotent calls are held back until they are complete, or larger than this: 4 MiB by default.
    pub response_limit: usize,
}

/// Everything that a channel is told, but for the policy and the connector.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) connect_timeout: Duration,
    pub(crate) discovery_timeout: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) timeout: Option<Duration>,
    pub(crate) max_request_message_bytes: Option<u32>,
    pub(crate) max_response_message_bytes: Option<u32>,
    pub(crate) keepalive: Option<Keepalive>,
    pub(crate) backoff: Backoff,
    pub(crate) retry: RetryPolicy,
    pub(crate) idempotent: HashSet<String>,
    pub(crate) all_idempotent: bool,
    pub(crate) wait_for_ready: bool,
    pub(crate) health_check: Option<Arc<str>>,
    pub(crate) front: Front,
    pub(crate) extent: Extent,
}

/// How much of a large fleet is connected to, and when.
#[derive(Debug, Clone)]
pub(crate) struct Extent {
    pub(crate) client: Client,
    pub(crate) subset: Option<NonZeroUsize>,
    pub(crate) most: Option<NonZeroUsize>,
    pub(crate) lazy: Option<Duration>,
    /// Attempts to connect at a time. Not 0.
    pub(crate) attempts: usize,
}

/// As whom this client chooses its subset.
#[derive(Debug, Clone, Default)]
pub(crate) enum Client {
    /// Under a name that is drawn once, the same for all channels of the process.
    #[default]
    Unknown,
    Named(String),
    Numbered(ClientNumber),
}

/// What a running channel may be told anew.
#[derive(Debug, Clone)]
pub(crate) struct Tuning {
    /// What the program has said; the service config counts more.
    pub(crate) policy: Policy,
    pub(crate) outliers: Option<OutlierSettings>,
    /// What the service config says.
    pub(crate) configured: LoadBalancing,
}

// === impl Keepalive ===

impl Default for Keepalive {
    fn default() -> Self {
        Self::new(Duration::from_secs(20), Duration::from_secs(5))
    }
}

impl Keepalive {
    /// Pings after `interval` of silence, only while calls are under way; `timeout` for the answer.
    pub fn new(interval: Duration, timeout: Duration) -> Self {
        Self { interval, timeout, while_idle: false }
    }

    /// Whether to ping while no call is under way.
    pub fn while_idle(mut self, on: bool) -> Self {
        self.while_idle = on;
        self
    }
}

// === impl RetryPolicy ===

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            max_tokens: 100,
            token_ratio: 0.1,
            floor_per_second: 10,
            backoff: Backoff {
                factor: 2.0,
                ..Backoff::new(Duration::from_millis(25), Duration::from_secs(1))
            },
            request_limit: 1 << 20,
            streams_limit: 16 << 20,
            response_limit: 4 << 20,
        }
    }
}

impl RetryPolicy {
    /// No call is sent twice, but for those that were certainly not processed.
    pub fn off() -> Self {
        Self { max_attempts: 1, ..Self::default() }
    }

    /// With another number of attempts, the first included.
    pub fn with_max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// With another budget: the size of the bucket, the tokens per success, and the retries per second that are always
    /// allowed.
    pub fn with_budget(mut self, max_tokens: u32, token_ratio: f64, floor_per_second: u32) -> Self {
        self.max_tokens = max_tokens;
        self.token_ratio = token_ratio;
        self.floor_per_second = floor_per_second;
        self
    }

    /// With other waits before retries that go where the call has been.
    pub fn with_backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// With another limit, in bytes, to what is kept of all requests of the channel that are streams.
    pub fn with_streams_limit(mut self, bytes: usize) -> Self {
        self.streams_limit = bytes;
        self
    }

    /// With other limits, in bytes, to what is kept of requests and held back of responses.
    pub fn with_limits(mut self, request: usize, response: usize) -> Self {
        self.request_limit = request;
        self.response_limit = response;
        self
    }
}

// === impl Extent ===

impl Default for Extent {
    fn default() -> Self {
        Self { client: Client::default(), subset: None, most: None, lazy: None, attempts: 100 }
    }
}

impl Extent {
    pub(crate) fn reach(&self) -> Reach {
        let size = match self.lazy {
            // A limit to what is made before any call wants it is a subset.
            None => self.subset.into_iter().chain(self.most).min(),
            Some(_) => self.subset,
        };
        Reach {
            subset: size.map(|size| self.client.subset(size)),
            lazy: self.lazy,
            most: self.most.map(NonZeroUsize::get),
            attempts: self.attempts,
        }
    }
}

// === impl Client ===

impl Client {
    fn subset(&self, size: NonZeroUsize) -> Subset {
        match self {
            Self::Unknown => Subset::new(of_this_process(), size),
            Self::Named(name) => Subset::new(name, size),
            Self::Numbered(number) => Subset::numbered(number, size),
        }
    }
}

/// The same for all channels of the process, and like no other's.
fn of_this_process() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| format!("{:016x}", fastrand::u64(..)))
}

// === impl Tuning ===

impl Tuning {
    /// The policy in effect.
    pub(crate) fn policy(&self) -> &Policy {
        self.configured.policy.as_ref().unwrap_or(&self.policy)
    }

    /// When endpoints are set aside.
    pub(crate) fn outliers(&self) -> Option<&OutlierSettings> {
        self.configured.outliers.as_ref().or(self.outliers.as_ref())
    }
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            outliers: Some(OutlierSettings::default()),
            configured: LoadBalancing::default(),
        }
    }
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            discovery_timeout: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(30),
            timeout: None,
            max_request_message_bytes: None,
            max_response_message_bytes: None,
            keepalive: Some(Keepalive::default()),
            backoff: Backoff::default(),
            retry: RetryPolicy::default(),
            idempotent: HashSet::new(),
            all_idempotent: false,
            wait_for_ready: false,
            health_check: None,
            front: Front::default(),
            extent: Extent::default(),
        }
    }
}
