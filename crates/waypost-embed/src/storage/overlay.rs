//! What is in the log and not yet in the database, as readers see it on top of that.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use imbl::OrdMap;

use super::engine::State;
use crate::backend::{BackendError, Bucket, Operation, Visit, WriteBatch};

/// Changes of a store. A clone is a state that later changes do not touch, and costs next to nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overlay {
    layers: BTreeMap<Bucket, Layer>,
    bytes: usize,
}

/// Changes of one bucket.
#[derive(Clone, Debug, Default)]
struct Layer {
    /// `None`: removed.
    entries: OrdMap<Bytes, Option<Bytes>>,
    /// Ranges of which nothing is left of what is below; what was put there later is in `entries`.
    cleared: Vec<(Bytes, Bytes)>,
}

/// What an overlay says of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Above<'a> {
    /// It has this value.
    Value(&'a Bytes),
    /// It is not there.
    Absent,
    /// Nothing: what is below holds.
    Unknown,
}

type Range<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// `from..to`, where an empty `to` is the end; `None` when that is nothing.
pub(crate) fn bounds<'a>(from: &'a [u8], to: &'a [u8]) -> Option<Range<'a>> {
    match to {
        [] => Some((Bound::Included(from), Bound::Unbounded)),
        _ if from < to => Some((Bound::Included(from), Bound::Excluded(to))),
        _ => None,
    }
}

// === impl Overlay ===

impl Overlay {
    pub(crate) fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// Bytes of all keys and values that were written, those that were overwritten since included.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn apply(&mut self, operation: Operation) {
        self.bytes += operation.bytes();
        match operation {
            Operation::Put { bucket, key, value } => {
                self.layer(bucket).entries.insert(key, Some(value));
            }
            Operation::Delete { bucket, key } => {
                self.layer(bucket).entries.insert(key, None);
            }
            Operation::DeleteRange { bucket, from, to } => self.layer(bucket).clear(from, to),
        }
    }

    /// Takes up changes that came later.
    pub(crate) fn append(&mut self, later: &Self) {
        self.bytes += later.bytes;
        for (bucket, layer) in &later.layers {
            let own = self.layer(*bucket);
            for (from, to) in &layer.cleared {
                own.clear(from.clone(), to.clone());
            }
            for (key, value) in &layer.entries {
                own.entries.insert(key.clone(), value.clone());
            }
        }
    }

    /// Bytes of all keys and values that it holds.
    pub(crate) fn held_bytes(&self) -> u64 {
        let entries = self.layers.values().flat_map(|layer| &layer.entries);
        entries.filter_map(|(key, value)| Some((key.len() + value.as_ref()?.len()) as u64)).sum()
    }

    /// Bytes of the keys and values of `below` that it hides.
    pub(crate) fn hidden_bytes(&self, below: &State) -> Result<u64, BackendError> {
        let mut bytes = 0;
        for (bucket, layer) in &self.layers {
            for key in layer.entries.keys().filter(|key| !layer.has_cleared(key)) {
                bytes += below.get(*bucket, key)?.map_or(0, |value| key.len() + value.len());
            }
            for (number, (from, to)) in layer.cleared.iter().enumerate() {
                below.scan(*bucket, from, to, &mut |key, value| {
                    // Ranges may overlap.
                    if !cleared(&layer.cleared[..number], key) {
                        bytes += key.len() + value.len();
                    }
                    ControlFlow::Continue(())
                })?;
            }
        }
        Ok(bytes as u64)
    }

    /// The same changes, in an order in which they may be applied.
    pub(crate) fn to_batch(&self) -> WriteBatch {
        let mut batch = WriteBatch::new();
        for (bucket, layer) in &self.layers {
            for (from, to) in &layer.cleared {
                batch.delete_range(*bucket, from.clone(), to.clone());
            }
            for (key, value) in &layer.entries {
                match value {
                    Some(value) => batch.put(*bucket, key.clone(), value.clone()),
                    None => batch.delete(*bucket, key.clone()),
                }
            }
        }
        batch
    }

    pub(crate) fn get(&self, bucket: Bucket, key: &[u8]) -> Above<'_> {
        let Some(layer) = self.layers.get(&bucket) else { return Above::Unknown };
        match layer.entries.get(key) {
            Some(Some(value)) => Above::Value(value),
            Some(None) => Above::Absent,
            None if layer.has_cleared(key) => Above::Absent,
            None => Above::Unknown,
        }
    }

    /// Visits the entries of `from..to` in order: its own, and of those that `below` visits what it leaves there.
    pub(crate) fn over(
        &self,
        bucket: Bucket,
        (from, to): (&[u8], &[u8]),
        below: impl FnOnce(&mut Visit<'_>) -> Result<(), BackendError>,
        visit: &mut Visit<'_>,
    ) -> Result<(), BackendError> {
        let Some(layer) = self.layers.get(&bucket) else { return below(visit) };
        let Some(range) = bounds(from, to) else { return Ok(()) };
        let mut own = layer.entries.range::<_, [u8]>(range).peekable();
        let mut flow = ControlFlow::Continue(());
        below(&mut |key, value| {
            while let Some((before, put)) = own.next_if(|(own, _)| own[..] < *key) {
                if let Some(put) = put {
                    flow = visit(before, put);
                    flow?;
                }
            }
            flow = match own.next_if(|(own, _)| own[..] == *key) {
                Some((_, Some(put))) => visit(key, put),
                Some((_, None)) => ControlFlow::Continue(()),
                None if layer.has_cleared(key) => ControlFlow::Continue(()),
                None => visit(key, value),
            };
            flow
        })?;
        for (key, put) in own {
            if flow.is_break() {
                break;
            }
            if let Some(put) = put {
                flow = visit(key, put);
            }
        }
        Ok(())
    }

    fn layer(&mut self, bucket: Bucket) -> &mut Layer {
        self.layers.entry(bucket).or_default()
    }
}

// === impl Layer ===

impl Layer {
    fn clear(&mut self, from: Bytes, to: Bytes) {
        let Some(range) = bounds(&from, &to) else { return };
        let gone: Vec<Bytes> = self.entries.range::<_, [u8]>(range).map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.entries.remove(&key);
        }
        self.cleared.push((from, to));
    }

    fn has_cleared(&self, key: &[u8]) -> bool {
        cleared(&self.cleared, key)
    }
}

fn cleared(ranges: &[(Bytes, Bytes)], key: &[u8]) -> bool {
    ranges.iter().any(|(from, to)| **from <= *key && (to.is_empty() || *key < **to))
}
