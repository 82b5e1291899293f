//! Ranges, events, layouts, values that do not decode, staleness, recognition.

use waypost_model::{Existence, Freshness, InstanceKey, parse_layouts};

use super::*;

#[test]
fn nothing_is_published_before_the_first_range() {
    let mut bench = Bench::grpc();
    assert!(bench.publish().is_none());
    bench.core.down("away".into(), bench.now);
    assert!(bench.publish().is_none());
    bench.range(3, &[]);
    let snapshot = bench.snapshot();
    assert_eq!((snapshot.existence(), snapshot.revision()), (Existence::Absent, 3));
    assert!(snapshot.freshness().is_live());
    assert!(bench.publish().is_none(), "once per change");
}

#[test]
fn what_is_older_than_what_is_known_changes_nothing() {
    let mut bench = Bench::grpc();
    let (old, new) = (held(&grpc(), "a", 3, 0), held(&grpc(), "a", 6, 0));
    bench.range(5, std::slice::from_ref(&old));
    bench.put(&new);
    let before = bench.snapshot();
    bench.put(&old);
    bench.delete(&old, 4);
    bench.delete(&old, 6);
    let after = bench.snapshot();
    assert_eq!(after.changes_since(&before).count(), 0);
    assert_eq!((hosts(&after), after.revision()), (vec!["a".to_owned()], 6));
}

#[test]
fn a_key_that_is_deleted_and_put_in_one_revision_is_there() {
    let mut bench = Bench::grpc();
    let (old, new) = (held(&grpc(), "a", 3, 0), held(&grpc(), "a", 9, 0));
    bench.range(5, std::slice::from_ref(&old));
    for _ in 0..2 {
        let delete = Event::Delete { key: &old.key, mod_revision: 9 };
        bench.core.apply(0, 9, [delete, Event::Put(new.kv())], bench.now);
        assert_eq!(hosts(&bench.snapshot()), ["a"]);
    }
}

#[test]
fn a_store_that_went_back_is_published_as_a_rewind() {
    let mut bench = Bench::grpc();
    bench.range(50, &[held(&grpc(), "a", 40, 0), held(&grpc(), "b", 41, 0)]);
    assert!(!bench.publish().unwrap().rewind);
    bench.range(7, &[held(&grpc(), "b", 3, 0), held(&grpc(), "c", 4, 0)]);
    let publication = bench.publish().unwrap();
    assert!(publication.rewind);
    assert_eq!(
        (publication.snapshot.revision(), hosts(&publication.snapshot)),
        (7, vec!["b".into(), "c".into()])
    );
    bench.put(&held(&grpc(), "d", 8, 0));
    let publication = bench.publish().unwrap();
    assert!(!publication.rewind);
    assert_eq!(hosts(&publication.snapshot), ["b", "c", "d"]);
}

#[test]
fn the_layout_that_is_named_first_wins_and_the_other_shows_when_it_goes() {
    let layouts = parse_layouts("grpc,kitex", None).unwrap();
    let mut bench = Bench::new(&layouts, None);
    let first = held(&layouts, "a", 2, 0);
    let mut second = held(&layouts[1..], "a", 3, 0);
    bench.range(5, &[first.clone(), second.clone()]);
    let layout = |snapshot: &Snapshot| snapshot.map().keys().map(|key| key.layout).collect::<Vec<_>>();
    assert_eq!(layout(&bench.snapshot()), [0]);
    bench.delete(&first, 6);
    assert_eq!(layout(&bench.snapshot()), [1]);
    bench.put(&Held { mod_revision: 7, ..first.clone() });
    assert_eq!(layout(&bench.snapshot()), [0]);
    // The one that is not shown moves to an address of its own.
    second.value = String::from_utf8(second.value).unwrap().replace("a:80", "b:80").into_bytes();
    second.mod_revision = 8;
    bench.put(&second);
    assert_eq!(layout(&bench.snapshot()), [0, 1]);
    bench.delete(&second, 9);
    assert_eq!(layout(&bench.snapshot()), [0]);
}

#[test]
fn two_keys_of_one_instance_do_not_delete_one_another() {
    let layouts = parse_layouts("dubbo", None).unwrap();
    let mut bench = Bench::new(&layouts, None);
    let key = |parameters: &str| Held {
        key: format!("/dubbo/s/providers/dubbo%3A%2F%2F10.0.0.1%3A20880%2Fs%3F{parameters}").into_bytes(),
        value: Vec::new(),
        mod_revision: 2,
        lease: 0,
    };
    let (old, mut new) = (key("version%3D1"), key("version%3D2"));
    new.mod_revision = 3;
    bench.range(5, &[old.clone(), new.clone()]);
    assert_eq!(bench.snapshot().len(), 1);
    bench.delete(&new, 6);
    assert_eq!(bench.snapshot().len(), 1);
    bench.delete(&old, 7);
    assert_eq!(bench.snapshot().existence(), Existence::Emptied);
}

#[test]
fn an_instance_of_several_keys_is_there_while_all_of_them_are() {
    let layouts = parse_layouts("fields", None).unwrap();
    let mut bench = Bench::new(&layouts, None);
    let instance = Instance::new(service(), "10.0.0.1:80".parse().unwrap());
    let entries = layouts[0].encode(&instance, 5).unwrap().entries;
    bench.range(1, &[]);
    bench.publish();
    let keys: Vec<Held> = (2..)
        .zip(entries)
        .map(|(mod_revision, entry)| Held { key: entry.key, value: entry.value, mod_revision, lease: 5 })
        .collect();
    for (count, key) in keys.iter().enumerate() {
        bench.put(key);
        assert_eq!(bench.snapshot().len(), usize::from(count == 3));
    }
    bench.delete(&keys[2], 9);
    let snapshot = bench.snapshot();
    assert_eq!((snapshot.len(), snapshot.existence()), (0, Existence::Emptied));
}

