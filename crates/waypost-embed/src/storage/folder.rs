//! The folder of a store: one process has it, and it is ours.

use std::fs::{self, DirEntry, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::backend::BackendError;
use crate::server::SOCKET;
use crate::storage::error::io_error;
use crate::storage::medium::{StoreFile, sync_folder};

/// A folder that this process has for itself, until this is dropped or the process ends in whatever way.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    // Held, not read: the system gives the lock up with the descriptor.
    _lock: File,
}

const LOCK: &str = "lock";

// === impl Folder ===

impl Folder {
    /// Creates the folder if there is none, and locks it.
    pub(crate) fn lock(path: &Path) -> Result<Self, BackendError> {
        create(path).map_err(io_error("create", path))?;
        let file = path.join(LOCK);
        let lock = File::options().read(true).write(true).create(true).truncate(false).open(&file);
        let lock = lock.map_err(io_error("open", &file))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(BackendError::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(error)) => Err(io_error("lock", &file)(error)),
        }
    }

    /// Whether there is a store. A folder without one must hold nothing of anybody else.
    pub(crate) fn has_store(&self) -> Result<bool, BackendError> {
        let mut foreign = None;
        for entry in fs::read_dir(&self.path).map_err(io_error("read", &self.path))? {
            let entry = entry.map_err(io_error("read", &self.path))?;
            if entry.file_name() == StoreFile::NAME {
                return Ok(true);
            }
            if !is_harmless(&entry) {
                foreign = Some(entry.file_name());
            }
        }
        match foreign {
            None => Ok(false),
            Some(name) => Err(BackendError::Format {
                path: self.path.clone(),
                found: format!("files of something else ({})", name.display()),
                supported: format!("a folder with {}, or an empty one", StoreFile::NAME),
            }),
        }
    }
}

/// Creates a folder and those above it, and makes them last.
fn create(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|folder| !folder.exists()).collect();
    fs::create_dir_all(path)?;
    for folder in missing {
        match folder.parent() {
            Some(parent) if parent != Path::new("") => sync_folder(parent)?,
            _ => sync_folder(Path::new("."))?,
        }
    }
    Ok(())
}

/// Ours, hidden, or what a file system puts at its root.
fn is_harmless(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    name == LOCK
        || name == StoreFile::BEGUN
        || name == StoreFile::LOG
        || name == StoreFile::LOG_BEGUN
        || name == SOCKET
        || name == "lost+found"
        || name.as_encoded_bytes().starts_with(b".")
}
