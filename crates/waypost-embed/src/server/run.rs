//! The server as a whole: start, end, and what runs in between.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::address::{Address, Place};
use super::engine::{Engine, Member, Shared};
use super::error::RestoreError;
use super::front::Front;
use super::lanes::Lanes;
use super::options::{Builder, Options};
use super::socket::Listening;
use super::tls::Tls;
use super::{StartError, background, listener, service};
use crate::backend::Bucket;
use crate::bolt::{self, Reader, seal};
use crate::storage::{Store, StoreOptions};

/// An etcd v3 server of one node that runs in this process.
///
/// Dropped without [`shutdown`](Self::shutdown) it ends as if it had been killed: nothing that was acknowledged is lost,
/// leases may be found with more time left than they had.
///
/// It has threads of its own: one that writes, and for each processor, up to 16, one that serves connections and
/// at most 64 that read what takes long. The runtime in which it is started only accepts connections and keeps its timers.
///
/// ```
/// use waypost_embed::server::Server;
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let server = Server::builder().data_dir(folder.path()).listen(["http://127.0.0.1:0"]).start().await?;
/// println!("etcdctl --endpoints {} put greeting hello", server.urls()[0]);
/// server.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Server {
    urls: Vec<String>,
    listen_urls: Vec<String>,
    metrics_urls: Vec<String>,
    stop: CancellationToken,
    /// Listeners with their connections, and what runs in the background.
    tasks: JoinSet<()>,
    writer: Option<JoinHandle<()>>,
    /// Cancelled when the data directory is free.
    free: CancellationToken,
}

/// The socket that every server listens on: this file in its data directory. See [`shared`](crate::shared).
pub const SOCKET: &str = "waypost.sock";

/// How long calls that are under way may take when the server ends.
const GRACE: Duration = Duration::from_secs(5);

// === impl Server ===

impl Server {
    /// The options of a server, with etcd's defaults.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// URLs at which it listens, with the ports that it got.
    pub fn listen_urls(&self) -> &[String] {
        &self.listen_urls
    }

    /// URLs at which it tells only how it is, with the ports that it got.
    pub fn metrics_urls(&self) -> &[String] {
        &self.metrics_urls
    }

    /// URLs at which clients reach it: those that are advertised.
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// Ends it in good order: connections are closed after the calls that are under way, watches end, leases keep what
    /// they have left. Returns when the data directory is free; should a read
    /// hang, it says so in the log and returns 5 s later. Not cancel safe: dropped, it ends as if killed.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        let all_ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, all_ended).await.is_err() {
            self.tasks.shutdown().await;
        }
        if let Some(writer) = self.writer.take() {
            // The engine is gone with the tasks, which ends the writer.
            let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        }
        // Reads of calls that were cut go on to their end.
        if tokio::time::timeout(GRACE, self.free.cancelled()).await.is_err() {
            tracing::warn!("a read did not end in time: the data directory is still in use");
        }
    }

    pub(super) async fn start(builder: Builder) -> Result<Self, StartError> {
        let Builder { data_dir, name, listen, listen_metrics, advertise, tls, socket_mode, restore, options } =
            builder;
        let mut addresses = parsed(&listen)?;
        let clients = addresses.len();
        addresses.extend(parsed(&listen_metrics)?);
        parsed(&advertise)?;
        if let Some(address) = addresses.iter().find(|address| address.secure && tls.is_none()) {
            let reason = "TLS needs a certificate: --cert-file and --key-file, or --auto-tls".to_owned();
            return Err(StartError::Url { url: address.url.clone(), reason });
        }
        // Ports first: one that is taken is found before a snapshot is restored. Files of sockets are replaced only by
        // whoever has the data directory.
        let mut ports = Vec::with_capacity(addresses.len());
        for address in &addresses {
            ports.push(match address.place {
                Place::Tcp(_) => Some(Listening::bind(address, socket_mode).await?),
                Place::Unix(_) => None,
            });
        }
        let (folder, cache_bytes, restored) = (data_dir.clone(), options.cache_bytes, restore.is_some());
        let store = blocking(move || open(&folder, cache_bytes, restore.as_deref())).await?;
        let tls = match tls {
            Some(options) => {
                let (folder, addresses) = (data_dir.clone(), addresses.clone());
                Some(Arc::new(blocking(move || Ok(Tls::load(options, &folder, &addresses)?)).await?))
            }
            None => None,
        };
        let mut listeners = Vec::with_capacity(addresses.len());
        let mut listen_urls = Vec::with_capacity(addresses.len());
        for (address, port) in addresses.iter().zip(ports) {
            let (listener, url) = match port {
                Some(bound) => bound,
                None => Listening::bind(address, socket_mode).await?,
            };
            listeners.push((listener, address.secure, listen_urls.len() >= clients));
            listen_urls.push(url);
        }
        let metrics_urls = listen_urls.split_off(clients);
        match Listening::bind(&Address::of_folder(&data_dir), socket_mode).await {
            Ok((listener, url)) => {
                if clients == 0 {
                    listen_urls.push(url);
                }
                listeners.push((listener, false, false));
            }
            // A file system without sockets is no reason not to listen elsewhere.
            Err(StartError::Listen { url, source }) if clients > 0 => {
                tracing::warn!(url, error = %source, "no process of this machine can share the store");
            }
            Err(error) => return Err(error),
        }
        let urls = if advertise.is_empty() { advertised(&listen_urls)? } else { advertise };
        let client_urls = urls.clone();
        let free = CancellationToken::new();
        let guard = free.clone().drop_guard();
        let (engine, writer) =
            blocking(move || load(store, &data_dir, name, client_urls, restored, options, guard)).await?;
        let stop = CancellationToken::new();
        let lanes = Arc::new(Lanes::start().map_err(StartError::Thread)?);
        let mut tasks = JoinSet::new();
        let services = service::all(&engine.in_lane(), &stop);
        let front = Front { services, engine: engine.clone(), stop: stop.clone(), metrics_only: false };
        for (listener, secure, metrics_only) in listeners {
            let front = Front { metrics_only, ..front.clone() };
            let tls = tls.clone().filter(|_| secure);
            tasks.spawn(listener::accept(listener, tls, front, Arc::clone(&lanes), stop.clone()));
        }
        // The engine ends with the last of those who hold it.
        drop(front);
        tasks.spawn(background::progress(engine.clone(), stop.clone()));
        tasks.spawn(background::compact(engine, stop.clone()));
        Ok(Self { urls, listen_urls, metrics_urls, stop, tasks, writer: Some(writer), free })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Reads everything back, and starts the thread that writes.
pub(super) fn load(
    store: Store,
    folder: &Path,
    name: String,
    client_urls: Vec<String>,
    restored: bool,
    options: Options,
    free: DropGuard,
) -> Result<(Engine, JoinHandle<()>), StartError> {
    let (member, index) = Member::load(&store, name, client_urls, restored)?;
    let shared = Shared::load(store, member, index, options, free)
        .map_err(|source| StartError::Load { folder: folder.to_owned(), source })?;
    Engine::start(Arc::new(shared)).map_err(StartError::Thread)
}

/// Does something that waits for the disk.
async fn blocking<A: Send + 'static>(
    work: impl FnOnce() -> Result<A, StartError> + Send + 'static,
) -> Result<A, StartError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(StartError::Thread(std::io::Error::other(error))),
    }
}

