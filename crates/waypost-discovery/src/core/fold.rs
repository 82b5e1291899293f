//! One set out of several layouts: an address that several of them have is shown once.
//!
//! The layout that is named first wins, and when its entry goes the other shows. Within one layout nothing is folded:
//! there two ids are two instances, also on one address.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use imbl::OrdMap;
use waypost_model::{Instance, InstanceKey, ServiceName};

/// The instances that are shown, and behind them those that are not.
pub(crate) struct Fold {
    shown: OrdMap<InstanceKey, Arc<Instance>>,
    /// `None` with one layout: there is nothing to fold, and nothing to remember.
    addresses: Option<HashMap<Address, Candidates>>,
}

type Address = (ServiceName, String);

/// Sorted by layout: those of the lowest layout are shown.
type Candidates = BTreeMap<(u8, InstanceKey), Arc<Instance>>;

// === impl Fold ===

impl Fold {
    pub(crate) fn new(layouts: usize) -> Self {
        Self { shown: OrdMap::new(), addresses: (layouts > 1).then(HashMap::new) }
    }

    pub(crate) fn shown(&self) -> &OrdMap<InstanceKey, Arc<Instance>> {
        &self.shown
    }

    /// Applies what happened to one instance. Costs O(log n), but for an address that changes its layout: then
    /// O(log n) for each of its instances.
    pub(crate) fn change(
        &mut self,
        key: &InstanceKey,
        before: Option<&Arc<Instance>>,
        after: Option<&Arc<Instance>>,
    ) {
        let Some(addresses) = &mut self.addresses else {
            match after {
                Some(after) => self.shown.insert(key.clone(), Arc::clone(after)),
                None => self.shown.remove(key),
            };
            return;
        };
        let old = before.map(|before| address(before));
        let new = after.map(|after| address(after));
        if let Some(old) = &old
            && new.as_ref() != Some(old)
        {
            leave(&mut self.shown, addresses, old, key);
        }
        if let (Some(new), Some(after)) = (new, after) {
            join(&mut self.shown, addresses, new, key, after);
        }
    }
}

fn address(instance: &Instance) -> Address {
    (instance.service.clone(), instance.address())
}

fn join(
    shown: &mut OrdMap<InstanceKey, Arc<Instance>>,
    addresses: &mut HashMap<Address, Candidates>,
    address: Address,
    key: &InstanceKey,
    instance: &Arc<Instance>,
) {
    let candidates = addresses.entry(address).or_default();
    if let Some(first) = first_layout(candidates) {
        if first < key.layout {
            candidates.insert((key.layout, key.clone()), Arc::clone(instance));
            return;
        }
        if first > key.layout {
            for (_, hidden) in candidates.keys().take_while(|(layout, _)| *layout == first) {
                shown.remove(hidden);
            }
        }
    }
    candidates.insert((key.layout, key.clone()), Arc::clone(instance));
    shown.insert(key.clone(), Arc::clone(instance));
}

fn leave(
    shown: &mut OrdMap<InstanceKey, Arc<Instance>>,
    addresses: &mut HashMap<Address, Candidates>,
    address: &Address,
    key: &InstanceKey,
) {
    let Some(candidates) = addresses.get_mut(address) else { return };
    candidates.remove(&(key.layout, key.clone()));
    shown.remove(key);
    match first_layout(candidates) {
        None => {
            addresses.remove(address);
        }
        Some(first) if first > key.layout => {
            for ((_, key), instance) in candidates.iter().take_while(|((layout, _), _)| *layout == first) {
                shown.insert(key.clone(), Arc::clone(instance));
            }
        }
        Some(_) => {}
    }
}

fn first_layout(candidates: &Candidates) -> Option<u8> {
    candidates.first_key_value().map(|((layout, _), _)| *layout)
}
