//! Where the bytes of a store are: a file, and in tests a disk that fails.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::StorageBackend;
use redb::backends::FileBackend;

use crate::backend::BackendError;
use crate::storage::error::io_error;

/// The place of one store's bytes.
pub(crate) trait Medium: Send + Sync + Debug {
    /// What errors name.
    fn path(&self) -> &Path;

    /// Opens the bytes that are there.
    fn open(&self) -> Result<Disk, BackendError>;

    /// An empty place beside them, replacing one that was begun earlier.
    fn begin(&self) -> Result<Disk, BackendError>;

    /// Makes what was begun the store, atomically and durably. After an error it is not known which of the two is.
    fn replace(&self) -> Result<(), BackendError>;

    /// Removes what was begun.
    fn discard(&self);

    /// Bytes that are taken, but for the log.
    fn bytes(&self) -> Result<u64, BackendError>;

    /// The log that is there.
    fn open_log(&self) -> Result<Option<Disk>, BackendError>;

    /// An empty log of this length, whose space is taken, in place of one that is there. It is durable when this returns.
    fn create_log(&self, bytes: u64) -> Result<Disk, BackendError>;

    /// Removes the log.
    fn remove_log(&self);
}

/// The file of a store in its folder.
#[derive(Debug)]
pub(crate) struct StoreFile {
    folder: PathBuf,
    path: PathBuf,
    begun: PathBuf,
    log: PathBuf,
    log_begun: PathBuf,
}

/// Bytes that an engine reads and writes, until they are fenced off.
#[derive(Debug)]
pub(crate) struct Disk {
    bytes: Box<dyn StorageBackend>,
    fence: Fence,
}

/// Ends all reading and writing through one [`Disk`]: an engine that failed must not touch what its successor has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fence(Arc<AtomicBool>);

/// Makes the names in a folder last.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

// === impl StoreFile ===

impl StoreFile {
    pub(crate) const NAME: &str = "waypost.redb";
    pub(crate) const BEGUN: &str = "waypost.redb.new";
    pub(crate) const LOG: &str = "waypost.log";
    pub(crate) const LOG_BEGUN: &str = "waypost.log.new";

    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            path: folder.join(Self::NAME),
            begun: folder.join(Self::BEGUN),
            log: folder.join(Self::LOG),
            log_begun: folder.join(Self::LOG_BEGUN),
        }
    }

    fn sync_folder(&self) -> Result<(), BackendError> {
        sync_folder(&self.folder).map_err(io_error("write", &self.folder))
    }
}

impl Medium for StoreFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self) -> Result<Disk, BackendError> {
        // The name of the file must last before anything is acknowledged that is in it.
        self.sync_folder()?;
        let file = File::options().read(true).write(true).open(&self.path);
        Disk::of(file, "open", &self.path)
    }

    fn begin(&self) -> Result<Disk, BackendError> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&self.begun);
        Disk::of(file, "create", &self.begun)
    }

    fn replace(&self) -> Result<(), BackendError> {
        fs::rename(&self.begun, &self.path).map_err(io_error("replace", &self.path))?;
        self.sync_folder()
    }

    fn discard(&self) {
        remove(&self.begun);
    }

    fn bytes(&self) -> Result<u64, BackendError> {
        let metadata = fs::metadata(&self.path).map_err(io_error("read", &self.path))?;
        Ok(metadata.len())
    }

    fn open_log(&self) -> Result<Option<Disk>, BackendError> {
        match File::options().read(true).write(true).open(&self.log) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            file => Disk::of(file, "open", &self.log).map(Some),
        }
    }

    fn create_log(&self, bytes: u64) -> Result<Disk, BackendError> {
        let create = || -> io::Result<File> {
            let mut options = File::options();
            let file = options.read(true).write(true).create(true).truncate(true).open(&self.log_begun)?;
            take_space(&file, bytes)?;
            file.sync_all()?;
            fs::rename(&self.log_begun, &self.log)?;
            sync_folder(&self.folder)?;
            Ok(file)
        };
        Disk::of(create(), "create", &self.log).inspect_err(|_| remove(&self.log_begun))
    }

    fn remove_log(&self) {
        remove(&self.log);
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "a file that is not needed stays behind");
    }
}

/// Takes space from the disk for all of a file, so that to write it later cannot fail for want of it.
fn take_space(file: &File, bytes: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use nix::errno::Errno;
        use nix::fcntl::{FallocateFlags, fallocate};
        let length = bytes.try_into().map_err(io::Error::other)?;
        match fallocate(file, FallocateFlags::empty(), 0, length) {
            // What the file system cannot do is done below.
            Err(Errno::EOPNOTSUPP) => {}
            outcome => return outcome.map_err(io::Error::from),
        }
    }
    let mut left = file;
    io::copy(&mut io::Read::take(io::repeat(0), bytes), &mut left).map(drop)
}

// === impl Disk ===

impl Disk {
    pub(crate) fn new(bytes: Box<dyn StorageBackend>) -> Self {
        Self { bytes, fence: Fence::default() }
    }

    pub(crate) fn fence(&self) -> Fence {
        self.fence.clone()
    }

    fn of(file: io::Result<File>, action: &'static str, path: &Path) -> Result<Self, BackendError> {
        let file = file.map_err(io_error(action, path))?;
        let bytes = FileBackend::new(file).map_err(super::error::engine_error(action, path))?;
        Ok(Self::new(Box::new(bytes)))
    }

    fn bytes(&self) -> io::Result<&dyn StorageBackend> {
        if self.fence.0.load(Ordering::Acquire) {
            return Err(io::Error::other("the store was reopened after a failure"));
        }
        Ok(&*self.bytes)
    }
}

/// Locks are not passed on: the folder's lock keeps other processes out, and a successor must be able to open the file.
impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.bytes()?.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.bytes()?.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.bytes()?.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.bytes()?.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.bytes()?.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.bytes.close()
    }
}

// === impl Fence ===

impl Fence {
    pub(crate) fn close(&self) {
        self.0.store(true, Ordering::Release);
    }
}
