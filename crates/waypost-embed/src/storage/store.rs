//! The store: the engine that runs, and what happens when it fails.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;

use crate::backend::{Backend, BackendError, Bucket, Size, Visit, WriteBatch};
use crate::bolt::Source;
use crate::storage::engine::{Engine, State};
use crate::storage::folder::Folder;
use crate::storage::medium::{Medium, StoreFile};

/// How a [`Store`] is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreOptions {
    /// Memory for pages that were read or are being written, in bytes. Default 64 MiB. The system's page cache comes on top.
    pub cache_bytes: usize,
}

/// A durable [`Backend`] in a folder of its own: one file of redb, and a lock.
///
/// # What holds
///
/// - A batch is on the disk, with one sync, when [`commit`](Backend::commit) returns `Ok`. Reads and [`View`]s see whole
///   batches only, and run while another thread commits.
/// - Killed or without power at any instant, it opens again with every batch that was acknowledged, perhaps with the one
///   that was under way, and with half of none.
/// - A commit that fails (the disk is full, say) leaves nothing behind: the file is opened again at once, which tells
///   whether the batch got there. If it did, it is written once more and acknowledged; if it did not, the store goes on
///   without it. Views that were open then end with an error. While the file cannot be opened, every call fails, and tries
///   it again.
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
    phase: RwLock<Phase>,
    /// Taken to commit, and before `phase`.
    writer: Mutex<()>,
    medium: Box<dyn Medium>,
    options: StoreOptions,
    // Last: the file is closed before the folder is free. None for a store that is not in a folder.
    _folder: Option<Folder>,
}

/// A state of a [`Store`] that commits do not change: what a snapshot is made of.
///
/// It keeps the pages of that state from being used again, so do not keep it for long.
pub struct View {
    // First: the state ends before its engine does.
    state: State,
    _engine: Arc<Engine>,
}

#[derive(Debug)]
enum Phase {
    Running(Arc<Engine>),
    /// A commit failed, and then the file could not be opened, so that it is not known whether `batch` is in it. Its
    /// writers were told that it is not.
    Uncertain {
        batch: WriteBatch,
        error: BackendError,
    },
    /// What was refused has turned out to be in the file.
    Contradicted {
        error: BackendError,
    },
}

// === impl StoreOptions ===

impl Default for StoreOptions {
    fn default() -> Self {
        Self { cache_bytes: 64 << 20 }
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
    /// else or a newer format.
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
        Self::on(Box::new(file), Some(folder), options)
    }

    pub(crate) fn on(
        medium: Box<dyn Medium>,
        folder: Option<Folder>,
        options: StoreOptions,
    ) -> Result<Self, BackendError> {
        let engine = Engine::open(medium.open()?, medium.path().to_owned(), options.cache_bytes)?;
        let phase = RwLock::new(Phase::Running(Arc::new(engine)));
        Ok(Self { phase, writer: Mutex::new(()), medium, options, _folder: folder })
    }

    /// The file that holds everything.
    pub fn path(&self) -> &Path {
        self.medium.path()
    }

    /// The state of now, over all buckets.
    pub fn view(&self) -> Result<View, BackendError> {
        let engine = self.engine()?;
        Ok(View { state: engine.state()?, _engine: engine })
    }

