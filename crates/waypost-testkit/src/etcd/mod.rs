//! One etcd of a given version that can be stopped, killed, paused, wiped and restored.

mod builder;
mod launch;

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::EtcdVersion;
use crate::child::Child;

pub use builder::Builder;
pub(crate) use builder::Place;
use launch::{Died, Log, Ports, READY};

/// A running etcd on loopback ports of its own, with its data in a temporary directory.
///
/// Heartbeats are 10 ms and the election timeout is 100 ms, so that a node is ready at once; the smallest lease is
/// then 1 s (with the defaults it is 2 s). Killed when dropped.
///
/// ```no_run
/// # async fn demo() {
/// use waypost_testkit::{Etcd, EtcdVersion};
///
/// let mut etcd = Etcd::start(EtcdVersion::V3_4).await;
/// etcd.pause().await;
/// etcd.resume();
/// etcd.wipe_and_restart().await;
/// # }
/// ```
#[derive(Debug)]
pub struct Etcd {
    // First: the process is gone before its directory is.
    child: Option<Child>,
    builder: Builder,
    ports: Ports,
    token: u32,
    credentials: Option<Credentials>,
    log: Log,
    directory: TempDir,
}

/// A user as `etcdctl` is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Credentials {
    name: String,
    password: String,
}

// === impl Credentials ===

impl Credentials {
    pub(crate) fn root(password: impl Into<String>) -> Self {
        Self { name: "root".to_owned(), password: password.into() }
    }
}

// === impl Etcd ===

impl Etcd {
    /// Starts an etcd with the defaults and waits until it is healthy.
    pub async fn start(version: EtcdVersion) -> Self {
        Self::builder(version).start().await
    }

    /// Options for an etcd of this version.
    pub fn builder(version: EtcdVersion) -> Builder {
        Builder::new(version)
    }

    async fn start_with(builder: Builder) -> Self {
        for _ in 0..10 {
            let mut etcd = Self::prepare(builder.clone());
            etcd.spawn();
            match etcd.ready().await {
                Ok(()) => {
                    etcd.keep_blank();
                    etcd.apply_auth().await;
                    return etcd;
                }
                Err(Died::AddressInUse) => {}
                Err(Died::Otherwise(log)) => panic!("{} did not start:\n{log}", builder.version),
            }
        }
        panic!("{} found its ports in use ten times", builder.version)
    }

    /// Directory and ports, no process yet.
    pub(crate) fn prepare(builder: Builder) -> Self {
        let directory =
            tempfile::Builder::new().prefix("waypost-etcd-").tempdir().expect("a directory for etcd");
        let log = Log::new(directory.path());
        Self { child: None, builder, ports: Ports::reserve(), token: 0, credentials: None, log, directory }
    }

    /// Where clients connect, `http://127.0.0.1:port` or `https://…`. The same over all restarts.
    pub fn url(&self) -> String {
        launch::client_url(&self.builder, &self.ports)
    }

    /// The Unix socket of an etcd that was [asked](Builder::unix_socket) for one, `unix://` and its path.
    pub fn socket_url(&self) -> String {
        format!("unix://{}", self.directory.path().join(launch::SOCKET).display())
    }

    /// [`url`](Self::url) without its scheme.
    pub fn authority(&self) -> String {
        self.ports.client.addr().to_string()
    }

    /// Where plain HTTP serves `/health` and `/metrics`, also when clients are served over TLS.
    pub fn metrics_url(&self) -> String {
        format!("http://{}", self.ports.metrics.addr())
    }

    /// The text of `/metrics` now.
    pub async fn metrics(&self) -> String {
        crate::http::get_patiently(self.ports.metrics.addr(), "/metrics")
            .await
            .expect("etcd serves /metrics")
            .body
    }

    /// The version that runs.
    pub fn version(&self) -> EtcdVersion {
        self.builder.version
    }

    /// What the process has written since it was last started, at level `warn`.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// The process's id; `None` when it does not run.
    pub fn pid(&self) -> Option<u32> {
        let child = self.child.as_ref().filter(|child| child.try_exit().is_none())?;
        u32::try_from(child.pid().as_raw()).ok()
    }

    /// SIGKILL; returns when the process is gone. Every acknowledged write is kept.
    pub async fn kill(&mut self) {
        if let Some(child) = self.child.take() {
            child.kill().await;
        }
    }

