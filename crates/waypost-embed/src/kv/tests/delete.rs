use super::*;

fn three() -> Server {
    let mut server = Server::new();
    for key in ["a", "b", "c"] {
        server.set(key, key);
    }
    server
}

#[test]
fn deletes_what_matches_and_moves_the_revision_only_then() {
    let mut server = three();
    let answer = server.delete(&delete("a", "c")).unwrap();
    assert_eq!((answer.deleted, revision(answer.header)), (2, 5));
    let answer = server.delete(&delete("a", "c")).unwrap();
    assert_eq!((answer.deleted, revision(answer.header)), (0, 5));
    assert_eq!(keys(&server.range(&range("\0", "\0")).unwrap()), ["c"]);
}

#[test]
fn an_open_range_deletes_to_the_end_and_a_backward_one_nothing() {
    let mut server = three();
    assert_eq!(server.delete(&delete("c", "a")).unwrap().deleted, 0);
    assert_eq!(server.delete(&delete("b", "\0")).unwrap().deleted, 2);
    assert_eq!(server.delete(&delete("\0", "\0")).unwrap().deleted, 1);
}

#[test]
fn prev_kvs_come_on_demand_and_in_order() {
    let mut server = three();
    assert_eq!(server.delete(&delete("a", "")).unwrap().prev_kvs, []);
    let asked = DeleteRangeRequest { prev_kv: true, ..delete("a", "z") };
    let answer = server.delete(&asked).unwrap();
    let values: Vec<_> = answer.prev_kvs.iter().map(|kv| &kv.value[..]).collect();
    assert_eq!(values, [b"b", b"c"]);
}

#[test]
fn the_event_of_a_delete_has_key_and_revision_and_nothing_else() {
    let mut server = three();
    let applied = server.space.delete_range(&server.backend, &delete("a", "c"));
    let applied = server.finish(applied).unwrap();
    let kvs: Vec<_> = applied.changes.iter().map(|change| change.event.kv.clone().unwrap()).collect();
    let gone = |key: &'static str| KeyValue { key: key.into(), mod_revision: 5, ..KeyValue::default() };
    assert_eq!(kvs, [gone("a"), gone("b")]);
    assert!(applied.changes.iter().all(|change| change.event.r#type == 1));
    let previous = crate::mvcc::previous(&server.backend, applied.changes[1].previous).unwrap();
    assert_eq!(previous.unwrap().value, "b");
}

#[test]
fn an_empty_key_is_refused() {
    assert_eq!(three().delete(&delete("", "z")), Err(Refusal::EmptyKey));
}
