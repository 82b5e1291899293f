use super::*;

#[test]
fn a_fresh_store_is_at_revision_1_and_the_first_put_makes_2() {
    let mut server = Server::new();
    assert_eq!(revision(server.range(&range("a", "")).unwrap().header), 1);
    assert_eq!(server.set("a", "1"), 2);
}

#[test]
fn version_counts_and_creation_stays_until_a_delete_resets_both() {
    let mut server = Server::new();
    server.set("a", "1");
    server.set("a", "2");
    let kv = server.get("a").unwrap();
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (2, 3, 2));
    server.delete(&delete("a", "")).unwrap();
    server.set("a", "3");
    let kv = server.get("a").unwrap();
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (5, 5, 1));
}

#[test]
fn prev_kv_is_there_only_if_the_key_was() {
    let mut server = Server::new();
    let asked = |value| PutRequest { prev_kv: true, ..put("a", value) };
    assert_eq!(server.put(asked("1")).unwrap().prev_kv, None);
    assert_eq!(server.put(put("a", "2")).unwrap().prev_kv, None, "not asked for");
    let previous = server.put(asked("3")).unwrap().prev_kv.unwrap();
    assert_eq!((previous.value, previous.mod_revision), ("2".into(), 3));
}

#[test]
fn ignore_value_and_ignore_lease_keep_the_old() {
    let mut server = Server::new();
    let lease = server.grant(7, 60);
    server.put(PutRequest { lease, ..put("a", "1") }).unwrap();
    server.put(PutRequest { ignore_lease: true, ..put("a", "2") }).unwrap();
    let kv = server.get("a").unwrap();
    assert_eq!((kv.value, kv.lease), ("2".into(), 7));
    server.put(PutRequest { ignore_value: true, ..put("a", "") }).unwrap();
    let kv = server.get("a").unwrap();
    assert_eq!((kv.value, kv.lease), ("2".into(), 0), "without a lease the old one is detached");
    assert_eq!(server.attached(7), Vec::<String>::new());
}

#[test]
fn refusals_have_their_reasons() {
    let mut server = Server::new();
    let refused = |server: &mut Server, request| server.put(request).unwrap_err();
    assert_eq!(refused(&mut server, put("", "1")), Refusal::EmptyKey);
    let request = PutRequest { ignore_value: true, ..put("a", "1") };
    assert_eq!(refused(&mut server, request), Refusal::ValueProvided);
    let request = PutRequest { ignore_lease: true, lease: 1, ..put("a", "1") };
    assert_eq!(refused(&mut server, request), Refusal::LeaseProvided);
    let request = PutRequest { ignore_value: true, ..put("a", "") };
    assert_eq!(refused(&mut server, request), Refusal::KeyNotFound);
    let request = PutRequest { ignore_lease: true, ..put("a", "1") };
    assert_eq!(refused(&mut server, request), Refusal::KeyNotFound);
    let request = PutRequest { lease: 5, ..put("a", "1") };
    assert_eq!(refused(&mut server, request), Refusal::LeaseNotFound);
    let request = PutRequest { lease: 5, ignore_value: true, ..put("a", "") };
    assert_eq!(refused(&mut server, request), Refusal::LeaseNotFound, "the lease is looked for first");
    assert_eq!(server.space.store().revision(), 1, "nothing was written");
}

#[test]
fn changes_carry_the_event_and_where_the_previous_value_is() {
    let mut server = Server::new();
    server.set("a", "1");
    let applied = server.space.put(&server.backend, put("a", "2"));
    let applied = server.finish(applied).unwrap();
    assert_eq!(applied.revision, 3);
    let [change] = &applied.changes[..] else { panic!("one change") };
    assert_eq!(change.event.kv, server.get("a"));
    let previous = crate::mvcc::previous(&server.backend, change.previous).unwrap().unwrap();
    assert_eq!(previous.value, "1");
    let applied = server.space.put(&server.backend, put("b", "2"));
    assert_eq!(server.finish(applied).unwrap().changes[0].previous, None);
}

#[test]
fn uncommitted_writes_are_seen_by_later_requests_and_not_by_readers() {
    let mut server = Server::new();
    server.set("a", "0");
    server.space.put(&server.backend, put("a", "1")).unwrap();
    let request = PutRequest { prev_kv: true, ..put("a", "2") };
    let applied = server.space.put(&server.backend, request).unwrap();
    assert_eq!(applied.answer.prev_kv.unwrap().value, "1");
    assert_eq!(server.get("a").unwrap().value, "0");
    let newer = RangeRequest { revision: 3, ..range("a", "") };
    assert_eq!(server.range(&newer), Err(Refusal::FutureRevision));
    server.commit();
    assert_eq!(server.get("a").unwrap().value, "2");
}
