//! redb as a store of etcd's buckets: one table a bucket, one transaction a batch.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use redb::{
    Builder, Database, Durability, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, Table,
    TableDefinition, TableError, WriteTransaction,
};

use crate::backend::{BackendError, Bucket, Operation, Visit, WriteBatch};
use crate::storage::error::engine_error;
use crate::storage::medium::{Disk, Fence};
use crate::storage::overlay::bounds;

/// What [`RECORD`] says of the tables' content. A program reads no newer one.
const FORMAT: u64 = 2;
/// Without a log.
const FORMAT_1: u64 = 1;
/// About the store itself: [`FORMAT`], bytes of all keys and values, and what is in the log.
const RECORD: TableDefinition<'static, &str, u64> = TableDefinition::new("waypost");
const RECORD_FORMAT: &str = "format";
const RECORD_BYTES: &str = "bytes";
const RECORD_SEQUENCE: &str = "sequence";
const RECORD_LOG: &str = "log";
/// The first bytes of every file of redb.
const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";

type Entries<'a> = Table<'a, &'static [u8], &'static [u8]>;

/// An open database.
#[derive(Debug)]
pub(crate) struct Engine {
    latest: RwLock<Latest>,
    // After the state, which ends first.
    database: Database,
    fence: Fence,
    path: PathBuf,
}

/// The newest state. A state keeps pages from being used again, so none is kept across a commit.
#[derive(Debug, Default)]
struct Latest {
    committing: bool,
    /// Once it has been asked for.
    state: Option<Arc<State>>,
}

/// Where a database stands among the batches of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The last batch that is in it, with all before.
    pub(crate) sequence: u64,
    /// Salt of the log that has the batches after that; 0: there is no log, and no such batch.
    pub(crate) log: u64,
}

/// A state of the database that later commits do not change.
pub(crate) struct State {
    transaction: ReadTransaction,
    /// The bucket that nearly all reads are of.
    keys: ReadOnlyTable<&'static [u8], &'static [u8]>,
    pub(crate) path: PathBuf,
}

/// The tables of a write transaction, opened when they are first written.
struct Tables<'a> {
    transaction: &'a WriteTransaction,
    open: BTreeMap<Bucket, Entries<'a>>,
    added: u64,
    removed: u64,
}

fn table(bucket: Bucket) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(bucket.name())
}

// === impl Engine ===

impl Engine {
    /// Makes an empty database with all tables. It is durable when this returns.
    pub(crate) fn create(disk: Disk, path: PathBuf, cache: usize) -> Result<Self, BackendError> {
        let engine = Self::start(disk, path, cache)?;
        let error = |error: redb::Error| engine_error("create", &engine.path)(error);
        let create = || -> Result<(), redb::Error> {
            let transaction = engine.database.begin_write()?;
            for bucket in Bucket::ALL {
                transaction.open_table(table(bucket))?;
            }
            let mut record = transaction.open_table(RECORD)?;
            record.insert(RECORD_FORMAT, FORMAT)?;
            for zero in [RECORD_BYTES, RECORD_SEQUENCE, RECORD_LOG] {
                record.insert(zero, 0)?;
            }
            drop(record);
            Ok(transaction.commit()?)
        };
        create().map_err(error)?;
        Ok(engine)
    }

    /// Opens a database that [`create`](Self::create) has made. One that was not closed is repaired first, which reads all
    /// of it.
    pub(crate) fn open(disk: Disk, path: PathBuf, cache: usize) -> Result<Self, BackendError> {
        let mut magic = [0; MAGIC.len()];
        let found = redb::StorageBackend::read(&disk, 0, &mut magic);
        if found.is_err() || magic != MAGIC {
            let (found, supported) = ("no database of redb".to_owned(), "one".to_owned());
            return Err(BackendError::Format { path, found, supported });
        }
        let engine = Self::start(disk, path, cache)?;
        let read = || -> Result<Option<u64>, redb::Error> {
            match engine.database.begin_read()?.open_table(RECORD) {
                Ok(record) => Ok(record.get(RECORD_FORMAT)?.map(|format| format.value())),
                Err(TableError::TableDoesNotExist(_) | TableError::TableTypeMismatch { .. }) => Ok(None),
                Err(error) => Err(error.into()),
            }
        };
        let found = match read().map_err(engine_error("read", &engine.path))? {
            Some(FORMAT_1 | FORMAT) => return Ok(engine),
            Some(format) => format!("format {format}"),
            None => "the database of another program".to_owned(),
        };
        Err(BackendError::Format { path: engine.path, found, supported: format!("formats 1 to {FORMAT}") })
    }

