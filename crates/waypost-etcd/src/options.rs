//! How a client reaches the cluster: endpoints, credentials, TLS, timeouts and limits.

use std::any::Any;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::error::Error;
use crate::route;

/// Where the cluster is and how to talk to it.
///
/// ```
/// use waypost_etcd::ClientOptions;
/// let options = ClientOptions::new(["http://127.0.0.1:2379", "10.0.0.2:2379"]).user("root", "secret");
/// assert!(!format!("{options:?}").contains("secret"));
/// ```
#[derive(Clone)]
pub struct ClientOptions {
    pub(crate) endpoints: Vec<String>,
    pub(crate) order: EndpointOrder,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) tls: Option<TlsOptions>,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) keepalive_interval: Duration,
    pub(crate) keepalive_timeout: Duration,
    pub(crate) max_send_bytes: usize,
    pub(crate) max_receive_bytes: usize,
    pub(crate) wait_for_socket: bool,
    pub(crate) held: Vec<Held>,
}

/// Something that must not end before the client. Never looked at.
pub(crate) type Held = Arc<dyn Any + Send + Sync>;

/// Which endpoint a client begins with. It stays with one that works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EndpointOrder {
    /// A random one, so that a fleet of clients spreads over the members.
    #[default]
    Random,
    /// The first one listed.
    Listed,
}

/// No time of the options is longer: a day, which is as good as for ever for them and fits every clock.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// A user of etcd and its password.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    pub(crate) name: String,
    pub(crate) password: SecretString,
}

/// Certificates for TLS. Without a certificate authority the system's own roots are not consulted: name one.
#[derive(Clone, Default)]
pub struct TlsOptions {
    ca: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
    server_name: Option<String>,
}

/// An endpoint as it was given, with its scheme: `http://127.0.0.1:2379`.
pub type EndpointUrl = Arc<str>;

// === impl ClientOptions ===

impl ClientOptions {
    /// Options for a cluster at these endpoints. An endpoint without a scheme is `http://`, or `https://` when
    /// TLS is set. `unix://path` is a Unix socket, and `unixs://path` one on which TLS is spoken, as etcd spells them:
    /// what follows the slashes is the path as it stands.
    pub fn new<I>(endpoints: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            order: EndpointOrder::default(),
            credentials: None,
            tls: None,
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(3),
            max_send_bytes: 2 << 20,
            max_receive_bytes: 4 << 20,
            wait_for_socket: false,
            held: Vec::new(),
        }
    }

    /// Which endpoint to begin with. Default: a random one.
    pub fn endpoint_order(mut self, order: EndpointOrder) -> Self {
        self.order = order;
        self
    }

    /// Authenticate as this user. The token is fetched when it is first needed and renewed when etcd refuses it.
    /// Where authentication is off on the server, the user is not needed and nothing fails.
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.credentials =
            Some(Credentials { name: name.into(), password: SecretString::from(password.into()) });
        self
    }

    /// Use TLS for `https://` endpoints.
    pub fn tls(mut self, tls: TlsOptions) -> Self {
        self.tls = Some(tls);
        self
    }

    /// How long one attempt to connect may take. Default: 2 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout.min(LONGEST);
        self
    }

    /// How long one attempt of a call may take at one endpoint. Default: 5 s. Streams (watch, snapshot, observe)
    /// and waiting calls (lock, campaign) are not bound by it.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout.min(LONGEST);
        self
    }

    /// HTTP/2 pings on a connection with calls or streams: after `interval` of silence, and how long to wait for
    /// the answer. Defaults: 10 s and 3 s. etcd closes connections that ping more often than its
    /// `--grpc-keepalive-min-time` (5 s).
    pub fn keepalive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.keepalive_interval = interval.min(LONGEST);
        self.keepalive_timeout = timeout.min(LONGEST);
        self
    }

    /// The largest request, in bytes. Default: 2 MiB, which is etcd's own limit on its receiving side.
    pub fn max_send_bytes(mut self, bytes: usize) -> Self {
        self.max_send_bytes = bytes;
        self
    }

    /// The largest answer, in bytes. Default: 4 MiB.
    pub fn max_receive_bytes(mut self, bytes: usize) -> Self {
        self.max_receive_bytes = bytes;
        self
    }

    /// Whether connecting to a Unix socket on which nobody listens waits for somebody, for as long as an attempt to
    /// connect may take, instead of failing at once: for a socket that is served by one process after the other. Calls that
    /// may be sent again are, for as long. Default: no.
    pub fn wait_for_socket(mut self, wait: bool) -> Self {
        self.wait_for_socket = wait;
        self
    }

    /// Keeps something for as long as the client or one of its tasks lives, such as a server in this process.
    pub fn holding(mut self, held: impl Any + Send + Sync) -> Self {
        self.held.push(Arc::new(held));
        self
    }

    pub(crate) fn urls(&self) -> Result<Vec<EndpointUrl>, Error> {
        let urls: Vec<EndpointUrl> = self
            .endpoints
            .iter()
            .map(|endpoint| endpoint.trim().trim_end_matches('/'))
            .filter(|endpoint| !endpoint.is_empty())
            .map(|endpoint| {
                if endpoint.contains("://") || route::socket(endpoint).is_some() {
                    endpoint.into()
                } else if self.tls.is_some() {
                    format!("https://{endpoint}").into()
                } else {
                    format!("http://{endpoint}").into()
                }
            })
            .collect();
        if urls.is_empty() {
            return Err(Error::config("no endpoints: name at least one, such as http://127.0.0.1:2379"));
        }
        for url in &urls {
            // A user and password in a URL would end up in logs and error texts.
            let is_path = route::socket(url).is_some();
            if !is_path && url.split_once("://").is_some_and(|(_, rest)| rest.contains('@')) {
                return Err(Error::config(
                    "an endpoint must not carry a user and password: use the user option",
                ));
            }
        }
        Ok(urls)
    }
}

