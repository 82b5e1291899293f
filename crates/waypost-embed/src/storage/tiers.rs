//! The log, what it holds in memory, and the database: one commit after the other, and what happens when one fails.
//!
//! A batch is durable when its frame in the log is, and readers see it in the *active* overlay. When a half of the log is
//! full, or after a while, the active overlay is *frozen*, the log turns to its other half, and the frozen one is written to
//! the database (a *checkpoint*), after which its half of the log is free again.
//!
//! Locks are taken in this order: appender, checkpoint, content.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use super::StoreOptions;
use super::engine::{Engine, Mark};
use super::frame;
use super::log::{Log, ReplayError, Replayed};
use super::medium::{Medium, StoreFile};
use super::overlay::{Above, Overlay};
use super::view::View;
use crate::backend::{BackendError, Bucket, WriteBatch};
use crate::storage::error::io_error;

#[derive(Debug)]
pub(super) struct Tiers {
    content: RwLock<Content>,
    appender: Mutex<Appender>,
    /// Held while the frozen overlay is written to the database.
    checkpoint: Mutex<()>,
    medium: Box<dyn Medium>,
    options: StoreOptions,
}

/// What readers see.
#[derive(Debug)]
struct Content {
    phase: Phase,
    active: Overlay,
    frozen: Option<Frozen>,
}

/// Changes on their way to the database.
#[derive(Clone, Debug)]
struct Frozen {
    overlay: Overlay,
    mark: Mark,
}

#[derive(Debug)]
pub(super) struct Appender {
    /// `None`: the disk would not have it, and commits go to the database.
    log: Option<Log>,
    /// Number of the next batch.
    next: u64,
}

/// What is to be done after a commit, the more urgent the later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    #[default]
    Nothing,
    /// A checkpoint in a while.
    Soon,
    /// A checkpoint.
    Now,
    /// What never is.
    Never,
}

#[derive(Debug)]
enum Phase {
    Running(Arc<Engine>),
    /// A write to the database failed, and then it could not be opened.
    Away {
        error: BackendError,
        /// A batch in no log of which it is not known whether the database has it. Its writers were told that it has not.
        doubt: Option<u64>,
    },
    /// What was refused has turned out to be there.
    Contradicted {
        error: BackendError,
    },
}

// === impl Tiers ===

impl Tiers {
    pub(super) fn open(medium: Box<dyn Medium>, options: StoreOptions) -> Result<Self, BackendError> {
        let engine = Engine::open(medium.open()?, medium.path().to_owned(), options.cache_bytes)?;
        let mark = engine.state()?.mark()?;
        let (log, replayed) = if mark.log == 0 {
            (None, Replayed { overlay: Overlay::default(), sequence: mark.sequence })
        } else {
            let (log, replayed) = replay(&*medium, mark)?;
            (Some(log), replayed)
        };
        let next = replayed.sequence + 1;
        let frozen = (!replayed.overlay.is_empty()).then(|| Frozen {
            overlay: replayed.overlay,
            mark: Mark { sequence: replayed.sequence, ..mark },
        });
        let phase = Phase::Running(Arc::new(engine));
        let tiers = Self {
            content: RwLock::new(Content { phase, active: Overlay::default(), frozen }),
            appender: Mutex::new(Appender { log, next }),
            checkpoint: Mutex::new(()),
            medium,
            options,
        };
        {
            let mut appender = tiers.appender();
            if appender.log.is_none() {
                tiers.begin_log(&mut appender)?;
            }
        }
        Ok(tiers)
    }

    pub(super) fn medium(&self) -> &dyn Medium {
        &*self.medium
    }

    pub(super) fn appender(&self) -> MutexGuard<'_, Appender> {
        self.appender.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> RwLockReadGuard<'_, Content> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Content> {
        self.content.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state of now. A database that is away is opened first.
    pub(super) fn view(&self) -> Result<View, BackendError> {
        self.with_content(|content, engine| {
            let frozen = content.frozen.as_ref().map(|frozen| frozen.overlay.clone());
            View::new(content.active.clone(), frozen, Arc::clone(engine))
        })?
    }

