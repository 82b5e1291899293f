//! Progress notifications.

use super::*;

#[test]
fn progress_is_told_on_demand_when_all_watches_are_in_step() {
    let mut bench = Bench::new();
    let stream = bench.hub.open(0);
    bench.hub.progress(stream);
    assert!(bench.hub.take(stream).is_empty(), "a stream without watches has no progress");
    bench.create(stream, &key("a"));
    bench.create(stream, &key("b"));
    bench.write(&["a"]);
    bench.hub.progress(stream);
    let told = bench.drain(stream);
    assert_eq!(told[0].events.len(), 1);
    assert_eq!((told[1].watch_id, revision(&told[1]), told[1].events.len()), (-1, 2, 0));
    assert!(!told[1].created && !told[1].canceled);

    bench.create(stream, &WatchCreateRequest { start_revision: 1, ..key("a") });
    bench.hub.progress(stream);
    let told = bench.drain(stream);
    assert_eq!(told.len(), 1, "a watch is behind: only its events, {told:?}");
    bench.hub.progress(stream);
    assert_eq!(bench.drain(stream).len(), 1);
    bench.create(stream, &WatchCreateRequest { start_revision: 9, ..key("a") });
    bench.hub.progress(stream);
    assert!(bench.drain(stream).is_empty(), "a watch starts in the future");
}

#[test]
fn idle_watches_that_asked_are_told_of_progress_every_interval() {
    let mut bench = Bench::with(HubOptions { progress_interval_ms: 1000, ..HubOptions::default() });
    let stream = bench.hub.open(0);
    bench.create(stream, &WatchCreateRequest { progress_notify: true, ..key("a") });
    bench.create(stream, &key("b"));
    let first = bench.hub.next_tick().unwrap();
    assert!((1000..1100).contains(&first), "{first}");
    bench.hub.tick(first - 1);
    assert!(bench.drain(stream).is_empty());
    bench.hub.tick(first);
    let told = bench.drain(stream);
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].watch_id, revision(&told[0]), told[0].events.len()), (0, 1, 0));

    bench.write(&["a"]);
    bench.drain(stream);
    let second = bench.hub.next_tick().unwrap();
    bench.hub.tick(second);
    assert!(bench.drain(stream).is_empty(), "it was not idle");
    let third = bench.hub.next_tick().unwrap();
    bench.hub.tick(third);
    assert_eq!(bench.drain(stream).iter().map(revision).collect::<Vec<_>>(), [2]);
}

#[test]
fn the_shortest_progress_interval_is_a_tenth_of_a_second() {
    let mut bench = Bench::with(HubOptions { progress_interval_ms: 0, ..HubOptions::default() });
    bench.hub.open(7);
    assert!((107..117).contains(&bench.hub.next_tick().unwrap()));
}
