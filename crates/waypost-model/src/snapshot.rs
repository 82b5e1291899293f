//! What a reader sees at one revision, and how one such view differs from another.

use std::{fmt, sync::Arc, time::SystemTime};

use imbl::{OrdMap, ordmap::DiffItem};

use crate::{
    instance::Instance,
    name::{InstanceId, ServiceName},
};

/// An immutable set of instances at one revision.
///
/// The map is persistent: a snapshot that differs from another in one instance shares everything else with it, so
/// that both the making of it and [`changes_since`](Self::changes_since) cost what has changed, not what there is.
///
/// ```
/// use std::sync::Arc;
/// use waypost_model::{Change, Existence, Instance, InstanceKey, Scope, Snapshot, SnapshotParts};
///
/// let service: waypost_model::ServiceName = "greeter".parse()?;
/// let before = Snapshot::absent(Scope::Service(service.clone()));
/// let instance = Arc::new(Instance::new(service, "10.0.0.1:50051".parse()?));
/// let after = Snapshot::new(SnapshotParts {
///     revision: 7,
///     instances: before.map().update(InstanceKey::of(&instance, 0), instance),
///     existence: Existence::Present,
///     ..before.to_parts()
/// });
/// assert!(matches!(after.changes_since(&before).next(), Some(Change::Added { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Snapshot {
    parts: SnapshotParts,
}

/// The fields of a [`Snapshot`], to make one.
#[derive(Clone, Debug)]
pub struct SnapshotParts {
    /// What was read.
    pub scope: Scope,
    /// The etcd revision at which it was true; 0 before the first read.
    pub revision: i64,
    /// The instances by identity.
    pub instances: OrdMap<InstanceKey, Arc<Instance>>,
    /// Whether it follows etcd now.
    pub freshness: Freshness,
    /// Whether there is, or was, anything.
    pub existence: Existence,
    /// Values that are in etcd now and do not decode.
    pub skipped: u64,
}

/// What a snapshot is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One service.
    Service(ServiceName),
    /// Every service under the prefixes that are read.
    Catalog,
}

/// Whether a snapshot follows etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// It does.
    Live,
    /// It is the last one known.
    Stale {
        /// Since when.
        since: SystemTime,
        /// Why.
        cause: Arc<str>,
    },
}

/// Whether there is anything, and how an empty set came to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Existence {
    /// Nothing has been read yet.
    #[default]
    Unknown,
    /// It was read, and as far as was seen nothing has ever been there.
    Absent,
    /// There is at least one instance.
    Present,
    /// There were instances, and now there are none.
    Emptied,
}

/// The identity of an instance among everything a reader reads. Ordered by service, id, layout.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceKey {
    /// The service.
    pub service: ServiceName,
    /// The id within it.
    pub id: InstanceId,
    /// The layout in which it was found: an index in the reader's list.
    pub layout: u8,
}

/// One difference between two snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is in the newer one only.
    Added {
        /// Its identity.
        key: InstanceKey,
        /// What it is.
        instance: Arc<Instance>,
    },
    /// It is in both and not the same.
    Updated {
        /// Its identity.
        key: InstanceKey,
        /// What it was.
        before: Arc<Instance>,
        /// What it is.
        after: Arc<Instance>,
    },
    /// It is in the older one only.
    Removed {
        /// Its identity.
        key: InstanceKey,
        /// What it was.
        instance: Arc<Instance>,
    },
}

// === impl Snapshot ===

impl Snapshot {
    /// A snapshot of `parts`.
    pub fn new(parts: SnapshotParts) -> Self {
        Self { parts }
    }

    /// Before the first read: nothing is known.
    pub fn absent(scope: Scope) -> Self {
        Self::new(SnapshotParts {
            scope,
            revision: 0,
            instances: OrdMap::new(),
            freshness: Freshness::Live,
            existence: Existence::Unknown,
            skipped: 0,
        })
    }

    /// The fields, to make the next snapshot of. Costs O(1).
    pub fn to_parts(&self) -> SnapshotParts {
        self.parts.clone()
    }

    /// What was read.
    pub fn scope(&self) -> &Scope {
        &self.parts.scope
    }

    /// The etcd revision at which it was true; 0 before the first read.
    pub fn revision(&self) -> i64 {
        self.parts.revision
    }

    /// The instances, sorted by service, id, layout.
    pub fn instances(&self) -> impl DoubleEndedIterator<Item = &Arc<Instance>> {
        self.parts.instances.values()
    }

    /// The instances by identity.
    pub fn map(&self) -> &OrdMap<InstanceKey, Arc<Instance>> {
        &self.parts.instances
    }

    /// How many instances.
    pub fn len(&self) -> usize {
        self.parts.instances.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.parts.instances.is_empty()
    }

