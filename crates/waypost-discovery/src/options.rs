//! What a discovery reads and how patient it is.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use waypost_model::Layout;

/// What to read, and what to do when it cannot be read. Made with [`new`](Self::new).
///
/// ```
/// use std::time::Duration;
/// use waypost_discovery::DiscoveryOptions;
///
/// let options = DiscoveryOptions::new(waypost_model::parse_layouts("grpc", None)?)
///     .cache_dir("/var/cache/my-service")
///     .empty_grace(Some(Duration::from_secs(10)));
/// # let _ = options;
/// # Ok::<(), waypost_model::UnknownLayout>(())
/// ```
#[derive(Clone, Debug)]
pub struct DiscoveryOptions {
    pub(crate) layouts: Vec<Arc<dyn Layout>>,
    pub(crate) cache_dir: Option<PathBuf>,
    pub(crate) empty_grace: Option<Duration>,
    pub(crate) page_size: i64,
}

/// [`DiscoveryOptions::empty_grace`] unless it is set.
pub const DEFAULT_EMPTY_GRACE: Duration = Duration::from_secs(30);

/// [`DiscoveryOptions::page_size`] unless it is set.
pub const DEFAULT_PAGE_SIZE: i64 = 1000;

// === impl DiscoveryOptions ===

impl DiscoveryOptions {
    /// Reads the union of these layouts. Of instances of one service that have the same address in several layouts,
    /// the one of the layout that is named first is shown. Up to 256 layouts.
    pub fn new(layouts: impl IntoIterator<Item = Arc<dyn Layout>>) -> Self {
        Self {
            layouts: layouts.into_iter().collect(),
            cache_dir: None,
            empty_grace: Some(DEFAULT_EMPTY_GRACE),
            page_size: DEFAULT_PAGE_SIZE,
        }
    }

    /// Keeps the last set of each scope in a file in this directory (made if need be), and serves a start from it
    /// while etcd is away. One directory per etcd cluster. Default: none. The format is described in
    /// [`cache`](crate::cache).
    pub fn cache_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.cache_dir = Some(directory.into());
        self
    }

    /// How long a set is held (as stale) when all of it vanished at once by lease expiry. `None`: not at all.
    /// Default: 30 s.
    pub fn empty_grace(mut self, grace: Option<Duration>) -> Self {
        self.empty_grace = grace.filter(|grace| !grace.is_zero());
        self
    }

    /// Keys per page of a range; at least 1. Halved by itself when a page is too large to be received. Default:
    /// 1000.
    pub fn page_size(mut self, keys: i64) -> Self {
        self.page_size = keys.max(1);
        self
    }
}
