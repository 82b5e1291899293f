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
    names: Arc<Mutex<Names>>,
    faults: Arc<Mutex<Faults>>,
}

/// Which file has which name. One that lost its name stays for those who have it open.
#[derive(Debug, Default)]
struct Names {
    file: Arc<Mutex<Bytes>>,
    begun: Arc<Mutex<Bytes>>,
    log: Option<Arc<Mutex<Bytes>>>,
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

    fn names(&self) -> MutexGuard<'_, Names> {
        lock(&self.names)
    }

    fn disk(&self, file: &Arc<Mutex<Bytes>>) -> Disk {
        Disk::new(Box::new(Open { file: Arc::clone(file), faults: Arc::clone(&self.faults) }))
    }

    /// The disk as it is found when the power is back: of what was not synced, any sectors and none.
    pub(crate) fn after_power_loss(&self, random: &mut Random) -> Self {
        let names = self.names();
        let file = lock(&names.file).after_power_loss(random);
        let log = names.log.as_ref().map(|log| lock(log).after_power_loss(random));
        let names = Names {
            file: Arc::new(Mutex::new(file)),
            log: log.map(|log| Arc::new(Mutex::new(log))),
            ..Names::default()
        };
        Self { names: Arc::new(Mutex::new(names)), ..Self::default() }
    }

    /// Changes a byte of the log, as a disk does that forgets.
    pub(crate) fn damage_log(&self, at: usize) {
        let names = self.names();
        let mut log = lock(names.log.as_ref().unwrap());
        log.cached[at] ^= 0xff;
        log.durable[at] ^= 0xff;
    }

    pub(crate) fn has_log(&self) -> bool {
        self.names().log.is_some()
    }
}

// === impl Bytes ===

impl Bytes {
    fn after_power_loss(&self, random: &mut Random) -> Self {
        let mut image = self.durable.clone();
        let odds = [0, 10, 50, 90, 100][random.below(5)];
        for change in &self.pending {
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
        let blocks = (0..(image.len() as u64).div_ceil(BLOCK)).collect();
        Self { cached: image.clone(), durable: image, pending: Vec::new(), blocks }
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
        Ok(self.disk(&self.names().file))
    }

    fn begin(&self) -> Result<Disk, BackendError> {
        let mut names = self.names();
        names.begun = Arc::default();
        Ok(self.disk(&names.begun))
    }

    fn replace(&self) -> Result<(), BackendError> {
        self.faults().operation().map_err(io_error("replace", self.path()))?;
        let mut names = self.names();
        names.file = std::mem::take(&mut names.begun);
        Ok(())
    }

    fn discard(&self) {
        self.names().begun = Arc::default();
    }

    fn bytes(&self) -> Result<u64, BackendError> {
        Ok(lock(&self.names().file).cached.len() as u64)
    }

    fn open_log(&self) -> Result<Option<Disk>, BackendError> {
        Ok(self.names().log.as_ref().map(|log| self.disk(log)))
    }

    fn create_log(&self, bytes: u64) -> Result<Disk, BackendError> {
        let mut faults = self.faults();
        faults.operation().map_err(io_error("create", self.path()))?;
        if faults.blocks.is_some() {
            return Err(io_error("create", self.path())(ErrorKind::StorageFull.into()));
        }
        let length = usize::try_from(bytes).unwrap();
        let content = vec![0; length];
        let log = Arc::new(Mutex::new(Bytes {
            cached: content.clone(),
            durable: content,
            pending: Vec::new(),
            blocks: (0..bytes.div_ceil(BLOCK)).collect(),
        }));
        drop(faults);
        self.names().log = Some(Arc::clone(&log));
        Ok(self.disk(&log))
    }

    fn remove_log(&self) {
        if self.faults().operation().is_ok() {
            self.names().log = None;
        }
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