fn parsed(urls: &[String]) -> Result<Vec<Address>, StartError> {
    urls.iter().map(|url| Address::parse(url)).collect()
}

/// What clients are told where nothing else was said.
fn advertised(bound: &[String]) -> Result<Vec<String>, StartError> {
    let unspecified = |url: &&String| ["://0.0.0.0:", "://[::]:"].iter().any(|every| url.contains(every));
    match bound.iter().find(unspecified) {
        Some(url) => Err(StartError::Advertise { url: url.clone() }),
        None => Ok(bound.to_owned()),
    }
}

/// Opens the store, filled from a snapshot if one is given.
fn open(folder: &Path, cache_bytes: usize, snapshot: Option<&Path>) -> Result<Store, StartError> {
    let options = StoreOptions { cache_bytes, ..StoreOptions::default() };
    if let Some(snapshot) = snapshot {
        restore(folder, snapshot, options)
            .map_err(|source| StartError::Restore { snapshot: snapshot.to_owned(), source })?;
    }
    Ok(Store::open_with(folder, options)?)
}

/// Fills a new data directory. It gets its name when it is complete, so that a kill leaves nothing half restored.
fn restore(folder: &Path, snapshot: &Path, options: StoreOptions) -> Result<(), RestoreError> {
    let occupied = match std::fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(error.into()),
    };
    if occupied {
        return Err(RestoreError::NotEmpty(folder.to_owned()));
    }
    if seal::check(&mut File::open(snapshot)?)? == seal::Seal::Broken {
        return Err(RestoreError::Damaged);
    }
    let mut reader = Reader::open(snapshot).map_err(bolt::CopyError::from)?;
    let buckets = reader.buckets().map_err(bolt::CopyError::from)?;
    if !buckets.iter().any(|bucket| bucket.name == Bucket::Key.name().as_bytes()) {
        return Err(RestoreError::NoKeys);
    }
    let parent = match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    std::fs::create_dir_all(&parent)?;
    let half = tempfile::Builder::new().prefix(".waypost-restore-").tempdir_in(&parent)?;
    let store = Store::open_with(half.path(), options).map_err(bolt::CopyError::from)?;
    bolt::import(&mut reader, &store)?;
    drop(store);
    // An empty folder is replaced; `keep` since there is nothing left to remove at the old name.
    std::fs::rename(half.keep(), folder)?;
    File::open(&parent)?.sync_all()?;
    Ok(())
}
