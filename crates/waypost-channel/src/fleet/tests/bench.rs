//! A fleet with a shell of numbers around it.

use super::super::*;
use waypost_model::{Freshness, Scope, SnapshotParts, Status};

/// A fleet and what a shell would know of it.
pub(super) struct Bench {
    pub(super) fleet: Fleet,
    pub(super) now: Instant,
    pub(super) published: Arc<Snapshot>,
    /// Attempts that have not been answered, by address.
    pub(super) connecting: BTreeMap<Endpoint, ConnectionId>,
    /// Connections that have been made and not been closed, by id.
    pub(super) live: BTreeMap<ConnectionId, Endpoint>,
    pub(super) retired: BTreeSet<ConnectionId>,
    /// Connections that have been closed, on which calls go on.
    pub(super) ending: BTreeMap<ConnectionId, Endpoint>,
    /// The state that each attempt was given.
    pub(super) given: BTreeMap<ConnectionId, Arc<EndpointState>>,
    /// Connections whose tasks know of their end.
    pub(super) severed: BTreeSet<ConnectionId>,
    /// What calls see: each state, and the connection that they go to if it admits them.
    pub(super) table: Vec<(Arc<EndpointState>, Option<ConnectionId>)>,
    /// Connections that are not fit for calls.
    pub(super) unfit: BTreeSet<ConnectionId>,
    pub(super) observed: BTreeSet<*const EndpointState>,
}

/// What may happen.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Want(u16),
    Up(u8, u16),
    Drain(u8, u16),
    Remove(u8),
    /// In one snapshot; of changes of the same id the last counts.
    Several([(u8, Option<u16>); 3]),
    Connected(u16),
    Failed(u16),
    Closed(u16),
    Leaves(u16),
    Over(u16),
    Sever(u16),
    Publish,
    Says(u16, bool),
    Eject(u16),
    Pass(u16),
}

