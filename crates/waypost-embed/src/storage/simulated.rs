//! A disk that loses power, fills up and fails to sync.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use crate::backend::BackendError;
use crate::storage::error::io_error;
use crate::storage::medium::{Disk, Medium};

/// Bytes that a disk writes whole or not at all.
const SECTOR: usize = 512;
/// Bytes that a file system gives at once.
const BLOCK: u64 = 4096;

/// A medium in memory, whose content can be taken as after a loss of power.
#[derive(Clone, Debug, Default)]
pub(crate) struct Simulated {
    file: Arc<Mutex<Bytes>>,
    begun: Arc<Mutex<Bytes>>,
    faults: Arc<Mutex<Faults>>,
}

/// One file: what programs see, and what the disk has.
#[derive(Clone, Debug, Default)]
struct Bytes {
    cached: Vec<u8>,
    durable: Vec<u8>,
    /// Since the last sync, in order.
    pending: Vec<Change>,
    blocks: BTreeSet<u64>,
}

#[derive(Clone, Debug)]
enum Change {
    Length(usize),
    Write(usize, Vec<u8>),
}

#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Changes and syncs so far.
    pub(crate) operations: u64,
    pub(crate) syncs: u64,
    /// The power goes at this operation, and all that follow fail.
    pub(crate) power_until: Option<u64>,
    /// Syncs that fail from now on.
    pub(crate) failing_syncs: u32,
    /// Blocks that there are.
    pub(crate) blocks: Option<usize>,
}

/// One of the files, open.
#[derive(Debug)]
struct Open {
    file: Arc<Mutex<Bytes>>,
    faults: Arc<Mutex<Faults>>,
}

/// splitmix64.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Simulated ===

impl Simulated {
    pub(crate) fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }

    /// The disk as it is found when the power is back: of what was not synced, any sectors and none.
    pub(crate) fn after_power_loss(&self, random: &mut Random) -> Self {
        let file = lock(&self.file);
        let mut image = file.durable.clone();
        let odds = [0, 10, 50, 90, 100][random.below(5)];
        for change in &file.pending {
            match change {
                Change::Length(length) if random.below(100) < odds => image.resize(*length, 0),
                Change::Length(_) => {}
                Change::Write(at, data) => {
                    for (index, sector) in data.chunks(SECTOR).enumerate() {
                        if random.below(100) < odds {
                            put(&mut image, at + index * SECTOR, sector);
                        }
                    }
                }
            }
        }
        let bytes = Bytes { cached: image.clone(), durable: image, ..Bytes::default() };
        Self { file: Arc::new(Mutex::new(bytes)), ..Self::default() }
    }
}

fn put(image: &mut Vec<u8>, at: usize, data: &[u8]) {
    if image.len() < at + data.len() {
        image.resize(at + data.len(), 0);
    }
    image[at..at + data.len()].copy_from_slice(data);
}

impl Medium for Simulated {
    fn path(&self) -> &Path {
        Path::new("simulated")
    }

    fn open(&self) -> Result<Disk, BackendError> {
        Ok(Disk::new(Box::new(Open { file: Arc::clone(&self.file), faults: Arc::clone(&self.faults) })))
    }

    fn begin(&self) -> Result<Disk, BackendError> {
        *lock(&self.begun) = Bytes::default();
        Ok(Disk::new(Box::new(Open { file: Arc::clone(&self.begun), faults: Arc::clone(&self.faults) })))
    }

    fn replace(&self) -> Result<(), BackendError> {
        self.faults().operation().map_err(io_error("replace", self.path()))?;
        *lock(&self.file) = lock(&self.begun).clone();
        Ok(())
    }

    fn discard(&self) {
        *lock(&self.begun) = Bytes::default();
    }

    fn bytes(&self) -> Result<u64, BackendError> {
        Ok(lock(&self.file).cached.len() as u64)
    }
}

// === impl Faults ===

impl Faults {
    fn operation(&mut self) -> io::Result<()> {
        self.operations += 1;
        match self.power_until {
            Some(last) if self.operations > last => Err(io::Error::other("the power is gone")),
            _ => Ok(()),
        }
    }
}

impl StorageBackend for Open {
    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.file).cached.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        let file = lock(&self.file);
        out.copy_from_slice(file.cached.get(at..at + out.len()).ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        lock(&self.faults).operation()?;
        let length = usize::try_from(length).unwrap();
        let mut file = lock(&self.file);
        file.cached.resize(length, 0);
        file.pending.push(Change::Length(length));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut faults = lock(&self.faults);
        faults.operation()?;
        faults.syncs += 1;
        if faults.failing_syncs > 0 {
            faults.failing_syncs -= 1;
            return Err(io::Error::other("the sync failed"));
        }
        let mut file = lock(&self.file);
        for change in std::mem::take(&mut file.pending) {
            match change {
                Change::Length(length) => file.durable.resize(length, 0),
                Change::Write(at, data) => put(&mut file.durable, at, &data),
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut faults = lock(&self.faults);
        faults.operation()?;
        let mut file = lock(&self.file);
        for block in offset / BLOCK..(offset + data.len() as u64).div_ceil(BLOCK) {
            if faults.blocks.is_some_and(|blocks| file.blocks.len() >= blocks)
                && !file.blocks.contains(&block)
            {
                return Err(ErrorKind::StorageFull.into());
            }
            file.blocks.insert(block);
        }
        let at = usize::try_from(offset).unwrap();
        put(&mut file.cached, at, data);
        file.pending.push(Change::Write(at, data.to_vec()));
        Ok(())
    }
}

// === impl Random ===

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}
