//! The rules of the driver, without I/O: what to connect to and when, and which endpoints are offered to the picker.
//!
//! Time and events come in as arguments, [`Action`]s come out. The links are kept by address, not by instance: a server that
//! is registered twice (under two layouts, or once more after a crash that left its old key behind) is one link.
//!
//! What is known of a link (its report, its place in the queue, in the timers and among those that are ready) changes with its
//! phase, in [`shift`](Fleet::shift) and nowhere else. An event costs what it changes, not what there is.

mod link;
mod members;
mod order;
mod reach;
mod report;

pub(crate) use link::ConnectionId;
pub(crate) use reach::Reach;
pub(crate) use report::{Census, EndpointReport, LinkPhase, Outlook};

use crate::backoff::Backoff;
use link::{Link, Phase};
use members::Member;
use order::Order;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use waypost_balance::EndpointState;
use waypost_model::{Change, Endpoint, Existence, Instance, InstanceKey, Snapshot};

/// A connection that held for less than this counts as a failed attempt, so that a server that accepts and closes at once is
/// not connected to in a tight loop.
const STABLE: Duration = Duration::from_secs(1);
/// A century, for times that are set to be longer than there are instants for.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 86_400);

/// The set of endpoints of one channel.
pub(crate) struct Fleet {
    settings: Settings,
    /// What all endpoints count their times from.
    epoch: Instant,
    rng: fastrand::Rng,
    seen: Arc<Snapshot>,
    members: BTreeMap<InstanceKey, Member>,
    links: BTreeMap<Endpoint, Link>,
    /// All links in the order in which this client connects, if it does not connect to all.
    order: Option<Order>,
    /// Of those, the ones that are [within](Link::within).
    within: BTreeSet<(u64, Endpoint)>,
    /// Exactly the links whose phase is [`Phase::Queued`], by ticket.
    queue: BTreeSet<(u64, Endpoint)>,
    /// When to try again: exactly the links whose phase is [`Phase::Waiting`].
    timers: BTreeSet<(Instant, Endpoint)>,
    /// Tickets of repeated attempts that were given out.
    repeats: u64,
    /// Exactly the links that are [connected](Link::is_connected).
    connected: BTreeSet<Endpoint>,
    /// Attempts to connect under way: the links whose phase is [`Phase::Connecting`].
    attempts: usize,
    /// When to look next for connections that are of no use.
    next_idle_look: Option<Instant>,
    /// To be opened when a table is published that has their connections: until then one may be read that has older ones.
    opening: BTreeSet<Endpoint>,
    leaving: BTreeMap<ConnectionId, Leaving>,
    /// When they have to end.
    ends: BTreeSet<(Instant, ConnectionId)>,
    next_connection: u64,
    census: Census,
    actions: Vec<Action>,
    /// Links whose phase has changed, or of which calls may want another than before, since that was last asked.
    stirred: BTreeSet<Endpoint>,
    changed: bool,
    /// An endpoint's registration has changed, in what a policy may go by, while the endpoint stayed.
    reweighed: bool,
}

/// What a fleet is told once.
pub(crate) struct Settings {
    pub(crate) backoff: Backoff,
    /// How long calls may go on on an endpoint that has left.
    pub(crate) drain: Duration,
    /// Which endpoints are connected to, and when.
    pub(crate) reach: Reach,
    /// Which of an instance's endpoints calls go to, or why none can be used.
    pub(crate) route: Router,
}

pub(crate) type Router = Box<dyn Fn(&Instance) -> Result<Endpoint, Arc<str>> + Send + Sync>;

/// A connection that gets no new calls.
struct Leaving {
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
    /// It is one of the endpoints that this client relies on: watch how its calls go.
    Observe { state: Arc<EndpointState> },
    /// It no longer is.
    Forget { state: Arc<EndpointState> },
}

// === impl Fleet ===

