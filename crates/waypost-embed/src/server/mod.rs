//! The server: etcd v3's gRPC API over the core.
//!
//! [`Server::builder`] gives the options, `start` opens the data directory and listens. Each gRPC service is a file in
//! `service`, and asks the engine, which owns the state and the one writer. What is refused is refused with
//! etcd's code and words.
//!
//! | service | answered |
//! |---|---|
//! | `KV`, `Watch`, `Lease`, `Auth`, `Lock`, `Election` | all of it |
//! | `Maintenance` | all but downgrades, which cannot be done |
//! | `Cluster` | `MemberList`; there is one member, and no second is let in |
//! | `grpc.health.v1.Health` | `Check` and `Watch` of the server as a whole |
//! | `grpc.reflection.v1`, `v1alpha` | all of it |
//! | JSON | every method of the above but health's, `POST /v3/…` |
//! | HTTP | `/health`, `/livez`, `/readyz`, `/metrics`, `/version` |
//!
//! Not there: `RangeStream`.

mod address;
mod authority;
mod background;
mod engine;
mod error;
mod front;
mod gateway;
mod hash;
#[cfg_attr(not(target_os = "linux"), path = "idle_not.rs")]
mod idle;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod inside;
mod lanes;
mod listener;
mod metrics;
mod options;
mod plain;
mod reach;
mod run;
mod service;
mod snapshot;
mod socket;
#[cfg(test)]
mod tests;
mod tls;
mod vigil;
mod web;
mod wire;
mod wording;

use tonic::{Code, Status};

pub use self::error::{RestoreError, StartError};
pub use self::options::{AutoCompaction, Builder, DEFAULT_MAX_REQUEST_BYTES, DEFAULT_QUOTA};
pub(crate) use self::reach::Reach;
pub use self::run::{SOCKET, Server};
pub use self::tls::{ServerTls, TlsError};
pub use self::web::{OriginError, Origins};
use crate::error::Refusal;

/// The version of etcd whose behaviour this is. Clients parse it.
pub const VERSION: &str = "3.6.14";

/// The version as the status tells it: what the server is comes after the `+`.
const STATUS_VERSION: &str = concat!("3.6.14+waypost-embed.", env!("CARGO_PKG_VERSION"));

/// What a message may have above the largest request, in bytes.
const GRPC_OVERHEAD: usize = 512 << 10;

/// Version of the storage and of the cluster.
const STORAGE_VERSION: &str = "3.6.0";

/// What the server is.
const PRODUCT: &str = concat!("waypost-embed ", env!("CARGO_PKG_VERSION"));

/// A refusal as gRPC tells it.
fn status(refusal: &Refusal) -> Status {
    Status::new(Code::from_i32(refusal.code().number()), refusal.message())
}
