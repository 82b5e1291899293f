//! The server as a whole: start, end, and what runs in between.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::engine::{Engine, Member, Shared};
use super::error::RestoreError;
use super::options::{Builder, resolve};
use super::{StartError, background, engine, listener, service};
use crate::backend::Bucket;
use crate::bolt::{self, Reader, seal};
use crate::storage::{Store, StoreOptions};

/// An etcd v3 server of one node that runs in this process.
///
/// Dropped without [`shutdown`](Self::shutdown) it ends as if it had been killed: nothing that was acknowledged is lost,
/// leases may be found with more time left than they had.
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
    stop: CancellationToken,
    /// Listeners with their connections, and what runs in the background.
    tasks: JoinSet<()>,
    writer: Option<JoinHandle<()>>,
    /// Cancelled when the data directory is free.
    free: CancellationToken,
}

/// How long calls that are under way may take when the server ends.
const GRACE: Duration = Duration::from_secs(5);
// === impl Server ===

impl Server {
    /// The options of a server, with etcd's defaults.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// URLs at which clients reach it.
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
        let Builder { data_dir, name, listen, advertise, restore, options } = builder;
        let mut listeners = Vec::with_capacity(listen.len());
        for url in &listen {
            listeners.push(bind(url).await?);
        }
        let bound = listeners.iter().map(|(_, address)| format!("http://{address}")).collect();
        let urls: Vec<String> = if advertise.is_empty() { bound } else { advertise };
        let client_urls = urls.clone();
        let free = CancellationToken::new();
        let guard = free.clone().drop_guard();
        let opened = tokio::task::spawn_blocking(move || {
            let store = open(&data_dir, options.cache_bytes, restore.as_deref())?;
            let (member, index) = Member::load(&store, name, client_urls, restore.is_some())?;
            Shared::load(store, member, index, options, guard)
                .map_err(|source| StartError::Load { folder: data_dir, source })
        });
        let shared = match opened.await {
            Ok(shared) => Arc::new(shared?),
            Err(error) => return Err(StartError::Thread(std::io::Error::other(error))),
        };
        let (queue, requests) = mpsc::channel();
        let of_writer = Arc::clone(&shared);
        let writer = std::thread::Builder::new()
            .name("waypost-writer".to_owned())
            .spawn(move || engine::run(&of_writer, &requests))
            .map_err(StartError::Thread)?;
        let engine = Engine::new(shared, queue);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for (listener, _) in listeners {
            let services = service::all(&engine, &stop);
            tasks.spawn(listener::accept(listener, services, engine.clone(), stop.clone()));
        }
        tasks.spawn(background::progress(engine.clone(), stop.clone()));
        tasks.spawn(background::compact(engine, stop.clone()));
        Ok(Self { urls, stop, tasks, writer: Some(writer), free })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn bind(url: &str) -> Result<(TcpListener, SocketAddr), StartError> {
    let address = resolve(url).await?;
    let failed = |source| StartError::Listen { url: url.to_owned(), source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// Opens the store, filled from a snapshot if one is given.
fn open(folder: &Path, cache_bytes: usize, snapshot: Option<&Path>) -> Result<Store, StartError> {
    let options = StoreOptions { cache_bytes };
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
