//! Random requests, commits, failed commits, restarts and compactions against the [model](super::naive).

use std::ops::ControlFlow;

use proptest::prelude::*;
use waypost_proto::etcdserverpb::{LeaseGrantRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest};
use waypost_proto::mvccpb::Event;

use super::naive::Naive;
use super::*;
use crate::mvcc::{Change, Past, changes, previous};
use crate::watch::History as _;

#[derive(Debug, Clone)]
enum Step {
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
    Grant(i64),
    Revoke(i64),
    /// How far below the newest revision.
    Compact(i64),
    Clean(usize),
    Read(RangeRequest),
    Commit,
    /// The commit fails.
    Fail,
    Restart,
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-d]", 1 => "[a-b][a-b]"]
}

fn range_end() -> impl Strategy<Value = String> {
    prop_oneof![3 => Just(String::new()), 1 => Just("\0".to_owned()), 2 => key()]
}

fn a_put() -> impl Strategy<Value = PutRequest> {
    let lease = prop_oneof![3 => Just(0), 2 => 1_i64..4];
    (key(), "[0-9]{0,2}", lease, any::<bool>(), prop::bool::weighted(0.1), prop::bool::weighted(0.1))
        .prop_map(|(key, value, lease, prev_kv, ignore_value, ignore_lease)| PutRequest {
            value: if ignore_value { "".into() } else { value.into() },
            lease: if ignore_lease { 0 } else { lease },
            prev_kv,
            ignore_value,
            ignore_lease,
            ..put(&key, "")
        })
}

fn a_delete() -> impl Strategy<Value = DeleteRangeRequest> {
    (key(), range_end(), any::<bool>())
        .prop_map(|(key, end, prev_kv)| DeleteRangeRequest { prev_kv, ..delete(&key, &end) })
}

/// The revision is how far below the newest; the test makes it absolute.
fn a_range() -> impl Strategy<Value = RangeRequest> {
    let bound = || prop_oneof![3 => Just(0_i64), 1 => 1_i64..30];
    let back = prop_oneof![2 => Just(0_i64), 3 => -1_i64..15];
    (key(), range_end(), -1_i64..4, back, 0..3, 0..5, bound(), bound(), 0..6).prop_map(
        |(key, end, limit, revision, sort_order, sort_target, min, max, only)| RangeRequest {
            limit,
            revision,
            sort_order,
            sort_target,
            min_mod_revision: min,
            max_mod_revision: max,
            keys_only: only == 0,
            count_only: only == 1,
            ..range(&key, &end)
        },
    )
}

fn a_compare() -> impl Strategy<Value = Compare> {
    (key(), range_end(), 0..5, 0..4, 0_i64..4).prop_map(|(key, end, target, result, operand)| {
        let (target, operand) = match target {
            0 => (CompareTarget::Version, TargetUnion::Version(operand)),
            1 => (CompareTarget::Create, TargetUnion::CreateRevision(operand * 4)),
            2 => (CompareTarget::Mod, TargetUnion::ModRevision(operand * 4)),
            3 => (CompareTarget::Lease, TargetUnion::Lease(operand)),
            _ => (CompareTarget::Value, TargetUnion::Value(operand.to_string().into())),
        };
        compare(&key, &end, target, CompareResult::try_from(result).unwrap(), operand)
    })
}

fn a_txn() -> impl Strategy<Value = TxnRequest> {
    let leaf = prop_oneof![
        a_put().prop_map(|request| op(Request::RequestPut(request))),
        a_delete().prop_map(|request| op(Request::RequestDeleteRange(request))),
        a_range().prop_map(|request| op(Request::RequestRange(RangeRequest { revision: 0, ..request }))),
    ];
    let list = |operation: BoxedStrategy<RequestOp>| {
        let compares = prop::collection::vec(a_compare(), 0..2);
        (compares, prop::collection::vec(operation.clone(), 0..4), prop::collection::vec(operation, 0..3))
            .prop_map(|(compare, success, failure)| TxnRequest { compare, success, failure })
    };
    let operation = leaf
        .boxed()
        .prop_recursive(2, 8, 3, move |inner| list(inner.boxed()).prop_map(op_txn).boxed())
        .boxed();
    let compares = prop::collection::vec(a_compare(), 0..3);
    (compares, prop::collection::vec(operation.clone(), 0..4), prop::collection::vec(operation, 0..3))
        .prop_map(|(compare, success, failure)| TxnRequest { compare, success, failure })
}

fn a_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => a_put().prop_map(Step::Put),
        3 => a_delete().prop_map(Step::Delete),
        5 => a_txn().prop_map(Step::Txn),
        2 => (1_i64..4).prop_map(Step::Grant),
        1 => (1_i64..4).prop_map(Step::Revoke),
        2 => (-1_i64..12).prop_map(Step::Compact),
        2 => (1_usize..4).prop_map(Step::Clean),
        6 => a_range().prop_map(Step::Read),
        6 => Just(Step::Commit),
        1 => Just(Step::Fail),
        1 => Just(Step::Restart),
    ]
}

/// The server and what it should be: with and without what is uncommitted.
struct Pair {
    server: Server,
    newest: Naive,
    committed: Naive,
}

