//! The rules, without a network: every event is given by hand, and time is a number.

mod reach;

use super::*;
use proptest::prelude::*;
use waypost_balance::Gate;
use waypost_model::{Freshness, Scope, SnapshotParts, Status};

/// A fleet and what a shell would know of it.
struct Bench {
    fleet: Fleet,
    now: Instant,
    published: Arc<Snapshot>,
    /// Attempts that have not been answered, by address.
    connecting: BTreeMap<Endpoint, ConnectionId>,
    /// Connections that have been made and not been closed, by id.
    live: BTreeMap<ConnectionId, Endpoint>,
    retired: BTreeSet<ConnectionId>,
    /// Connections that have been closed, on which calls go on.
    ending: BTreeMap<ConnectionId, Endpoint>,
    /// The state that each attempt was given.
    given: BTreeMap<ConnectionId, Arc<EndpointState>>,
    /// Connections whose tasks know of their end.
    severed: BTreeSet<ConnectionId>,
    /// What calls see: each state, and the connection that they go to if it admits them.
    table: Vec<(Arc<EndpointState>, Option<ConnectionId>)>,
    /// Connections that are not fit for calls.
    unfit: BTreeSet<ConnectionId>,
    observed: BTreeSet<*const EndpointState>,
}

impl Bench {
    fn new() -> Self {
        Self::with(Reach { subset: None, lazy: None, most: None, attempts: usize::MAX })
    }