impl fmt::Debug for ClientOptions {
    /// Without the password, and without one that somebody put into an endpoint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |endpoint: &String| match endpoint.rsplit_once('@') {
            Some((_, host)) => format!("[redacted]@{host}"),
            None => endpoint.clone(),
        };
        f.debug_struct("ClientOptions")
            .field("endpoints", &self.endpoints.iter().map(shown).collect::<Vec<_>>())
            .field("order", &self.order)
            .field("credentials", &self.credentials)
            .field("tls", &self.tls)
            .field("connect_timeout", &self.connect_timeout)
            .field("request_timeout", &self.request_timeout)
            .field("keepalive_interval", &self.keepalive_interval)
            .field("keepalive_timeout", &self.keepalive_timeout)
            .field("max_send_bytes", &self.max_send_bytes)
            .field("max_receive_bytes", &self.max_receive_bytes)
            .field("wait_for_socket", &self.wait_for_socket)
            .finish_non_exhaustive()
    }
}

// === impl TlsOptions ===

impl TlsOptions {
    /// No certificates yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trust servers whose certificate this authority (PEM) has signed.
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca = Some(pem.into());
        self
    }

    /// Show this certificate and key (PEM) to the server: mutual TLS.
    pub fn identity_pem(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.identity = Some((certificate.into(), key.into()));
        self
    }

    /// The name that the server's certificate must carry, where it is not the host of the endpoint.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Read the files as etcdctl's `--cacert`, `--cert` and `--key` name them.
    ///
    /// # Errors
    /// When a file cannot be read, or only one of `cert` and `key` is given.
    pub fn from_files(cacert: Option<&Path>, cert: Option<&Path>, key: Option<&Path>) -> Result<Self, Error> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| {
                Error::config_from(format!("cannot read {}: {error}", path.display()), error)
            })
        };
        let mut tls = Self::new();
        tls.ca = cacert.map(read).transpose()?;
        tls.identity = match (cert, key) {
            (Some(cert), Some(key)) => Some((read(cert)?, read(key)?)),
            (None, None) => None,
            (Some(_), None) => {
                return Err(Error::config("a client certificate needs its key: name the key file too"));
            }
            (None, Some(_)) => {
                return Err(Error::config(
                    "a client key needs its certificate: name the certificate file too",
                ));
            }
        };
        Ok(tls)
    }

    pub(crate) fn to_tonic(&self) -> ClientTlsConfig {
        let mut config = ClientTlsConfig::new();
        if let Some(ca) = &self.ca {
            config = config.ca_certificate(Certificate::from_pem(ca));
        }
        if let Some((certificate, key)) = &self.identity {
            config = config.identity(Identity::from_pem(certificate, key));
        }
        if let Some(name) = &self.server_name {
            config = config.domain_name(name);
        }
        config
    }
}

impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOptions")
            .field("ca", &self.ca.is_some())
            .field("identity", &self.identity.is_some())
            .field("server_name", &self.server_name)
            .finish()
    }
}
