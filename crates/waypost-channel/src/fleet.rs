//! The rules of the driver, without I/O: what to connect to and when, and which endpoints are offered to the picker.
//!
//! Time and events come in as arguments, [`Action`]s come out. The links are kept by address, not by instance: a server that
//! is registered twice (under two layouts, or once more after a crash that left its old key behind) is one link.

mod link;
mod report;

pub(crate) use link::ConnectionId;
pub(crate) use report::{Census, EndpointReport, LinkPhase, Outlook};

use crate::backoff::Backoff;
use link::{Link, Phase};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use waypost_balance::EndpointState;
use waypost_model::{Change, Endpoint, Existence, Instance, InstanceKey, Snapshot, Status};

/// A connection that held for less than this counts as a failed attempt, so that a server that accepts and closes at once is
/// not connected to in a tight loop.
const STABLE: Duration = Duration::from_secs(1);

/// The set of endpoints of one channel.
pub(crate) struct Fleet {
    settings: Settings,
    rng: fastrand::Rng,
    seen: Arc<Snapshot>,
    members: BTreeMap<InstanceKey, Member>,
    links: BTreeMap<Endpoint, Link>,
    /// When to try again: exactly the links whose phase is [`Phase::Waiting`].
    timers: BTreeSet<(Instant, Endpoint)>,
    leaving: Vec<Leaving>,
    next_connection: u64,
    /// Since when no link has been ready.
    unready_since: Option<Instant>,
    actions: Vec<Action>,
    changed: bool,
    /// An endpoint's registration has changed while the endpoint stayed.
    reweighed: bool,
}

/// What a fleet is told once.
pub(crate) struct Settings {
    pub(crate) backoff: Backoff,
    /// How long calls may go on on an endpoint that has left.
    pub(crate) drain: Duration,
    /// Which of an instance's endpoints calls go to, or why none can be used.
    pub(crate) route: Router,
}

pub(crate) type Router = Box<dyn Fn(&Instance) -> Result<Endpoint, Arc<str>> + Send + Sync>;

/// One registered instance.
struct Member {
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

/// A connection that gets no new calls.
struct Leaving {
    id: ConnectionId,
    state: Arc<EndpointState>,
    until: Instant,
}

/// What the shell is to do.
pub(crate) enum Action {
    /// Make a connection and tell how it went, under this id.
    Connect { id: ConnectionId, state: Arc<EndpointState> },
    /// Give it no new calls, and let it close when the last call has ended.
    Retire { id: ConnectionId },
    /// Close it now, or stop making it.
    Abort { id: ConnectionId },
}

// === impl Fleet ===

impl Fleet {
    /// An empty fleet at `now`; `seed` drives the jitter.
    pub(crate) fn new(settings: Settings, empty: Arc<Snapshot>, seed: u64, now: Instant) -> Self {
        Self {
            settings,
            rng: fastrand::Rng::with_seed(seed),
            seen: empty,
            members: BTreeMap::new(),
            links: BTreeMap::new(),
            timers: BTreeSet::new(),
            leaving: Vec::new(),
            next_connection: 0,
            unready_since: Some(now),
            actions: Vec::new(),
            changed: true,
            reweighed: false,
        }
    }

    /// Takes the newest snapshot. Costs what has changed since the last one.
    pub(crate) fn apply(&mut self, snapshot: &Arc<Snapshot>, now: Instant) {
        let before = std::mem::replace(&mut self.seen, Arc::clone(snapshot));
        for change in snapshot.changes_since(&before) {
            match change {
                Change::Added { key, instance } | Change::Updated { key, after: instance, .. } => {
                    self.register(key, instance, now);
                }
                Change::Removed { key, .. } => self.deregister(&key, now),
            }
        }
        // Freshness and existence are part of what a failed call is told.
        self.settle(now);
    }

    /// The connection is ready for calls.
    pub(crate) fn connected(&mut self, endpoint: &Endpoint, id: ConnectionId, now: Instant) {
        let Some(link) = self.links.get_mut(endpoint).filter(|link| link.id == id) else { return };
        link.phase = Phase::Ready { since: now };
        link.state.open();
        let owners: Vec<InstanceKey> = link.owners.iter().cloned().collect();
        for key in owners {
            let aimed = self.members.get(&key).is_some_and(|member| member.aims_at(endpoint));
            if aimed {
                self.release(&key, now);
            }
        }
        self.settle(now);
    }