// === impl Bench ===

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(Reach { subset: None, lazy: None, most: None, attempts: usize::MAX })
    }

    pub(super) fn with(reach: Reach) -> Self {
        let now = Instant::now();
        let published = Arc::new(Snapshot::absent(Scope::Catalog));
        let settings = Settings {
            backoff: Backoff::default(),
            drain: Duration::from_secs(30),
            reach,
            route: Box::new(|instance| {
                let primary = instance.endpoints.primary();
                if primary.scheme.is_secure() { Err("no TLS".into()) } else { Ok(primary.clone()) }
            }),
        };
        let fleet = Fleet::new(settings, Arc::clone(&published), 7, now);
        Self {
            fleet,
            now,
            published,
            connecting: BTreeMap::new(),
            live: BTreeMap::new(),
            retired: BTreeSet::new(),
            ending: BTreeMap::new(),
            given: BTreeMap::new(),
            severed: BTreeSet::new(),
            table: Vec::new(),
            unfit: BTreeSet::new(),
            observed: BTreeSet::new(),
        }
    }

    /// Publishes `id` at `address`, or without it.
    pub(super) fn publish(&mut self, id: &str, address: Option<(u16, Status)>) {
        self.publish_all([(id, address)]);
    }

    /// The same for several, in one snapshot.
    pub(super) fn publish_all<'a>(
        &mut self,
        changes: impl IntoIterator<Item = (&'a str, Option<(u16, Status)>)>,
    ) {
        let mut parts = self.published.to_parts();
        for (id, address) in changes {
            match address {
                Some((port, status)) => {
                    let (key, instance) = instance(id, port);
                    parts.instances.insert(key, Arc::new(instance.with_status(status)));
                }
                None => drop(parts.instances.remove(&instance(id, 1).0)),
            }
        }
        let existence = if parts.instances.is_empty() { Existence::Emptied } else { Existence::Present };
        self.published =
            Arc::new(Snapshot::new(SnapshotParts { freshness: Freshness::Live, existence, ..parts }));
        self.fleet.apply(&self.published, self.now);
        self.act();
    }

    pub(super) fn up(&mut self, id: &str, port: u16) {
        self.publish(id, Some((port, Status::Up)));
    }

    pub(super) fn connected(&mut self, port: u16) {
        if let Some(id) = self.connecting.remove(&endpoint(port)) {
            self.live.insert(id, endpoint(port));
            self.fleet.connected(&endpoint(port), id, self.now);
            self.act();
        }
    }

    pub(super) fn failed(&mut self, port: u16) {
        if let Some(id) = self.connecting.remove(&endpoint(port)) {
            self.lose(id);
            self.fleet.failed(&endpoint(port), id, "refused".into(), self.now);
            self.act();
        }
    }

    /// The connection of that address that takes calls, or is the last one that did, is closed, and its calls have ended.
    pub(super) fn closed(&mut self, port: u16) {
        self.leaves(port);
        self.over(port);
    }

    /// The same, but its calls go on.
    pub(super) fn leaves(&mut self, port: u16) {
        if let Some(id) = self.live_at(port) {
            self.live.remove(&id);
            self.retired.remove(&id);
            self.ending.insert(id, endpoint(port));
            self.lose(id);
            self.fleet.closed(&endpoint(port), id, "reset".into(), self.now);
            self.act();
        }
    }

    /// The calls of all connections that were closed there have ended.
    pub(super) fn over(&mut self, port: u16) {
        for (id, at) in self.ending.extract_if(.., |_, at| *at == endpoint(port)).collect::<Vec<_>>() {
            self.fleet.over(&at, id);
        }
        self.act();
    }

    /// Its task knows that it has ended, and nobody else.
    pub(super) fn sever(&mut self, port: u16) {
        if let Some(id) = self.live_at(port) {
            self.lose(id);
        }
    }

    pub(super) fn lose(&mut self, id: ConnectionId) {
        if self.severed.insert(id) {
            self.given[&id].lose();
        }
    }

    pub(super) fn live_at(&self, port: u16) -> Option<ConnectionId> {
        self.live.iter().rev().find(|(_, at)| **at == endpoint(port)).map(|(id, _)| *id)
    }

    /// A table is published.
    pub(super) fn offer(&mut self) {
        let ready = self.fleet.links.values().filter(|link| link.is_ready());
        self.table = ready.map(|link| (Arc::clone(&link.state), Some(link.id))).collect();
        for state in self.fleet.reachable().into_iter().flatten() {
            let id = self.fleet.ready_at(state.endpoint());
            self.table.push((state, id));
        }
        self.fleet.published();
    }

    /// Whoever picks from the table finds no connection that takes no calls.
    pub(super) fn check_gates(&self) {
        for (state, id) in self.table.iter().filter(|(state, _)| state.admits()) {
            let usable =
                |id| self.live.contains_key(id) && !self.severed.contains(id) && !self.unfit.contains(id);
            assert!(id.as_ref().is_none_or(usable), "{state:?} admits calls to {id:?}");
        }
    }

    /// The server of the connection that takes calls says whether it serves.
    pub(super) fn says(&mut self, port: u16, serves: bool) {
        let current =
            |(id, at): &(&ConnectionId, &Endpoint)| **at == endpoint(port) && !self.retired.contains(id);
        let Some(id) = self.live.iter().find(current).map(|(id, _)| *id) else { return };
        if serves {
            self.unfit.remove(&id);
            self.fleet.connected(&endpoint(port), id, self.now);
        } else {
            self.unfit.insert(id);
            self.given[&id].lose();
            self.fleet.unfit(&endpoint(port), id, "NOT_SERVING".into(), self.now);
        }
        self.act();
    }

    /// What takes calls there is set aside for its failures.
    pub(super) fn eject(&mut self, port: u16) {
        let ready = self.states().into_iter().find(|state| state.endpoint().port == port);
        if let Some(state) = ready.filter(|state| state.eject()) {
            self.fleet.ejected(&state, Some("5 failures in a row".into()));
        }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.fleet.tick(self.now);
        self.act();
    }

    /// A call wants this endpoint.
    pub(super) fn want(&mut self, port: u16) {
        self.fleet.wanted(&endpoint(port), self.now);
        self.act();
    }

    pub(super) fn take(&mut self, step: Step) {
        match step {
            Step::Want(port) => self.want(port),
            Step::Up(id, port) => self.up(&id.to_string(), port),
            Step::Drain(id, port) => self.publish(&id.to_string(), Some((port, Status::Draining))),
            Step::Remove(id) => self.publish(&id.to_string(), None),
            Step::Several(changes) => {
                let changes = changes.map(|(id, port)| (id.to_string(), port.map(|port| (port, Status::Up))));
                self.publish_all(changes.iter().map(|(id, address)| (id.as_str(), *address)));
            }
            Step::Connected(port) => self.connected(port),
            Step::Failed(port) => self.failed(port),
            Step::Closed(port) => self.closed(port),
            Step::Leaves(port) => self.leaves(port),
            Step::Over(port) => self.over(port),
            Step::Sever(port) => self.sever(port),
            Step::Publish => self.offer(),
            Step::Says(port, serves) => self.says(port, serves),
            Step::Eject(port) => self.eject(port),
            Step::Pass(millis) => self.pass(Duration::from_millis(millis.into())),
        }
    }

    /// What is kept up to date with each change is what a look at everything says.
    pub(super) fn check_books(&self) {
        let (fleet, census) = (&self.fleet, self.fleet.census());
        let links = || fleet.links.values();
        let count = |phase: fn(&Phase) -> bool| links().filter(|link| phase(&link.phase)).count();
        let connecting = count(|phase| matches!(phase, Phase::Connecting { .. }));
        let queued = count(|phase| matches!(phase, Phase::Queued { .. }));
        assert_eq!(census.count(LinkPhase::Ready), count(|phase| matches!(phase, Phase::Ready { .. })));
        assert_eq!(census.count(LinkPhase::Unfit), count(|phase| matches!(phase, Phase::Unfit { .. })));
        assert_eq!(census.count(LinkPhase::Waiting), count(|phase| matches!(phase, Phase::Waiting { .. })));
        assert_eq!(census.count(LinkPhase::Idle), count(|phase| matches!(phase, Phase::Idle { .. })));
        assert_eq!(census.count(LinkPhase::Connecting), connecting + queued);
        assert_eq!(census.undecided(), count(|phase| phase.is_undecided()));
        assert_eq!(census.untried(), count(|phase| phase.is_untried()));
        assert_eq!((fleet.attempts, fleet.queue.len()), (connecting, queued));
        assert_eq!(fleet.timers.len(), census.count(LinkPhase::Waiting));
        assert!(fleet.links.iter().all(|(at, link)| fleet.connected.contains(at) == link.is_connected()));
        assert!(fleet.connected.iter().all(|at| fleet.links.contains_key(at)));
        assert_eq!(self.connecting.len(), connecting);
        let leaving = census.count(LinkPhase::Leaving);
        let reports: Vec<_> = census.endpoints().map(|report| report.state.endpoint().clone()).collect();
        assert_eq!(reports[..reports.len() - leaving], fleet.links.keys().cloned().collect::<Vec<_>>());
        assert!(
            census.endpoints().zip(links()).all(|(report, link)| Arc::ptr_eq(&report.state, &link.state))
        );
        // Whatever calls go on on has to end some day, or is still an instance's.
        let parted = links().flat_map(|link| link.parted.iter().map(|(id, _)| *id));
        let going: BTreeSet<ConnectionId> = parted.chain(fleet.leaving.keys().copied()).collect();
        assert_eq!(going, self.ending.keys().chain(&self.retired).copied().collect());
        assert_eq!(fleet.leaving.len(), fleet.ends.len());
        let observed: BTreeSet<_> =
            links().filter(|link| link.observed).map(|link| Arc::as_ptr(&link.state)).collect();
        assert_eq!(self.observed, observed);
        let status = |status| self.published.instances().filter(|instance| instance.status == status).count();
        assert_eq!(
            (census.registered, census.draining, census.down),
            (self.published.len(), status(Status::Draining), status(Status::Down))
        );
    }

    pub(super) fn act(&mut self) {
        for action in self.fleet.take_actions() {
            match action {
                Action::Connect { id, state } => {
                    let before = self.connecting.insert(state.endpoint().clone(), id);
                    self.given.insert(id, Arc::clone(&state));
                    assert!(before.is_none(), "two attempts at a time to {:?}", state.endpoint());
                }
                Action::Retire { id } => {
                    assert!(self.live.contains_key(&id));
                    assert!(self.retired.insert(id));
                }
                Action::Abort { id } => {
                    self.connecting.retain(|_, attempt| *attempt != id);
                    self.live.remove(&id);
                    self.retired.remove(&id);
                    self.ending.remove(&id);
                }
                Action::Observe { state } => assert!(self.observed.insert(Arc::as_ptr(&state))),
                Action::Forget { state } => {
                    assert!(self.observed.remove(&Arc::as_ptr(&state)));
                    state.readmit();
                }
            }
        }
    }

    pub(super) fn ready(&self) -> Vec<u16> {
        self.states().iter().map(|state| state.endpoint().port).collect()
    }

    /// The endpoints that calls may go to, in the order of their addresses.
    pub(super) fn states(&self) -> Vec<Arc<EndpointState>> {
        let ready = self.fleet.links.values().filter(|link| link.is_ready());
        ready.map(|link| Arc::clone(&link.state)).collect()
    }

    pub(super) fn connecting(&self) -> Vec<u16> {
        self.connecting.keys().map(|endpoint| endpoint.port).collect()
    }

    /// The ports that instances are registered at and want calls.
    pub(super) fn aimed(&self) -> BTreeSet<u16> {
        let up = self.published.instances().filter(|instance| instance.status == Status::Up);
        up.map(|instance| instance.endpoints.primary().port).collect()
    }

    pub(super) fn id_at(&self, port: u16) -> ConnectionId {
        self.fleet.links.get(&endpoint(port)).unwrap().id
    }
}

pub(super) fn endpoint(port: u16) -> Endpoint {
    Endpoint::new("127.0.0.1", port).unwrap()
}

pub(super) fn instance(id: &str, port: u16) -> (InstanceKey, Instance) {
    let instance = Instance::new("s".parse().unwrap(), endpoint(port)).with_id(id.parse().unwrap());
    (InstanceKey::of(&instance, 0), instance)
}
