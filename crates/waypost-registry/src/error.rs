//! Why an operation on a registration did not succeed.

use std::{sync::Arc, time::Duration};

use waypost_model::EncodeError;

use crate::{advertise::AdvertiseError, state::RegistrationState};

/// Why an operation on a registration did not succeed.
///
/// etcd being away is none of these for a registration itself, which goes on trying; only what its owner waits for is
/// bounded.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// There is no address that others could dial.
    #[error("instance {instance} has no address to advertise")]
    Address {
        /// `service/id`.
        instance: Arc<str>,
        /// Why.
        source: AdvertiseError,
    },
    /// The layout cannot write the instance.
    #[error("layout {layout} cannot write instance {instance}")]
    Encode {
        /// `service/id`.
        instance: Arc<str>,
        /// The layout.
        layout: &'static str,
        /// Why.
        source: Arc<EncodeError>,
    },
    /// Under [`Conflict::Reject`](crate::Conflict::Reject): the key exists and is not ours.
    #[error("{key} exists already, {}", holder(*lease))]
    Conflict {
        /// The key.
        key: Arc<str>,
        /// The lease that it is attached to, 0 for none.
        lease: i64,
    },
    /// Another process has put the key since; this registration has yielded to it.
    #[error("instance {instance} has been taken over by another process: {cause}")]
    Superseded {
        /// `service/id`.
        instance: Arc<str>,
        /// By which lease.
        cause: Arc<str>,
    },
    /// This registry has a registration for the same key already.
    #[error("{key} is registered by this registry already")]
    AlreadyRegistered {
        /// The key.
        key: Arc<str>,
    },
    /// The registry has been shut down.
    #[error("the registry has been shut down")]
    ShutDown,
    /// Called outside a tokio runtime, which the registration would live in.
    #[error("registering needs a tokio runtime")]
    NoRuntime,
    /// The registration has ended.
    #[error("instance {instance} has been deregistered")]
    Deregistered {
        /// `service/id`.
        instance: Arc<str>,
    },
    /// A change was not confirmed by etcd in time. It is kept and written as soon as etcd answers.
    #[error(
        "the change of instance {instance} was not confirmed within {within:?}, it will be written later ({state})"
    )]
    NotWritten {
        /// `service/id`.
        instance: Arc<str>,
        /// How long it was waited for.
        within: Duration,
        /// Where the registration stands.
        state: RegistrationState,
    },
    /// A deregistration was not confirmed by etcd in time. It goes on in the background while the process lives; if
    /// it ends, the lease is not renewed any more and etcd deletes the key by itself.
    #[error(
        "the deregistration of instance {instance} was not confirmed within {within:?}: its key is deleted as soon as \
         etcd answers, or when its lease expires, at most {ttl:?} after this process has ended ({state})"
    )]
    NotRemoved {
        /// `service/id`.
        instance: Arc<str>,
        /// How long it was waited for.
        within: Duration,
        /// The TTL that etcd is asked for.
        ttl: Duration,
        /// Where the registration stands.
        state: RegistrationState,
    },
    /// A shutdown was not confirmed by etcd in time. Nothing is renewed any more.
    #[error(
        "the shutdown of the registry was not confirmed within {within:?}: what is left in etcd is deleted when its \
         lease expires, about {ttl:?} from now"
    )]
    NotShutDown {
        /// How long it was waited for.
        within: Duration,
        /// The TTL that etcd is asked for.
        ttl: Duration,
    },
}

/// Who has a key that is attached to `lease`, in words.
pub(crate) fn holder(lease: i64) -> String {
    if lease == 0 { "without a lease".to_owned() } else { format!("held by lease {lease:x}") }
}