    /// An attempt to connect has failed.
    pub(crate) fn failed(&mut self, endpoint: &Endpoint, id: ConnectionId, error: Arc<str>, now: Instant) {
        let Some(link) = self.links.get_mut(endpoint).filter(|link| link.id == id) else { return };
        link.error = Some(error);
        self.wait(endpoint, now);
        self.settle(now);
    }

    /// A connection that was ready is closed.
    pub(crate) fn closed(&mut self, endpoint: &Endpoint, id: ConnectionId, cause: Arc<str>, now: Instant) {
        let Some(link) = self.links.get_mut(endpoint).filter(|link| link.id == id) else { return };
        link.state.close();
        link.error = Some(cause);
        let stable = link.was_stable(now);
        link.phase = Phase::Waiting { until: now };
        // A closed connection stands in for nobody: what does not aim here has nothing to come back for.
        let held: Vec<InstanceKey> = link
            .owners
            .iter()
            .filter(|key| self.members.get(key).is_none_or(|member| !member.aims_at(endpoint)))
            .cloned()
            .collect();
        for key in held {
            self.release(&key, now);
        }
        if stable {
            if let Some(link) = self.links.get_mut(endpoint) {
                link.failures = 0;
            }
            self.connect(endpoint, true);
        } else {
            self.wait(endpoint, now);
        }
        self.settle(now);
    }

    /// Does what is due at `now`.
    pub(crate) fn tick(&mut self, now: Instant) {
        while let Some((_, endpoint)) = self.timers.first().filter(|(at, _)| *at <= now).cloned() {
            self.timers.pop_first();
            self.connect(&endpoint, false);
        }
        self.settle(now);
    }

    /// When [`tick`](Self::tick) is next due.
    pub(crate) fn next_wake(&self) -> Option<Instant> {
        let retry = self.timers.first().map(|(at, _)| *at);
        let end = self.leaving.iter().map(|leaving| leaving.until).min();
        [retry, end].into_iter().flatten().min()
    }

    /// What is to be done since the last time this was asked.
    pub(crate) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// Whether a new picker is to be published since the last time this was asked.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Whether weights or zones have changed since the last time this was asked.
    pub(crate) fn take_reweighed(&mut self) -> bool {
        std::mem::take(&mut self.reweighed)
    }

    /// The endpoint that this connection is to, unless the connection is out of date.
    pub(crate) fn state_of(&self, endpoint: &Endpoint, id: ConnectionId) -> Option<Arc<EndpointState>> {
        self.links.get(endpoint).filter(|link| link.id == id).map(|link| Arc::clone(&link.state))
    }

    /// The endpoints that calls may go to, in the order of their addresses.
    pub(crate) fn ready(&self) -> impl Iterator<Item = (ConnectionId, &Arc<EndpointState>)> {
        self.links.values().filter(|link| link.is_ready()).map(|link| (link.id, &link.state))
    }

    /// Whether waiting may help a call that finds no endpoint.
    pub(crate) fn outlook(&self) -> Outlook {
        if self.members.is_empty() && self.seen.existence() == Existence::Unknown {
            Outlook::Unread
        } else if self.links.values().any(Link::is_ready) {
            Outlook::Ready
        } else if self.links.values().any(Link::is_undecided) {
            Outlook::Connecting
        } else {
            Outlook::Unavailable
        }
    }

    /// Every endpoint, ready or not, and those that are leaving.
    pub(crate) fn census(&self) -> Census {
        Census::take(self)
    }