impl Fleet {
    /// An empty fleet at `now`; `seed` drives the jitter and the order of attempts.
    pub(crate) fn new(settings: Settings, empty: Arc<Snapshot>, seed: u64, now: Instant) -> Self {
        Self {
            next_idle_look: settings.reach.first_idle_look(now),
            order: settings.reach.subset.clone().map(Order::new),
            settings,
            epoch: now,
            rng: fastrand::Rng::with_seed(seed),
            seen: empty,
            members: BTreeMap::new(),
            links: BTreeMap::new(),
            within: BTreeSet::new(),
            queue: BTreeSet::new(),
            timers: BTreeSet::new(),
            repeats: 0,
            connected: BTreeSet::new(),
            attempts: 0,
            opening: BTreeSet::new(),
            leaving: BTreeMap::new(),
            ends: BTreeSet::new(),
            next_connection: 0,
            census: Census::new(now),
            actions: Vec::new(),
            stirred: BTreeSet::new(),
            changed: true,
            reweighed: false,
        }
    }

    /// Takes the newest snapshot. Costs what has changed since the last one.
    pub(crate) fn apply(&mut self, snapshot: &Arc<Snapshot>, now: Instant) {
        let before = std::mem::replace(&mut self.seen, Arc::clone(snapshot));
        // An address that one key gives up and another takes keeps its connection: nobody parts before all have joined.
        let mut parting = Vec::new();
        for change in snapshot.changes_since(&before) {
            match change {
                Change::Added { key, instance } | Change::Updated { key, after: instance, .. } => {
                    self.register(key, instance, now, &mut parting);
                }
                Change::Removed { key, .. } => self.deregister(&key, &mut parting),
            }
        }
        for (endpoint, key) in parting {
            self.part(&endpoint, &key, now);
        }
        // Freshness and existence are part of what a failed call is told.
        self.settle(now);
    }

    /// The connection is ready for calls.
    pub(crate) fn connected(&mut self, endpoint: &Endpoint, id: ConnectionId, now: Instant) {
        let Some(link) = self.links.get_mut(endpoint).filter(|link| link.id == id) else { return };
        let since = link.begun(now);
        let owners: Vec<InstanceKey> = link.owners.iter().cloned().collect();
        self.shift(endpoint, Phase::Ready { since });
        self.open_soon(endpoint);
        for key in owners {
            let aimed = self.members.get(&key).is_some_and(|member| member.aims_at(endpoint));
            if aimed {
                self.release(&key, now);
            }
        }
        self.settle(now);
    }

    /// It is connected, and not fit for calls.
    pub(crate) fn unfit(&mut self, endpoint: &Endpoint, id: ConnectionId, cause: Arc<str>, now: Instant) {
        let Some(link) = self.links.get_mut(endpoint).filter(|link| link.id == id) else { return };
        link.state.settle_loss();
        link.error = Some(cause);
        let since = link.begun(now);
        let told = if let Phase::Unfit { told, .. } = link.phase { told } else { now };
        self.shift(endpoint, Phase::Unfit { since, told });
        self.settle(now);
    }

    /// An attempt to connect has failed.
    pub(crate) fn failed(&mut self, endpoint: &Endpoint, id: ConnectionId, error: Arc<str>, now: Instant) {
        let Some(link) = self.links.get_mut(endpoint).filter(|link| link.id == id) else { return };
        link.state.settle_loss();
        link.error = Some(error);
        self.wait(endpoint, now);
        self.settle(now);
    }

    /// A connection that was ready is closed: it takes no more calls, while those under way may go on until it is [over](Self::over).
    pub(crate) fn closed(&mut self, endpoint: &Endpoint, id: ConnectionId, cause: Arc<str>, now: Instant) {
        let Some(link) = self.links.get_mut(endpoint).filter(|link| link.id == id) else { return };
        link.state.settle_loss();
        link.error = Some(cause);
        link.parted.push((id, Arc::clone(&link.state)));
        let stable = link.was_stable(now);
        if stable {
            link.failures = 0;
        }
        // A closed connection stands in for nobody: what does not aim here has nothing to come back for.
        let held: Vec<InstanceKey> = link
            .owners
            .iter()
            .filter(|key| self.members.get(key).is_none_or(|member| !member.aims_at(endpoint)))
            .cloned()
            .collect();
        self.shift(endpoint, Phase::Idle { first: stable });
        for key in held {
            self.release(&key, now);
        }
        if stable {
            self.resume(endpoint);
        } else {
            self.wait(endpoint, now);
        }
        self.settle(now);
    }

