//! A store that several processes of one machine share: one of them serves it, and when that one ends another goes on.
//!
//! The data directory's lock decides who serves: whoever gets it listens on [`SOCKET`] in the directory. The others keep a
//! connection open to it, on which nothing is said; its end tells them that the server has ended, however it did, and each
//! tries for the lock.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::backend::BackendError;
use crate::error::described;
use crate::server::{Reach, Server, StartError};

pub use crate::server::SOCKET;

/// This process's share in a store: it serves the store, or stands by to.
///
/// Served or not, clients reach it at [`url`](Self::url), which stays the same when another process takes over; a client
/// that waits for the socket (`ClientOptions::wait_for_socket` of `waypost-etcd`) sees no more of it than a pause. The
/// server runs on two threads of its own, so that it answers other processes whatever this one's runtime does.
///
/// Dropped it ends in the background, in good order if the process lives long enough, otherwise as if killed: nothing that
/// was acknowledged is lost.
///
/// ```
/// use waypost_embed::shared::SharedServer;
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let first = SharedServer::open(folder.path()).await?;
/// let second = SharedServer::open(folder.path()).await?;
/// assert!(first.is_serving() && !second.is_serving());
/// let mut serving = second.serving();
/// first.close().await;
/// serving.wait_for(|serving| *serving).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SharedServer {
    url: String,
    serving: watch::Receiver<bool>,
    stop: CancellationToken,
    /// Cancelled when the thread has let go of everything.
    ended: CancellationToken,
    /// The client's way to the socket.
    _reach: Reach,
}

