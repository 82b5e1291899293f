//! A client to an etcd v3 cluster, made for programs that live as long as the fleet does.
//!
//! - A [`Client`] knows all endpoints and stays with one that works; an endpoint that is away costs no failed call
//!   where another can serve.
//! - A [`LeaseKeeper`] renews any number of leases over one stream and says when one is [lost](LeaseState::Lost).
//! - A [`Watcher`] carries any number of watches over one stream, resumes them by itself, and says
//!   [`Reset`](WatchEvent::Reset) when history is gone and the range must be read again.
//! - Every [`Error`] is typed and names the endpoint and key that it speaks of.
//!
//! The vocabulary is etcd's: a *revision* counts the changes of the store, a *lease* is a time to live to which
//! keys are attached, a *watch* is a stream of the events of a range of keys from a revision on.
#![forbid(unsafe_code)]

mod auth;
mod backoff;
mod call;
mod client;
mod coordination;
mod error;
mod key_range;
mod lease;
mod maintenance;
mod options;
mod pages;
mod pool;
mod request;
mod route;
mod watch;

pub use waypost_proto as proto;
pub use waypost_proto::etcdserverpb::{
    DeleteRangeResponse, Member, PutResponse, RangeResponse, ResponseHeader, StatusResponse, TxnResponse,
};
pub use waypost_proto::mvccpb::KeyValue;

pub use self::backoff::Backoff;
pub use self::client::Client;
pub use self::coordination::Leadership;
pub use self::error::{Error, ErrorKind};
pub use self::key_range::KeyRange;
pub use self::lease::{KeptLease, Lease, LeaseKeeper, LeaseLoss, LeaseState, LeaseTimeToLive};
pub use self::maintenance::SnapshotPart;
pub use self::options::{ClientOptions, EndpointOrder, EndpointUrl, TlsOptions};
pub use self::pages::{Page, Pages};
pub use self::request::{Comparand, Compare, Delete, Op, Put, Range, SortOrder, SortTarget, Txn};
pub use self::watch::{Event, EventKind, ResetReason, WatchEvent, WatchId, WatchSpec, Watcher};
