//! A gRPC channel that follows the fleet: connects to every instance of a service as the registry has them, picks one that is
//! ready for each call, and hides from the caller what another instance can make good.
//!
//! ```no_run
//! use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
//! use waypost_channel::{Channel, RetryPolicy};
//! # use waypost_model::Scope;
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // With etcd: `let subscription = discovery.service("greeter".parse()?);`
//! # let (_, subscription) = waypost_discovery::subscription::channel(Scope::Service("greeter".parse()?));
//! let channel = Channel::builder(subscription)
//!     .idempotent_methods(["/grpc.health.v1.Health/Check"])
//!     .retry(RetryPolicy::default().with_max_attempts(3))
//!     .build();
//! channel.ready().await?;
//!
//! // Any client that tonic generates takes the channel as its transport.
//! let mut client = HealthClient::new(channel);
//! let answer = client.check(HealthCheckRequest { service: "greeter".into() }).await?;
//! println!("{:?} by {:?}", answer.get_ref(), answer.extensions().get::<waypost_channel::EndpointInfo>());
//! # Ok(())
//! # }
//! ```
//!
//! # What happens to a call
//!
//! * It goes to an endpoint whose connection is ready, chosen by the [`Policy`]. A connection that closes is out of the choice
//!   before the next pick. An address that is registered twice is one endpoint.
//! * With a policy that hashes, calls with the same [`HashKey`] or [header](Policy::hash_on_header) go to the same endpoint. An
//!   attempt after the first goes to an endpoint that the call has not tried, while there is one, under every policy.
//! * If it was certainly not processed (the connection closed before it was sent, or the server refused it while going away), it
//!   goes to another endpoint, whether or not it is idempotent.
//! * If it is marked [`Idempotent`], it is tried again at another endpoint after `UNAVAILABLE` and after a lost connection,
//!   within the [`RetryPolicy`]. Its response is held back until it is complete, so that a server that dies in the middle of it
//!   costs nothing. This is meant for unary calls; a stream of responses would be held back as well, up to its limit.
//! * What the [`ServiceConfig`] says of its method counts more: a [`RetryRule`] tries it again after the codes that it names, with
//!   gRFC A6's waits, and commits to the first answer that does not fail in its headers; a [`HedgingRule`] sends it to further
//!   endpoints while there is no answer. A server may name the wait before the next attempt, or forbid it
//!   (`grpc-retry-pushback-ms`); a budget of tokens bounds all of this.
//! * A request that is still being made while it is sent is kept, up to the [`request_limit`](RetryPolicy::request_limit) (and
//!   [one for all](RetryPolicy::streams_limit) of the channel), until headers have come that are no error; so a stream is tried again or
//!   hedged as well, from its beginning. A larger one goes on at one endpoint.
//! * Messages may be [only so long](ChannelBuilder::max_response_message_bytes) if the channel or the service config says so.
//! * Its deadline (`grpc-timeout`, which [`tonic::Request::set_timeout`] sets) spans all attempts and the whole response.
//! * If no endpoint is ready, it waits while first attempts to connect are under way, and fails as `UNAVAILABLE` when they have
//!   failed or nothing is registered; the message says what is registered, since when, what was read, and what failed. With
//!   [`WaitForReady`] it waits to its deadline.
//!
//! Calls and attempts are `tracing` spans at debug level, with service, method, endpoint, number and outcome; [`ChannelMetrics`] has
//! the same as numbers, and [`Channel::stats`] and [`Channel::call_stats`] have it for programs.
//!
//! # What happens to an instance
//!
//! * It is connected to as soon as it is known, with or without traffic, and is offered once it has answered as an
//!   HTTP/2 server does.
//! * If its connection closes, it is connected to again: at once if the connection had held for a second, otherwise after a
//!   [`Backoff`].
//! * If its calls fail through its own fault, it is set aside for a while ([`ChannelBuilder::outlier_detection`]), and
//!   [starts slowly](ChannelBuilder::slow_start) after that if asked to. Never are more set aside than the cap allows; if too few
//!   are left, all are used.
//! * Of a large fleet only a [subset](ChannelBuilder::subset) may be connected to, or what
//!   [calls want](ChannelBuilder::connect_on_demand).
//! * If [health checks](ChannelBuilder::health_check) are on, it gets calls only while its server says `SERVING`.
//! * If it moves to another address, its old connection stays in use until the new one is ready.
//! * If it drains or leaves, it gets no new calls; those that it has may go on for the
//!   [`drain_timeout`](ChannelBuilder::drain_timeout).
#![forbid(unsafe_code)]

mod answer;
mod attempt;
mod backoff;
mod budget;
mod builder;
mod call;
mod channel;
mod code;
mod connection;
mod connector;
mod deadline;
mod dial;
mod driver;
mod exchange;
mod explain;
mod extension;
mod fleet;
mod frames;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod greeting;
mod health;
mod hedge;
mod http2;
mod incoming;
mod keepalive;
mod last_words;
mod lease;
mod ledger;
mod length;
mod line;
mod meter;
mod metrics;
mod outgoing;
mod plan;
mod policy;
mod pool;
mod posted;
mod publisher;
mod replay;
mod resend;
mod rosters;
mod service_config;
mod settings;
mod shared;
mod stats;
mod steering;
mod streams;
mod table;
mod tls;
mod traffic;
mod verdict;
mod wards;
mod whole;
mod wire;

pub use backoff::Backoff;
pub use builder::ChannelBuilder;
pub use channel::Channel;
pub use code::CodeSet;
pub use connector::{Connector, Duplex, TcpConnector, Transport};
pub use dial::{Abort, Dial, DialError, Dialed, Unconnected};
pub use extension::{EndpointInfo, HashKey, Idempotent, WaitForReady};
pub use lease::Lease;
pub use meter::{CodeCounts, LatencyHistogram};
pub use metrics::ChannelMetrics;
pub use policy::{Policy, UnknownPolicy};
pub use pool::{NotReady, Pool, Wish};
pub use service_config::{
    HedgingRule, InvalidServiceConfig, LoadBalancing, MethodConfig, Resend, RetryRule, ServiceConfig,
    Throttling,
};
pub use settings::{Keepalive, RetryPolicy};
pub use stats::{CallStats, ChannelStats, EndpointStats, EndpointStatus};
pub use tls::InvalidTls;
pub use tokio_rustls::rustls;
/// Policies with their options, and what one's own is made of.
pub use waypost_balance as balance;
pub use waypost_balance::{EndpointState, Outcome, OutlierSettings};
