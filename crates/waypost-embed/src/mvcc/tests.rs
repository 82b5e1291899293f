//! Reloading: what was committed comes back, and what cannot have been written is refused.

use std::ops::ControlFlow;

use bytes::Bytes;
use prost::Message as _;
use waypost_proto::mvccpb::KeyValue;

use super::*;
use crate::backend::{Backend, Bucket, MemoryBackend, WriteBatch};
use crate::error::Refusal;

fn kv(key: &'static str, created: i64, modified: i64, version: i64) -> KeyValue {
    KeyValue {
        key: key.into(),
        create_revision: created,
        mod_revision: modified,
        version,
        ..KeyValue::default()
    }
}

/// A backend with these records, and what loading it says.
fn load(records: &[(Vec<u8>, Vec<u8>)], meta: &[(&'static str, i64)]) -> Result<Store, StoreError> {
    let backend = MemoryBackend::new();
    let mut batch = WriteBatch::new();
    for (key, value) in records {
        batch.put(Bucket::Key, key.clone(), value.clone());
    }
    for (key, revision) in meta {
        batch.put(Bucket::Meta, *key, Revision::new(*revision, 0).encode(false));
    }
    backend.commit(batch).unwrap();
    Store::load(&backend).map(|(store, _)| store)
}

fn put(kv: &KeyValue) -> (Vec<u8>, Vec<u8>) {
    (Revision::new(kv.mod_revision, 0).encode(false), kv.encode_to_vec())
}

fn tombstone(key: &'static str, at: i64) -> (Vec<u8>, Vec<u8>) {
    let kv = KeyValue { key: key.into(), ..KeyValue::default() };
    (Revision::new(at, 0).encode(true), kv.encode_to_vec())
}

fn refused(records: &[(Vec<u8>, Vec<u8>)], meta: &[(&'static str, i64)]) -> String {
    match load(records, meta) {
        Err(StoreError::Malformed(error)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_empty_backend_is_a_fresh_store() {
    let store = load(&[], &[]).unwrap();
    assert_eq!((store.revision(), store.compacted(), store.keys()), (1, -1, 0));
}

#[test]
fn a_half_removed_history_of_etcd_is_taken_up() {
    // etcd removes in order of revision, so deletions may outlive what they deleted.
    let records = [put(&kv("a", 2, 5, 3)), put(&kv("a", 2, 6, 4)), tombstone("b", 7), put(&kv("b", 9, 9, 1))];
    let meta = [("scheduledCompactRev", 8), ("finishedCompactRev", 3)];
    let mut store = load(&records, &meta).unwrap();
    assert!(store.is_compacting());
    assert_eq!((store.revision(), store.compacted()), (9, 8));
    assert_eq!(store.get(b"a", 8).unwrap(), Found { revision: Revision::new(6, 0), created: 2, version: 4 });
    assert_eq!(store.get(b"b", 8), None);
    assert_eq!(store.compaction_step(10), CompactionProgress::Done { revision: 8 });
    let dropped = store.take_batch();
    assert_eq!(dropped.len(), 3, "two versions and the record of having finished");
    store.committed();
    assert_eq!(store.get(b"b", 9).unwrap().version, 1);
}

#[test]
fn the_revision_is_at_least_the_compacted_one() {
    // Up to 3.5 etcd removes a deletion at the compacted revision too.
    let mut store = load(&[], &[("scheduledCompactRev", 10), ("finishedCompactRev", 10)]).unwrap();
    assert_eq!((store.revision(), store.compacted(), store.is_compacting()), (10, 10, false));
    assert_eq!(store.compact(10), Err(Refusal::Compacted));
    assert_eq!(store.begin().target(), 11);
}

#[test]
fn what_does_not_follow_is_refused() {
    let first = || put(&kv("a", 2, 2, 1));
    let broken = [
        vec![put(&kv("a", 2, 3, 2))],
        vec![first(), put(&kv("a", 2, 3, 3))],
        vec![first(), put(&kv("a", 3, 3, 1))],
        vec![put(&kv("a", 2, 2, 0))],
        vec![put(&kv("a", 3, 2, 1))],
        vec![tombstone("a", 2)],
        vec![first(), tombstone("a", 3), tombstone("a", 4)],
        vec![first(), tombstone("a", 3), put(&kv("a", 2, 4, 2))],
    ];
    for records in broken {
        let error = refused(&records, &[]);
        assert!(error.contains("of key a, created at"), "{error}");
        assert!(error.contains("does not follow"), "{error}");
    }
}

#[test]
fn what_is_not_a_record_is_refused_and_named() {
    let error = refused(&[(b"what".to_vec(), vec![])], &[]);
    assert_eq!(error, "malformed record in bucket key: key what: the key is not a revision");
    let (key, _) = put(&kv("a", 2, 2, 1));
    assert!(refused(&[(key.clone(), vec![0xff])], &[]).contains("bucket key"));
    let error = refused(&[(key.clone(), kv("a", 2, 3, 1).encode_to_vec())], &[]);
    assert!(error.ends_with("the value says revision 3"), "{error}");
    let error = refused(&[(key, kv("", 2, 2, 1).encode_to_vec())], &[]);
    assert!(error.ends_with("a change of no key"), "{error}");
    let backend = MemoryBackend::new();
    let mut batch = WriteBatch::new();
    batch.put(Bucket::Meta, "scheduledCompactRev", "12");
    backend.commit(batch).unwrap();
    let error = Store::load(&backend).unwrap_err().to_string();
    assert_eq!(
        error,
        "malformed record in bucket meta: key scheduledCompactRev: the value is not a revision"
    );
}

#[test]
fn leases_of_live_keys_are_found() {
    let backend = MemoryBackend::new();
    let (mut store, _) = Store::load(&backend).unwrap();
    for (key, lease) in [("a", 7), ("b", 7), ("c", 7), ("b", 0), ("d", 8)] {
        let mut write = store.begin();
        store.put(&mut write, key.into(), Bytes::new(), lease).unwrap();
        store.end(write);
    }
    let mut write = store.begin();
    store.delete(&mut write, b"c").unwrap();
    store.end(write);
    backend.commit(store.take_batch()).unwrap();
    store.committed();
    let (_, leases) = Store::load(&backend).unwrap();
    let mut leases: Vec<_> = leases.iter().map(|(key, lease)| (&key[..], *lease)).collect();
    leases.sort_unstable();
    assert_eq!(leases, [(&b"a"[..], 7), (b"d", 8)]);
}

#[test]
fn changes_are_read_back_in_order_and_until_told_to_stop() {
    let records = [put(&kv("b", 2, 2, 1)), put(&kv("a", 3, 3, 1)), tombstone("b", 4)];
    let backend = MemoryBackend::new();
    let mut batch = WriteBatch::new();
    for (key, value) in records {
        batch.put(Bucket::Key, key, value);
    }
    backend.commit(batch).unwrap();
    let read = |from, to, most: usize| {
        let mut seen = vec![];
        changes(&backend, from, to, &mut |at, event| {
            seen.push((at.main, event.r#type, event.kv.unwrap().key));
            if seen.len() == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
        seen
    };
    let all = [(2, 0, "b".into()), (3, 0, "a".into()), (4, 1, "b".into())];
    assert_eq!(read(0, 99, 9), all);
    assert_eq!(read(1, i64::MAX, 9), all);
    assert_eq!(read(3, 3, 9), all[1..2]);
    assert_eq!(read(2, 4, 2), all[..2]);
    assert_eq!(read(4, 3, 9), []);
    assert_eq!(read(-5, 0, 9), []);
}