/// Why a store cannot be shared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The store cannot be opened, or its socket not be listened on.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Another process has the store and nobody can reach it.
    #[error(
        "another process has {} and does not answer on its {SOCKET} ({why}): end that process, or wait until it has ended",
        folder.display()
    )]
    Unreachable {
        /// The data directory.
        folder: PathBuf,
        /// What became of the last attempt to connect.
        why: String,
    },
    /// The path of the socket makes no sense.
    #[error("cannot use a socket in {}", folder.display())]
    Socket {
        /// The data directory.
        folder: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// The system gives no thread.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// How long another process that has the lock may take until it answers, such as one that reads a large store.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a lock that is held by somebody who does not listen, or no more.
const LOOK: Duration = Duration::from_millis(10);
/// Between two attempts to take over a store that cannot be opened.
const PAUSE: Duration = Duration::from_secs(1);

/// What stands by.
struct Standby {
    folder: PathBuf,
    /// Where the socket is, as others call it.
    url: String,
    socket: Arc<Reach>,
    serving: watch::Sender<bool>,
    stop: CancellationToken,
    /// Whoever waits for the first outcome; `None` once it is told.
    opened: Option<SyncSender<Result<(), OpenError>>>,
    since: Instant,
}

// === impl SharedServer ===

impl SharedServer {
    /// Takes a share in the store in `folder`, which is made if absent. Returns when the store is served, here or elsewhere.
    ///
    /// Cancelled, it leaves nothing behind.
    pub async fn open(folder: impl Into<PathBuf>) -> Result<Self, OpenError> {
        let folder = folder.into();
        match tokio::task::spawn_blocking(move || Self::open_blocking(folder)).await {
            Ok(opened) => opened,
            Err(error) => Err(OpenError::Thread(io::Error::other(error))),
        }
    }

    /// [`open`](Self::open) for those who are not asynchronous: blocks this thread, usually for some milliseconds.
    pub fn open_blocking(folder: impl Into<PathBuf>) -> Result<Self, OpenError> {
        let given = folder.into();
        let of_socket = |source| OpenError::Socket { folder: given.clone(), source };
        let folder = std::path::absolute(&given).map_err(of_socket)?;
        // A long path is reached through the folder, which must be there for that.
        std::fs::create_dir_all(&folder).map_err(of_socket)?;
        let socket = folder.join(SOCKET);
        let reach = |socket: &Path| Reach::of(socket).map_err(of_socket);
        let (ours, of_standby) = (reach(&socket)?, reach(&socket)?);
        let (serving, is_serving) = watch::channel(false);
        let (opened, outcome) = sync_channel(1);
        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        let standby = Standby {
            url: format!("unix://{}", socket.display()),
            folder,
            socket: Arc::new(of_standby),
            serving,
            stop: stop.clone(),
            opened: Some(opened),
            since: Instant::now(),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("waypost-embedded")
            .enable_all()
            .build()
            .map_err(OpenError::Thread)?;
        let guard = ended.clone().drop_guard();
        let thread = std::thread::Builder::new().name("waypost-standby".to_owned());
        thread
            .spawn(move || {
                runtime.block_on(standby.run());
                drop(runtime);
                drop(guard);
            })
            .map_err(OpenError::Thread)?;
        let shared = Self {
            url: format!("unix://{}", ours.path().display()),
            serving: is_serving,
            stop,
            ended,
            _reach: ours,
        };
        match outcome.recv() {
            Ok(Ok(())) => Ok(shared),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(OpenError::Thread(io::Error::other("the thread has ended"))),
        }
    }

    /// Where clients in this process reach the store: `unix://` and the path of its socket.
    ///
    /// A path that the system's addresses have no room for is given by way of a file descriptor, and means something only
    /// in this process and while this lives.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether this process serves the store now.
    pub fn is_serving(&self) -> bool {
        *self.serving.borrow()
    }

    /// Whether this process serves the store, now and from now on. Closed when this ends.
    pub fn serving(&self) -> watch::Receiver<bool> {
        self.serving.clone()
    }

    /// Ends it in good order: one that serves answers what is under way, and lets another process take over. Takes some
    /// milliseconds, 10 s at most. Cancel safe: it ends all the same.
    pub async fn close(self) {
        self.stop.cancel();
        self.ended.cancelled().await;
    }
}

impl Drop for SharedServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

// === impl Standby ===

impl Standby {
    async fn run(mut self) {
        let stop = self.stop.clone();
        loop {
            let wait = match self.serve().await {
                Ok(()) => return,
                Err(StartError::Backend(BackendError::Locked { .. })) => self.follow().await,
                Err(error) => {
                    if let Some(opened) = self.opened.take() {
                        // Whoever asked hears it, or has gone away.
                        let _ = opened.send(Err(error.into()));
                        return;
                    }
                    tracing::warn!(folder = %self.folder.display(), error = %described(&error), "cannot take over");
                    PAUSE
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Serves until told to stop. Fails when another process does.
    async fn serve(&mut self) -> Result<(), StartError> {
        let nowhere: [&str; 0] = [];
        let builder = Server::builder().data_dir(&self.folder).listen(nowhere).advertise([&self.url]);
        let server = tokio::select! {
            () = self.stop.cancelled() => return Ok(()),
            started = builder.start() => started?,
        };
        tracing::info!(folder = %self.folder.display(), "this process serves the store");
        self.serving.send_replace(true);
        self.tell_opened();
        self.stop.cancelled().await;
        self.serving.send_replace(false);
        server.shutdown().await;
        Ok(())
    }

    /// Waits for the end of the server that there is; answers how long to wait before the lock is tried for.
    async fn follow(&mut self) -> Duration {
        let connected = UnixStream::connect(self.socket.path()).await;
        match connected {
            Ok(connection) => {
                self.tell_opened();
                tokio::select! {
                    () = self.stop.cancelled() => {}
                    () = end_of(&connection) => {}
                }
                Duration::ZERO
            }
            Err(error) => {
                if self.since.elapsed() > PATIENCE
                    && let Some(opened) = self.opened.take()
                {
                    let (folder, why) = (self.folder.clone(), error.to_string());
                    let _ = opened.send(Err(OpenError::Unreachable { folder, why }));
                    self.stop.cancel();
                }
                LOOK
            }
        }
    }

    fn tell_opened(&mut self) {
        if let Some(opened) = self.opened.take() {
            let _ = opened.send(Ok(()));
        }
    }
}

/// Returns when the other side has closed the connection, which has nothing to say before.
async fn end_of(connection: &UnixStream) {
    let mut buffer = [0; 64];
    while connection.readable().await.is_ok() {
        match connection.try_read(&mut buffer) {
            Ok(read) if read > 0 => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}
