//! Service registry and discovery on [etcd](https://etcd.io), with a gRPC channel that follows the fleet.
//!
//! # A server
//!
//! Two lines: the server is registered under a lease that is kept alive, answers health checks, and on SIGTERM or SIGINT
//! is drained, deregistered and stopped so that no call is lost.
//!
//! ```no_run
//! # use greeter::{Greeter, GreeterServer, HelloReply, HelloRequest};
//! # use tonic::{Request, Response, Status};
//! use waypost::Waypost;
//!
//! # struct English;
//! # #[tonic::async_trait]
//! # impl Greeter for English {
//! #     async fn say_hello(&self, _: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
//! #         Ok(Response::new(HelloReply::default()))
//! #     }
//! # }
//! # async fn example() -> Result<(), waypost::Error> {
//! let waypost = Waypost::connect("http://127.0.0.1:2379")?;
//! waypost.serve("greeter", "0.0.0.0:50051", GreeterServer::new(English)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # A client
//!
//! One line: a channel that tonic's generated clients take. It knows every instance, connects to it before the first
//! call, spreads calls over those that are ready, and follows the fleet as it changes.
//!
//! ```no_run
//! # use greeter::{GreeterClient, HelloRequest};
//! # async fn example(waypost: waypost::Waypost) -> Result<(), Box<dyn std::error::Error>> {
//! let mut greeter = GreeterClient::new(waypost.channel("greeter")?);
//! let reply = greeter.say_hello(HelloRequest { name: "World".into() }).await?;
//! println!("{}", reply.into_inner().message);
//! # Ok(())
//! # }
//! ```
//!
//! A call that may be made twice without harm says so, and is then tried again, elsewhere, when a server dies under it:
//! `request.extensions_mut().insert(waypost::channel::Idempotent)`, or for whole methods
//! [`ChannelBuilder::idempotent_methods`](channel::ChannelBuilder::idempotent_methods).
//!
//! # Something that is no gRPC server of ours
//!
//! ```no_run
//! # async fn example(waypost: waypost::Waypost) -> Result<(), Box<dyn std::error::Error>> {
//! use waypost::prelude::*;
//!
//! let database = Instance::new("db/orders".parse()?, "10.0.0.7:5432".parse()?).with_zone("a");
//! let registration = waypost.register(database)?;
//! registration.registered().await?;
//!
//! let mut greeters = waypost.discover("greeter")?;
//! for instance in greeters.ready().await.instances() {
//!     println!("{} {}", instance.address(), instance.status);
//! }
//! let newest = greeters.changed().await;
//! println!("{} instances at revision {}", newest.len(), newest.revision());
//!
//! registration.deregister().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # How a service is called, said in one place
//!
//! Policy, timeouts, retries and hedging can be said by whoever runs a service rather than by each of its clients, in the JSON of
//! gRPC's [service config](channel::ServiceConfig): in code, by [`ChannelBuilder::service_config`](channel::ChannelBuilder::service_config),
//! or in etcd, under [`SERVICE_CONFIG_PREFIX`] and the name of the service, which
//! [`follow_service_configs`](Builder::follow_service_configs) watches: a change reaches every client at once.
//!
//! # Zones
//!
//! A process has a zone if the environment variable `WAYPOST_ZONE` names one, or [`Builder::zone`]. What it serves is registered
//! there, and its channels stay there as long as the zone has the capacity for their calls.
//!
//! # What holds when things go wrong
//!
//! - etcd away: servers go on serving and registered ones go on being called. The last set that was read stays in use;
//!   a process that starts meanwhile registers when etcd is back ([`DiscoveryOptions::cache_dir`] gives clients that
//!   start a set to begin with).
//! - A lease lost, a key deleted by hand, etcd restored from a backup: registrations put themselves back.
//! - A server killed: its connections close, it is not picked any more, and calls marked idempotent go elsewhere.
//! - No instance: the call fails at once with `UNAVAILABLE` and says which service was looked for, where, and what was
//!   found. [`WaitForReady`](channel::WaitForReady) waits instead.
//!
//! # Layouts
//!
//! How instances are written in etcd is a [`Layout`](model::Layout). The default is that of etcd's own Go package
//! `client/v3/naming`, under the prefix `services`: Go programs find our servers by dialing
//! `etcd:///services/greeter`, and we find theirs. Others are named in the [builder](Waypost::builder); the table is in
//! [`mod@model::layout`].
//!
//! # Without an etcd
//!
//! With the feature `embed`, `Waypost::connect("embedded:./data")` is a store in a folder, which every process of the machine
//! that names it shares; nothing needs to be installed or started. See `waypost::embed`.
//!
//! # The parts
//!
//! | | |
//! |---|---|
//! | [`etcd`] | the client to etcd: keys, transactions, leases, watches that resume |
//! | [`model`] | instances, snapshots, layouts |
//! | [`registry`] | registrations that heal themselves |
//! | [`discovery`] | snapshots that follow etcd |
//! | [`balance`] | picking an endpoint |
//! | [`channel`] | the gRPC channel |

#![forbid(unsafe_code)]

mod builder;
#[cfg(feature = "embed")]
pub mod embed;
mod error;
mod place;
mod serve;
mod service_config;
mod signals;
mod waypost;

pub use waypost_balance as balance;
pub use waypost_channel as channel;
pub use waypost_discovery as discovery;
pub use waypost_etcd as etcd;
pub use waypost_model as model;
pub use waypost_registry as registry;

pub use crate::builder::Builder;
pub use crate::error::{Error, ServeError};
pub use crate::serve::{GrpcService, Serve, Serving};
pub use crate::service_config::{SERVICE_CONFIG_PREFIX, follow_service_config};
pub use crate::waypost::Waypost;

#[cfg(doc)]
use crate::discovery::DiscoveryOptions;

/// What most programs need.
pub mod prelude {
    pub use crate::channel::{Channel, HashKey, Idempotent, Policy, WaitForReady};
    pub use crate::discovery::Subscription;
    pub use crate::model::{Change, Endpoint, Instance, InstanceId, ServiceName, Snapshot, Status};
    pub use crate::registry::{Registration, RegistrationState};
    pub use crate::{Error, ServeError, Waypost};
}