    /// SIGTERM; returns when the process is gone.
    ///
    /// etcd lets open calls finish first: with a watch or a keepalive stream open it takes five seconds.
    pub async fn stop(&mut self) {
        if let Some(child) = self.child.take() {
            child.signal(Signal::SIGTERM);
            let ended = tokio::time::timeout(READY, child.exited()).await;
            assert!(ended.is_ok(), "etcd did not end within {READY:?} of SIGTERM:\n{}", self.log.tail());
        }
    }

    /// Starts etcd again with the same data and ports and waits until it is healthy; kills it first if it runs.
    pub async fn restart(&mut self) {
        self.kill().await;
        self.spawn();
        self.settle().await;
    }

    /// SIGSTOP; returns when the process is stopped. Connections stay open and nothing answers.
    pub async fn pause(&self) {
        self.running().pause().await;
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.running().resume();
    }

    /// Kills etcd, empties its data directory and starts it: revision 1, the same ports and the same cluster id.
    ///
    /// Authentication that the [`Builder`] asked for is set up again. The embedded server, which draws its id when it is
    /// new, gets back a copy of its folder from when it was.
    pub async fn wipe_and_restart(&mut self) {
        self.kill().await;
        self.remove_data();
        let blank = self.blank();
        if blank.exists() {
            launch::copy(&blank, &launch::data(self.directory.path()));
        }
        self.restart().await;
        self.keep_blank();
        self.apply_auth().await;
    }

    /// Makes the next [`wipe_and_restart`](Self::wipe_and_restart) or [`restore_from`](Self::restore_from) a cluster
    /// with another id. By default the id stays, as it does when the same command line is run again; the embedded server
    /// always gets another one from a snapshot.
    pub fn change_cluster_id(&mut self) {
        self.token += 1;
    }

    /// Writes a snapshot of the running etcd to a file.
    pub async fn snapshot_to(&self, file: &Path) {
        self.etcdctl([OsStr::new("snapshot"), OsStr::new("save"), file.as_os_str()]).await;
    }

    /// Kills etcd, restores a snapshot into an empty data directory and starts it on the same ports.
    pub async fn restore_from(&mut self, file: &Path) {
        self.kill().await;
        self.remove_data();
        if self.version() == EtcdVersion::Embedded {
            self.builder.args.push(format!("--restore={}", file.display()));
            self.restart().await;
            self.builder.args.pop();
            return;
        }
        self.prepare_from(file).await;
        self.restart().await;
    }

    /// Turns authentication on with the user `root` and this password, which [`etcdctl`](Self::etcdctl) then uses.
    pub async fn enable_auth(&mut self, root_password: &str) {
        let user = Credentials::root(root_password);
        self.etcdctl(["user", "add", &format!("{}:{}", user.name, user.password)]).await;
        self.etcdctl(["user", "grant-role", "root", "root"]).await;
        self.etcdctl(["auth", "enable"]).await;
        self.credentials = Some(user);
    }

    /// Turns authentication off.
    pub async fn disable_auth(&mut self) {
        self.etcdctl(["auth", "disable"]).await;
        self.credentials = None;
    }

    /// Runs this version's `etcdctl` against this etcd and returns its standard output.
    ///
    /// Panics with its standard error when it fails; [`try_etcdctl`](Self::try_etcdctl) does not.
    pub async fn etcdctl<I>(&self, args: I) -> String
    where
        I: IntoIterator<Item: AsRef<OsStr>>,
    {
        // Its own 5 s are too few for what a busy machine is asked; one that is given later counts instead.
        let patience = std::iter::once(OsString::from("--command-timeout=60s"));
        let args: Vec<_> = patience.chain(args.into_iter().map(|arg| arg.as_ref().to_owned())).collect();
        self.try_etcdctl(&args).await.unwrap_or_else(|error| panic!("etcdctl {args:?}: {error}"))
    }

    /// Runs this version's `etcdctl`: its standard output, or its standard error when it fails.
    pub async fn try_etcdctl<I>(&self, args: I) -> Result<String, String>
    where
        I: IntoIterator<Item: AsRef<OsStr>>,
    {
        self.try_etcdctl_at(&self.url(), args).await
    }

