//! Why TLS cannot be had.

use std::io;
use std::path::PathBuf;

/// Why TLS cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} holds no {what} (PEM)", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// The contents of a file are not what they should be.
    #[error("{} is not valid", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An option that is about clients' certificates needs to know who signs them.
    #[error("{0} needs the authority of clients' certificates: --trusted-ca-file")]
    NoAuthority(&'static str),
    /// A certificate of the server's own cannot be made.
    #[error("cannot make a certificate")]
    SelfSigned(#[source] Box<dyn std::error::Error + Send + Sync>),
}
