//! History, as those who watch read it.

use std::ops::ControlFlow;

use waypost_proto::mvccpb::{Event, KeyValue};

use super::changes::{changes, previous};
use super::error::StoreError;
use super::revision::Revision;
use crate::backend::Backend;
use crate::watch::History;

/// The committed past: events from the backend, and what keys held before them.
///
/// `before` finds the version that a key had just before a revision, as [`Store::before`](super::Store::before) does. It is
/// a function so that the store need not be borrowed, or locked, while events are read from the disk.
#[derive(Clone, Copy)]
pub struct Past<'a, F> {
    backend: &'a dyn Backend,
    before: F,
}

// === impl Past ===

impl<'a, F> Past<'a, F>
where
    F: Fn(&[u8], i64) -> Option<Revision>,
{
    /// What `backend` has, with versions found by `before`.
    pub fn new(backend: &'a dyn Backend, before: F) -> Self {
        Self { backend, before }
    }
}

impl<F> History for Past<'_, F>
where
    F: Fn(&[u8], i64) -> Option<Revision>,
{
    type Error = StoreError;

    fn changes(
        &self,
        from: i64,
        to: i64,
        visit: &mut dyn FnMut(i64, Event) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        changes(self.backend, from, to, &mut |at, event| visit(at.main, event))
    }

    fn before(&self, key: &[u8], revision: i64) -> Result<Option<KeyValue>, StoreError> {
        previous(self.backend, (self.before)(key, revision))
    }
}
