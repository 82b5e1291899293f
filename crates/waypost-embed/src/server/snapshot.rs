//! A snapshot as etcd's clients save it: a bbolt database in pieces, and its SHA-256.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::path::Path;

use bytes::Bytes;

use crate::bolt::{self, seal};
use crate::storage::Store;

/// Bytes of a piece at most.
const PIECE: usize = 32 << 10;

/// Why a snapshot was not finished.
#[derive(Debug, thiserror::Error)]
pub(super) enum SnapshotError {
    #[error("cannot write a snapshot in {folder}")]
    Io { folder: String, source: io::Error },
    #[error(transparent)]
    Copy(#[from] bolt::CopyError),
}

/// Gives the pieces to `send`, each with the number of bytes of the database that follow it, until it says `false`.
pub(super) fn write(store: &Store, mut send: impl FnMut(u64, Bytes) -> bool) -> Result<(), SnapshotError> {
    // A file without a name, on the disk that has room for the store.
    let folder = store.path().parent().unwrap_or_else(|| Path::new("."));
    let failed = |source| SnapshotError::Io { folder: folder.display().to_string(), source };
    let view = store.view().map_err(bolt::CopyError::from)?;
    let (mut file, summary): (File, _) = bolt::export(&view, tempfile::tempfile_in(folder).map_err(failed)?)?;
    drop(view);
    file.rewind().map_err(failed)?;
    let mut hash = seal::Hash::default();
    let mut remaining = summary.bytes;
    while remaining > 0 {
        let length = usize::try_from(remaining).unwrap_or(PIECE).min(PIECE);
        let mut piece = vec![0; length];
        file.read_exact(&mut piece).map_err(failed)?;
        hash.update(&piece);
        remaining -= length as u64;
        if !send(remaining, Bytes::from(piece)) {
            return Ok(());
        }
    }
    send(0, Bytes::copy_from_slice(&hash.finish()));
    Ok(())
}
