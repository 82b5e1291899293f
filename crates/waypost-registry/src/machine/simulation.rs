//! One registration against a model of etcd, with every interleaving of requests, answers, watch events, lost answers
//! and other writers that proptest can think of.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use waypost_model::{Instance, Layout, RawKv, Status};

use crate::{
    machine::{
        Event, Guard, Held, Member, Outcome, OwnedLeases, Removal, Sight, Step, Write, edit::Amendment,
    },
    options::Conflict,
    state::RegistrationState,
};

const STRANGER: i64 = 9_999;

/// What the test does next.
#[derive(Debug, Clone, Copy)]
enum Action {
    /// The driver asks the member what to do.
    Ask,
    /// The server carries the oldest request out.
    Serve,
    /// The answer of the oldest carried-out request arrives, or is lost.
    Answer {
        lost: bool,
    },
    /// The request never reaches the server.
    Drop,
    /// The watch delivers its next event.
    Watch,
    Grant,
    /// The server drops the lease; the client has not noticed.
    Expire,
    NoticeLoss,
    DeleteByHand {
        part: usize,
    },
    StrangerPuts,
    StrangerGoes,
    /// An operator rewrites the value and keeps the lease.
    Edit(Status),
    Amend(u32),
    /// The watch has lost its history, and the keys are read.
    Reset,
}

/// A store with revisions, leases and a log, as far as one instance needs it.
#[derive(Debug, Default)]
struct Store {
    revision: i64,
    keys: BTreeMap<Vec<u8>, Stored>,
    /// (revision, key, what it held from then on)
    log: Vec<(i64, Vec<u8>, Option<Stored>)>,
    live: Option<i64>,
}

/// A key, and the lease and value that it gets, or `None`: it is deleted.
type Change = (Vec<u8>, Option<(i64, Vec<u8>)>);

#[derive(Debug, Clone)]
struct Stored {
    revision: i64,
    lease: i64,
    value: Vec<u8>,
}

#[derive(Debug)]
enum Request {
    Put(Write),
    Remove(Removal),
}

struct World {
    store: Store,
    layout: Arc<dyn Layout>,
    member: Member,
    owned: OwnedLeases,
    lease: Option<i64>,
    leases: i64,
    requests: Vec<Request>,
    answers: Vec<(Event, Event)>,
    watched: Option<usize>,
}

// === impl Store ===

impl Store {
    fn set(&mut self, changes: Vec<Change>) -> i64 {
        self.revision += 1;
        for (key, change) in changes {
            let stored = change.map(|(lease, value)| Stored { revision: self.revision, lease, value });
            match &stored {
                Some(stored) => drop(self.keys.insert(key.clone(), stored.clone())),
                None => drop(self.keys.remove(&key)),
            }
            self.log.push((self.revision, key, stored));
        }
        self.revision
    }

    fn drop_lease(&mut self, lease: i64) {
        let gone: Vec<_> = self
            .keys
            .iter()
            .filter(|(_, stored)| stored.lease == lease)
            .map(|(key, _)| (key.clone(), None))
            .collect();
        if !gone.is_empty() {
            self.set(gone);
        }
    }
}

// === impl World ===

impl World {
    fn new(layout: &str, conflict: Conflict) -> Self {
        let layout = waypost_model::layout(layout, None).unwrap();
        let instance = Instance::new("greeter".parse().unwrap(), "10.0.0.1:50051".parse().unwrap());
        let member = Member::new(Arc::clone(&layout), Arc::new(instance), conflict);
        let store = Store { revision: 1, ..Store::default() };
        Self {
            store,
            layout,
            member,
            owned: OwnedLeases::default(),
            lease: None,
            leases: 0,
            requests: Vec::new(),
            answers: Vec::new(),
            watched: None,
        }
    }

    fn keys(&self) -> Vec<Vec<u8>> {
        let encoded = self.layout.encode(self.member.instance(), 1).unwrap();
        encoded.entries.into_iter().map(|entry| entry.key).collect()
    }

    fn held(&self, stored: Option<&Stored>) -> Option<Held> {
        stored.map(|stored| Held {
            revision: stored.revision,
            holder: self.owned.holder(stored.lease, self.lease),
            value: stored.value.clone(),
        })
    }

