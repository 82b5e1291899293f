//! The store: a durable [`Backend`] in a folder, and the thread that keeps its log short.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;

use crate::backend::{Backend, BackendError, Bucket, Size, Visit, WriteBatch};
use crate::storage::engine::Engine;
use crate::storage::error::io_error;
use crate::storage::folder::Folder;
use crate::storage::medium::{Medium, StoreFile};
use crate::storage::tiers::{Due, Tiers};
use crate::storage::view::View;

/// How a [`Store`] is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreOptions {
    /// Memory for pages that were read or are being written, in bytes. Default 64 MiB. The system's page cache comes on top.
    pub cache_bytes: usize,
    /// Length of the log in bytes, which is taken from the disk at once. Default 16 MiB. A batch of more than half of it
    /// goes to the database directly.
    pub log_bytes: u64,
}

/// A durable [`Backend`] in a folder of its own: a file of redb, a log in front of it, and a lock.
///
/// # What holds
///
/// - A batch is on the disk, with one sync, when [`commit`](Backend::commit) returns `Ok`. Reads and [`View`]s see whole
///   batches only, and run while another thread commits.
/// - Killed or without power at any instant, it opens again with every batch that was acknowledged, perhaps with the one
///   that was under way, and with half of none.
/// - A commit that fails leaves nothing behind. If the log fails, it is given up: what it holds and the batch go to the
///   database, and a new log is made. If the database fails (the disk is full, say), it is opened again at once, which
///   tells whether the batch got there. If it did, it is written once more and acknowledged; if it did not, the store
///   goes on without it. Views that were open then end with an error. While the database cannot be opened, every call fails,
///   and tries it again.
/// - What is in the log goes to the database a second later, or when half of a half of the log is full; after an end in good order
///   (the store was dropped) the database has everything, and there is no log.
/// - One process has the folder, told by a lock that the system frees with the process.
///
/// ```
/// use waypost_embed::backend::{Backend, Bucket, WriteBatch};
/// use waypost_embed::storage::Store;
///
/// let folder = tempfile::tempdir()?;
/// let store = Store::open(folder.path())?;
/// let mut batch = WriteBatch::new();
/// batch.put(Bucket::Meta, "term", vec![0, 0, 0, 0, 0, 0, 0, 2]);
/// store.commit(batch)?;
/// drop(store);
///
/// let store = Store::open(folder.path())?;
/// assert_eq!(store.get(Bucket::Meta, b"term")?.as_deref(), Some(&[0, 0, 0, 0, 0, 0, 0, 2][..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Store {
    tiers: Arc<Tiers>,
    bell: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
    // Last: the files are closed before the folder is free. None for a store that is not in a folder.
    _folder: Option<Folder>,
}

/// What the thread waits for.
#[derive(Debug, Default)]
struct Bell {
    state: Mutex<Waiting>,
    rung: Condvar,
}

#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    due: Due,
    stop: bool,
}

/// How long a batch is in the log at most, unless the database fails.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long the database is left alone after a failure.
const PAUSE: Duration = Duration::from_secs(5);

// === impl StoreOptions ===

impl Default for StoreOptions {
    fn default() -> Self {
        Self { cache_bytes: 64 << 20, log_bytes: 16 << 20 }
    }
}

// === impl Store ===

