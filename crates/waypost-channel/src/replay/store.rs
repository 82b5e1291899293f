//! What may be kept of all requests of a channel together.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Room for so many bytes. Lock-free.
#[derive(Debug)]
pub(crate) struct Store {
    pub(super) used: AtomicUsize,
    most: usize,
}

// === impl Store ===

impl Store {
    /// With room for so many bytes.
    pub(crate) fn new(most: usize) -> Self {
        Self { used: AtomicUsize::new(0), most }
    }

    /// Whether there is room for so much more, which is then taken.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let more = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.most);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// What was taken is free again.
    pub(super) fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}