    /// The value of a key.
    pub(super) fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        let outcome = self.with_content(|content, engine| {
            let frozen = content.frozen.as_ref().map(|frozen| &frozen.overlay);
            for overlay in [Some(&content.active), frozen].into_iter().flatten() {
                match overlay.get(bucket, key) {
                    Above::Value(value) => return Ok(Some(value.clone())),
                    Above::Absent => return Ok(None),
                    Above::Unknown => {}
                }
            }
            Err(Arc::clone(engine))
        })?;
        // What was in no overlay then is in the database since before.
        outcome.or_else(|engine| engine.latest()?.get(bucket, key))
    }

    fn with_content<A>(&self, ask: impl FnOnce(&Content, &Arc<Engine>) -> A) -> Result<A, BackendError> {
        self.engine()?;
        let content = self.read();
        match &content.phase {
            Phase::Running(engine) => Ok(ask(&content, engine)),
            Phase::Away { error, .. } | Phase::Contradicted { error } => Err(error.clone()),
        }
    }

    /// Bytes of the changes that the database does not have yet.
    pub(super) fn waiting_bytes(&self) -> usize {
        let content = self.read();
        content.active.bytes() + content.frozen.as_ref().map_or(0, |frozen| frozen.overlay.bytes())
    }

    pub(super) fn commit(&self, batch: WriteBatch) -> Result<Due, BackendError> {
        let mut appender = self.appender();
        self.engine()?;
        let length = frame::length(&batch) as u64;
        let fits = |log: &Log| length <= log.capacity();
        if appender.log.as_ref().is_some_and(fits) {
            if !appender.log.as_ref().is_some_and(|log| log.has_room(length)) {
                self.checkpoint()?;
                self.freeze(&mut appender);
            }
            if let Some(due) = self.append(&mut appender, &batch) {
                let mut content = self.write();
                for operation in batch {
                    content.active.apply(operation);
                }
                return Ok(due);
            }
        }
        self.commit_directly(&mut appender, &batch)?;
        Ok(Due::Nothing)
    }

    /// `None`: the log failed, and is given up.
    fn append(&self, appender: &mut Appender, batch: &WriteBatch) -> Option<Due> {
        let log = appender.log.as_mut()?;
        match log.append(appender.next, batch) {
            Ok(()) => {
                appender.next += 1;
                Some(if log.is_half_full() { Due::Now } else { Due::Soon })
            }
            Err(error) => {
                tracing::error!(path = %self.medium.path().display(), %error, "the log failed, and is given up");
                if let Err(error) = log.take_back() {
                    // The database will have a higher number, or the disk takes nothing any more.
                    tracing::error!(%error, "what was written last was not taken back");
                }
                appender.log = None;
                None
            }
        }
    }

    /// Makes the active overlay the frozen one, of which there must be none, and turns to the half of the log that is free.
    fn freeze(&self, appender: &mut Appender) {
        let mark = Mark { sequence: appender.next - 1, log: appender.log.as_ref().map_or(0, Log::salt) };
        if let Some(log) = &mut appender.log {
            log.turn();
        }
        let mut content = self.write();
        let overlay = std::mem::take(&mut content.active);
        if !overlay.is_empty() {
            content.frozen = Some(Frozen { overlay, mark });
        }
    }

    /// Has the active overlay written to the database, and the frozen one before it.
    pub(super) fn advance(&self) -> Result<(), BackendError> {
        self.checkpoint()?;
        {
            let mut appender = self.appender();
            // Another commit may have frozen it meanwhile, and one frozen overlay is enough.
            self.checkpoint()?;
            self.freeze(&mut appender);
        }
        self.checkpoint()
    }

    /// Writes the frozen overlay to the database. After an error it is still frozen, and in the log.
    fn checkpoint(&self) -> Result<(), BackendError> {
        let _one = self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(frozen) = self.read().frozen.clone() else { return Ok(()) };
        self.store(&frozen.overlay.to_batch(), frozen.mark, None)?;
        self.write().frozen = None;
        Ok(())
    }

    /// Leaves nothing in the log that the database does not have.
    fn flush(&self, appender: &mut Appender) -> Result<(), BackendError> {
        self.checkpoint()?;
        self.freeze(appender);
        self.checkpoint()
    }

    /// Commits a batch that the log does not take, and gets a new log if there is none.
    fn commit_directly(&self, appender: &mut Appender, batch: &WriteBatch) -> Result<(), BackendError> {
        self.flush(appender)?;
        let log = if appender.log.is_none() { self.create_log() } else { None };
        let salt = log.as_ref().or(appender.log.as_ref()).map_or(0, Log::salt);
        let sequence = appender.next;
        self.store(batch, Mark { sequence, log: salt }, Some(sequence))?;
        appender.next += 1;
        if log.is_some() {
            appender.log = log;
        }
        Ok(())
    }

    /// Makes a log where there is none. Without one it goes on, too.
    fn begin_log(&self, appender: &mut Appender) -> Result<(), BackendError> {
        let Some(log) = self.create_log() else { return Ok(()) };
        let mark = Mark { sequence: appender.next - 1, log: log.salt() };
        match self.store(&WriteBatch::new(), mark, None) {
            Ok(()) => appender.log = Some(log),
            Err(error @ BackendError::NoSpace { .. }) => {
                tracing::warn!(%error, "there is no room for a log");
                self.medium.remove_log();
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn create_log(&self) -> Option<Log> {
        let create = || -> Result<Log, BackendError> {
            let error = |error| io_error("create", self.medium.path())(error);
            let salt = getrandom::u64().map_err(|source| error(std::io::Error::other(source)))?.max(1);
            let disk = self.medium.create_log(self.options.log_bytes)?;
            Log::new(disk, salt).map_err(error)
        };
        create().inspect_err(|error| tracing::warn!(%error, "there is no log, and commits take longer")).ok()
    }

    /// The database that runs, opened again if it failed.
    fn engine(&self) -> Result<Arc<Engine>, BackendError> {
        if let Phase::Running(engine) = &self.read().phase {
            return Ok(Arc::clone(engine));
        }
        let mut content = self.write();
        match &content.phase {
            Phase::Running(engine) => Ok(Arc::clone(engine)),
            Phase::Contradicted { error } => Err(error.clone()),
            Phase::Away { error, doubt } => {
                let error = error.clone();
                let engine = self.reopen().map_err(|_| error.clone())?;
                let sequence = engine.state()?.mark()?.sequence;
                if doubt.is_some_and(|doubt| sequence >= doubt) {
                    tracing::error!(path = %self.medium.path().display(), "a refused write is in the store: start the server again");
                    content.phase = Phase::Contradicted { error: error.clone() };
                    return Err(error);
                }
                let engine = Arc::new(engine);
                content.phase = Phase::Running(Arc::clone(&engine));
                Ok(engine)
            }
        }
    }

    fn reopen(&self) -> Result<Engine, BackendError> {
        Engine::open(self.medium.open()?, self.medium.path().to_owned(), self.options.cache_bytes)
    }

    /// Writes a batch to the database. If that fails, the database is opened again at once, which tells whether the batch got
    /// there; what has to be doubted if that fails, too, is `doubt`.
    fn store(&self, batch: &WriteBatch, mark: Mark, doubt: Option<u64>) -> Result<(), BackendError> {
        let engine = self.engine()?;
        let Err(error) = engine.commit(batch, mark) else { return Ok(()) };
        tracing::error!(path = %self.medium.path().display(), %error, "a write failed, the database is opened again");
        let mut content = self.write();
        engine.fence();
        let settle = || -> Result<(Engine, bool), BackendError> {
            let engine = self.reopen()?;
            let landed = engine.state()?.mark()? == mark;
            if landed {
                // What is in the file's cache need not be on the disk after a failed sync: written again, it is.
                engine.commit(batch, mark)?;
            }
            Ok((engine, landed))
        };
        let Ok((engine, landed)) = settle() else {
            content.phase = Phase::Away { error: error.clone(), doubt };
            return Err(error);
        };
        content.phase = Phase::Running(Arc::new(engine));
        if landed { Ok(()) } else { Err(error) }
    }

    /// Copies the database into a new file that takes its place; see [`super::Store::defragment`].
    pub(super) fn defragment(&self) -> Result<(), BackendError> {
        let mut appender = self.appender();
        self.flush(&mut appender)?;
        let engine = self.engine()?;
        let path = self.medium.path().to_owned();
        let copy = self
            .medium
            .begin()
            .and_then(|disk| engine.copy_to(disk, path, self.options.cache_bytes))
            .inspect_err(|_| self.medium.discard())?;
        let mut content = self.write();
        if let Err(error) = self.medium.replace() {
            // Either file may have the name now: whatever is opened has all that was committed.
            engine.fence();
            copy.fence();
            content.phase = Phase::Away { error: error.clone(), doubt: None };
            return Err(error);
        }
        content.phase = Phase::Running(Arc::new(copy));
        Ok(())
    }

    /// Leaves everything in the database, and no log.
    pub(super) fn close(&self) -> Result<(), BackendError> {
        let mut appender = self.appender();
        self.flush(&mut appender)?;
        if appender.log.is_some() {
            let mark = Mark { sequence: appender.next - 1, log: 0 };
            self.store(&WriteBatch::new(), mark, None)?;
            appender.log = None;
            self.medium.remove_log();
        }
        Ok(())
    }
}

fn replay(medium: &dyn Medium, mark: Mark) -> Result<(Log, Replayed), BackendError> {
    let Some(disk) = medium.open_log()? else {
        return Err(BackendError::Format {
            path: medium.path().to_owned(),
            found: format!("writes in a {} that is not there", StoreFile::LOG),
            supported: "both files together".to_owned(),
        });
    };
    let failed = |error| io_error("read the log of", medium.path())(error);
    let mut log = Log::new(disk, mark.log).map_err(failed)?;
    match log.replay(mark.sequence) {
        Ok(replayed) => {
            if !replayed.overlay.is_empty() {
                // Both halves may be in use.
                log.fill();
            }
            Ok((log, replayed))
        }
        Err(ReplayError::Io(error)) => Err(failed(error)),
        Err(error) => Err(BackendError::Engine {
            action: "read the log of",
            path: medium.path().to_owned(),
            source: Arc::new(error),
        }),
    }
}