impl Pair {
    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        let Self { server, newest, committed } = self;
        let backend = &server.backend;
        match step {
            Step::Put(request) => {
                let applied = server.space.put(backend, request.clone());
                let expected = newest.put(&request);
                self.compare(applied, expected)?;
            }
            Step::Delete(request) => {
                let applied = server.space.delete_range(backend, &request);
                let expected = newest.delete(&request);
                self.compare(applied, Ok(expected))?;
            }
            Step::Txn(request) => {
                if check_txn(&request, DEFAULT_MAX_OPS).is_ok() {
                    let expected = newest.txn(&request);
                    let applied = server.space.txn(backend, request);
                    self.compare(applied, expected)?;
                }
            }
            Step::Grant(id) => {
                let request = LeaseGrantRequest { id, ttl: 60 };
                let applied = server.space.lease_grant(&request, 0, 0);
                let granted = applied.map(|applied| applied.answer.ttl).map_err(|error| error.refusal());
                prop_assert_eq!(granted, newest.grant(&request));
            }
            Step::Revoke(id) => {
                let applied = server.space.lease_revoke(&LeaseRevokeRequest { id });
                let expected = newest.revoke(id);
                let expected = expected.map(|events| (applied.as_ref().unwrap().answer, events));
                self.compare(applied, expected)?;
            }
            Step::Compact(back) => {
                let revision = newest.revision() - back;
                let applied = server.space.compact(&CompactionRequest { revision, physical: false });
                let compacted = applied.map(|_| ()).map_err(|error| error.refusal());
                prop_assert_eq!(compacted, newest.compact(revision));
            }
            Step::Clean(keys) => {
                server.space.compaction_step(keys);
            }
            Step::Read(request) => {
                let back = request.revision;
                let revision = if back == 0 { 0 } else { committed.revision() - back };
                let request = RangeRequest { revision, ..request };
                prop_assert_eq!(server.range(&request), committed.range(&request));
            }
            Step::Commit => {
                server.commit();
                *committed = newest.clone();
            }
            Step::Fail => {
                drop(server.space.take_batch());
                server.space.roll_back();
                *newest = committed.clone();
            }
            Step::Restart => {
                server.restart();
                *newest = committed.clone();
            }
        }
        Ok(())
    }

    fn compare<A: PartialEq + std::fmt::Debug>(
        &self,
        applied: Result<Applied<A>, StoreError>,
        expected: Result<(A, Vec<Event>), Refusal>,
    ) -> Result<(), TestCaseError> {
        let told = applied.map_err(|error| error.refusal());
        let told = told.map(|applied| (applied.answer, applied.changes));
        match (told, expected) {
            (Ok((answer, changes)), Ok((expected, events))) => {
                prop_assert_eq!(answer, expected);
                for Change { event, previous } in &changes {
                    let kv = event.kv.clone().unwrap();
                    let before = self.newest.before(kv.mod_revision, &kv.key);
                    prop_assert_eq!(previous.map(|at| at.main), before.map(|before| before.mod_revision));
                }
                let told: Vec<_> = changes.into_iter().map(|change| change.event).collect();
                prop_assert_eq!(told, events);
            }
            (told, expected) => {
                prop_assert_eq!(told.map(|_| ()), expected.map(|_| ()));
            }
        }
        Ok(())
    }

    /// Everything that is committed and can still be read is as the model has it.
    fn audit(&self) -> Result<(), TestCaseError> {
        let Self { server, committed, .. } = self;
        let store = server.space.store();
        prop_assert_eq!((store.revision(), store.compacted()), (committed.revision(), committed.compacted));
        for revision in 0..=committed.revision() + 1 {
            let request = RangeRequest { revision, ..range("\0", "\0") };
            prop_assert_eq!(server.range(&request), committed.range(&request));
        }
        let first = (committed.compacted + 1).max(1);
        let mut told = vec![vec![]; committed.events.len()];
        changes(&server.backend, first, committed.revision(), &mut |at, event| {
            told[usize::try_from(at.main).unwrap()].push(event);
            ControlFlow::Continue(())
        })
        .unwrap();
        let first = usize::try_from(first).unwrap().min(told.len());
        prop_assert_eq!(&told[first..], &committed.events[first..]);
        for id in 1..4 {
            let left = server.space.lease_time_to_live(&LeaseTimeToLiveRequest { id, keys: true }, 0);
            let expected = if committed.leases.contains(&id) { committed.keys_of(id) } else { vec![] };
            prop_assert_eq!((left.ttl > 0, left.keys), (committed.leases.contains(&id), expected));
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_key_space_behaves_like_a_list_of_snapshots(steps in prop::collection::vec(a_step(), 1..60)) {
        let mut pair = Pair { server: Server::new(), newest: Naive::new(), committed: Naive::new() };
        for step in steps {
            let settles = matches!(step, Step::Commit | Step::Fail | Step::Restart);
            pair.step(step)?;
            if settles {
                pair.audit()?;
            }
        }
        pair.audit()?;
        pair.step(Step::Restart)?;
        pair.audit()?;
    }
}

#[test]
fn the_value_before_a_change_is_gone_once_compacted() {
    let mut server = Server::new();
    server.set("a", "1");
    let applied = server.space.put(&server.backend, put("a", "2"));
    let change = server.finish(applied).unwrap().changes.remove(0);
    let past = |server: &Server, revision| {
        let past = Past::new(&server.backend, |key, revision| server.space.store().before(key, revision));
        past.before(b"a", revision).unwrap().map(|kv| kv.value)
    };
    assert!(previous(&server.backend, change.previous).unwrap().is_some());
    assert_eq!((past(&server, 2), past(&server, 3)), (None, Some("1".into())));
    server.compact(3).unwrap();
    assert_eq!((past(&server, 3), past(&server, 4)), (None, Some("2".into())));
    server.space.compaction_step(10);
    server.commit();
    assert_eq!(previous(&server.backend, change.previous).unwrap(), None);
    assert_eq!(past(&server, i64::MIN), None);
}