    fn has_stranger(&self) -> bool {
        self.keys().iter().any(|key| self.store.keys.get(key).is_some_and(|stored| stored.lease == STRANGER))
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Ask => match self.member.next() {
                Step::Rest => {}
                Step::Put(write) => self.requests.push(Request::Put(write)),
                Step::Remove(removal) => self.requests.push(Request::Remove(removal)),
            },
            Action::Serve => {
                if !self.requests.is_empty() {
                    let request = self.requests.remove(0);
                    self.serve(request);
                }
            }
            Action::Answer { lost } => {
                if !self.answers.is_empty() {
                    let (answer, loss) = self.answers.remove(0);
                    self.deliver(if lost { loss } else { answer });
                }
            }
            Action::Drop => {
                if !self.requests.is_empty() {
                    let (Request::Put(Write { ticket, .. }) | Request::Remove(Removal { ticket, .. })) =
                        self.requests.remove(0);
                    self.deliver(Event::Failed { ticket, cause: "dropped".into() });
                }
            }
            Action::Watch => self.watch(),
            Action::Grant => {
                if self.lease.is_none() {
                    self.leases += 1;
                    self.lease = Some(self.leases);
                    self.store.live = self.lease;
                    self.owned.add(self.leases);
                    self.watched = None;
                    self.deliver(Event::Granted { lease: self.leases });
                }
            }
            Action::Expire => {
                if let Some(lease) = self.store.live.take() {
                    self.store.drop_lease(lease);
                }
            }
            Action::NoticeLoss => {
                if self.lease.is_some() && self.store.live.is_none() {
                    self.lease = None;
                    self.watched = None;
                    self.deliver(Event::LeaseLost { cause: "lost".into() });
                }
            }
            Action::DeleteByHand { part } => {
                let keys = self.keys();
                let key = keys[part % keys.len()].clone();
                if self.store.keys.get(&key).is_some_and(|stored| stored.lease != STRANGER) {
                    self.store.set(vec![(key, None)]);
                }
            }
            Action::StrangerPuts => {
                let encoded = self.layout.encode(self.member.instance(), STRANGER).unwrap();
                let put = encoded.entries.into_iter().map(|entry| (entry.key, Some((STRANGER, entry.value))));
                self.store.set(put.collect());
            }
            Action::StrangerGoes => self.store.drop_lease(STRANGER),
            Action::Edit(status) => self.edit(status),
            Action::Reset => {
                if self.watched.is_some() && self.member.leased_entries().is_some() {
                    let found = self.keys().iter().map(|key| self.held(self.store.keys.get(key))).collect();
                    self.watched = None;
                    self.deliver(Event::Checked { at: self.store.revision, found });
                }
            }
            Action::Amend(weight) => self.member.amend(vec![Amendment::Weight(weight)]).unwrap(),
        }
    }

    fn deliver(&mut self, event: Event) {
        self.member.handle(event);
        if self.watched.is_none()
            && let Some((_, at)) = self.member.watchable()
        {
            self.watched = Some(self.store.log.partition_point(|(revision, ..)| *revision <= at));
        }
    }

    fn watch(&mut self) {
        let Some(position) = self.watched else { return };
        let Some((at, key, stored)) = self.store.log.get(position).cloned() else { return };
        self.watched = Some(position + 1);
        let part = self.keys().iter().position(|known| *known == key).unwrap();
        let sight = Sight { at, held: self.held(stored.as_ref()) };
        self.deliver(Event::Seen { part: u8::try_from(part).unwrap(), sight });
    }

    fn edit(&mut self, status: Status) {
        let keys = self.keys();
        let stored: Vec<Option<Stored>> = keys.iter().map(|key| self.store.keys.get(key).cloned()).collect();
        let parts: Vec<Option<RawKv<'_>>> = keys
            .iter()
            .zip(&stored)
            .map(|(key, stored)| {
                let stored = stored.as_ref()?;
                Some(RawKv { key, value: &stored.value, lease: stored.lease })
            })
            .collect();
        let Ok(Some(mut instance)) = self.layout.decode(&parts) else { return };
        instance.status = status;
        let entries = self.layout.encode(&instance, 1).unwrap().entries;
        let lease = stored[0].as_ref().unwrap().lease;
        self.store.set(entries.into_iter().map(|entry| (entry.key, Some((lease, entry.value)))).collect());
    }

    fn serve(&mut self, request: Request) {
        match request {
            Request::Put(write) => {
                let ticket = write.ticket;
                let loss = Event::Failed { ticket, cause: "no answer".into() };
                if self.store.live != Some(write.lease) {
                    let refused = Event::Failed { ticket, cause: "requested lease not found".into() };
                    self.answers.push((refused, loss));
                    return;
                }
                let revision_of = |key: &[u8]| self.store.keys.get(key).map_or(0, |stored| stored.revision);
                let holds = match &write.guard {
                    Guard::Nothing => true,
                    Guard::Unchanged(revisions) => write
                        .entries
                        .iter()
                        .zip(revisions)
                        .all(|(entry, revision)| revision_of(&entry.key) == *revision),
                };
                let answer = if holds {
                    let was_registered = matches!(
                        self.member.state(),
                        Some(RegistrationState::Registered { .. } | RegistrationState::Suspect { .. })
                    );
                    assert!(!(was_registered && self.has_stranger()), "a successor was overwritten");
                    let put = write
                        .entries
                        .iter()
                        .map(|entry| (entry.key.clone(), Some((write.lease, entry.value.clone()))));
                    let put = put.collect();
                    Event::Written { ticket, revision: self.store.set(put) }
                } else {
                    let found = write
                        .entries
                        .iter()
                        .map(|entry| self.held(self.store.keys.get(&entry.key)))
                        .collect();
                    Event::Refused { ticket, at: self.store.revision, found }
                };
                self.answers.push((answer, loss));
            }
            Request::Remove(removal) => {
                let mine = removal.entries.iter().filter(|entry| {
                    self.store.keys.get(&entry.key).is_some_and(|stored| stored.lease == removal.lease)
                });
                let gone: Vec<_> = mine.map(|entry| (entry.key.clone(), None)).collect();
                if !gone.is_empty() {
                    self.store.set(gone);
                }
                let loss = Event::Failed { ticket: removal.ticket, cause: "no answer".into() };
                self.answers.push((Event::Removed, loss));
            }
        }
    }

    /// Nothing goes wrong any more, and everything on its way arrives.
    fn calm_down(&mut self) {
        for round in 0.. {
            assert!(round < 1_000, "does not come to rest: {:?}", self.member);
            self.act(Action::NoticeLoss);
            self.act(Action::Grant);
            let before = (self.store.revision, self.watched, self.requests.len(), self.answers.len());
            self.act(Action::Ask);
            self.act(Action::Serve);
            self.act(Action::Answer { lost: false });
            self.act(Action::Watch);
            let after = (self.store.revision, self.watched, self.requests.len(), self.answers.len());
            if before == after && self.requests.is_empty() && self.answers.is_empty() {
                return;
            }
        }
    }
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        8 => Just(Action::Ask),
        8 => Just(Action::Serve),
        6 => Just(Action::Answer { lost: false }),
        1 => Just(Action::Answer { lost: true }),
        1 => Just(Action::Drop),
        8 => Just(Action::Watch),
        3 => Just(Action::Grant),
        1 => Just(Action::Expire),
        2 => Just(Action::NoticeLoss),
        1 => (0_usize..4).prop_map(|part| Action::DeleteByHand { part }),
        1 => Just(Action::StrangerPuts),
        1 => Just(Action::StrangerGoes),
        1 => prop_oneof![Just(Status::Up), Just(Status::Draining)].prop_map(Action::Edit),
        1 => (1_u32..5).prop_map(Action::Amend),
        1 => Just(Action::Reset),
    ];
    proptest::collection::vec(action, 0..150)
}

