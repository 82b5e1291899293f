//! What the system and the engine report, as the backend's errors.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use crate::backend::BackendError;

/// An error of the system while doing `action` to `path`.
pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BackendError {
    move |source| match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            BackendError::NoSpace { path: path.to_owned(), source: Arc::new(source) }
        }
        _ => BackendError::Io { action, path: path.to_owned(), source: Arc::new(source) },
    }
}

/// An error of the engine while doing `action` to `path`.
pub(crate) fn engine_error<E: Into<redb::Error>>(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(E) -> BackendError {
    move |error| match error.into() {
        redb::Error::Io(source) => io_error(action, path)(source),
        redb::Error::UpgradeRequired(version) => BackendError::Format {
            path: path.to_owned(),
            found: format!("version {version} of redb's file format"),
            supported: "version 3".to_owned(),
        },
        source => BackendError::Engine { action, path: path.to_owned(), source: Arc::new(source) },
    }
}
