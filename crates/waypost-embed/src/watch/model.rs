//! The hub against a naive model: random writes, watches, slow consumers, compactions and steps of catching up that are
//! held while other things happen. Each watch must see exactly its events, in order, once.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::ops::ControlFlow;

use bytes::Bytes;
use proptest::prelude::*;
use waypost_proto::etcdserverpb::{WatchCreateRequest, watch_create_request::FilterType};
use waypost_proto::mvccpb::{Event, KeyValue, event::EventType};

use super::*;

/// A store that remembers every revision, and nothing below the compact revision.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// The events of revision 2 and those after it.
    pub(super) revisions: Vec<Vec<Event>>,
    pub(super) compacted: i64,
    /// Every key as it was after each revision, from revision 1 on.
    states: Vec<BTreeMap<Bytes, KeyValue>>,
}

impl Log {
    pub(super) fn new() -> Self {
        Self { states: vec![BTreeMap::new()], ..Self::default() }
    }

    pub(super) fn revision(&self) -> i64 {
        i64::try_from(self.states.len()).unwrap()
    }

    /// Puts (`Some`) and deletes (`None`) of one revision; deletes of what is absent do nothing. Answers whether there is
    /// a new revision.
    pub(super) fn write(&mut self, changes: &[(Bytes, Option<Bytes>)]) -> bool {
        let revision = self.revision() + 1;
        let mut state = self.states.last().unwrap().clone();
        let mut events = Vec::new();
        for (key, value) in changes {
            let old = state.get(key).cloned();
            let (kind, kv) = match (value, old) {
                (Some(value), old) => {
                    let kv = KeyValue {
                        key: key.clone(),
                        create_revision: old.as_ref().map_or(revision, |old| old.create_revision),
                        mod_revision: revision,
                        version: old.as_ref().map_or(0, |old| old.version) + 1,
                        value: value.clone(),
                        lease: 0,
                    };
                    state.insert(key.clone(), kv.clone());
                    (EventType::Put, kv)
                }
                (None, Some(_)) => {
                    state.remove(key);
                    let kv = KeyValue { key: key.clone(), mod_revision: revision, ..KeyValue::default() };
                    (EventType::Delete, kv)
                }
                (None, None) => continue,
            };
            events.push(Event { r#type: kind.into(), kv: Some(kv), prev_kv: None });
        }
        if events.is_empty() {
            return false;
        }
        self.states.push(state);
        self.revisions.push(events);
        true
    }

    pub(super) fn events(&self, revision: i64) -> &[Event] {
        &self.revisions[usize::try_from(revision - 2).unwrap()]
    }

    /// What a key held after a revision, compacted or not.
    fn held(&self, key: &[u8], revision: i64) -> Option<KeyValue> {
        self.states[usize::try_from(revision - 1).unwrap()].get(key).cloned()
    }
}

impl History for Log {
    type Error = Infallible;

    fn changes(
        &self,
        from: i64,
        to: i64,
        visit: &mut dyn FnMut(i64, Event) -> ControlFlow<()>,
    ) -> Result<(), Infallible> {
        assert!(to <= self.revision());
        for revision in from.max(self.compacted).max(2)..=to {
            for event in self.events(revision) {
                if visit(revision, event.clone()).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn before(&self, key: &[u8], revision: i64) -> Result<Option<KeyValue>, Infallible> {
        if revision - 1 < self.compacted {
            return Ok(None);
        }
        Ok(self.held(key, revision - 1))
    }
}

#[derive(Debug, Clone)]
enum Step {
    Write(Vec<(u8, Option<u16>)>),
    Create { stream: usize, span: (u8, Option<u8>), start: i64, flags: u8, id: i64 },
    Cancel { stream: usize, id: i64 },
    Take(usize),
    Plan(usize),
    Deliver(usize),
    Compact(i64),
    Progress(usize),
    Tick(u64),
    Reopen(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let stream = 0usize..3;
    let key = 0u8..6;
    prop_oneof![
        8 => prop::collection::vec((key.clone(), prop::option::weighted(0.7, 0u16..60)), 1..5).prop_map(Step::Write),
        4 => (stream.clone(), key, prop::option::of(0u8..8), -3i64..30, 0u8..32, 0i64..5).prop_map(
            |(stream, key, end, start, flags, id)| Step::Create { stream, span: (key, end), start, flags, id }
        ),
        1 => (stream.clone(), 0i64..5).prop_map(|(stream, id)| Step::Cancel { stream, id }),
        3 => stream.clone().prop_map(Step::Take),
        3 => stream.clone().prop_map(Step::Plan),
        3 => stream.clone().prop_map(Step::Deliver),
        1 => (0i64..8).prop_map(Step::Compact),
        2 => stream.clone().prop_map(Step::Progress),
        1 => (0u64..150).prop_map(Step::Tick),
        1 => stream.prop_map(Step::Reopen),
    ]
}

/// What a watch should see, and has seen.
#[derive(Debug)]
struct Expected {
    span: Span,
    flags: u8,
    /// The next revision that may be seen.
    next: i64,
    /// The revision whose events are being received in fragments, and how many of them were.
    partial: Option<(i64, usize)>,
}

impl Expected {
    fn wanted(&self, event: &Event) -> bool {
        let kind = if event.r#type == 0 { 1 } else { 2 };
        self.flags & kind == 0 && self.span.contains(&event.kv.as_ref().unwrap().key)
    }

    /// All that the watch must be told of `from..=to`.
    fn due<'a>(&'a self, log: &'a Log, from: i64, to: i64) -> impl Iterator<Item = &'a Event> {
        (from.max(2)..=to).flat_map(|revision| log.events(revision)).filter(|event| self.wanted(event))
    }
}

#[derive(Debug)]
struct Client {
    stream: StreamId,
    /// Watches that were created, as far as the client knows.
    watches: BTreeMap<i64, Expected>,
    /// Watches whose creation is not answered yet, by id: nothing may be said of them.
    asked: BTreeMap<i64, Vec<Expected>>,
    /// Watches that a compaction ended and that are not cancelled: their ids are taken.
    ended: BTreeSet<i64>,
}

impl Client {
    fn new(stream: StreamId) -> Self {
        Self { stream, watches: BTreeMap::new(), asked: BTreeMap::new(), ended: BTreeSet::new() }
    }

    fn receive(&mut self, response: &Response, log: &Log) {
        let id = response.watch_id;
        match &response.body {
            Body::Created => {
                let expected = self.asked.get_mut(&id).unwrap().remove(0);
                assert!(self.watches.insert(id, expected).is_none(), "id {id} is in use");
                assert!(!self.ended.contains(&id), "id {id} is still taken");
            }
            Body::Refused(_) => assert_eq!(id, NO_WATCH),
            Body::Canceled => assert!(self.watches.remove(&id).is_some() || self.ended.remove(&id)),
            Body::Compacted { revision } => {
                let watch = self.watches.remove(&id).unwrap();
                assert!(self.ended.insert(id));
                assert_eq!(response.revision, 0);
                assert!(watch.next < *revision, "cancelled without need");
                assert!(*revision <= log.compacted);
                assert!(watch.partial.is_none());
            }
            Body::Progress if id == NO_WATCH => {
                for (id, watch) in &self.watches {
                    assert_eq!(
                        watch.due(log, watch.next, response.revision).next(),
                        None,
                        "{id} was overtaken"
                    );
                }
            }
            Body::Progress => {
                let watch = &self.watches[&id];
                assert_ne!(watch.flags & 16, 0);
                assert_eq!(watch.due(log, watch.next, response.revision).next(), None, "{id} was overtaken");
            }
            Body::Events { events, more } => {
                self.receive_events(id, response.revision, events.list(), *more, log);
            }
        }
    }

    fn receive_events(&mut self, id: i64, header: i64, events: &[Event], more: bool, log: &Log) {
        let watch = self.watches.get_mut(&id).expect("events of a watch that is not there");
        assert!(!events.is_empty());
        let last = events.last().unwrap().kv.as_ref().unwrap().mod_revision;
        assert!(last <= header);
        assert!(!more || watch.flags & 8 != 0, "fragments that nobody asked for");
        let skip = watch.partial.map_or(0, |(_, received)| received);
        let due: Vec<&Event> = watch.due(log, watch.next, last).skip(skip).collect();
        if more {
            assert!(due.len() >= events.len());
        } else {
            assert_eq!(due.len(), events.len(), "events of a revision are missing or were seen before");
        }
        for (event, due) in events.iter().zip(&due) {
            assert_eq!((event.r#type, &event.kv), (due.r#type, &due.kv));
            let revision = event.kv.as_ref().unwrap().mod_revision;
            let before = log.held(&event.kv.as_ref().unwrap().key, revision - 1);
            if watch.flags & 4 == 0 {
                assert_eq!(event.prev_kv, None);
            } else if event.prev_kv.is_some() || revision > log.compacted {
                assert_eq!(event.prev_kv, before);
            }
        }
        if more {
            watch.partial = Some((last, skip + events.len()));
        } else {
            watch.partial = None;
            watch.next = last + 1;
        }
    }
}

struct World {
    hub: Hub,
    log: Log,
    clients: Vec<Client>,
    /// Steps that were planned and are not delivered yet, by client.
    held: Vec<Vec<CatchUp>>,
    now: u64,
}

impl World {
    fn new() -> Self {
        let options = HubOptions {
            queue_responses: 3,
            queue_bytes: 400,
            fragment_bytes: 160,
            batch_revisions: 3,
            scan_revisions: 7,
            progress_interval_ms: 100,
        };
        let mut hub = Hub::new(options, 1, 0);
        let clients = (0..3).map(|_| Client::new(hub.open(0))).collect();
        Self { hub, log: Log::new(), clients, held: vec![Vec::new(), Vec::new(), Vec::new()], now: 0 }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Write(changes) => {
                let mut seen = BTreeSet::new();
                let changes: Vec<_> = changes
                    .into_iter()
                    .filter(|(key, _)| seen.insert(*key))
                    .map(|(key, size)| {
                        (Bytes::from(vec![key]), size.map(|size| vec![b'v'; size.into()].into()))
                    })
                    .collect();
                if self.log.write(&changes) {
                    let revision = self.log.revision();
                    self.hub.publish(revision, self.log.events(revision), &self.log);
                }
            }
            Step::Create { stream, span: (key, end), start, flags, id } => {
                let range_end = match end {
                    None => Bytes::new(),
                    Some(7) => Bytes::from_static(b"\0"),
                    Some(end) => vec![end].into(),
                };
                self.create(stream, &[key], range_end, start, flags, id);
            }
            Step::Cancel { stream, id } => {
                let client = &mut self.clients[stream];
                self.hub.cancel(client.stream, id);
            }
            Step::Take(stream) => self.take(stream),
            Step::Plan(stream) => {
                if let Some(mut plan) = self.hub.plan(self.clients[stream].stream) {
                    plan.read(&self.log).unwrap();
                    self.held[stream].push(plan);
                }
            }
            Step::Deliver(stream) => {
                if let Some(plan) = self.held[stream].pop() {
                    self.hub.deliver(plan);
                }
            }
            Step::Compact(back) => {
                let revision = self.log.revision() - back;
                if revision > self.log.compacted {
                    self.hub.compact(revision);
                    self.log.compacted = revision;
                }
            }
            Step::Progress(stream) => self.hub.progress(self.clients[stream].stream),
            Step::Tick(ms) => {
                self.now += ms;
                self.hub.tick(self.now);
                assert!(self.hub.next_tick().unwrap() > self.now);
            }
            Step::Reopen(stream) => {
                self.hub.close(self.clients[stream].stream);
                self.clients[stream] = Client::new(self.hub.open(self.now));
            }
        }
    }

    fn create(&mut self, stream: usize, key: &[u8], range_end: Bytes, start: i64, flags: u8, id: i64) {
        let filters = [(1, FilterType::Noput), (2, FilterType::Nodelete)];
        let request = WatchCreateRequest {
            key: Bytes::copy_from_slice(key),
            range_end,
            start_revision: start,
            progress_notify: flags & 16 != 0,
            filters: filters.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, f)| (*f).into()).collect(),
            prev_kv: flags & 4 != 0,
            watch_id: id,
            fragment: flags & 8 != 0,
        };
        let client = &mut self.clients[stream];
        if let Some(id) = self.hub.create(client.stream, &request, Ok(())) {
            let span = Span::of_request(&request.key, &request.range_end).unwrap();
            let next = if start == 0 { self.log.revision() + 1 } else { start };
            let expected = Expected { span, flags, next, partial: None };
            client.asked.entry(id).or_default().push(expected);
        }
    }

    fn take(&mut self, stream: usize) {
        let client = &mut self.clients[stream];
        for response in self.hub.take(client.stream) {
            client.receive(&response, &self.log);
        }
    }

    /// Lets every client go on until nothing is left to say, and checks that all was said.
    fn settle(&mut self) {
        for stream in 0..self.clients.len() {
            for held in self.held[stream].drain(..) {
                self.hub.deliver(held);
            }
            let mut steps = 0;
            loop {
                self.take(stream);
                let Some(mut plan) = self.hub.plan(self.clients[stream].stream) else { break };
                plan.read(&self.log).unwrap();
                self.hub.deliver(plan);
                steps += 1;
                assert!(steps < 1000, "never in step");
            }
            for (id, watch) in &self.clients[stream].watches {
                assert_eq!(
                    watch.due(&self.log, watch.next, self.log.revision()).next(),
                    None,
                    "{id} lost events"
                );
                assert_eq!(watch.partial, None);
            }
            assert!(self.clients[stream].asked.values().all(Vec::is_empty), "a watch without an answer");
        }
        let counts = self.hub.counts();
        assert_eq!((counts.behind, counts.queued), (0, 0));
    }
}

proptest! {
    #[test]
    fn every_watch_sees_its_events_in_order_and_once(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in steps {
            world.apply(step);
        }
        world.settle();
        for client in &world.clients {
            world.hub.close(client.stream);
        }
        prop_assert_eq!(world.hub.counts(), Counts::default());
        prop_assert!(world.hub.index.is_empty());
    }
}