    /// Nothing goes on any more on a connection that was closed.
    pub(crate) fn over(&mut self, endpoint: &Endpoint, id: ConnectionId) {
        if let Some(link) = self.links.get_mut(endpoint) {
            link.parted.retain(|(parted, _)| *parted != id);
        }
        if let Some(leaving) = self.leaving.remove(&id) {
            self.ends.remove(&(leaving.until, id));
            self.changed = true;
        }
    }

    /// Calls see from now on what the fleet offers at this instant.
    pub(crate) fn published(&mut self) {
        for endpoint in std::mem::take(&mut self.opening) {
            let Some(link) = self.links.get(&endpoint) else { continue };
            if link.is_ready() || (self.settings.reach.is_lazy() && link.is_reachable()) {
                link.state.open();
            }
        }
    }

    /// A call wants this endpoint, which nothing is connected to: for a fleet that connects when calls come.
    pub(crate) fn wanted(&mut self, endpoint: &Endpoint, now: Instant) {
        let idle = |link: &Link| link.within && matches!(link.phase, Phase::Idle { .. });
        if !self.links.get(endpoint).is_some_and(idle) {
            return;
        }
        if !self.has_room() {
            self.make_room(now);
        }
        if self.has_room() {
            self.enqueue(endpoint);
            self.settle(now);
        }
    }

    /// An endpoint was set aside, or is used again.
    pub(crate) fn ejected(&mut self, state: &Arc<EndpointState>, cause: Option<Arc<str>>) {
        self.changed = true;
        let endpoint = state.endpoint();
        let Some(link) = self.links.get_mut(endpoint).filter(|link| Arc::ptr_eq(&link.state, state)) else {
            return;
        };
        link.ejections.count += u64::from(cause.is_some());
        // Calls that were refused another endpoint for want of room may ask for one again: there is some.
        if cause.is_some() && self.settings.reach.is_lazy() {
            self.stirred.insert(endpoint.clone());
        }
        link.ejections.cause = cause;
        self.census.update(endpoint, link.phase, link);
    }

    /// Does what is due at `now`.
    pub(crate) fn tick(&mut self, now: Instant) {
        let mut due = self.ends.first().is_some_and(|(at, _)| *at <= now);
        while let Some((_, endpoint)) = self.timers.first().filter(|(at, _)| *at <= now).cloned() {
            self.shift(&endpoint, Phase::Idle { first: false });
            self.resume(&endpoint);
            due = true;
        }
        if self.let_go_of_idle(now) || due {
            self.settle(now);
        }
    }

    /// When [`tick`](Self::tick) is next due.
    pub(crate) fn next_wake(&self) -> Option<Instant> {
        let retry = self.timers.first().map(|(at, _)| *at);
        let end = self.ends.first().map(|(at, _)| *at);
        [retry, end, self.next_idle_look].into_iter().flatten().min()
    }

    /// What is to be done since the last time this was asked.
    pub(crate) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// Whether anything is to be published since that was last [asked](Self::take_changed).
    pub(crate) fn has_changed(&self) -> bool {
        self.changed
    }

    /// Whether anything is to be published since the last time this was asked.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Whether weights, zones, versions or metadata have changed since the last time this was asked.
    pub(crate) fn take_reweighed(&mut self) -> bool {
        std::mem::take(&mut self.reweighed)
    }

    /// Endpoints whose [`ready_at`](Self::ready_at), or whose being [reachable](Self::reachable), may have changed since the last time
    /// this was asked.
    pub(crate) fn take_stirred(&mut self) -> BTreeSet<Endpoint> {
        std::mem::take(&mut self.stirred)
    }

    /// The connection that takes the calls of this endpoint.
    pub(crate) fn ready_at(&self, endpoint: &Endpoint) -> Option<ConnectionId> {
        self.links.get(endpoint).filter(|link| link.is_ready()).map(|link| link.id)
    }