    /// Gives space that is not in use back to the file system: copies everything into a new file, which then takes the
    /// place of the old one.
    ///
    /// Commits wait meanwhile, reads do not. It takes as much space again as is in use. When it fails, the store is as it
    /// was; a kill leaves the old file or the new one.
    pub fn defragment(&self) -> Result<(), BackendError> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let engine = self.engine()?;
        let path = self.path().to_owned();
        let copy = self
            .medium
            .begin()
            .and_then(|disk| engine.copy_to(disk, path, self.options.cache_bytes))
            .inspect_err(|_| self.medium.discard())?;
        let mut phase = self.phase.write().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.medium.replace() {
            // Either file may have the name now: whatever is opened has all that was committed.
            engine.fence();
            copy.fence();
            *phase = Phase::Uncertain { batch: WriteBatch::new(), error: error.clone() };
            return Err(error);
        }
        *phase = Phase::Running(Arc::new(copy));
        Ok(())
    }

    /// The engine that runs, started again if it failed.
    fn engine(&self) -> Result<Arc<Engine>, BackendError> {
        if let Phase::Running(engine) = &*self.phase.read().unwrap_or_else(PoisonError::into_inner) {
            return Ok(Arc::clone(engine));
        }
        let mut phase = self.phase.write().unwrap_or_else(PoisonError::into_inner);
        match &*phase {
            Phase::Running(engine) => Ok(Arc::clone(engine)),
            Phase::Contradicted { error } => Err(error.clone()),
            Phase::Uncertain { batch, error } => {
                let engine = self.reopen().map_err(|_| error.clone())?;
                // A batch without effect, as after a defragmentation, contradicts nothing.
                let landed = !batch.is_empty() && engine.state()?.holds(batch)?;
                let error = error.clone();
                if landed {
                    tracing::error!(path = %self.path().display(), "a refused write is in the store: start the server again");
                    *phase = Phase::Contradicted { error: error.clone() };
                    return Err(error);
                }
                let engine = Arc::new(engine);
                *phase = Phase::Running(Arc::clone(&engine));
                Ok(engine)
            }
        }
    }

    fn reopen(&self) -> Result<Engine, BackendError> {
        Engine::open(self.medium.open()?, self.path().to_owned(), self.options.cache_bytes)
    }

    /// Finds out what became of a batch whose commit failed.
    fn recover(&self, failed: &Engine, batch: WriteBatch, error: BackendError) -> Result<(), BackendError> {
        tracing::error!(path = %self.path().display(), %error, "a commit failed, the store is opened again");
        let mut phase = self.phase.write().unwrap_or_else(PoisonError::into_inner);
        failed.fence();
        let settle = || -> Result<(Engine, bool), BackendError> {
            let engine = self.reopen()?;
            let landed = engine.state()?.holds(&batch)?;
            if landed {
                // What is in the file's cache need not be on the disk after a failed sync: written again, it is.
                engine.commit(&batch)?;
            }
            Ok((engine, landed))
        };
        let Ok((engine, landed)) = settle() else {
            *phase = Phase::Uncertain { batch, error: error.clone() };
            return Err(error);
        };
        *phase = Phase::Running(Arc::new(engine));
        if landed { Ok(()) } else { Err(error) }
    }
}

impl Backend for Store {
    fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        self.engine()?.state()?.get(bucket, key)
    }

    fn scan(
        &self,
        bucket: Bucket,
        from: &[u8],
        to: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), BackendError> {
        self.view()?.state.scan(bucket, from, to, visit)
    }

    fn commit(&self, batch: WriteBatch) -> Result<(), BackendError> {
        if batch.is_empty() {
            return Ok(());
        }
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let engine = self.engine()?;
        match engine.commit(&batch) {
            Ok(()) => Ok(()),
            Err(error) => self.recover(&engine, batch, error),
        }
    }

    fn size(&self) -> Result<Size, BackendError> {
        let allocated = self.medium.bytes()?;
        // A page for each table and for the engine's own.
        let overhead = (Bucket::ALL.len() as u64 + 2) * 4096;
        let in_use = self.view()?.state.bytes()?.saturating_add(overhead).min(allocated);
        Ok(Size { allocated, in_use })
    }
}

// === impl View ===

impl View {
    /// The value of a key.
    pub fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        self.state.get(bucket, key)
    }
}

impl Source for View {
    fn visit(&self, bucket: Bucket, visit: &mut Visit<'_>) -> Result<(), BackendError> {
        self.state.scan(bucket, &[], &[], visit)
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("path", &self.state.path).finish_non_exhaustive()
    }
}
