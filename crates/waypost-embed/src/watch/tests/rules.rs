//! What is told of which change, and to whom.

use super::*;

#[test]
fn ids_are_the_next_free_ones_from_zero_or_those_asked_for() {
    let mut bench = Bench::new();
    let stream = bench.hub.open(0);
    let ids: Vec<_> = [0, 1, 0, 0, 77, -5, 0]
        .map(|watch_id| bench.create(stream, &WatchCreateRequest { watch_id, ..key("a") }).watch_id)
        .into();
    assert_eq!(ids, [0, 1, 2, 3, 77, -5, 4]);
    let other = bench.hub.open(0);
    assert_eq!(bench.create(other, &key("a")).watch_id, 0);
}

#[test]
fn an_id_in_use_is_refused_and_the_stream_goes_on() {
    let mut bench = Bench::new();
    bench.write(&["x"]);
    let stream = bench.hub.open(0);
    bench.create(stream, &WatchCreateRequest { watch_id: 7, ..key("a") });
    let refused = bench.create(stream, &WatchCreateRequest { watch_id: 7, ..key("b") });
    assert!(refused.created && refused.canceled);
    assert_eq!((refused.watch_id, revision(&refused)), (-1, 2));
    assert_eq!(refused.cancel_reason, "mvcc: duplicate watch ID provided on the WatchStream");
    bench.write(&["a"]);
    assert_eq!(bench.drain(stream)[0].watch_id, 7);
}

#[test]
fn what_is_refused_says_why_in_etcds_words() {
    let mut bench = Bench::new();
    let stream = bench.hub.open(0);
    let refused = bench.create(stream, &prefix("b", "a"));
    assert_eq!((refused.watch_id, refused.cancel_reason.as_str()), (-1, "mvcc: watcher range is empty"));
    let refused = bench.create(stream, &WatchCreateRequest { start_revision: -1, ..key("a") });
    assert_eq!(refused.cancel_reason, "etcdserver: mvcc: required revision has been compacted");
    assert_eq!(refused.compact_revision, 0);
    for (refusal, reason) in [
        (
            Refusal::PermissionDenied,
            "rpc error: code = PermissionDenied desc = etcdserver: permission denied",
        ),
        (
            Refusal::InvalidAuthToken,
            "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token",
        ),
        (Refusal::UserEmpty, "rpc error: code = InvalidArgument desc = etcdserver: user name is empty"),
        (
            Refusal::AuthOldRevision,
            "rpc error: code = InvalidArgument desc = etcdserver: revision of auth store is old",
        ),
        (Refusal::UserNotFound, "rpc error: code = PermissionDenied desc = etcdserver: permission denied"),
    ] {
        assert_eq!(bench.hub.create(stream, &key("a"), Err(refusal)), None);
        let refused = bench.hub.take(stream).remove(0).to_proto(&ResponseHeader::default());
        assert!(refused.created && refused.canceled);
        assert_eq!((refused.watch_id, refused.cancel_reason.as_str()), (-1, reason));
    }
    assert_eq!(bench.hub.counts().watches, 0);
}