#[test]
fn a_value_that_does_not_decode_is_told_once_for_each_write() {
    let mut bench = Bench::grpc();
    let good = held(&grpc(), "a", 2, 0);
    let bad = Held { key: b"services/s/b".to_vec(), value: b"{".to_vec(), mod_revision: 3, lease: 0 };
    let told = |bench: &mut Bench, skipped: u64| {
        let effects = bench.core.settle(bench.now);
        assert_eq!(effects.publish.unwrap().snapshot.skipped(), skipped);
        effects.failures.len()
    };
    bench.range(5, &[good.clone(), bad.clone()]);
    assert_eq!(told(&mut bench, 1), 1);
    bench.range(6, &[good.clone(), bad.clone()]);
    assert_eq!(told(&mut bench, 1), 0, "it is the same write");
    bench.put(&Held { mod_revision: 7, ..bad.clone() });
    assert_eq!(told(&mut bench, 1), 1);
    bench.delete(&bad, 8);
    assert_eq!(told(&mut bench, 0), 0);
}

#[test]
fn values_of_services_below_ours_are_not_ours_to_skip() {
    let mut bench = Bench::grpc();
    let below = Held { key: b"services/s/t/x".to_vec(), value: b"{".to_vec(), mod_revision: 3, lease: 0 };
    bench.range(5, std::slice::from_ref(&below));
    let effects = bench.core.settle(bench.now);
    assert_eq!((effects.publish.unwrap().snapshot.skipped(), effects.failures.len()), (0, 0));
    assert!(bench.core.table().recognises(0, 1, Some(below.kv())), "it counts as a key of the span");
}

#[test]
fn stale_since_the_first_of_several_causes() {
    let mut bench = Bench::grpc();
    bench.range(5, &[held(&grpc(), "a", 3, 0)]);
    bench.publish();
    bench.pass(10);
    let began = bench.now.wall;
    bench.core.down("refused".into(), bench.now);
    bench.pass(10);
    bench.core.down("timed out".into(), bench.now);
    let snapshot = bench.snapshot();
    assert_eq!(*snapshot.freshness(), Freshness::Stale { since: began, cause: "timed out".into() });
    assert_eq!(hosts(&snapshot), ["a"]);
    bench.core.down("timed out".into(), bench.now);
    assert!(bench.publish().is_none(), "the same cause again is no news");
    bench.core.quiet(9, bench.now);
    assert!(bench.snapshot().freshness().is_live());
}

#[test]
fn a_cache_is_shown_as_stale_until_etcd_speaks() {
    let mut bench = Bench::grpc();
    let instance = Arc::new(Instance::new(service(), "a:80".parse().unwrap()));
    let cached = vec![(InstanceKey::of(&instance, 0), instance, 0)];
    bench.core.cached(cached.clone(), 50);
    bench.core.down("from the cache".into(), bench.now);
    let snapshot = bench.snapshot();
    assert_eq!((hosts(&snapshot), snapshot.existence()), (vec!["a".to_owned()], Existence::Present));
    assert!(matches!(snapshot.freshness(), Freshness::Stale { cause, .. } if &**cause == "from the cache"));
    bench.range(60, &[held(&grpc(), "b", 3, 0)]);
    let snapshot = bench.snapshot();
    assert!(snapshot.freshness().is_live());
    assert_eq!(hosts(&snapshot), ["b"]);
    bench.core.cached(cached, 50);
    assert!(bench.publish().is_none(), "too late");
}

#[test]
fn a_store_is_recognised_by_count_and_newest_key() {
    let mut bench = Bench::grpc();
    let keys = [held(&grpc(), "a", 3, 0), held(&grpc(), "b", 7, 11), held(&grpc(), "c", 7, 12)];
    bench.range(9, &keys);
    let table = bench.core.table();
    assert_eq!(table.known_at(0), 9);
    assert!(table.recognises(0, 3, Some(keys[1].kv())) && table.recognises(0, 3, Some(keys[2].kv())));
    assert!(!table.recognises(0, 2, Some(keys[1].kv())), "another count");
    assert!(!table.recognises(0, 3, Some(keys[0].kv())), "not the newest");
    assert!(!table.recognises(0, 3, Some(Kv { lease: 99, ..keys[1].kv() })), "written by another");
    assert!(!table.recognises(0, 3, Some(Kv { mod_revision: 8, ..keys[1].kv() })));
    assert!(!table.recognises(0, 3, None) && !table.recognises(1, 0, None));
    bench.core.quiet(20, bench.now);
    assert_eq!(bench.core.table().known_at(0), 20);
    bench.put(&held(&grpc(), "d", 15, 0));
    assert_eq!(hosts(&bench.snapshot()), ["a", "b", "c", "d"], "a notification drops no event");
}

#[test]
fn ten_thousand_instances_and_one_change_share_the_rest() {
    let mut bench = Bench::grpc();
    let all: Vec<Held> = (0..10_000).map(|host| held(&grpc(), &format!("h{host}"), 2, 0)).collect();
    bench.range(5, &all);
    let before = bench.snapshot();
    bench.range(6, &all);
    let again = bench.snapshot();
    assert!(before.map().ptr_eq(again.map()), "a range that finds the same changes nothing");
    bench.delete(&all[77], 7);
    let after = bench.snapshot();
    let changes: Vec<_> = after.changes_since(&before).collect();
    assert_eq!((changes.len(), after.len()), (1, 9_999));
}
