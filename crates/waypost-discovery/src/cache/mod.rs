//! The disk cache: the last set of each scope, so that a process that starts while etcd is away has one to serve.
//!
//! # Format
//!
//! One JSON file per scope, layouts and prefixes, in the directory that
//! [`DiscoveryOptions::cache_dir`](crate::DiscoveryOptions::cache_dir) names. It is called
//! `{scope}@{layout}={prefix},….json`, where the scope is `service.` and the name, or `catalog`; every byte but ASCII
//! letters, digits and `._-=,@` is percent-encoded. Names over 200 bytes are cut there and get `~` and the FNV-1a hash
//! (64 bits, hexadecimal) of the whole name.
//!
//! ```json
//! {
//!   "format": "waypost-discovery-cache",
//!   "version": 1,
//!   "service": "greeter",
//!   "layouts": [{"name": "grpc", "prefix": "services"}],
//!   "revision": 17,
//!   "written": 1767225600,
//!   "instances": [
//!     {"service": "greeter", "id": "10.0.0.1:50051", "layout": 0, "lease": 7587862094531234567, "instance": {
//!       "service": "greeter", "id": "10.0.0.1:50051", "endpoints": ["grpc://10.0.0.1:50051"], "weight": 100,
//!       "zone": null, "version": null, "status": "up", "metadata": {}}}
//!   ]
//! }
//! ```
//!
//! `service` is null for the catalog; `written` is in seconds since 1970; `layout` is an index in `layouts`; `service`
//! and `id` of an entry are those of its key in etcd; `instance` is the JSON form of
//! [`Instance`]. Unknown fields are ignored.
//!
//! Only what was live is written: the newest set at most once a second, and the last one when the set is no longer
//! watched. A file is replaced as a whole (written beside it, synced, renamed), so that a crash leaves the old one or
//! the new one. A file that cannot be read, is not in this format, of a newer version, or of another scope or other
//! layouts is named in a warning and not used.

mod file;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::JoinHandle;
use tokio::time::Instant;
use waypost_model::{Instance, InstanceKey, Snapshot};

use self::file::Image;
use crate::reader::Reader;

/// The least time between two writes of one file.
const DEBOUNCE: Duration = Duration::from_secs(1);

/// The file of one scope, and what is to be written to it.
#[derive(Debug)]
pub(crate) struct Cache {
    path: PathBuf,
    reader: Arc<Reader>,
    newest: Option<Arc<Snapshot>>,
    next_write: Option<Instant>,
    writing: Option<JoinHandle<()>>,
}

/// What a file said.
#[derive(Debug)]
pub(crate) struct Cached {
    pub(crate) path: PathBuf,
    pub(crate) written: SystemTime,
    pub(crate) revision: i64,
    /// With the lease of each.
    pub(crate) instances: Vec<(InstanceKey, Arc<Instance>, i64)>,
}

// === impl Cache ===

impl Cache {
    pub(crate) fn new(directory: &Path, reader: Arc<Reader>) -> Self {
        let path = directory.join(file::name(&reader));
        Self { path, reader, newest: None, next_write: None, writing: None }
    }

    /// Reads the file. `None`: there is none, or it is of no use (which is warned of).
    pub(crate) async fn load(&self) -> Option<Cached> {
        let (path, reader) = (self.path.clone(), Arc::clone(&self.reader));
        let loaded = tokio::task::spawn_blocking(move || match Image::load(&path, &reader) {
            Ok(image) => Some(image.into_cached(path)),
            Err(file::LoadError::Missing) => None,
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "the disk cache is not used");
                None
            }
        });
        loaded.await.ok().flatten()
    }

    /// Asks for `snapshot` to be written, in place of any that was not written yet.
    pub(crate) fn offer(&mut self, snapshot: Arc<Snapshot>) {
        self.newest = Some(snapshot);
    }

    /// Writes what was offered when it is time to; waits for ever while there is nothing. Cancel safe.
    pub(crate) async fn write(&mut self, lease: impl Fn(&InstanceKey) -> i64) {
        loop {
            if let Some(writing) = &mut self.writing {
                // A panic of the writer was reported by its thread, and the next write is another.
                let _ = writing.await;
                self.writing = None;
            }
            if self.newest.is_none() {
                return std::future::pending().await;
            }
            if let Some(next) = self.next_write {
                tokio::time::sleep_until(next).await;
            }
            self.start(&lease);
        }
    }

    /// Writes what was offered and not written yet, now.
    pub(crate) async fn finish(&mut self, lease: impl Fn(&InstanceKey) -> i64) {
        if let Some(writing) = self.writing.take() {
            let _ = writing.await;
        }
        self.start(&lease);
        if let Some(writing) = self.writing.take() {
            let _ = writing.await;
        }
    }

    fn start(&mut self, lease: &impl Fn(&InstanceKey) -> i64) {
        let Some(snapshot) = self.newest.take() else { return };
        self.next_write = Some(Instant::now() + DEBOUNCE);
        let image = Image::of(&snapshot, &self.reader, lease, SystemTime::now());
        let path = self.path.clone();
        self.writing = Some(tokio::task::spawn_blocking(move || {
            if let Err(error) = image.store(&path) {
                tracing::warn!(file = %path.display(), %error, "the disk cache was not written");
            }
        }));
    }
}

// === impl Cached ===

impl Cached {
    /// `disk cache /var/cache/x.json, written 12 s ago`.
    pub(crate) fn describe(&self, now: SystemTime) -> String {
        let age = now.duration_since(self.written).unwrap_or_default().as_secs();
        format!("disk cache {}, written {age} s ago", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use waypost_model::{Scope, SnapshotParts, layout};

    use super::*;

    /// On virtual time, which stands still while a file is being written.
    #[tokio::test(start_paused = true)]
    async fn at_most_one_write_a_second_and_the_last_one_always() {
        let directory = tempfile::tempdir().unwrap();
        let reader = Reader::service("s".parse().unwrap(), &[layout("grpc", None).unwrap()]);
        let mut cache = Cache::new(directory.path(), Arc::new(reader));
        let snapshot = |revision| {
            let absent = Snapshot::absent(Scope::Service("s".parse().unwrap()));
            Arc::new(Snapshot::new(SnapshotParts { revision, ..absent.to_parts() }))
        };
        let kept = async |cache: &mut Cache, wait: u64| {
            let _ = tokio::time::timeout(Duration::from_millis(wait), cache.write(|_| 0)).await;
            cache.load().await.map(|cached| cached.revision)
        };
        assert_eq!(kept(&mut cache, 100).await, None);
        cache.offer(snapshot(1));
        assert_eq!(kept(&mut cache, 100).await, Some(1));
        for revision in 2..=5 {
            cache.offer(snapshot(revision));
            assert_eq!(kept(&mut cache, 100).await, Some(1));
        }
        assert_eq!(kept(&mut cache, 1000).await, Some(5));
        cache.offer(snapshot(6));
        cache.finish(|_| 0).await;
        assert_eq!(kept(&mut cache, 0).await, Some(6));
    }
}