    fn with(reach: Reach) -> Self {
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
    fn publish(&mut self, id: &str, address: Option<(u16, Status)>) {
        self.publish_all([(id, address)]);
    }

    /// The same for several, in one snapshot.
    fn publish_all<'a>(&mut self, changes: impl IntoIterator<Item = (&'a str, Option<(u16, Status)>)>) {
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

    fn up(&mut self, id: &str, port: u16) {
        self.publish(id, Some((port, Status::Up)));
    }

    fn connected(&mut self, port: u16) {
        if let Some(id) = self.connecting.remove(&endpoint(port)) {
            self.live.insert(id, endpoint(port));
            self.fleet.connected(&endpoint(port), id, self.now);
            self.act();
        }
    }

    fn failed(&mut self, port: u16) {
        if let Some(id) = self.connecting.remove(&endpoint(port)) {
            self.lose(id);
            self.fleet.failed(&endpoint(port), id, "refused".into(), self.now);
            self.act();
        }
    }

    /// The connection of that address that takes calls, or is the last one that did, is closed, and its calls have ended.
    fn closed(&mut self, port: u16) {
        self.leaves(port);
        self.over(port);
    }

    /// The same, but its calls go on.
    fn leaves(&mut self, port: u16) {
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
    fn over(&mut self, port: u16) {
        for (id, at) in self.ending.extract_if(.., |_, at| *at == endpoint(port)).collect::<Vec<_>>() {
            self.fleet.over(&at, id);
        }
        self.act();
    }

    /// Its task knows that it has ended, and nobody else.
    fn sever(&mut self, port: u16) {
        if let Some(id) = self.live_at(port) {
            self.lose(id);
        }
    }

    fn lose(&mut self, id: ConnectionId) {
        if self.severed.insert(id) {
            self.given[&id].lose();
        }
    }

    fn live_at(&self, port: u16) -> Option<ConnectionId> {
        self.live.iter().rev().find(|(_, at)| **at == endpoint(port)).map(|(id, _)| *id)
    }

    /// A table is published.
    fn offer(&mut self) {
        let ready = self.fleet.links.values().filter(|link| link.is_ready());
        self.table = ready.map(|link| (Arc::clone(&link.state), Some(link.id))).collect();
        for state in self.fleet.reachable().into_iter().flatten() {
            let id = self.fleet.ready_at(state.endpoint());
            self.table.push((state, id));
        }
        self.fleet.published();
    }

    /// Whoever picks from the table finds no connection that takes no calls.
    fn check_gates(&self) {
        for (state, id) in self.table.iter().filter(|(state, _)| state.admits()) {
            let usable =
                |id| self.live.contains_key(id) && !self.severed.contains(id) && !self.unfit.contains(id);
            assert!(id.as_ref().is_none_or(usable), "{state:?} admits calls to {id:?}");
        }
    }

    /// The server of the connection that takes calls says whether it serves.
    fn says(&mut self, port: u16, serves: bool) {
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
    fn eject(&mut self, port: u16) {
        let ready = self.states().into_iter().find(|state| state.endpoint().port == port);
        if let Some(state) = ready.filter(|state| state.eject()) {
            self.fleet.ejected(&state, Some("5 failures in a row".into()));
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.fleet.tick(self.now);
        self.act();
    }

    /// A call wants this endpoint.
    fn want(&mut self, port: u16) {
        self.fleet.wanted(&endpoint(port), self.now);
        self.act();
    }

    fn take(&mut self, step: Step) {
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
    fn check_books(&self) {
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

    fn act(&mut self) {
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

    fn ready(&self) -> Vec<u16> {
        self.states().iter().map(|state| state.endpoint().port).collect()
    }

    /// The endpoints that calls may go to, in the order of their addresses.
    fn states(&self) -> Vec<Arc<EndpointState>> {
        let ready = self.fleet.links.values().filter(|link| link.is_ready());
        ready.map(|link| Arc::clone(&link.state)).collect()
    }

    fn connecting(&self) -> Vec<u16> {
        self.connecting.keys().map(|endpoint| endpoint.port).collect()
    }

    /// The ports that instances are registered at and want calls.
    fn aimed(&self) -> BTreeSet<u16> {
        let up = self.published.instances().filter(|instance| instance.status == Status::Up);
        up.map(|instance| instance.endpoints.primary().port).collect()
    }

    fn id_at(&self, port: u16) -> ConnectionId {
        self.fleet.links.get(&endpoint(port)).unwrap().id
    }
}

fn endpoint(port: u16) -> Endpoint {
    Endpoint::new("127.0.0.1", port).unwrap()
}

fn instance(id: &str, port: u16) -> (InstanceKey, Instance) {
    let instance = Instance::new("s".parse().unwrap(), endpoint(port)).with_id(id.parse().unwrap());
    (InstanceKey::of(&instance, 0), instance)
}

#[test]
fn an_instance_is_connected_to_at_once_and_offered_when_it_is_ready() {
    let mut bench = Bench::new();
    assert_eq!(bench.fleet.outlook(), Outlook::Unread);
    bench.up("a", 1);
    assert_eq!((bench.connecting(), bench.ready()), (vec![1], vec![]));
    assert_eq!(bench.fleet.outlook(), Outlook::Connecting);
    bench.connected(1);
    assert_eq!((bench.connecting(), bench.ready()), (vec![], vec![1]));
    assert_eq!(bench.fleet.outlook(), Outlook::Ready);
}

#[test]
fn what_is_connected_and_not_fit_gets_no_calls_and_is_not_connected_to_again() {
    let mut bench = Bench::new();
    bench.up("a", 1);
    bench.connected(1);
    bench.offer();
    let state = bench.states().remove(0);
    bench.says(1, false);
    assert_eq!((bench.connecting(), bench.ready(), state.admits()), (vec![], vec![], false));
    assert_eq!(bench.fleet.outlook(), Outlook::Unavailable);
    bench.pass(Duration::from_secs(60));
    assert!(bench.connecting().is_empty());
    bench.says(1, true);
    bench.offer();
    assert_eq!((bench.ready(), state.admits()), (vec![1], true));
    bench.says(1, false);
    bench.publish("a", None);
    assert_eq!(bench.retired.len(), 1, "its calls may end");
}

#[test]
fn an_attempt_that_failed_is_repeated_after_a_wait_that_grows() {
    let mut bench = Bench::new();
    bench.up("a", 1);
    let mut waits = Vec::new();
    for _ in 0..12 {
        bench.failed(1);
        assert_eq!(bench.fleet.outlook(), Outlook::Unavailable);
        let wake = bench.fleet.next_wake().unwrap();
        waits.push(wake - bench.now);
        bench.pass((wake - bench.now).saturating_sub(Duration::from_nanos(1)));
        assert!(bench.connecting().is_empty(), "too early");
        bench.pass(Duration::from_nanos(1));
        assert_eq!(bench.connecting(), [1]);
        assert_eq!(bench.fleet.outlook(), Outlook::Unavailable, "calls do not wait for a second attempt");
    }
    assert!(waits[0] <= Duration::from_millis(60) && waits[0] >= Duration::from_millis(40));
    assert!(waits[11] <= Duration::from_secs(6) && waits[11] >= Duration::from_secs(4));
}

#[test]
fn a_connection_that_had_held_is_made_again_at_once_and_one_that_had_not_is_not() {
    let mut bench = Bench::new();
    bench.up("a", 1);
    bench.connected(1);
    bench.closed(1);
    assert_eq!((bench.connecting(), bench.ready()), (vec![], vec![]));
    bench.pass(Duration::from_millis(100));
    bench.connected(1);
    bench.pass(STABLE);
    bench.closed(1);
    assert_eq!(bench.connecting(), [1]);
    assert_eq!(bench.fleet.outlook(), Outlook::Connecting);
}

#[test]
fn a_connection_whose_server_says_again_that_it_serves_is_no_younger_for_it() {
    let mut bench = Bench::new();
    bench.up("a", 1);
    bench.connected(1);
    bench.pass(STABLE);
    bench.says(1, true);
    bench.closed(1);
    assert_eq!(bench.connecting(), [1], "it had held");
    bench.connected(1);
    bench.says(1, false);
    bench.pass(STABLE);
    bench.says(1, true);
    bench.closed(1);
    assert_eq!(bench.connecting(), [1], "fit or not");
}

#[test]
fn a_time_that_never_ends_is_no_error() {
    let mut bench = Bench::new();
    bench.fleet.settings.drain = Duration::MAX;
    bench.fleet.settings.backoff = Backoff::new(Duration::MAX, Duration::MAX);
    bench.up("a", 1);
    bench.connected(1);
    bench.publish("a", None);
    bench.up("a", 2);
    bench.failed(2);
    assert!(bench.fleet.next_wake().is_some());
    assert_eq!(bench.live.len(), 1);
}

#[test]
fn a_server_that_accepts_and_closes_is_not_connected_to_in_a_tight_loop() {
    let mut bench = Bench::new();
    bench.up("a", 1);
    let mut attempts = 0;
    let end = bench.now + Duration::from_secs(60);
    while bench.now < end {
        bench.connected(1);
        bench.closed(1);
        attempts += 1;
        let wake = bench.fleet.next_wake().unwrap();
        bench.pass(wake - bench.now);
    }
    assert!(attempts < 40, "{attempts} attempts in a minute");
}

#[test]
fn an_instance_that_moves_is_served_from_its_old_address_until_the_new_one_is_ready() {
    let mut bench = Bench::new();
    bench.up("a", 1);
    bench.connected(1);
    bench.up("a", 2);
    assert_eq!((bench.connecting(), bench.ready()), (vec![2], vec![1]));
    bench.failed(2);
    assert_eq!(bench.ready(), [1]);
    // And it moves again, before the second address ever worked.
    bench.up("a", 3);
    assert_eq!((bench.connecting(), bench.ready()), (vec![3], vec![1]));
    bench.connected(3);
    assert_eq!(bench.ready(), [3]);
    assert_eq!(bench.retired.len(), 1);
    bench.pass(Duration::from_secs(30));
    assert_eq!(bench.live.len(), 1, "the old connection is closed after its time");
}

#[test]
fn the_old_address_of_an_instance_that_has_moved_is_not_connected_to_again() {
    let mut bench = Bench::new();
    bench.up("a", 1);
    bench.connected(1);
    bench.up("a", 2);
    bench.pass(STABLE);
    bench.closed(1);
    assert_eq!((bench.connecting(), bench.ready()), (vec![2], vec![]));
    // It moves back while nothing is connected.
    bench.up("a", 1);
    assert_eq!(bench.connecting(), [1]);
}

#[test]
fn an_instance_that_drains_gets_no_calls_and_keeps_its_connection_for_a_while() {
    let mut bench = Bench::new();
    bench.up("a", 1);
    bench.connected(1);
    let state = Arc::clone(&bench.states()[0]);
    let call = state.started(bench.now);
    bench.publish("a", Some((1, Status::Draining)));
    assert!(bench.ready().is_empty() && !state.admits());
    let census = bench.fleet.census();
    assert_eq!((census.registered, census.draining, census.count(LinkPhase::Leaving)), (1, 1, 1));
    assert_eq!(bench.fleet.outlook(), Outlook::Unavailable);
    bench.pass(Duration::from_secs(29));
    assert_eq!(bench.live.len(), 1);
    bench.pass(Duration::from_secs(1));
    assert!(bench.live.is_empty());
    drop(call);
    // Back again: a new connection.
    bench.up("a", 1);
    assert_eq!(bench.connecting(), [1]);
}

/// After a GOAWAY a connection that takes no more calls has no place in the fleet but for this.
#[test]
fn calls_that_go_on_where_the_server_takes_no_more_end_in_time_when_the_instance_leaves() {
    for reconnected in [false, true] {
        let mut bench = Bench::new();
        bench.up("a", 1);
        bench.connected(1);
        let call = bench.states()[0].started(bench.now);
        bench.leaves(1);
        bench.pass(Duration::from_secs(60));
        assert_eq!(bench.ending.len(), 1, "for as long as the instance is there");
        if reconnected {
            bench.connected(1);
        }
        bench.publish("a", None);
        let census = bench.fleet.census();
        let leaving: Vec<_> = census.endpoints().collect();
        assert_eq!(
            (leaving.len(), leaving[0].phase),
            (1, LinkPhase::Leaving),
            "one, however many connections"
        );
        bench.pass(Duration::from_secs(29));
        assert_eq!((bench.ending.len(), bench.live.len()), (1, usize::from(reconnected)));
        bench.pass(Duration::from_secs(1));
        assert_eq!((bench.ending.len(), bench.live.len()), (0, 0));
        drop(call);
    }
}

#[test]
fn what_has_left_is_forgotten_when_its_calls_have_ended() {
    let mut bench = Bench::new();
    bench.up("a", 1);
    bench.connected(1);
    bench.publish("a", None);
    assert_eq!(bench.fleet.leaving.len(), 1);
    bench.closed(1);
    assert!(bench.fleet.leaving.is_empty() && bench.fleet.next_wake().is_none());
}

#[test]
fn a_gate_opens_only_when_calls_see_the_connection_behind_it() {
    let mut bench = Bench::new();
    bench.up("a", 1);
    bench.connected(1);
    bench.offer();
    let state = bench.states().remove(0);
    assert!(state.admits());
    // The server says again that it serves, and then the driver hears that it had gone before.
    bench.sever(1);
    bench.says(1, true);
    bench.offer();
    assert!(!state.admits());
    bench.pass(STABLE);
    bench.closed(1);
    bench.connected(1);
    assert!(!state.admits(), "the table still has the old connection");
    bench.offer();
    assert!(state.admits());
}

#[test]
fn an_address_that_is_registered_twice_is_one_endpoint() {
    let mut bench = Bench::new();
    bench.up("a", 1);
    bench.up("b", 1);
    bench.connected(1);
    assert_eq!(bench.ready(), [1]);
    bench.publish("a", None);
    let state = Arc::clone(&bench.states()[0]);
    assert_eq!(state.key().id, "b", "whoever is left speaks for it");
    bench.publish("b", Some((1, Status::Draining)));
    assert!(bench.ready().is_empty());
}

#[test]
fn an_address_that_passes_from_one_key_to_another_keeps_its_connection() {
    let mut bench = Bench::new();
    // Keys are taken in their order: once the one that goes is first, and once the one that comes is.
    for (old, new) in [("a", "b"), ("b", "a")] {
        bench.up(old, 1);
        bench.connected(1);
        bench.publish_all([(old, None), (new, Some((1, Status::Up)))]);
        assert_eq!((bench.ready(), bench.connecting(), bench.retired.len()), (vec![1], vec![], 0));
        assert_eq!(bench.states()[0].key().id, new);
    }
    bench.up("b", 2);
    bench.connected(2);
    bench.publish_all([("a", Some((2, Status::Up))), ("b", Some((1, Status::Up)))]);
    assert_eq!((bench.ready(), bench.connecting(), bench.retired.len()), (vec![1, 2], vec![], 0));
    assert_eq!(bench.states().iter().map(|state| state.key().id).collect::<Vec<_>>(), ["b", "a"]);
}

#[test]
fn a_registration_that_is_the_same_but_for_its_key_is_no_other_weight() {
    let mut bench = Bench::new();
    bench.up("a", 1);
    bench.up("b", 1);
    bench.publish("a", None);
    assert!(!bench.fleet.take_reweighed());
    let mut parts = bench.published.to_parts();
    let (key, instance) = instance("b", 1);
    parts.instances.insert(key, Arc::new(instance.with_weight(7)));
    bench.fleet.apply(&Arc::new(Snapshot::new(parts)), bench.now);
    assert!(bench.fleet.take_reweighed());
}

#[test]
fn a_wake_that_changes_nothing_publishes_nothing() {
    let idle = Duration::from_secs(60);
    let mut bench = Bench::with(Reach { subset: None, lazy: Some(idle), most: None, attempts: 1 });
    bench.up("a", 1);
    bench.want(1);
    bench.connected(1);
    bench.fleet.take_changed();
    bench.pass(idle / 2);
    assert!(!bench.fleet.take_changed(), "it was looked for idle connections");
    bench.pass(idle / 2);
    assert!(bench.fleet.take_changed());
}

#[test]
fn what_cannot_be_spoken_to_is_told() {
    let mut bench = Bench::new();
    let (key, mut plain) = instance("a", 1);
    plain.endpoints = "grpcs://127.0.0.1:1".parse::<Endpoint>().unwrap().into();
    let mut parts = bench.published.to_parts();
    parts.instances.insert(key, Arc::new(plain));
    parts.existence = Existence::Present;
    bench.fleet.apply(&Arc::new(Snapshot::new(parts)), bench.now);
    let census = bench.fleet.census();
    assert_eq!(census.unusable.len(), 1);
    assert_eq!(&**census.unusable.values().next().unwrap(), "no TLS");
    assert_eq!(bench.fleet.outlook(), Outlook::Unavailable);
}

#[derive(Debug, Clone, Copy)]
enum Step {
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

fn step() -> impl Strategy<Value = Step> {
    let (id, port) = (0_u8..4, 1_u16..6);
    prop_oneof![
        3 => (id.clone(), port.clone()).prop_map(|(id, port)| Step::Up(id, port)),
        1 => (id.clone(), port.clone()).prop_map(|(id, port)| Step::Drain(id, port)),
        1 => id.clone().prop_map(Step::Remove),
        3 => prop::array::uniform3((id, prop::option::weighted(0.8, port.clone()))).prop_map(Step::Several),
        4 => port.clone().prop_map(Step::Connected),
        2 => port.clone().prop_map(Step::Failed),
        1 => port.clone().prop_map(Step::Closed),
        1 => port.clone().prop_map(Step::Leaves),
        1 => port.clone().prop_map(Step::Over),
        1 => port.clone().prop_map(Step::Sever),
        3 => Just(Step::Publish),
        2 => (port.clone(), any::<bool>()).prop_map(|(port, serves)| Step::Says(port, serves)),
        1 => port.clone().prop_map(Step::Eject),
        2 => port.prop_map(Step::Want),
        3 => (1_u16..8000).prop_map(Step::Pass),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_the_fleet_agrees_with_the_registry(steps in prop::collection::vec(step(), 0..120)) {
        let mut bench = Bench::new();
        for step in steps {
            let before: BTreeMap<u16, ConnectionId> = bench.aimed().into_iter().map(|port| (port, bench.id_at(port))).collect();
            bench.take(step);
            bench.check_books();
            let up = bench.published.instances().filter(|i| i.status == Status::Up).count();
            let aimed = bench.aimed();

            // Whoever registers what: an address that was wanted and is keeps its connection, or the attempt to make one.
            if matches!(step, Step::Up(..) | Step::Drain(..) | Step::Remove(_) | Step::Several(_)) {
                prop_assert!(aimed.iter().all(|port| before.get(port).is_none_or(|id| *id == bench.id_at(*port))));
            }

            // Offered are exactly the connections that are open, fit and not retired, and their gates are open.
            let offered: BTreeSet<ConnectionId> = bench.fleet.links.values().filter(|link| link.is_ready()).map(|link| link.id).collect();
            let open: BTreeSet<ConnectionId> =
                bench.live.keys().copied().filter(|id| !bench.retired.contains(id) && !bench.unfit.contains(id)).collect();
            prop_assert_eq!(&offered, &open);
            bench.check_gates();
            if matches!(step, Step::Publish) {
                let severed = |link: &Link| bench.severed.contains(&link.id);
                prop_assert!(bench.fleet.links.values().filter(|link| link.is_ready())
                    .all(|link| (link.state.gate() == Gate::Closed) == severed(link)));
            }

            // Every address that is wanted is ready, connected and not fit, being connected to, or waits for its time.
            let waiting: BTreeSet<u16> = bench.fleet.timers.iter().map(|(_, at)| at.port).collect();
            let ready: BTreeSet<u16> = bench.ready().into_iter().collect();
            let connecting: BTreeSet<u16> = bench.connecting().into_iter().collect();
            let unfit: BTreeSet<u16> = bench.fleet.links.iter()
                .filter(|(_, link)| matches!(link.phase, Phase::Unfit { .. })).map(|(at, _)| at.port).collect();
            for port in &aimed {
                let places = [&ready, &unfit, &connecting, &waiting].iter().filter(|set| set.contains(port)).count();
                prop_assert_eq!(places, 1, "port {} is in {} places", port, places);
            }
            // Nothing else is connected to; what else is ready stands in for an instance that moves.
            prop_assert!(connecting.is_subset(&aimed) && waiting.is_subset(&aimed));
            prop_assert!(ready.difference(&aimed).count() <= up);
            if aimed.is_subset(&ready) {
                prop_assert!(ready.is_subset(&aimed), "{ready:?} is offered, {aimed:?} is wanted");
            }
            prop_assert_eq!(bench.fleet.census.unready_since.is_some(), ready.is_empty());
            prop_assert!(bench.fleet.next_wake().is_none_or(|wake| wake > bench.now));
        }
    }
}