impl Store {
    /// Opens the store in `folder`, or makes one there if the folder is empty or absent.
    ///
    /// After a kill all of the file is read first: some 0.5 s for each million of entries of 256 bytes.
    ///
    /// # Errors
    ///
    /// [`BackendError::Locked`] while another process has the folder; [`BackendError::Format`] when it holds something
    /// else or a newer format, or lacks the log that was there.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, BackendError> {
        Self::open_with(folder, StoreOptions::default())
    }

    /// As [`open`](Self::open), with options.
    pub fn open_with(folder: impl AsRef<Path>, options: StoreOptions) -> Result<Self, BackendError> {
        let path = folder.as_ref();
        let folder = Folder::lock(path)?;
        let file = StoreFile::new(path);
        file.discard();
        if !folder.has_store()? {
            // It gets its name when it is complete, so that a kill leaves a store or none.
            drop(Engine::create(file.begin()?, file.path().to_owned(), options.cache_bytes)?);
            file.replace()?;
        }
        let mut store = Self::on(Box::new(file), Some(folder), options)?;
        let (tiers, bell) = (Arc::clone(&store.tiers), Arc::clone(&store.bell));
        let thread = std::thread::Builder::new().name("waypost-storage".to_owned());
        let thread = thread.spawn(move || bell.answer(&tiers));
        store.thread = Some(thread.map_err(io_error("start the thread of", path))?);
        store.bell.ring(Due::Soon);
        Ok(store)
    }

    /// A store without a thread: the log goes to the database when it is full.
    pub(crate) fn on(
        medium: Box<dyn Medium>,
        folder: Option<Folder>,
        options: StoreOptions,
    ) -> Result<Self, BackendError> {
        let tiers = Arc::new(Tiers::open(medium, options)?);
        Ok(Self { tiers, bell: Arc::default(), thread: None, _folder: folder })
    }

    /// The file of the database.
    pub fn path(&self) -> &Path {
        self.tiers.medium().path()
    }

    /// The state of now, over all buckets.
    pub fn view(&self) -> Result<View, BackendError> {
        self.tiers.view()
    }

    /// Gives space that is not in use back to the file system: copies everything into a new file, which then takes the
    /// place of the old one.
    ///
    /// Commits wait meanwhile, reads do not. It takes as much space again as is in use. When it fails, the store is as it
    /// was; a kill leaves the old file or the new one.
    pub fn defragment(&self) -> Result<(), BackendError> {
        self.tiers.defragment()
    }

    #[cfg(test)]
    pub(crate) fn advance(&self) -> Result<(), BackendError> {
        self.tiers.advance()
    }
}

impl Backend for Store {
    fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        self.tiers.get(bucket, key)
    }

    fn scan(
        &self,
        bucket: Bucket,
        from: &[u8],
        to: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), BackendError> {
        self.view()?.scan(bucket, from, to, visit)
    }

    fn commit(&self, batch: WriteBatch) -> Result<(), BackendError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.bell.ring(self.tiers.commit(batch)?);
        Ok(())
    }

    fn size(&self) -> Result<Size, BackendError> {
        let allocated = self.allocated()?;
        // A page for each table and for the engine's own.
        let overhead = (Bucket::ALL.len() as u64 + 2) * 4096;
        let in_use = self.view()?.bytes()?.saturating_add(overhead).min(allocated);
        Ok(Size { allocated, in_use })
    }

    /// The file of the database, and what it will take up; the log is not counted.
    fn allocated(&self) -> Result<u64, BackendError> {
        Ok(self.tiers.medium().bytes()? + self.tiers.waiting_bytes() as u64)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.bell.stop();
        if let Some(thread) = self.thread.take() {
            // It has nothing to tell.
            let _ = thread.join();
        }
        if let Err(error) = self.tiers.close() {
            tracing::warn!(path = %self.path().display(), %error, "what is in the log stays there until the next start");
        }
    }
}

// === impl Bell ===

impl Bell {
    fn ring(&self, due: Due) {
        let mut state = self.state();
        if due > state.due {
            state.due = due;
            self.rung.notify_one();
        }
    }

    fn stop(&self) {
        self.state().stop = true;
        self.rung.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while there is nothing to do, for as long as `patience` says.
    fn wait(&self, patience: Option<Duration>, until: Due) -> Waiting {
        let idle = |state: &mut Waiting| state.due < until && !state.stop;
        let state = self.state();
        match patience {
            None => *self.rung.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner),
            Some(patience) => {
                let waited = self.rung.wait_timeout_while(state, patience, idle);
                *waited.unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }

    /// Brings what is in the log to the database until told to stop.
    fn answer(&self, tiers: &Tiers) {
        loop {
            self.wait(None, Due::Soon);
            if self.wait(Some(INTERVAL), Due::Now).stop {
                return;
            }
            self.state().due = Due::Nothing;
            if let Err(error) = tiers.advance() {
                tracing::error!(%error, "the database does not take what is in the log");
                if self.wait(Some(PAUSE), Due::Never).stop {
                    return;
                }
                self.ring(Due::Now);
            }
        }
    }
}
