//! What changed: as it is written, and read back from history.

use std::ops::ControlFlow;

use prost::Message as _;
use waypost_proto::mvccpb::event::EventType;
use waypost_proto::mvccpb::{Event, KeyValue};

use super::error::{Malformed, StoreError};
use super::revision::Revision;
use crate::backend::{Backend, Bucket};

/// One change of one key, for those who watch.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// As a watcher gets it, without `prev_kv`.
    pub event: Event,
    /// What the key was when the revision before this one ended, if it was; [`previous`] reads it.
    pub previous: Option<Revision>,
}

/// Reads what a key was before a change. `None`: it was not, or it has been compacted.
pub fn previous(backend: &dyn Backend, revision: Option<Revision>) -> Result<Option<KeyValue>, StoreError> {
    let Some(revision) = revision else { return Ok(None) };
    let key = revision.encode(false);
    backend
        .get(Bucket::Key, &key)?
        .map(|value| decode(&key, &value, revision).map_err(Into::into))
        .transpose()
}

/// Visits the committed changes of the revisions `from..=to`, in order, each with its revision. Revisions below the
/// compacted one have gaps.
pub fn changes(
    backend: &dyn Backend,
    from: i64,
    to: i64,
    visit: &mut dyn FnMut(Revision, Event) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    if from > to || to < 1 {
        return Ok(());
    }
    let start = Revision::new(from.max(1), 0).encode(false);
    let end = to.checked_add(1).map(|end| Revision::new(end, 0).encode(false)).unwrap_or_default();
    let mut malformed = None;
    backend.scan(Bucket::Key, &start, &end, &mut |key, value| match read(key, value) {
        Ok((revision, event)) => visit(revision, event),
        Err(error) => {
            malformed = Some(error);
            ControlFlow::Break(())
        }
    })?;
    malformed.map_or(Ok(()), |error| Err(error.into()))
}

/// Reads one record as the event that it was.
pub(super) fn read(key: &[u8], value: &[u8]) -> Result<(Revision, Event), Malformed> {
    let Some((revision, tombstone)) = Revision::decode(key) else {
        return Err(Malformed::new(Bucket::Key, key, "the key is not a revision"));
    };
    let kv = if tombstone {
        let kv =
            KeyValue::decode(value).map_err(|error| Malformed::new(Bucket::Key, key, error.to_string()))?;
        KeyValue { key: kv.key, mod_revision: revision.main, ..KeyValue::default() }
    } else {
        decode(key, value, revision)?
    };
    if kv.key.is_empty() {
        return Err(Malformed::new(Bucket::Key, key, "a change of no key"));
    }
    let kind = if tombstone { EventType::Delete } else { EventType::Put };
    Ok((revision, Event { r#type: kind.into(), kv: Some(kv), prev_kv: None }))
}

/// Reads the value of a put.
pub(super) fn decode(record: &[u8], value: &[u8], revision: Revision) -> Result<KeyValue, Malformed> {
    let kv =
        KeyValue::decode(value).map_err(|error| Malformed::new(Bucket::Key, record, error.to_string()))?;
    if kv.mod_revision != revision.main {
        let reason = format!("the value says revision {}", kv.mod_revision);
        return Err(Malformed::new(Bucket::Key, record, reason));
    }
    Ok(kv)
}