    fn start(disk: Disk, path: PathBuf, cache: usize) -> Result<Self, BackendError> {
        let fence = disk.fence();
        let database = Builder::new().set_cache_size(cache).create_with_backend(disk);
        let database = database.map_err(engine_error("open", &path))?;
        Ok(Self { latest: RwLock::default(), database, fence, path })
    }

    /// Ends reading and writing for good, also of the states that were taken of it.
    pub(crate) fn fence(&self) {
        self.fence.close();
    }

    pub(crate) fn state(&self) -> Result<State, BackendError> {
        let begin = || -> Result<State, redb::Error> {
            let transaction = self.database.begin_read()?;
            let keys = transaction.open_table(table(Bucket::Key))?;
            Ok(State { transaction, keys, path: self.path.clone() })
        };
        begin().map_err(engine_error("read", &self.path))
    }

    /// The state after the last commit, shared by all who ask between two. Not to be kept.
    pub(crate) fn latest(&self) -> Result<Arc<State>, BackendError> {
        if let Some(state) = &self.latest.read().unwrap_or_else(PoisonError::into_inner).state {
            return Ok(Arc::clone(state));
        }
        let mut latest = self.latest.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = &latest.state {
            return Ok(Arc::clone(state));
        }
        // Begun under the lock that a commit takes at its end, so that what is kept after that has the commit.
        let state = Arc::new(self.state()?);
        if !latest.committing {
            latest.state = Some(Arc::clone(&state));
        }
        Ok(state)
    }

    /// A commit begins or ends.
    fn set_committing(&self, committing: bool) {
        *self.latest.write().unwrap_or_else(PoisonError::into_inner) = Latest { committing, state: None };
    }

    /// Writes a batch and where the database then stands, with one sync of the file. The format is that of a mark then.
    pub(crate) fn commit(&self, batch: &WriteBatch, mark: Mark) -> Result<(), BackendError> {
        self.set_committing(true);
        let outcome = self.try_commit(batch, mark);
        self.set_committing(false);
        outcome.map_err(engine_error("write", &self.path))
    }