    /// The instance of that identity. Costs O(log n).
    pub fn get(&self, key: &InstanceKey) -> Option<&Arc<Instance>> {
        self.parts.instances.get(key)
    }

    /// Whether it follows etcd.
    pub fn freshness(&self) -> &Freshness {
        &self.parts.freshness
    }

    /// Whether there is, or was, anything.
    pub fn existence(&self) -> Existence {
        self.parts.existence
    }

    /// Values that are in etcd and do not decode.
    pub fn skipped(&self) -> u64 {
        self.parts.skipped
    }

    /// What has changed from `older` to this one, in the order of identity. Where this one was made from `older` by
    /// updates of its map, the cost is in the number of changes; otherwise it is in the size of both.
    pub fn changes_since<'a>(&'a self, older: &'a Self) -> impl Iterator<Item = Change> + 'a {
        older.parts.instances.diff(&self.parts.instances).map(|item| match item {
            DiffItem::Add(key, instance) => {
                Change::Added { key: key.clone(), instance: Arc::clone(instance) }
            }
            DiffItem::Update { old: (_, before), new: (key, after) } => {
                Change::Updated { key: key.clone(), before: Arc::clone(before), after: Arc::clone(after) }
            }
            DiffItem::Remove(key, instance) => {
                Change::Removed { key: key.clone(), instance: Arc::clone(instance) }
            }
        })
    }
}

// === impl InstanceKey ===

impl InstanceKey {
    /// The identity of `instance`, found in the layout of that index.
    pub fn of(instance: &Instance, layout: u8) -> Self {
        Self { service: instance.service.clone(), id: instance.id.clone(), layout }
    }
}

// === impl Change ===

impl Change {
    /// The identity of what has changed.
    pub fn key(&self) -> &InstanceKey {
        match self {
            Self::Added { key, .. } | Self::Updated { key, .. } | Self::Removed { key, .. } => key,
        }
    }

    /// What it is now; `None` when it was removed.
    pub fn after(&self) -> Option<&Arc<Instance>> {
        match self {
            Self::Added { instance, .. } => Some(instance),
            Self::Updated { after, .. } => Some(after),
            Self::Removed { .. } => None,
        }
    }
}

// === impl Freshness ===

impl Freshness {
    /// Whether it is [`Live`](Self::Live).
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Live)
    }
}

// === impl Scope ===

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(service) => write!(f, "service {service}"),
            Self::Catalog => f.write_str("all services"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(n: u32) -> Arc<Instance> {
        Arc::new(Instance::new("s".parse().unwrap(), format!("host-{n:06}:80").parse().unwrap()))
    }

    fn with(instances: OrdMap<InstanceKey, Arc<Instance>>) -> Snapshot {
        Snapshot::new(SnapshotParts { instances, ..Snapshot::absent(Scope::Catalog).to_parts() })
    }

    #[test]
    fn the_difference_is_added_updated_and_removed() {
        let before = with((0..1000).map(|n| (InstanceKey::of(&instance(n), 0), instance(n))).collect());
        let (changed, added, removed) = (instance(3), instance(5000), instance(7));
        let heavier = Arc::new(Instance::clone(&changed).with_weight(7));
        let map = before
            .map()
            .update(InstanceKey::of(&changed, 0), Arc::clone(&heavier))
            .update(InstanceKey::of(&added, 0), Arc::clone(&added))
            .without(&InstanceKey::of(&removed, 0));
        let after = with(map);

        let difference: Vec<_> = after.changes_since(&before).collect();
        assert_eq!(
            difference,
            [
                Change::Updated { key: InstanceKey::of(&changed, 0), before: changed, after: heavier },
                Change::Removed { key: InstanceKey::of(&removed, 0), instance: removed },
                Change::Added { key: InstanceKey::of(&added, 0), instance: added },
            ]
        );
        assert_eq!(after.changes_since(&after).count(), 0);
    }

    #[test]
    fn an_equal_instance_put_again_is_no_change() {
        let before = with((0..10).map(|n| (InstanceKey::of(&instance(n), 0), instance(n))).collect());
        let after = with(before.map().update(InstanceKey::of(&instance(1), 0), instance(1)));
        assert_eq!(after.changes_since(&before).count(), 0);
    }

    #[test]
    fn instances_are_sorted_by_service_id_layout() {
        let one = instance(1);
        let keys = [InstanceKey::of(&one, 1), InstanceKey::of(&one, 0), InstanceKey::of(&instance(0), 9)];
        let snapshot = with(keys.iter().map(|key| (key.clone(), Arc::clone(&one))).collect());
        let sorted: Vec<_> = snapshot.map().keys().cloned().collect();
        assert_eq!(sorted, [keys[2].clone(), keys[1].clone(), keys[0].clone()]);
    }
}