    /// Where a call may go, if need be after connecting, in the order of address; `None` unless connections are made when calls
    /// come.
    pub(crate) fn reachable(&self) -> Option<Vec<Arc<EndpointState>>> {
        self.settings.reach.is_lazy().then(|| {
            let links = self.links.values().filter(|link| link.is_reachable());
            links.map(|link| Arc::clone(&link.state)).collect()
        })
    }

    /// The endpoint that this connection is to, unless the connection is out of date.
    pub(crate) fn state_of(&self, endpoint: &Endpoint, id: ConnectionId) -> Option<Arc<EndpointState>> {
        self.links.get(endpoint).filter(|link| link.id == id).map(|link| Arc::clone(&link.state))
    }

    /// Whether waiting may help a call that finds no endpoint.
    pub(crate) fn outlook(&self) -> Outlook {
        let on_demand = || self.settings.reach.is_lazy() && self.census.untried() > 0;
        if self.members.is_empty() && self.seen.existence() == Existence::Unknown {
            Outlook::Unread
        } else if self.census.count(LinkPhase::Ready) > 0 {
            Outlook::Ready
        } else if self.census.undecided() > 0 || on_demand() {
            Outlook::Connecting
        } else {
            Outlook::Unavailable
        }
    }

    /// Every endpoint, ready or not, and those that are leaving.
    pub(crate) fn census(&self) -> Census {
        Census::take(self)
    }

    /// Puts a link into a phase, and with it into whatever is kept by phase.
    fn shift(&mut self, endpoint: &Endpoint, phase: Phase) {
        let Some(link) = self.links.get_mut(endpoint) else { return };
        let was_connected = link.is_connected();
        let before = std::mem::replace(&mut link.phase, phase);
        match before {
            Phase::Queued { ticket, .. } => drop(self.queue.remove(&(ticket, endpoint.clone()))),
            Phase::Waiting { until } => drop(self.timers.remove(&(until, endpoint.clone()))),
            Phase::Connecting { .. } => self.attempts -= 1,
            Phase::Idle { .. } | Phase::Ready { .. } | Phase::Unfit { .. } => {}
        }
        match (was_connected, link.is_connected()) {
            (false, true) => drop(self.connected.insert(endpoint.clone())),
            (true, false) => drop(self.connected.remove(endpoint)),
            _ => {}
        }
        match phase {
            Phase::Queued { ticket, .. } => drop(self.queue.insert((ticket, endpoint.clone()))),
            Phase::Waiting { until } => drop(self.timers.insert((until, endpoint.clone()))),
            Phase::Connecting { .. } => self.attempts += 1,
            Phase::Idle { .. } | Phase::Ready { .. } | Phase::Unfit { .. } => {}
        }
        self.census.update(endpoint, before, link);
        self.stirred.insert(endpoint.clone());
    }

    fn open_soon(&mut self, endpoint: &Endpoint) {
        self.opening.insert(endpoint.clone());
        self.changed = true;
    }

    /// The calls of a connection may go on for a while, however long that is.
    fn see_off(&mut self, id: ConnectionId, state: Arc<EndpointState>, now: Instant) {
        let until = later(now, self.settings.drain);
        self.ends.insert((until, id));
        self.leaving.insert(id, Leaving { state, until });
    }

    fn wait(&mut self, endpoint: &Endpoint, now: Instant) {
        let Some(link) = self.links.get_mut(endpoint) else { return };
        link.failures = link.failures.saturating_add(1);
        let until = later(now, self.settings.backoff.delay(link.failures, self.rng.f64()));
        self.shift(endpoint, Phase::Waiting { until });
    }

    /// What follows every event.
    fn settle(&mut self, now: Instant) {
        self.changed = true;
        self.choose(now);
        self.start_attempts();
        let ready = self.census.count(LinkPhase::Ready) > 0;
        self.census.unready_since = if ready { None } else { self.census.unready_since.or(Some(now)) };
        while let Some((_, id)) = self.ends.first().filter(|(at, _)| *at <= now).copied() {
            self.ends.pop_first();
            self.leaving.remove(&id);
            self.actions.push(Action::Abort { id });
        }
    }
}

fn later(now: Instant, time: Duration) -> Instant {
    now + time.min(LONGEST)
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

#[cfg(test)]
mod tests;