    /// As [`try_etcdctl`](Self::try_etcdctl), through another URL of this etcd, such as a proxy's.
    pub async fn try_etcdctl_at<I>(&self, url: &str, args: I) -> Result<String, String>
    where
        I: IntoIterator<Item: AsRef<OsStr>>,
    {
        let mut command = tokio::process::Command::new(self.version().binaries().etcdctl);
        command.arg(format!("--endpoints={url}"));
        if let Some(tls) = &self.builder.tls {
            let client = tls.material.client();
            command.arg(format!("--cacert={}", tls.material.ca().display()));
            if tls.mutual {
                command.arg(format!("--cert={}", client.certificate.display()));
                command.arg(format!("--key={}", client.key.display()));
            }
        }
        if let Some(user) = &self.credentials {
            command.arg(format!("--user={}:{}", user.name, user.password));
        }
        command.args(args);
        output(command).await
    }

    /// Kills etcd if it runs and makes its data directory of a snapshot. The embedded server does that when it starts.
    pub(crate) async fn prepare_from(&mut self, file: &Path) {
        self.kill().await;
        self.remove_data();
        let (name, initial_cluster, peer_url) = launch::membership(&self.builder, &self.ports);
        let mut command = tokio::process::Command::new(self.version().binaries().restore);
        command
            .args(["snapshot", "restore"])
            .arg(file)
            .arg(format!("--data-dir={}", launch::data(self.directory.path()).display()))
            .arg(format!("--name={name}"))
            .arg(format!("--initial-cluster={initial_cluster}"))
            .arg(format!("--initial-advertise-peer-urls={peer_url}"))
            .arg(format!("--initial-cluster-token={}", launch::cluster_token(self.token)));
        output(command)
            .await
            .unwrap_or_else(|error| panic!("snapshot restore of {}: {error}", file.display()));
    }

    /// Starts the process without waiting: a node of a cluster is healthy only with the others.
    pub(crate) fn spawn(&mut self) {
        let directory = self.directory.path();
        self.child = Some(launch::spawn(&self.builder, directory, &self.ports, self.token, &mut self.log));
    }

    /// Waits until the process that was started is healthy; starts another one while its ports are in use.
    pub(crate) async fn settle(&mut self) {
        let deadline = Instant::now() + READY;
        loop {
            match self.ready().await {
                Ok(()) => return,
                Err(Died::AddressInUse) if Instant::now() < deadline => self.spawn(),
                Err(Died::AddressInUse) => panic!("another process keeps a port of etcd at {}", self.url()),
                Err(Died::Otherwise(log)) => panic!("{} did not start:\n{log}", self.version()),
            }
        }
    }

    async fn ready(&self) -> Result<(), Died> {
        launch::ready(self.running(), &self.ports, &self.log).await
    }

    /// Where the node listens for its peers.
    pub(crate) fn peer_addr(&self) -> SocketAddr {
        self.ports.peer.addr()
    }

    /// What the next start tells clients, for a node of a cluster.
    pub(crate) fn advertise_to_clients(&mut self, url: String) {
        if let Some(place) = &mut self.builder.place {
            place.advertised_client_url = Some(url);
        }
    }

    async fn apply_auth(&mut self) {
        self.credentials = None;
        if let Some(user) = self.builder.auth.clone() {
            self.enable_auth(&user.password).await;
        }
    }

    fn remove_data(&self) {
        let data = launch::data(self.directory.path());
        match std::fs::remove_dir_all(&data) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                panic!("{}: {error}", data.display())
            }
            _ => {}
        }
    }

    /// The folder of the embedded server with this id from when it was new. Nothing is written while it is copied, so the
    /// copy is what a loss of power would have left.
    fn blank(&self) -> PathBuf {
        self.directory.path().join(format!("blank-{}", self.token))
    }

    fn keep_blank(&self) {
        let blank = self.blank();
        if self.version() == EtcdVersion::Embedded && !blank.exists() {
            launch::copy(&launch::data(self.directory.path()), &blank);
        }
    }

    fn running(&self) -> &Child {
        self.child.as_ref().expect("etcd runs: it was neither stopped nor killed")
    }
}

/// Runs a tool to its end: its standard output, or its standard error when it fails.
async fn output(mut command: tokio::process::Command) -> Result<String, String> {
    command.env("ETCDCTL_API", "3").stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