    fn try_commit(&self, batch: &WriteBatch, mark: Mark) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        let mut tables = Tables { transaction: &transaction, open: BTreeMap::new(), added: 0, removed: 0 };
        for operation in batch {
            tables.apply(operation)?;
        }
        let (added, removed) = (tables.added, tables.removed);
        drop(tables);
        let mut record = transaction.open_table(RECORD)?;
        let bytes = record.get(RECORD_BYTES)?.map_or(0, |bytes| bytes.value());
        record.insert(RECORD_BYTES, bytes.saturating_add(added).saturating_sub(removed))?;
        record.insert(RECORD_FORMAT, FORMAT)?;
        record.insert(RECORD_SEQUENCE, mark.sequence)?;
        record.insert(RECORD_LOG, mark.log)?;
        drop(record);
        Ok(transaction.commit()?)
    }

    /// Copies everything into a new database on `disk`, leaf by leaf in order.
    pub(crate) fn copy_to(&self, disk: Disk, path: PathBuf, cache: usize) -> Result<Self, BackendError> {
        let copy = Self::create(disk, path, cache)?;
        let state = self.state()?;
        let error = |error: redb::Error| engine_error("write", &copy.path)(error);
        let transaction = copy.database.begin_write().map_err(|source| error(source.into()))?;
        for bucket in Bucket::ALL {
            let mut to = transaction.open_table(table(bucket)).map_err(|source| error(source.into()))?;
            let mut outcome = Ok(());
            state.scan(bucket, &[], &[], &mut |key, value| {
                outcome = to.insert(key, value).map(drop);
                if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            outcome.map_err(|source| error(source.into()))?;
        }
        let finish = || -> Result<(), redb::Error> {
            let mut record = transaction.open_table(RECORD)?;
            for name in [RECORD_BYTES, RECORD_SEQUENCE, RECORD_LOG] {
                record.insert(name, state.recorded(name)?)?;
            }
            drop(record);
            Ok(transaction.commit()?)
        };
        finish().map_err(error)?;
        Ok(copy)
    }
}

// === impl State ===

impl State {
    pub(crate) fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        let get = || -> Result<Option<Bytes>, redb::Error> {
            let value = match bucket {
                Bucket::Key => self.keys.get(key)?,
                _ => self.transaction.open_table(table(bucket))?.get(key)?,
            };
            Ok(value.map(|value| Bytes::copy_from_slice(value.value())))
        };
        get().map_err(engine_error("read", &self.path))
    }

    pub(crate) fn scan(
        &self,
        bucket: Bucket,
        from: &[u8],
        to: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), BackendError> {
        let Some(range) = bounds(from, to) else { return Ok(()) };
        let mut scan = || -> Result<(), redb::Error> {
            let table = self.transaction.open_table(table(bucket))?;
            for entry in table.range::<&[u8]>(range)? {
                let (key, value) = entry?;
                if visit(key.value(), value.value()).is_break() {
                    break;
                }
            }
            Ok(())
        };
        scan().map_err(engine_error("read", &self.path))
    }

    /// Bytes of all keys and values.
    pub(crate) fn bytes(&self) -> Result<u64, BackendError> {
        self.recorded(RECORD_BYTES).map_err(engine_error("read", &self.path))
    }

    pub(crate) fn mark(&self) -> Result<Mark, BackendError> {
        let read = || -> Result<Mark, redb::Error> {
            Ok(Mark { sequence: self.recorded(RECORD_SEQUENCE)?, log: self.recorded(RECORD_LOG)? })
        };
        read().map_err(engine_error("read", &self.path))
    }

    /// 0 of what a database of format 1 does not have.
    fn recorded(&self, name: &str) -> Result<u64, redb::Error> {
        let record = self.transaction.open_table(RECORD)?;
        Ok(record.get(name)?.map_or(0, |value| value.value()))
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("path", &self.path).finish_non_exhaustive()
    }
}

// === impl Tables ===

impl<'a> Tables<'a> {
    fn apply(&mut self, operation: &Operation) -> Result<(), redb::Error> {
        match operation {
            Operation::Put { bucket, key, value } => {
                let old = self.table(*bucket)?.insert(&key[..], &value[..])?;
                let old = old.map(|old| old.value().len());
                self.added += value.len() as u64 + if old.is_none() { key.len() as u64 } else { 0 };
                self.removed += old.unwrap_or(0) as u64;
            }
            Operation::Delete { bucket, key } => {
                let old = self.table(*bucket)?.remove(&key[..])?;
                let old = old.map(|old| key.len() + old.value().len());
                self.removed += old.unwrap_or(0) as u64;
            }
            Operation::DeleteRange { bucket, from, to } => {
                let Some(range) = bounds(from, to) else { return Ok(()) };
                let mut removed = 0;
                self.table(*bucket)?.retain_in::<&[u8], _>(range, |key, value| {
                    removed += (key.len() + value.len()) as u64;
                    false
                })?;
                self.removed += removed;
            }
        }
        Ok(())
    }

    fn table(&mut self, bucket: Bucket) -> Result<&mut Entries<'a>, redb::Error> {
        use std::collections::btree_map::Entry;
        match self.open.entry(bucket) {
            Entry::Occupied(open) => Ok(open.into_mut()),
            Entry::Vacant(closed) => Ok(closed.insert(self.transaction.open_table(table(bucket))?)),
        }
    }
}
