//! What etcd holds in the spans that are read, as far as it was told: keys, grouped by the instance that they write.
//!
//! A table is filled by a range and kept true by events. It never forgets a key that is there, also one that no
//! layout knows or that does not decode, so that its count can be compared with etcd's own.

use std::collections::HashMap;
use std::sync::Arc;

use waypost_model::{DecodeError, Instance, InstanceKey, Layout, RawKv};

use crate::reader::Reader;

/// A key and its value, as etcd holds them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kv<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    pub(crate) mod_revision: i64,
    pub(crate) lease: i64,
}

/// The keys of all spans of a reader.
///
/// Invariant: for each span, `keys` = the number of `parts` of that span in `groups` + the number of its `strays`.
pub(crate) struct Table {
    reader: Arc<Reader>,
    groups: HashMap<InstanceKey, Group>,
    spans: Vec<SpanKeys>,
    skipped: u64,
    /// Values that failed to decode since they were last taken.
    failures: Vec<Failure>,
}

/// What one change of a key meant for an instance.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) key: InstanceKey,
    pub(crate) before: Option<Arc<Instance>>,
    pub(crate) after: Option<Arc<Instance>>,
    /// The lease of the key that was deleted; 0 where it had none, or where nothing was deleted.
    pub(crate) lease: i64,
}

/// A value that did not decode.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) instance: InstanceKey,
    pub(crate) mod_revision: i64,
    pub(crate) error: DecodeError,
}

#[derive(Default)]
struct SpanKeys {
    keys: u64,
    /// The revision of the last event or range: older events were already applied.
    applied: i64,
    /// The state is known to be true up to here (`applied`, or a progress notification after it).
    known_at: i64,
    /// Keys that are in the span and that are not of the layout or of the scope, with their
    /// `(mod_revision, lease)`.
    strays: HashMap<Box<[u8]>, (i64, i64)>,
}

/// The keys of one instance, and what they say together.
struct Group {
    /// One for most layouts. More where the layout needs several, or where several keys identify the same instance
    /// (dubbo: one address, two sets of parameters): then the newest of them is believed.
    parts: Vec<Part>,
    says: Says,
}

struct Part {
    key: Box<[u8]>,
    value: Value,
    mod_revision: i64,
    lease: i64,
    span: usize,
    number: u8,
}

enum Value {
    /// Of a layout with one key per instance: decoded once, the bytes are not kept.
    Decoded(Says),
    /// Of a layout with several: kept until its siblings are there.
    Raw(Box<[u8]>),
}

#[derive(Clone)]
enum Says {
    Instance(Arc<Instance>),
    /// An incomplete set of keys, an entry marked as deleted, a value of another service.
    Nothing,
    Undecodable,
}

// === impl Table ===

impl Table {
    pub(crate) fn new(reader: Arc<Reader>) -> Self {
        let spans = reader.spans.iter().map(|_| SpanKeys::default()).collect();
        Self { reader, groups: HashMap::new(), spans, skipped: 0, failures: Vec::new() }
    }

    /// The lease of the newest key of an instance; 0: it has none, or there is no such instance.
    pub(crate) fn lease(&self, key: &InstanceKey) -> i64 {
        self.groups.get(key).map_or(0, Group::lease)
    }

    /// Values that do not decode right now.
    pub(crate) fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Keys in all spans.
    pub(crate) fn keys(&self) -> u64 {
        self.spans.iter().map(|span| span.keys).sum()
    }

    /// The newest revision that any span was told of.
    pub(crate) fn revision(&self) -> i64 {
        self.spans.iter().map(|span| span.known_at).max().unwrap_or(0)
    }

    /// Puts a key. `None`: it is older than what is known, or it is no key of an instance.
    pub(crate) fn put(&mut self, span: usize, kv: Kv<'_>) -> Option<Change> {
        let reader = Arc::clone(&self.reader);
        let (index, layout) = reader.layout(span)?;
        let keys = self.spans.get_mut(span)?;
        if kv.mod_revision < keys.applied {
            return None;
        }
        let identified = layout.identify(kv.key).and_then(|part| {
            let number = part.part;
            Some((number, reader.instance_key(index, part)?))
        });
        let Some((number, key)) = identified else {
            if keys.strays.insert(kv.key.into(), (kv.mod_revision, kv.lease)).is_none() {
                keys.keys += 1;
            }
            return None;
        };
        let group = self.groups.entry(key.clone()).or_insert_with(Group::empty);
        let known = group.parts.iter_mut().find(|part| *part.key == *kv.key);
        if known.as_ref().is_some_and(|part| part.mod_revision >= kv.mod_revision) {
            return None;
        }
        let mut failure = None;
        let value = if layout.parts() > 1 {
            Value::Raw(kv.value.into())
        } else {
            let raw = RawKv { key: kv.key, value: kv.value, lease: kv.lease };
            Value::Decoded(decode(&reader, layout, &key, &[Some(raw)], &mut failure))
        };
        if let Some(part) = known {
            (part.value, part.mod_revision, part.lease) = (value, kv.mod_revision, kv.lease);
        } else {
            let (mod_revision, lease) = (kv.mod_revision, kv.lease);
            group.parts.reserve_exact(1);
            group.parts.push(Part { key: kv.key.into(), value, mod_revision, lease, span, number });
            keys.keys += 1;
        }
        self.say(key, &reader, layout, failure, 0)
    }