    fn register(&mut self, key: InstanceKey, instance: Arc<Instance>, now: Instant) {
        let route = if instance.status == Status::Up {
            (self.settings.route)(&instance).map_or_else(Route::Nowhere, Route::To)
        } else {
            Route::Nowhere(format!("it is {}", instance.status).into())
        };
        let old = self.members.remove(&key);
        let held = match (&old, &route) {
            (Some(Member { route: Route::To(before), held, .. }), Route::To(after)) if before == after => {
                if let Some(link) = self.links.get_mut(after).filter(|link| link.speaks_for(&key)) {
                    self.reweighed = true;
                    link.state.set_instance(key.clone(), Arc::clone(&instance));
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
                let keep = if serving(after) { None } else { keep };
                self.join(after, &key, &instance, now);
                for old in [Some(before), held.as_ref()].into_iter().flatten() {
                    if Some(old) != keep.as_ref() && old != after {
                        self.part(old, &key, now);
                    }
                }
                keep
            }
            (_, Route::To(after)) => {
                self.join(after, &key, &instance, now);
                None
            }
            (old, Route::Nowhere(_)) => {
                for at in old.iter().flat_map(Member::endpoints) {
                    self.part(at, &key, now);
                }
                None
            }
        };
        self.members.insert(key, Member { instance, route, held });
    }

    fn deregister(&mut self, key: &InstanceKey, now: Instant) {
        if let Some(member) = self.members.remove(key) {
            for at in member.endpoints() {
                self.part(at, key, now);
            }
        }
    }

    /// The address that `key` has moved away from is no longer needed.
    fn release(&mut self, key: &InstanceKey, now: Instant) {
        if let Some(held) = self.members.get_mut(key).and_then(|member| member.held.take()) {
            self.part(&held, key, now);
        }
    }

    fn join(&mut self, endpoint: &Endpoint, key: &InstanceKey, instance: &Arc<Instance>, now: Instant) {
        if let Some(link) = self.links.get_mut(endpoint) {
            link.owners.insert(key.clone());
            if link.speaks_for(key) {
                self.reweighed = true;
                link.state.set_instance(key.clone(), Arc::clone(instance));
            }
            return;
        }
        let state = EndpointState::new(key.clone(), endpoint.clone(), Arc::clone(instance), now);
        self.links.insert(endpoint.clone(), Link::new(Arc::new(state), key.clone()));
        self.connect(endpoint, true);
    }

    fn part(&mut self, endpoint: &Endpoint, key: &InstanceKey, now: Instant) {
        let Some(link) = self.links.get_mut(endpoint) else { return };
        link.owners.remove(key);
        if let Some(heir) = link.owners.first() {
            if let Some(member) = self.members.get(heir) {
                self.reweighed = true;
                link.state.set_instance(heir.clone(), Arc::clone(&member.instance));
            }
            return;
        }
        let Some(link) = self.links.remove(endpoint) else { return };
        link.state.close();
        match link.phase {
            Phase::Ready { .. } => {
                self.actions.push(Action::Retire { id: link.id });
                let until = now + self.settings.drain;
                self.leaving.push(Leaving { id: link.id, state: link.state, until });
            }
            Phase::Connecting { .. } => self.actions.push(Action::Abort { id: link.id }),
            Phase::Waiting { until } => {
                self.timers.remove(&(until, endpoint.clone()));
            }
        }
    }

    fn connect(&mut self, endpoint: &Endpoint, first: bool) {
        let Some(link) = self.links.get_mut(endpoint) else { return };
        self.next_connection += 1;
        link.id = ConnectionId(self.next_connection);
        link.phase = Phase::Connecting { first };
        self.actions.push(Action::Connect { id: link.id, state: Arc::clone(&link.state) });
    }

    fn wait(&mut self, endpoint: &Endpoint, now: Instant) {
        let Some(link) = self.links.get_mut(endpoint) else { return };
        link.failures = link.failures.saturating_add(1);
        let until = now + self.settings.backoff.delay(link.failures, self.rng.f64());
        link.phase = Phase::Waiting { until };
        self.timers.insert((until, endpoint.clone()));
    }

    /// What follows every event.
    fn settle(&mut self, now: Instant) {
        self.changed = true;
        let ready = self.links.values().any(Link::is_ready);
        self.unready_since = if ready { None } else { self.unready_since.or(Some(now)) };
        let actions = &mut self.actions;
        self.leaving.retain(|leaving| {
            let due = leaving.until <= now;
            if due {
                actions.push(Action::Abort { id: leaving.id });
            }
            !due
        });
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet")
            .field("members", &self.members.len())
            .field("links", &self.links)
            .field("leaving", &self.leaving.len())
            .finish_non_exhaustive()
    }
}

// === impl Member ===

impl Member {
    fn aims_at(&self, endpoint: &Endpoint) -> bool {
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

#[cfg(test)]
mod tests;
