//! What an operator changed in a value, applied to the instance that the program registered.

use waypost_model::{Entry, Instance, Layout, RawKv, Status};

/// A change to what may change of a registered instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Amendment {
    Status(Status),
    Weight(u32),
    Metadata(String, Option<String>),
}

// === impl Amendment ===

impl Amendment {
    pub(crate) fn apply(self, instance: &mut Instance) {
        match self {
            Self::Status(status) => instance.status = status,
            Self::Weight(weight) => instance.weight = weight,
            Self::Metadata(key, Some(value)) => {
                instance.metadata.insert(key, value);
            }
            Self::Metadata(key, None) => {
                instance.metadata.remove(&key);
            }
        }
    }
}

/// The difference between two values of the same instance, as amendments.
///
/// It is a difference between what was read before and after, so that what a layout cannot carry (and therefore reads
/// as a default both times) is left alone. `None` if either does not decode: then there is nothing to take over.
pub(crate) fn difference(layout: &dyn Layout, before: &[Entry], after: &[Entry]) -> Option<Vec<Amendment>> {
    let before = decode(layout, before)?;
    let after = decode(layout, after)?;
    let mut amendments = Vec::new();
    if before.status != after.status {
        amendments.push(Amendment::Status(after.status));
    }
    if before.weight != after.weight {
        amendments.push(Amendment::Weight(after.weight));
    }
    for key in before.metadata.keys() {
        if !after.metadata.contains_key(key) {
            amendments.push(Amendment::Metadata(key.clone(), None));
        }
    }
    for (key, value) in &after.metadata {
        if before.metadata.get(key) != Some(value) {
            amendments.push(Amendment::Metadata(key.clone(), Some(value.clone())));
        }
    }
    Some(amendments)
}

/// Whether two sets of entries say the same.
pub(crate) fn same(layout: &dyn Layout, one: &[Entry], other: &[Entry]) -> bool {
    matches!((decode(layout, one), decode(layout, other)), (Some(one), Some(other)) if one == other)
}

fn decode(layout: &dyn Layout, entries: &[Entry]) -> Option<Instance> {
    let parts: Vec<Option<RawKv<'_>>> =
        entries.iter().map(|entry| Some(RawKv { key: &entry.key, value: &entry.value, lease: 0 })).collect();
    layout.decode(&parts).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(layout: &dyn Layout, instance: &Instance) -> Vec<Entry> {
        layout.encode(instance, 7).unwrap().entries
    }

    #[test]
    fn only_what_was_changed_is_taken_over() {
        let grpc = waypost_model::layout("grpc", None).unwrap();
        let base = Instance::new("greeter".parse().unwrap(), "10.0.0.1:1".parse().unwrap())
            .with_metadata("keep", "1")
            .with_metadata("drop", "2");
        let before = entries(&*grpc, &base);
        let mut edited = base.clone().with_status(Status::Draining).with_metadata("new", "3");
        edited.metadata.remove("drop");
        let amendments = difference(&*grpc, &before, &entries(&*grpc, &edited)).unwrap();

        // Meanwhile the program has set another weight: that stays.
        let mut current = base.with_weight(7);
        for amendment in amendments {
            amendment.apply(&mut current);
        }
        assert_eq!(current, edited.with_weight(7));
    }

    #[test]
    fn what_does_not_decode_is_no_difference() {
        let grpc = waypost_model::layout("grpc", None).unwrap();
        let base = Instance::new("greeter".parse().unwrap(), "10.0.0.1:1".parse().unwrap());
        let before = entries(&*grpc, &base);
        let broken = vec![Entry { key: before[0].key.clone(), value: b"{".to_vec() }];
        assert_eq!(difference(&*grpc, &before, &broken), None);
        assert!(!same(&*grpc, &before, &broken));
        assert!(same(&*grpc, &before, &before.clone()));
    }
}
