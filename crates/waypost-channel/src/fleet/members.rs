//! Who is registered, and at which addresses: joins and parts links as instances come, move and go.

use super::Fleet;
use super::link::Link;
use std::sync::Arc;
use std::time::Instant;
use waypost_balance::EndpointState;
use waypost_model::{Endpoint, Instance, InstanceKey, Status};

/// One registered instance.
pub(super) struct Member {
    instance: Arc<Instance>,
    route: Route,
    /// The address that it had, kept in service until the new one is ready.
    held: Option<Endpoint>,
}

/// Where calls to a member go.
enum Route {
    To(Endpoint),
    /// It does not want calls, or speaks nothing that we can.
    Nowhere(Arc<str>),
}

// === impl Fleet ===

impl Fleet {
    /// What it leaves is put down in `parting`, for [`part`](Self::part).
    pub(super) fn register(
        &mut self,
        key: InstanceKey,
        instance: Arc<Instance>,
        now: Instant,
        parting: &mut Vec<(Endpoint, InstanceKey)>,
    ) {
        let route = if instance.status == Status::Up {
            (self.settings.route)(&instance).map_or_else(Route::Nowhere, Route::To)
        } else {
            Route::Nowhere(format!("it is {}", instance.status).into())
        };
        let old = self.members.remove(&key);
        if let Some(old) = &old {
            self.census.count_instance(old.instance.status, false);
        }
        self.census.count_instance(instance.status, true);
        match &route {
            Route::Nowhere(reason) if instance.status == Status::Up => {
                self.census.unusable.insert(key.clone(), Arc::clone(reason));
            }
            _ => drop(self.census.unusable.remove(&key)),
        }
        let held = match (&old, &route) {
            (Some(Member { route: Route::To(before), held, .. }), Route::To(after)) if before == after => {
                if let Some(link) = self.links.get_mut(after).filter(|link| link.speaks_for(&key)) {
                    self.reweighed |= link.is_spoken_for(key.clone(), &instance);
                }
                held.clone()
            }
            (Some(Member { route: Route::To(before), held, .. }), Route::To(after)) => {
                let serving = |at: &Endpoint| self.links.get(at).is_some_and(Link::is_ready);
                let keep = [Some(before), held.as_ref()]
                    .into_iter()
                    .flatten()
                    .find(|at| *at != after && serving(at))
                    .cloned();
                // Where not everything is connected to, it may never be the turn of the new address.
                let covered = self.settings.reach.covers(self.links.len() + 1);
                let keep = keep.filter(|_| covered && !serving(after));
                self.join(after, &key, &instance, now);
                for old in [Some(before), held.as_ref()].into_iter().flatten() {
                    if Some(old) != keep.as_ref() && old != after {
                        parting.push((old.clone(), key.clone()));
                    }
                }
                keep
            }
            (_, Route::To(after)) => {
                self.join(after, &key, &instance, now);
                None
            }
            (old, Route::Nowhere(_)) => {
                let left = old.iter().flat_map(Member::endpoints);
                parting.extend(left.map(|at| (at.clone(), key.clone())));
                None
            }
        };
        self.members.insert(key, Member { instance, route, held });
    }

    pub(super) fn deregister(&mut self, key: &InstanceKey, parting: &mut Vec<(Endpoint, InstanceKey)>) {
        if let Some(member) = self.members.remove(key) {
            self.census.count_instance(member.instance.status, false);
            self.census.unusable.remove(key);
            parting.extend(member.endpoints().map(|at| (at.clone(), key.clone())));
        }
    }

    /// The address that `key` has moved away from is no longer needed.
    pub(super) fn release(&mut self, key: &InstanceKey, now: Instant) {
        if let Some(held) = self.members.get_mut(key).and_then(|member| member.held.take()) {
            self.part(&held, key, now);
        }
    }

    fn join(&mut self, endpoint: &Endpoint, key: &InstanceKey, instance: &Arc<Instance>, now: Instant) {
        if let Some(link) = self.links.get_mut(endpoint) {
            link.owners.insert(key.clone());
            if link.speaks_for(key) {
                self.reweighed |= link.is_spoken_for(key.clone(), instance);
            }
            return;
        }
        let state = EndpointState::new(key.clone(), endpoint.clone(), Arc::clone(instance), now)
            .counting_from(self.epoch);
        self.add(endpoint, state, key.clone(), now);
    }

    /// `key` no longer goes to this address; what nobody goes to is let go.
    pub(super) fn part(&mut self, endpoint: &Endpoint, key: &InstanceKey, now: Instant) {
        let Some(link) = self.links.get_mut(endpoint) else { return };
        link.owners.remove(key);
        if let Some(heir) = link.owners.first() {
            if let Some(member) = self.members.get(heir) {
                self.reweighed |= link.is_spoken_for(heir.clone(), &member.instance);
            }
            return;
        }
        self.drop_link(endpoint, now);
    }
}

// === impl Member ===

impl Member {
    pub(super) fn aims_at(&self, endpoint: &Endpoint) -> bool {
        matches!(&self.route, Route::To(at) if at == endpoint)
    }

    /// Where it has a link: the address it has, and the one it is moving away from.
    fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        let aimed = match &self.route {
            Route::To(at) => Some(at),
            Route::Nowhere(_) => None,
        };
        aimed.into_iter().chain(&self.held)
    }
}
