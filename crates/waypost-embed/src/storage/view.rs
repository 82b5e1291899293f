//! One state of a store.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::engine::{Engine, State};
use super::overlay::{Above, Overlay};
use crate::backend::{BackendError, Bucket, Visit};
use crate::bolt::Source;

/// A state of a [`Store`](super::Store) that commits do not change: what a snapshot is made of.
///
/// It keeps the pages of that state from being used again, so do not keep it for long.
pub struct View {
    active: Overlay,
    frozen: Option<Overlay>,
    // Before the engine: the state ends first.
    state: State,
    _engine: Arc<Engine>,
}

// === impl View ===

impl View {
    pub(super) fn new(
        active: Overlay,
        frozen: Option<Overlay>,
        engine: Arc<Engine>,
    ) -> Result<Self, BackendError> {
        Ok(Self { active, frozen, state: engine.state()?, _engine: engine })
    }

    /// The value of a key.
    pub fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        for overlay in [Some(&self.active), self.frozen.as_ref()].into_iter().flatten() {
            match overlay.get(bucket, key) {
                Above::Value(value) => return Ok(Some(value.clone())),
                Above::Absent => return Ok(None),
                Above::Unknown => {}
            }
        }
        self.state.get(bucket, key)
    }

    pub(super) fn scan(
        &self,
        bucket: Bucket,
        from: &[u8],
        to: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), BackendError> {
        let range = (from, to);
        let stored = |visit: &mut Visit<'_>| self.state.scan(bucket, from, to, visit);
        let below = |visit: &mut Visit<'_>| match &self.frozen {
            Some(frozen) => frozen.over(bucket, range, stored, visit),
            None => stored(visit),
        };
        self.active.over(bucket, range, below, visit)
    }

    /// Bytes of all keys and values.
    pub(super) fn bytes(&self) -> Result<u64, BackendError> {
        let mut overlay = self.frozen.clone().unwrap_or_default();
        overlay.append(&self.active);
        let hidden = overlay.hidden_bytes(&self.state)?;
        Ok((self.state.bytes()? + overlay.held_bytes()).saturating_sub(hidden))
    }
}

impl Source for View {
    fn visit(&self, bucket: Bucket, visit: &mut Visit<'_>) -> Result<(), BackendError> {
        self.scan(bucket, &[], &[], visit)
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("path", &self.state.path).finish_non_exhaustive()
    }
}