    /// Deletes a key. `None`: it was not known, or is known to be newer, or was no key of an instance.
    pub(crate) fn delete(&mut self, span: usize, key: &[u8], mod_revision: i64) -> Option<Change> {
        let reader = Arc::clone(&self.reader);
        let (index, layout) = reader.layout(span)?;
        let keys = self.spans.get_mut(span)?;
        if mod_revision < keys.applied {
            return None;
        }
        let identified = layout.identify(key).and_then(|part| reader.instance_key(index, part));
        let Some(instance) = identified else {
            if keys.strays.get(key).is_some_and(|(known, _)| *known < mod_revision) {
                keys.strays.remove(key);
                keys.keys -= 1;
            }
            return None;
        };
        let group = self.groups.get_mut(&instance)?;
        let found =
            group.parts.iter().position(|part| *part.key == *key && part.mod_revision < mod_revision)?;
        let lease = group.parts.swap_remove(found).lease;
        keys.keys -= 1;
        self.say(instance, &reader, layout, None, lease)
    }

    /// States that a span was told everything up to `revision`: by a range, or by a batch of events.
    pub(crate) fn told(&mut self, span: usize, revision: i64) {
        if let Some(span) = self.spans.get_mut(span) {
            span.applied = span.applied.max(revision);
            span.known_at = span.known_at.max(revision);
        }
    }

    /// States that nothing happened in any span up to `revision`.
    ///
    /// It only moves [`known_at`](Self::known_at). Were it wrong for one span, the store would not be recognised
    /// after an outage and be read again; an event is never dropped for it.
    pub(crate) fn quiet_until(&mut self, revision: i64) {
        for span in &mut self.spans {
            span.known_at = span.known_at.max(revision);
        }
    }

    /// The revision at which the contents of a span are known exactly.
    pub(crate) fn known_at(&self, span: usize) -> i64 {
        self.spans.get(span).map_or(0, |span| span.known_at)
    }

    /// Whether a span of the store that counts `keys` keys there and changed `newest` last, both at the revision
    /// [`known_at`](Self::known_at), can be the one that this table was filled from.
    ///
    /// The lease is compared too: it is a random number, so that a store that was wiped and filled anew in the same
    /// order is still found out. Several keys may have the newest revision; any of them will do. Costs O(n): for use
    /// once per outage.
    pub(crate) fn recognises(&self, span: usize, keys: u64, newest: Option<Kv<'_>>) -> bool {
        let Some(known) = self.spans.get(span) else { return false };
        if known.keys != keys {
            return false;
        }
        let Some(newest) = newest else { return keys == 0 };
        let parts = self.groups.values().flat_map(|group| &group.parts).filter(|part| part.span == span);
        let parts = parts.map(|part| (&*part.key, part.mod_revision, part.lease));
        let strays = known.strays.iter().map(|(key, (mod_revision, lease))| (&**key, *mod_revision, *lease));
        let mut held = false;
        for (key, mod_revision, lease) in parts.chain(strays) {
            if mod_revision > newest.mod_revision {
                return false;
            }
            held |= (key, mod_revision, lease) == (newest.key, newest.mod_revision, newest.lease);
        }
        held
    }

