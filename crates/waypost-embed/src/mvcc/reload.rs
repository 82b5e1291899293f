//! The store as the disk has it.

use std::collections::HashMap;
use std::ops::ControlFlow;

use waypost_proto::mvccpb::event::EventType;
use waypost_proto::mvccpb::{Event, KeyValue};

use super::changes::read;
use super::error::{Malformed, StoreError};
use super::index::{Index, Key};
use super::revision::Revision;
use super::store::{FINISHED_COMPACTION, SCHEDULED_COMPACTION, Store, Walk};
use crate::backend::{Backend, Bucket};

// === impl Store ===

impl Store {
    /// Reads everything back, and refuses what neither this program nor etcd can have written. Gives the lease of every
    /// live key that has one too. A compaction whose removal was cut short goes on from its start.
    pub fn load(backend: &dyn Backend) -> Result<(Self, HashMap<Key, i64>), StoreError> {
        let finished = compaction(backend, FINISHED_COMPACTION)?;
        let scheduled = compaction(backend, SCHEDULED_COMPACTION)?;
        let compacted = finished.max(scheduled);
        let mut index = Index::default();
        let mut leases = HashMap::new();
        let mut newest = 1;
        let mut malformed = None;
        backend.scan(Bucket::Key, &[], &[], &mut |key, value| match read(key, value).and_then(
            |(at, event)| {
                newest = newest.max(at.main);
                take_up(&mut index, &mut leases, key, at, event, compacted)
            },
        ) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                malformed = Some(error);
                ControlFlow::Break(())
            }
        })?;
        if let Some(error) = malformed {
            return Err(error.into());
        }
        // The newest revision may have been a deletion, which compaction has removed.
        let mut store = Self::at(index, newest.max(compacted), compacted);
        store.walk = (scheduled > finished).then_some(Walk { at: scheduled, cursor: None });
        Ok((store, leases))
    }
}

fn take_up(
    index: &mut Index,
    leases: &mut HashMap<Key, i64>,
    record: &[u8],
    at: Revision,
    event: Event,
    compacted: i64,
) -> Result<(), Malformed> {
    let kind = event.r#type();
    let KeyValue { key, create_revision, version, lease, .. } = event.kv.unwrap_or_default();
    let taken = match kind {
        EventType::Put => match index.restore_put(&key, at, create_revision, version, compacted) {
            Some(name) if lease != 0 => {
                leases.insert(name, lease);
                true
            }
            Some(name) => {
                leases.remove(&name);
                true
            }
            None => false,
        },
        EventType::Delete => {
            leases.remove(&key[..]);
            index.restore_tombstone(&key, at, compacted)
        }
    };
    if taken {
        return Ok(());
    }
    let reason = format!(
        "version {version} of key {}, created at {create_revision}, does not follow from what is stored before it",
        key.escape_ascii()
    );
    Err(Malformed::new(Bucket::Key, record, reason))
}

/// A compaction record; -1 without one.
fn compaction(backend: &dyn Backend, key: &[u8]) -> Result<i64, StoreError> {
    let Some(value) = backend.get(Bucket::Meta, key)? else { return Ok(-1) };
    match decode_compaction(&value) {
        Some(revision) => Ok(revision),
        None => Err(Malformed::new(Bucket::Meta, key, "the value is not a revision").into()),
    }
}

/// Revision 0 can be compacted too, so this is wider than a record key.
fn decode_compaction(value: &[u8]) -> Option<i64> {
    let (main, rest) = value.split_first_chunk::<8>()?;
    let main = i64::from_be_bytes(*main);
    (rest.len() == 9 && rest.first() == Some(&b'_') && main >= 0).then_some(main)
}
