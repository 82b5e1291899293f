//! How a server is configured, with etcd's defaults.

use std::path::PathBuf;
use std::time::Duration;

use super::StartError;
use super::run::Server;
use super::tls::ServerTls;
use super::web::Origins;
use crate::kv::DEFAULT_MAX_OPS;

/// What a server is started with; from [`Server::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder {
    pub(super) data_dir: PathBuf,
    pub(super) name: String,
    pub(super) listen: Vec<String>,
    pub(super) listen_metrics: Vec<String>,
    pub(super) advertise: Vec<String>,
    pub(super) tls: Option<ServerTls>,
    /// Of the files of Unix sockets.
    pub(super) socket_mode: u32,
    pub(super) restore: Option<PathBuf>,
    pub(super) options: Options,
}

/// Limits and intervals.
#[derive(Debug, Clone)]
pub(super) struct Options {
    /// Bytes; `None`: no quota.
    pub(super) quota: Option<u64>,
    pub(super) max_request_bytes: usize,
    pub(super) max_txn_ops: usize,
    /// Seconds.
    pub(super) min_lease_ttl: i64,
    pub(super) auto_compaction: AutoCompaction,
    pub(super) progress_interval: Duration,
    pub(super) bcrypt_cost: u32,
    pub(super) cache_bytes: usize,
    pub(super) origins: Origins,
}

/// When history is given up without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AutoCompaction {
    /// Never.
    #[default]
    Off,
    /// What is older than this.
    Periodic(Duration),
    /// All but so many revisions; looked at every five minutes.
    Revisions(i64),
}

/// Quota of the storage, in bytes: 2 GiB.
pub const DEFAULT_QUOTA: u64 = 2 << 30;

/// Largest request, in bytes: 1.5 MiB.
pub const DEFAULT_MAX_REQUEST_BYTES: usize = 1_572_864;

// === impl Builder ===

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            data_dir: PathBuf::from("default.waypost"),
            name: "default".to_owned(),
            listen: vec!["http://127.0.0.1:2379".to_owned()],
            listen_metrics: Vec::new(),
            advertise: Vec::new(),
            tls: None,
            socket_mode: 0o600,
            restore: None,
            options: Options {
                quota: Some(DEFAULT_QUOTA),
                max_request_bytes: DEFAULT_MAX_REQUEST_BYTES,
                max_txn_ops: DEFAULT_MAX_OPS,
                min_lease_ttl: 2,
                auto_compaction: AutoCompaction::Off,
                progress_interval: Duration::from_secs(600),
                bcrypt_cost: 10,
                cache_bytes: 64 << 20,
                origins: Origins::Any,
            },
        }
    }

    /// The folder that holds everything; made if absent. Default `default.waypost`.
    pub fn data_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.data_dir = folder.into();
        self
    }

    /// The member's name. Default `default`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// URLs to listen on, as etcd spells them: `http://host:port` (port 0 takes a free one), `https://host:port`,
    /// `unix://path`, `unixs://path`. gRPC and HTTP/1 share each. Default `http://127.0.0.1:2379`.
    ///
    /// What follows `unix://` is the path as it stands, absolute with a third slash. A socket file on which nobody
    /// listens is replaced, one in use is refused; it is removed at the end. The socket [`SOCKET`](super::SOCKET) in the data
    /// directory is there in any case; without URLs it is the only one.
    pub fn listen<I: IntoIterator<Item: Into<String>>>(mut self, urls: I) -> Self {
        self.listen = urls.into_iter().map(Into::into).collect();
        self
    }

    /// URLs at which clients reach the server, as the list of members tells them. Default: those it listens on. etcd
    /// wants them named whenever it listens elsewhere than by default; here they must be where it listens on every
    /// address (`0.0.0.0`, `[::]`), which is none that a client could connect to.
    pub fn advertise<I: IntoIterator<Item: Into<String>>>(mut self, urls: I) -> Self {
        self.advertise = urls.into_iter().map(Into::into).collect();
        self
    }

    /// URLs at which `/metrics`, `/health`, `/livez` and `/readyz` are served, and nothing else: for those who may not have a
    /// client's certificate. They stay where clients are served, too. Default: none.
    pub fn listen_metrics<I: IntoIterator<Item: Into<String>>>(mut self, urls: I) -> Self {
        self.listen_metrics = urls.into_iter().map(Into::into).collect();
        self
    }

    /// Certificates for `https://` and `unixs://`. Default: none, and such a URL is refused.
    pub fn tls(mut self, tls: ServerTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Mode of the files of Unix sockets: who may connect. Default `0o600`, the user that runs the server.
    pub fn socket_mode(mut self, mode: u32) -> Self {
        self.socket_mode = mode & 0o777;
        self
    }

    /// Starts with the content of a snapshot of etcd. The data directory must not exist, or be empty.
    pub fn restore(mut self, snapshot: impl Into<PathBuf>) -> Self {
        self.restore = Some(snapshot.into());
        self
    }

    /// Bytes on disk at which writes are refused; `None`: no limit. Default 2 GiB.
    pub fn quota_backend_bytes(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.options.quota = bytes.into();
        self
    }

    /// Largest request in bytes. Default 1.5 MiB.
    pub fn max_request_bytes(mut self, bytes: usize) -> Self {
        self.options.max_request_bytes = bytes;
        self
    }

    /// Operations in each list of a transaction. Default 128.
    pub fn max_txn_ops(mut self, operations: usize) -> Self {
        self.options.max_txn_ops = operations;
        self
    }

    /// What shorter leases are raised to, in seconds. Default 2, at least 1.
    pub fn min_lease_ttl(mut self, seconds: i64) -> Self {
        self.options.min_lease_ttl = seconds;
        self
    }

    /// When history is given up without being asked. Default: never.
    pub fn auto_compaction(mut self, when: AutoCompaction) -> Self {
        self.options.auto_compaction = when;
        self
    }

    /// How long a watch must be idle to be told of progress. Default 10 min, at least 100 ms.
    pub fn progress_interval(mut self, interval: Duration) -> Self {
        self.options.progress_interval = interval;
        self
    }

    /// Cost of the hashes of passwords, 4 to 31. Default 10.
    pub fn bcrypt_cost(mut self, cost: u32) -> Self {
        self.options.bcrypt_cost = cost.clamp(4, 31);
        self
    }

    /// Origins whose web pages may read what is answered over HTTP, and open `WebSocket`s. Default: every one, as with etcd.
    pub fn cors(mut self, origins: Origins) -> Self {
        self.options.origins = origins;
        self
    }

    /// Memory for pages of the storage, in bytes. Default 64 MiB.
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.options.cache_bytes = bytes;
        self
    }

    /// Starts the server: returns when it accepts connections.
    pub async fn start(self) -> Result<Server, StartError> {
        Server::start(self).await
    }
}
