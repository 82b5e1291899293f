//! The hub over the real store: what is published, what is read back from the disk later, and what a compaction leaves
//! of it.

use std::collections::BTreeSet;

use proptest::prelude::*;
use waypost_proto::etcdserverpb::request_op::Request;
use waypost_proto::etcdserverpb::{CompactionRequest, DeleteRangeRequest, PutRequest, RequestOp, TxnRequest};

use super::*;
use crate::backend::{Backend, MemoryBackend};
use crate::kv::KeySpace;
use crate::mvcc::{CompactionProgress, Past};

#[derive(Debug, Clone)]
enum Step {
    Write(Vec<(u8, Option<u8>)>),
    Watch(i64),
    CatchUp,
    Compact(i64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec((0u8..4, prop::option::weighted(0.6, any::<u8>())), 1..4).prop_map(Step::Write),
        2 => (0i64..8).prop_map(Step::Watch),
        2 => Just(Step::CatchUp),
        1 => (0i64..6).prop_map(Step::Compact),
        1 => Just(Step::Restart),
    ]
}

struct Server {
    backend: MemoryBackend,
    space: KeySpace,
    hub: Hub,
    stream: StreamId,
    /// What must be told, by the model.
    log: Log,
    /// The next revision that each watch has to be told of, by its id.
    next: Vec<i64>,
}

impl Server {
    fn new() -> Self {
        let backend = MemoryBackend::new();
        let space = KeySpace::load(&backend, 2, 0).unwrap();
        let options = HubOptions { queue_responses: 2, batch_revisions: 2, ..HubOptions::default() };
        let mut hub = Hub::new(options, space.store().revision(), space.store().compacted());
        let stream = hub.open(0);
        Self { backend, space, hub, stream, log: Log::new(), next: Vec::new() }
    }

    fn commit(&mut self) {
        self.backend.commit(self.space.take_batch()).unwrap();
        self.space.committed();
    }

    fn write(&mut self, changes: Vec<(u8, Option<u8>)>) {
        let mut seen = BTreeSet::new();
        let changes: Vec<(Bytes, Option<Bytes>)> = changes
            .into_iter()
            .filter(|(key, _)| seen.insert(*key))
            .map(|(key, value)| (vec![key].into(), value.map(|value| vec![value].into())))
            .collect();
        self.log.write(&changes);
        let success = changes
            .into_iter()
            .map(|(key, value)| match value {
                Some(value) => Request::RequestPut(PutRequest { key, value, ..PutRequest::default() }),
                None => {
                    Request::RequestDeleteRange(DeleteRangeRequest { key, ..DeleteRangeRequest::default() })
                }
            })
            .map(|request| RequestOp { request: Some(request) })
            .collect();
        let applied = self.space.txn(&self.backend, TxnRequest { success, ..TxnRequest::default() }).unwrap();
        self.commit();
        if !applied.changes.is_empty() {
            let events: Vec<_> = applied.changes.into_iter().map(|change| change.event).collect();
            let store = self.space.store();
            let past = Past::new(&self.backend, |key, revision| store.before(key, revision));
            self.hub.publish(applied.revision, &events, &past);
        }
    }

    fn watch(&mut self, back: i64) {
        let start = (self.log.revision() - back).max(1);
        let request = WatchCreateRequest { start_revision: start, prev_kv: true, ..prefix("", "\0") };
        assert!(self.hub.create(self.stream, &request, Ok(())).is_some());
        self.next.push(start);
    }

    fn compact(&mut self, back: i64) {
        let revision = self.log.revision() - back;
        if revision <= self.log.compacted.max(0) {
            return;
        }
        self.space.compact(&CompactionRequest { revision, physical: false }).unwrap();
        self.commit();
        self.hub.compact(revision);
        self.log.compacted = revision;
        while self.space.compaction_step(1) != CompactionProgress::Idle {
            self.commit();
        }
    }

    /// Everything is read back from the disk; watches do not survive.
    fn restart(&mut self) {
        self.space = KeySpace::load(&self.backend, 2, 0).unwrap();
        let store = self.space.store();
        self.hub = Hub::new(self.hub.options.clone(), store.revision(), store.compacted());
        self.stream = self.hub.open(0);
        self.next.clear();
    }

    fn catch_up(&mut self) {
        loop {
            for response in self.hub.take(self.stream) {
                self.receive(&response);
            }
            let Some(mut step) = self.hub.plan(self.stream) else { break };
            let store = self.space.store();
            step.read(&Past::new(&self.backend, |key, revision| store.before(key, revision))).unwrap();
            self.hub.deliver(step);
        }
        let revision = self.log.revision();
        // Nothing ever happened in revision 1.
        assert!(
            self.next.iter().all(|next| (*next).max(2) > revision),
            "events are missing: {:?}",
            self.next
        );
    }

    fn receive(&mut self, response: &Response) {
        let Ok(id) = usize::try_from(response.watch_id) else { panic!("{response:?}") };
        match &response.body {
            Body::Created => {}
            Body::Compacted { revision } => {
                assert!(self.next[id] < *revision);
                self.next[id] = i64::MAX;
            }
            Body::Events { events, .. } => {
                let last = events.list().last().unwrap().kv.as_ref().unwrap().mod_revision;
                let due: Vec<_> =
                    (self.next[id].max(2)..=last).flat_map(|revision| self.log.events(revision)).collect();
                assert_eq!(events.list().len(), due.len());
                for (event, due) in events.list().iter().zip(due) {
                    assert_eq!((event.r#type, &event.kv), (due.r#type, &due.kv));
                    let kv = event.kv.as_ref().unwrap();
                    if kv.mod_revision > self.log.compacted {
                        assert_eq!(event.prev_kv, self.log.before(&kv.key, kv.mod_revision).unwrap());
                    }
                }
                self.next[id] = last + 1;
            }
            other => panic!("{other:?}"),
        }
    }
}

proptest! {
    #[test]
    fn the_past_is_told_as_it_happened(steps in prop::collection::vec(step(), 1..60)) {
        let mut server = Server::new();
        for step in steps {
            match step {
                Step::Write(changes) => server.write(changes),
                Step::Watch(back) => server.watch(back),
                Step::CatchUp => server.catch_up(),
                Step::Compact(back) => server.compact(back),
                Step::Restart => server.restart(),
            }
            prop_assert_eq!(server.space.store().revision(), server.log.revision());
        }
        server.catch_up();
    }
}
