//! Discovery of instances in etcd: who serves `greeter` now, and for as long as you ask.
//!
//! A [`Discovery`] watches what it is asked for and publishes [`Snapshot`](waypost_model::Snapshot)s: immutable sets
//! with a revision, a freshness and an existence. A [`Subscription`] reads the newest one without waiting, and awaits
//! the next.
//!
//! ```no_run
//! use waypost_discovery::{Discovery, DiscoveryOptions};
//! use waypost_etcd::{Client, ClientOptions};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new(ClientOptions::new(["http://127.0.0.1:2379"]))?;
//! let options = DiscoveryOptions::new(waypost_model::parse_layouts("grpc", None)?);
//! let discovery = Discovery::new(client, options);
//!
//! let mut greeter = discovery.service("greeter".parse()?);
//! greeter.ready().await;
//! loop {
//!     for instance in greeter.snapshot().instances() {
//!         println!("{} at {}", instance.id, instance.address());
//!     }
//!     greeter.changed().await;
//! }
//! # }
//! ```
//!
//! # What it does when things go wrong
//!
//! | | |
//! |---|---|
//! | etcd is away | the last set stays, [`Stale`](waypost_model::Freshness::Stale) with the cause; it recovers by itself |
//! | etcd is away at the start | the disk cache is served, as stale, where one is [set](DiscoveryOptions::cache_dir); else [`ready`](Subscription::ready) waits and [`last_error`](Subscription::last_error) tells why |
//! | history was compacted, the store restored or wiped | it is read again, and the difference is published |
//! | etcd refuses (rights, credentials) | as if it were away; asked again with backoff |
//! | a value does not decode | it is skipped, counted in the snapshot, named once in a warning; the rest is served |
//! | all instances vanish at once by lease expiry | the set is held, as stale, for a [grace](DiscoveryOptions::empty_grace); explicit deletes are believed at once |
//! | a subscriber is slow | it gets the newest snapshot; nobody else notices |
//!
//! A set is watched once, however many subscribe to it, and no longer than somebody does.
//!
//! The rules are in a core without clock, network or runtime; what surrounds it is one task per watched set.

#![forbid(unsafe_code)]

pub mod cache;
mod core;
mod discovery;
mod driver;
mod metrics;
mod options;
mod reader;
pub mod subscription;

pub use crate::discovery::Discovery;
pub use crate::options::{DEFAULT_EMPTY_GRACE, DEFAULT_PAGE_SIZE, DiscoveryOptions};
pub use crate::reader::NoCatalog;
pub use crate::subscription::{Publisher, Subscription};
