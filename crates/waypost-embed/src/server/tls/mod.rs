//! TLS of the server: certificates from files that may change, and who a client is by its own.

mod error;
mod files;
mod peer;
mod self_signed;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;

pub use self::error::TlsError;
use self::files::{Stamp, read_config};
pub(super) use self::peer::{Peer, peer_of};
use super::address::Address;
use super::engine::lock;

/// How the server proves who it is over TLS (1.2 and 1.3), and whether clients have to.
///
/// Files are PEM, and read again when they change: at the next connection. If what they hold then is no good, what was
/// read before goes on, and the log says so.
///
/// ```
/// use waypost_embed::server::{Server, ServerTls};
///
/// let tls = ServerTls::files("server.pem", "server.key").trusted_ca("ca.pem").client_cert_auth(true);
/// let builder = Server::builder().listen(["https://127.0.0.1:2379"]).tls(tls);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct ServerTls {
    identity: Identity,
    trusted_ca: Option<PathBuf>,
    crl: Option<PathBuf>,
    client_cert_auth: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Identity {
    Files { certificate: PathBuf, key: PathBuf },
    SelfSigned,
}

/// TLS of a running server.
#[derive(Debug)]
pub(super) struct Tls {
    files: Files,
    current: Mutex<Current>,
    /// Whether a client's certificate says which user it is.
    pub(super) names_users: bool,
}

/// Every file there is.
#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    trusted_ca: Option<PathBuf>,
    crl: Option<PathBuf>,
}

#[derive(Debug)]
struct Current {
    /// Of the files as they were last looked at.
    stamps: Vec<Stamp>,
    config: Arc<ServerConfig>,
}

// === impl ServerTls ===

impl ServerTls {
    /// A chain of certificates, the server's first, and its private key.
    pub fn files(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        let (certificate, key) = (certificate.into(), key.into());
        Self::new(Identity::Files { certificate, key })
    }

    /// A certificate that the server makes and signs itself, for the hosts that it listens on, valid for a year. It is kept
    /// in `fixtures/client` of the data directory, as etcd does with `--auto-tls`, and made anew when it has expired.
    /// Clients can be given that file as their authority.
    pub fn self_signed() -> Self {
        Self::new(Identity::SelfSigned)
    }

    fn new(identity: Identity) -> Self {
        Self { identity, trusted_ca: None, crl: None, client_cert_auth: false }
    }

    /// Authorities of clients' certificates. With them every client must show one. Default: none.
    pub fn trusted_ca(mut self, file: impl Into<PathBuf>) -> Self {
        self.trusted_ca = Some(file.into());
        self
    }

    /// Revoked certificates of clients: a list, PEM or DER. Default: none.
    pub fn client_crl(mut self, file: impl Into<PathBuf>) -> Self {
        self.crl = Some(file.into());
        self
    }

    /// Whether clients must show a certificate, and its common name says which user they are where they show no token and
    /// auth is on. Default: no. Needs [`trusted_ca`](Self::trusted_ca).
    pub fn client_cert_auth(mut self, on: bool) -> Self {
        self.client_cert_auth = on;
        self
    }
}

// === impl Tls ===

impl Tls {
    /// Reads the files, after making them if the server signs for itself. Blocks.
    pub(super) fn load(options: ServerTls, data_dir: &Path, addresses: &[Address]) -> Result<Self, TlsError> {
        let ServerTls { identity, trusted_ca, crl, client_cert_auth } = options;
        if client_cert_auth && trusted_ca.is_none() {
            return Err(TlsError::NoAuthority("--client-cert-auth"));
        }
        if crl.is_some() && trusted_ca.is_none() {
            return Err(TlsError::NoAuthority("--client-crl-file"));
        }
        let (certificate, key) = match identity {
            Identity::Files { certificate, key } => (certificate, key),
            Identity::SelfSigned => self_signed::ensure(data_dir, addresses)?,
        };
        let files = Files { certificate, key, trusted_ca, crl };
        let stamps = files.stamps();
        let config = Arc::new(read_config(&files)?);
        let current = Mutex::new(Current { stamps, config });
        Ok(Self { files, current, names_users: client_cert_auth })
    }

    /// What the next connection is served with.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        let mut current = lock(&self.current);
        let stamps = self.files.stamps();
        if stamps != current.stamps {
            // Not looked at again until they change again.
            current.stamps = stamps;
            match read_config(&self.files) {
                Ok(config) => {
                    current.config = Arc::new(config);
                    tracing::info!(certificate = %self.files.certificate.display(), "certificates were read again");
                }
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(error, "certificates have changed and cannot be used: the former go on");
                }
            }
        }
        Arc::clone(&current.config)
    }
}
