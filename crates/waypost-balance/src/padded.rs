//! Keeps what one thread writes off the cache lines of the others.

use std::ops::Deref;

/// A value that has its cache lines to itself: 128 bytes, since processors prefetch lines in pairs.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct CachePadded<T>(T);

// === impl CachePadded ===

impl<T> CachePadded<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(value)
    }
}

impl<T> Deref for CachePadded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