/// After any history the member is registered with what it wants, or has yielded to a live stranger, or was refused.
fn comes_to_the_right_rest(layout: &str, conflict: Conflict, history: Vec<Action>) {
    let mut world = World::new(layout, conflict);
    for action in history {
        world.act(action);
    }
    world.calm_down();
    let stranger = world.has_stranger();
    match world.member.state().unwrap() {
        RegistrationState::Registered { lease, .. } => {
            assert!(!stranger);
            assert_eq!(Some(lease), world.store.live);
            assert_eq!(world.member.outcome(), Outcome::Written);
            let parts: Vec<_> = world.keys();
            let parts: Vec<Option<RawKv<'_>>> = parts
                .iter()
                .map(|key| {
                    let stored = world.store.keys.get(key)?;
                    assert_eq!(stored.lease, lease);
                    Some(RawKv { key, value: &stored.value, lease })
                })
                .collect();
            let stored = world.layout.decode(&parts).unwrap().unwrap();
            let wanted = world.layout.encode(world.member.instance(), lease).unwrap().entries;
            let stored = world.layout.encode(&stored, lease).unwrap().entries;
            assert_eq!(stored, wanted);
        }
        RegistrationState::Suspect { cause } => {
            assert!(stranger, "{cause}");
            assert!(matches!(world.member.outcome(), Outcome::Superseded(_)));
        }
        RegistrationState::Refused { .. } => assert_eq!(conflict, Conflict::Reject),
        state => panic!("{state}"),
    }
    // Leaving, it takes its own keys and no other.
    world.member.handle(Event::Deregister);
    for _ in 0..4 {
        for action in [Action::Ask, Action::Serve, Action::Answer { lost: false }] {
            world.act(action);
        }
    }
    assert!(world.member.is_over());
    assert_eq!(world.has_stranger(), stranger, "a stranger's key was removed");
    assert!(world.store.keys.values().all(|stored| stored.lease == STRANGER));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn one_key_replacing(history in actions()) {
        comes_to_the_right_rest("grpc", Conflict::Replace, history);
    }

    #[test]
    fn one_key_rejecting(history in actions()) {
        comes_to_the_right_rest("grpc", Conflict::Reject, history);
    }

    #[test]
    fn four_keys_replacing(history in actions()) {
        comes_to_the_right_rest("fields", Conflict::Replace, history);
    }

    #[test]
    fn four_keys_rejecting(history in actions()) {
        comes_to_the_right_rest("fields", Conflict::Reject, history);
    }
}
