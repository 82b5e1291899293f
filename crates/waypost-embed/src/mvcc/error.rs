//! Why the store could not read or write.

use std::sync::Arc;

use crate::backend::{BackendError, Bucket};
use crate::error::{Refusal, described};

/// What is stored is not what this program or etcd would have written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed record in bucket {}: key {key}: {reason}", bucket.name())]
pub struct Malformed {
    /// Where.
    pub bucket: Bucket,
    /// The record's key, printable.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A request that was refused, or a backend that failed or lied.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The request cannot be done; the client is told why.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The backend failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The backend gave what was never written.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A version that a plan refers to was compacted before it was fetched: plan the read again. If that happens to a
    /// read over and over, the record is lost.
    #[error("revision {revision} is no longer stored")]
    Moved {
        /// Revision of the version.
        revision: i64,
    },
}

// === impl Malformed ===

impl Malformed {
    /// A record of `bucket` at `key`.
    pub fn new(bucket: Bucket, key: &[u8], reason: impl Into<String>) -> Self {
        Self { bucket, key: key.escape_ascii().to_string(), reason: reason.into() }
    }
}

// === impl StoreError ===

impl StoreError {
    /// What the client is told.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Refused(refusal) => refusal.clone(),
            Self::Backend(BackendError::NoSpace { .. }) => Refusal::NoSpace,
            other => Refusal::Other(Arc::from(described(other))),
        }
    }
}