    /// Takes the place of `older`, which was true before a gap. Answers what differs, and shares every instance that
    /// does not.
    pub(crate) fn succeed(&mut self, mut older: Self) -> Vec<Change> {
        let mut changes = Vec::new();
        self.failures.retain(|failure| {
            older.groups.get(&failure.instance).is_none_or(|older| {
                !matches!(older.says, Says::Undecodable) || older.newest_revision() != failure.mod_revision
            })
        });
        for (key, group) in &mut self.groups {
            let before = older.groups.remove(key);
            let lease = before.as_ref().map_or(0, Group::lease);
            let before = before.and_then(|before| before.says.instance());
            match (&before, group.says.instance()) {
                (Some(old), Some(new)) if **old == *new => group.share(old),
                (None, None) => {}
                (_, after) => changes.push(Change { key: key.clone(), before, after, lease }),
            }
        }
        for (key, group) in older.groups {
            let lease = group.lease();
            if let Some(before) = group.says.instance() {
                changes.push(Change { key, before: Some(before), after: None, lease });
            }
        }
        // Neighbours go to neighbouring places of the ordered set that they are applied to.
        changes.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        changes
    }

    pub(crate) fn take_failures(&mut self) -> Vec<Failure> {
        std::mem::take(&mut self.failures)
    }

    /// Lets a group say what its parts are now, and answers the difference.
    fn say(
        &mut self,
        key: InstanceKey,
        reader: &Reader,
        layout: &Arc<dyn Layout>,
        mut failure: Option<DecodeError>,
        lease: i64,
    ) -> Option<Change> {
        let group = self.groups.get_mut(&key)?;
        let says = group.hear(reader, layout, &key, &mut failure);
        let mod_revision = group.newest_revision();
        let before = std::mem::replace(&mut group.says, says);
        let after = group.says.instance();
        self.skipped -= u64::from(matches!(before, Says::Undecodable));
        self.skipped += u64::from(matches!(group.says, Says::Undecodable));
        if group.parts.is_empty() {
            self.groups.remove(&key);
        }
        if let Some(error) = failure {
            self.failures.push(Failure { instance: key.clone(), mod_revision, error });
        }
        let before = before.instance();
        (before.is_some() || after.is_some()).then_some(Change { key, before, after, lease })
    }
}

// === impl Group ===

impl Group {
    fn empty() -> Self {
        Self { parts: Vec::new(), says: Says::Nothing }
    }

    fn newest_revision(&self) -> i64 {
        self.parts.iter().map(|part| part.mod_revision).max().unwrap_or(0)
    }

    fn newest(&self) -> Option<&Part> {
        self.parts.iter().max_by_key(|part| part.mod_revision)
    }

    fn lease(&self) -> i64 {
        self.newest().map_or(0, |part| part.lease)
    }

    /// Replaces the instance by an equal one that readers already have.
    fn share(&mut self, instance: &Arc<Instance>) {
        self.says = Says::Instance(Arc::clone(instance));
        if let [Part { value: value @ Value::Decoded(Says::Instance(_)), .. }] = self.parts.as_mut_slice() {
            *value = Value::Decoded(self.says.clone());
        }
    }

    fn hear(
        &self,
        reader: &Reader,
        layout: &Arc<dyn Layout>,
        key: &InstanceKey,
        failure: &mut Option<DecodeError>,
    ) -> Says {
        if layout.parts() <= 1 {
            return match self.newest().map(|part| &part.value) {
                Some(Value::Decoded(says)) => says.clone(),
                Some(Value::Raw(_)) | None => Says::Nothing,
            };
        }
        let mut raw: Vec<Option<RawKv<'_>>> = vec![None; usize::from(layout.parts())];
        let mut revisions = vec![0; raw.len()];
        for part in &self.parts {
            let number = usize::from(part.number);
            if let (Value::Raw(value), Some(slot)) = (&part.value, raw.get_mut(number))
                && revisions[number] < part.mod_revision
            {
                revisions[number] = part.mod_revision;
                *slot = Some(RawKv { key: &part.key, value, lease: part.lease });
            }
        }
        decode(reader, layout, key, &raw, failure)
    }
}

// === impl Says ===

impl Says {
    fn instance(&self) -> Option<Arc<Instance>> {
        match self {
            Self::Instance(instance) => Some(Arc::clone(instance)),
            Self::Nothing | Self::Undecodable => None,
        }
    }
}

fn decode(
    reader: &Reader,
    layout: &Arc<dyn Layout>,
    key: &InstanceKey,
    parts: &[Option<RawKv<'_>>],
    failure: &mut Option<DecodeError>,
) -> Says {
    match layout.decode(parts) {
        Ok(Some(mut instance)) if reader.wants(&instance) => {
            // The names are there already: hold them once.
            if instance.service == key.service {
                instance.service = key.service.clone();
            }
            if instance.id == key.id {
                instance.id = key.id.clone();
            }
            Says::Instance(Arc::new(instance))
        }
        Ok(_) => Says::Nothing,
        Err(error) => {
            *failure = Some(error);
            Says::Undecodable
        }
    }
}