#[test]
fn live_events_carry_their_revision_and_come_together() {
    let mut bench = Bench::new();
    let stream = bench.hub.open(0);
    let created = bench.create(stream, &prefix("a", "b"));
    assert!(created.created && !created.canceled);
    assert_eq!(revision(&created), 1);
    bench.write(&["a1", "c", "a2"]);
    bench.write(&["-a2", "a3=3"]);
    let told = bench.drain(stream);
    assert_eq!(told.iter().map(revision).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(keys(&told[0]), [(2, "a1"), (2, "a2")]);
    assert_eq!(keys(&told[1]), [(3, "a2"), (3, "a3")]);
    let deletion = &told[1].events[0];
    assert_eq!(deletion.r#type(), EventType::Delete);
    assert_eq!(
        deletion.kv,
        Some(KeyValue { key: "a2".into(), mod_revision: 3, ..KeyValue::default() }),
        "a deletion carries the key and the revision only"
    );
    assert_eq!(told[1].events[1].kv.as_ref().unwrap().value, "3");
}

#[test]
fn the_past_is_told_first_under_the_current_revision() {
    let mut bench = Bench::new();
    for change in ["a=1", "b=1", "a=2"] {
        bench.write(&[change]);
    }
    let stream = bench.hub.open(0);
    bench.hub.create(stream, &WatchCreateRequest { start_revision: 2, ..key("a") }, Ok(()));
    bench.write(&["a=3"]);
    let told = bench.drain(stream);
    assert!(told[0].created);
    assert_eq!(revision(&told[0]), 4);
    assert_eq!(keys(&told[1]), [(2, "a"), (4, "a"), (5, "a")]);
    assert_eq!(revision(&told[1]), 5);
    bench.write(&["a=4"]);
    assert_eq!(keys(&bench.drain(stream)[0]), [(6, "a")]);
}

#[test]
fn the_past_comes_in_batches_of_a_thousand_revisions() {
    let mut bench = Bench::new();
    for _ in 0..2500 {
        bench.write(&["a", "b"]);
    }
    let stream = bench.hub.open(0);
    bench.hub.create(stream, &WatchCreateRequest { start_revision: 1, ..prefix("a", "z") }, Ok(()));
    let told = bench.drain(stream);
    let sizes: Vec<_> = told[1..].iter().map(|response| response.events.len()).collect();
    assert_eq!(sizes, [2000, 2000, 1000]);
    assert!(told.iter().all(|response| revision(response) == 2501));
}

#[test]
fn a_watch_of_the_future_waits_for_its_revision() {
    let mut bench = Bench::new();
    let stream = bench.hub.open(0);
    bench.create(stream, &WatchCreateRequest { start_revision: 4, ..key("a") });
    for _ in 2..=5 {
        bench.write(&["a"]);
    }
    let told: Vec<_> = bench.drain(stream).iter().map(revision).collect();
    assert_eq!(told, [4, 5]);
}

#[test]
fn a_start_that_is_compacted_is_created_and_cancelled_without_a_reason() {
    let mut bench = Bench::new();
    for _ in 2..=9 {
        bench.write(&["a"]);
    }
    bench.hub.compact(5);
    bench.log.compacted = 5;
    let stream = bench.hub.open(0);
    bench.hub.create(stream, &WatchCreateRequest { start_revision: 4, ..key("a") }, Ok(()));
    let told = bench.drain(stream);
    assert_eq!(told.len(), 2);
    assert!(told[0].created && !told[0].canceled);
    assert!(told[1].canceled && !told[1].created);
    assert_eq!((told[1].watch_id, told[1].compact_revision, revision(&told[1])), (0, 5, 0));
    assert_eq!(told[1].cancel_reason, "");
    bench.hub.create(stream, &WatchCreateRequest { start_revision: 5, ..key("a") }, Ok(()));
    assert_eq!(bench.drain(stream)[1].events.len(), 5, "the compact revision itself can be watched");
}

#[test]
fn the_id_of_a_watch_that_was_compacted_is_taken_until_it_is_cancelled() {
    let mut bench = Bench::new();
    for _ in 2..=9 {
        bench.write(&["a"]);
    }
    bench.hub.compact(5);
    bench.log.compacted = 5;
    let stream = bench.hub.open(0);
    bench.hub.create(stream, &WatchCreateRequest { start_revision: 4, watch_id: 7, ..key("a") }, Ok(()));
    bench.hub.create(stream, &WatchCreateRequest { watch_id: 7, ..key("a") }, Ok(()));
    assert!(bench.drain(stream)[2].cancel_reason.contains("duplicate watch ID"));
    bench.hub.cancel(stream, 7);
    bench.hub.cancel(stream, 7);
    let told = bench.drain(stream);
    assert_eq!(told.len(), 1, "of the second there is nothing to cancel");
    assert!(told[0].canceled && told[0].watch_id == 7);
    bench.hub.create(stream, &WatchCreateRequest { watch_id: 7, ..key("a") }, Ok(()));
    assert!(!bench.drain(stream)[0].canceled);
}

#[test]
fn an_empty_key_is_the_first_of_all_and_zero_is_the_open_end() {
    let mut bench = Bench::new();
    let stream = bench.hub.open(0);
    bench.create(stream, &prefix("", "\0"));
    bench.create(stream, &prefix("b", "\0"));
    bench.write(&["\0"]);
    bench.write(&["c"]);
    let told: Vec<_> = bench.drain(stream).iter().map(|told| (told.watch_id, revision(told))).collect();
    assert_eq!(told, [(0, 2), (0, 3), (1, 3)]);
}

#[test]
fn cancel_answers_once_and_silence_follows() {
    let mut bench = Bench::new();
    let stream = bench.hub.open(0);
    bench.create(stream, &key("a"));
    bench.write(&["a"]);
    bench.hub.cancel(stream, 0);
    bench.hub.cancel(stream, 0);
    bench.hub.cancel(stream, 12);
    bench.write(&["a"]);
    let told = bench.drain(stream);
    assert_eq!(told.len(), 2);
    assert_eq!(told[0].events.len(), 1);
    assert!(told[1].canceled && told[1].cancel_reason.is_empty() && told[1].compact_revision == 0);
    assert_eq!((told[1].watch_id, revision(&told[1])), (0, 2));
}

#[test]
fn filters_drop_events_and_answers_without_events() {
    let mut bench = Bench::new();
    let stream = bench.hub.open(0);
    bench.create(stream, &WatchCreateRequest { filters: vec![0], ..key("a") });
    bench.create(stream, &WatchCreateRequest { filters: vec![1, 9], ..key("a") });
    bench.create(stream, &WatchCreateRequest { filters: vec![0, 1], ..key("a") });
    bench.write(&["a"]);
    bench.write(&["-a"]);
    let told: Vec<_> = bench.drain(stream).iter().map(|told| (told.watch_id, revision(told))).collect();
    assert_eq!(told, [(1, 2), (0, 3)]);
    bench.create(stream, &WatchCreateRequest { filters: vec![0], start_revision: 1, ..key("a") });
    assert_eq!(keys(&bench.drain(stream)[0]), [(3, "a")]);
}

#[test]
fn what_a_key_held_before_is_told_to_those_who_ask() {
    let mut bench = Bench::new();
    let stream = bench.hub.open(0);
    bench.create(stream, &key("a"));
    bench.create(stream, &WatchCreateRequest { prev_kv: true, ..key("a") });
    for change in ["a=1", "a=2", "-a", "a=3"] {
        bench.write(&[change]);
    }
    let told = bench.drain(stream);
    let before = |watch: i64| -> Vec<Option<Bytes>> {
        let mine = told.iter().filter(|told| told.watch_id == watch);
        mine.map(|told| told.events[0].prev_kv.as_ref().map(|kv| kv.value.clone())).collect()
    };
    assert_eq!(before(0), [None, None, None, None]);
    assert_eq!(before(1), [None, Some("1".into()), Some("2".into()), None]);
    bench.hub.compact(3);
    bench.log.compacted = 3;
    bench.create(stream, &WatchCreateRequest { prev_kv: true, start_revision: 3, ..key("a") });
    let past = bench.drain(stream);
    let before: Vec<_> = past[0].events.iter().map(|event| event.prev_kv.is_some()).collect();
    assert_eq!(before, [false, true, false], "what is compacted is not told");
}

#[test]
fn a_large_answer_is_split_for_those_who_ask() {
    let mut bench = Bench::with(HubOptions { fragment_bytes: 180, ..HubOptions::default() });
    let stream = bench.hub.open(0);
    bench.create(stream, &WatchCreateRequest { fragment: true, ..prefix("a", "b") });
    bench.create(stream, &prefix("a", "b"));
    bench.write(&[
        "a1=0123456789012345678901234567890123456789",
        "a2=0123456789012345678901234567890123456789",
        "a3",
    ]);
    let told = bench.drain(stream);
    let shape: Vec<_> = told.iter().map(|told| (told.watch_id, told.fragment, told.events.len())).collect();
    assert_eq!(shape, [(0, true, 2), (0, false, 1), (1, false, 3)]);
    bench.create(stream, &WatchCreateRequest { fragment: true, start_revision: 1, ..prefix("a", "b") });
    let shape: Vec<_> = bench.drain(stream).iter().map(|told| (told.fragment, told.events.len())).collect();
    assert_eq!(shape, [(true, 2), (false, 1)]);
}
