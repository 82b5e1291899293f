//! Why a server did not start.

use std::io;
use std::path::PathBuf;

use super::tls::TlsError;
use crate::backend::BackendError;
use crate::bolt::CopyError;
use crate::mvcc::StoreError;

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A URL to listen on makes no sense.
    #[error("cannot listen on {url}: {reason}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {url}")]
    Listen {
        /// The URL.
        url: String,
        /// What the system said.
        source: io::Error,
    },
    /// Clients would be told to connect to every address.
    #[error("{url} is no address that a client could connect to: name one with --advertise-client-urls")]
    Advertise {
        /// The URL that is listened on.
        url: String,
    },
    /// There is no TLS to be had.
    #[error("TLS cannot be set up")]
    Tls(#[from] TlsError),
    /// The data directory cannot be opened.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// What is stored cannot be read back.
    #[error("cannot read what is stored in {}", folder.display())]
    Load {
        /// The data directory.
        folder: PathBuf,
        /// What is wrong.
        source: StoreError,
    },
    /// A snapshot cannot be restored.
    #[error("cannot restore {}", snapshot.display())]
    Restore {
        /// The snapshot.
        snapshot: PathBuf,
        /// What is wrong.
        source: RestoreError,
    },
    /// The system gives no randomness.
    #[error("the system gives no randomness: {0}")]
    Random(String),
    /// The system gives no thread.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// Why a snapshot cannot be restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// There is something in the data directory already.
    #[error("the data directory {} is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// The hash at the end is of something else.
    #[error("it was damaged: its hash is wrong")]
    Damaged,
    /// It is no snapshot of etcd.
    #[error("it has no bucket of keys")]
    NoKeys,
    /// The system failed to read.
    #[error("it cannot be read")]
    Io(#[from] io::Error),
    /// It cannot be copied.
    #[error(transparent)]
    Copy(#[from] CopyError),
}
