//! Registration of instances in etcd that heals itself.
//!
//! A [`Registry`] puts [`Instance`](waypost_model::Instance)s into etcd in one [`Layout`](waypost_model::Layout), under
//! leases that it renews, and keeps them there: a lease that is lost, an etcd that is restarted, restored or away for
//! hours, a key that somebody deleted by hand are all answered by a new lease and another put, for as long as it takes.
//! A [`Registration`] ends only when its owner ends it.
//!
//! ```no_run
//! use waypost_etcd::{Client, ClientOptions};
//! use waypost_model::Instance;
//! use waypost_registry::{Registry, RegistryOptions};
//!
//! # async fn serve_until_sigterm() {}
//! # async fn finish_calls() {}
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new(ClientOptions::new(["http://127.0.0.1:2379"]))?;
//! let registry = Registry::new(client, RegistryOptions::new(waypost_model::layout("grpc", None)?));
//!
//! let greeter = Instance::new("greeter".parse()?, "10.0.0.1:50051".parse()?).with_zone("a");
//! let registration = registry.register(greeter)?;
//! registration.registered().await?;
//!
//! serve_until_sigterm().await;
//! registry.shutdown_gracefully(registry.shutdown_options(), finish_calls()).await.deregistered?;
//! # Ok(())
//! # }
//! ```
//!
//! # Whose key is it
//!
//! The first registration takes its key over, or under [`Conflict::Reject`] is refused where somebody has it. From then
//! on every write compares the revision at which the key was last seen, and every removal compares our lease, so that
//! a process that comes late never overwrites or removes what its successor has put. A registration whose key another
//! process has taken yields ([`RegistrationState::Suspect`]) and takes the key back when that process is gone. A key
//! without a lease counts as somebody else's too.
//!
//! A value that an operator rewrites under our lease (`etcdctl put --ignore-lease`, `waypost drain`) is an edit: its
//! status, weight and metadata become those of the instance ([`Registration::instance`]) and survive healing.
//!
//! A user of etcd who registers needs the right to read and to write the keys: every write is a transaction that reads
//! them when its comparisons do not hold, and every registration watches its own.
//!
//! # What it costs
//!
//! All instances of a process share leases of at most [`KEYS_PER_LEASE`] keys, so renewals cost per process.
//! [`Registry::register_all`] puts up to 128 keys in a transaction. At most 8 requests of a registry are in flight at
//! once, and every retry waits a random time up to a ceiling that doubles from 100 ms to 10 s, so that a fleet does not
//! come back all at once.
//!
//! # How it is built
//!
//! The rules are in `machine`, without I/O, clock or randomness: what is known of the keys is compared with what is
//! wanted, and the next step follows. `driver` is one task per lease that carries the steps out.
#![forbid(unsafe_code)]

pub mod advertise;
mod context;
mod driver;
mod error;
mod machine;
mod metrics;
mod options;
mod registration;
mod registry;
mod shutdown;
mod state;

pub use error::RegisterError;
pub use options::{Conflict, KEYS_PER_LEASE, LeasePolicy, RegistryOptions};
pub use registration::Registration;
pub use registry::Registry;
pub use shutdown::{ShutdownOptions, ShutdownReport};
pub use state::RegistrationState;
