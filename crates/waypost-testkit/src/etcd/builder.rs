//! How an etcd is to be started.

use crate::etcd::{Credentials, Etcd};
use crate::{EtcdVersion, Tls};

/// Options of an [`Etcd`]; [`start`](Builder::start) makes it run.
///
/// ```no_run
/// # async fn demo() {
/// use waypost_testkit::{Etcd, EtcdVersion, Tls};
///
/// let tls = Tls::new();
/// let etcd = Etcd::builder(EtcdVersion::V3_5)
///     .arg("--grpc-keepalive-min-time=1s")
///     .mutual_tls(&tls)
///     .auth("root-password")
///     .start()
///     .await;
/// assert!(etcd.url().starts_with("https://"));
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    pub(crate) version: EtcdVersion,
    pub(crate) args: Vec<String>,
    pub(crate) tls: Option<ServerTls>,
    pub(crate) auth: Option<Credentials>,
    pub(crate) unix_socket: bool,
    pub(crate) place: Option<Place>,
}

/// TLS on the port for clients.
#[derive(Clone, Debug)]
pub(crate) struct ServerTls {
    pub(crate) material: Tls,
    /// Whether clients must show a certificate.
    pub(crate) mutual: bool,
}

/// A node's place in a cluster of several.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) name: String,
    /// Every member as `name=url`, as `--initial-cluster` takes it.
    pub(crate) initial_cluster: String,
    /// Where the others find this node.
    pub(crate) advertised_peer_url: String,
    /// Where clients are told to find this node; `None`: where it listens.
    pub(crate) advertised_client_url: Option<String>,
}

// === impl Builder ===

impl Builder {
    pub(crate) fn new(version: EtcdVersion) -> Self {
        Self { version, args: Vec::new(), tls: None, auth: None, unix_socket: false, place: None }
    }

    /// Adds an argument as etcd takes it, such as `--quota-backend-bytes=33554432`. Later ones win.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Serves clients over TLS with the server certificate of `tls`.
    pub fn tls(mut self, tls: &Tls) -> Self {
        self.tls = Some(ServerTls { material: tls.clone(), mutual: false });
        self
    }

    /// As [`tls`](Self::tls), and clients must show a certificate of the same authority.
    pub fn mutual_tls(mut self, tls: &Tls) -> Self {
        self.tls = Some(ServerTls { material: tls.clone(), mutual: true });
        self
    }

    /// Turns authentication on once the server runs, with the user `root` and this password.
    pub fn auth(mut self, root_password: impl Into<String>) -> Self {
        self.auth = Some(Credentials::root(root_password));
        self
    }

    /// Serves clients on a Unix socket too, at [`Etcd::socket_url`].
    pub fn unix_socket(mut self) -> Self {
        self.unix_socket = true;
        self
    }

    /// Starts etcd and waits until it is healthy; panics with the end of its log when it is not within 20 s.
    pub async fn start(self) -> Etcd {
        Etcd::start_with(self).await
    }
}
