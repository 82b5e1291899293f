//! Streams that are slow or gone, and stores that cannot be read.

use super::*;

#[test]
fn a_slow_watch_whose_history_is_compacted_is_cancelled() {
    let mut bench = Bench::with(HubOptions { queue_responses: 2, ..HubOptions::default() });
    let stream = bench.hub.open(0);
    bench.create(stream, &key("a"));
    for _ in 2..=6 {
        bench.write(&["a"]);
    }
    bench.hub.compact(4);
    assert_eq!(bench.hub.counts().behind, 1, "it still needs revision 4 only");
    bench.hub.compact(5);
    bench.log.compacted = 5;
    let told = bench.drain(stream);
    assert_eq!(told.iter().map(revision).collect::<Vec<_>>(), [2, 3, 0]);
    assert_eq!((told[2].canceled, told[2].compact_revision), (true, 5));
}

#[test]
fn a_slow_stream_holds_its_queue_and_no_more_and_loses_nothing() {
    let options = HubOptions { queue_responses: 10, ..HubOptions::default() };
    let mut bench = Bench::with(options);
    let slow = bench.hub.open(0);
    let quick = bench.hub.open(0);
    for stream in [slow, quick] {
        bench.create(stream, &key("a"));
    }
    bench.hub.wakeups();
    for _ in 0..1000 {
        bench.write(&["a"]);
        assert_eq!(bench.hub.take(quick).len(), 1);
        assert!(bench.hub.counts().queued <= 10);
    }
    assert!(bench.hub.is_congested(slow));
    assert!(bench.hub.plan(slow).is_none(), "what waits goes first");
    assert_eq!(bench.hub.wakeups().iter().filter(|stream| **stream == slow).count(), 1);
    let told = bench.drain(slow);
    let revisions: Vec<_> = told.iter().flat_map(|told| told.events.iter()).collect();
    assert_eq!(revisions.len(), 1000);
    assert!(!bench.hub.is_congested(slow));
    bench.write(&["a"]);
    assert_eq!(bench.hub.take(slow).len(), 1, "in step again");
}

#[test]
fn a_step_that_was_held_is_delivered_to_the_watch_it_was_read_for_only() {
    let mut bench = Bench::new();
    bench.write(&["a"]);
    let stream = bench.hub.open(0);
    bench.create(stream, &WatchCreateRequest { start_revision: 1, watch_id: 5, ..key("a") });
    let mut first = bench.hub.plan(stream).unwrap();
    let mut second = bench.hub.plan(stream).unwrap();
    first.read(&bench.log).unwrap();
    second.read(&bench.log).unwrap();
    bench.hub.deliver(first);
    bench.hub.deliver(second);
    assert_eq!(bench.hub.take(stream).len(), 1, "events come once");

    bench.create(stream, &WatchCreateRequest { start_revision: 1, watch_id: 6, ..key("a") });
    let mut held = bench.hub.plan(stream).unwrap();
    held.read(&bench.log).unwrap();
    bench.hub.cancel(stream, 6);
    bench.hub.create(stream, &WatchCreateRequest { start_revision: 1, watch_id: 6, ..key("b") }, Ok(()));
    bench.hub.take(stream);
    bench.hub.deliver(held);
    assert!(bench.hub.take(stream).is_empty(), "the id is another watch's now");
}

#[test]
fn equal_watches_share_what_they_are_told() {
    let mut bench = Bench::new();
    let streams: Vec<_> = (0..3).map(|_| bench.hub.open(0)).collect();
    for stream in &streams {
        bench.create(*stream, &prefix("a", "b"));
    }
    bench.write(&["a"]);
    let told: Vec<_> = streams
        .iter()
        .map(|stream| match bench.hub.take(*stream).remove(0).body {
            Body::Events { events, .. } => events,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(told.iter().all(|events| std::sync::Arc::ptr_eq(events, &told[0])));
}

#[test]
fn a_stream_that_is_gone_is_no_error_anywhere() {
    let mut bench = Bench::new();
    let stream = bench.hub.open(0);
    bench.create(stream, &key("a"));
    bench.create(stream, &WatchCreateRequest { start_revision: 1, ..key("a") });
    let step = bench.hub.plan(stream).unwrap();
    bench.hub.close(stream);
    bench.hub.close(stream);
    bench.hub.deliver(step);
    bench.hub.cancel(stream, 0);
    bench.hub.progress(stream);
    assert_eq!(bench.hub.create(stream, &key("a"), Ok(())), None);
    assert!(bench.hub.take(stream).is_empty() && bench.hub.plan(stream).is_none());
    assert_eq!((bench.hub.counts(), bench.hub.next_tick()), (Counts::default(), None));
}

/// A store that cannot be read.
struct Broken;

impl History for Broken {
    type Error = std::io::Error;

    fn changes(
        &self,
        _from: i64,
        _to: i64,
        _visit: &mut dyn FnMut(i64, Event) -> ControlFlow<()>,
    ) -> Result<(), Self::Error> {
        Err(std::io::Error::other("unreadable"))
    }

    fn before(&self, _key: &[u8], _revision: i64) -> Result<Option<KeyValue>, Self::Error> {
        Err(std::io::Error::other("unreadable"))
    }
}

#[test]
fn a_store_that_cannot_be_read_leaves_watches_behind_and_loses_nothing() {
    let mut bench = Bench::new();
    let stream = bench.hub.open(0);
    bench.create(stream, &WatchCreateRequest { prev_kv: true, ..key("a") });
    bench.write(&["a=1"]);
    bench.drain(stream);
    bench.hub.wakeups();
    assert!(bench.log.write(&[("a".into(), Some("2".into()))]));
    bench.hub.publish(3, bench.log.events(3), &Broken);
    assert_eq!(bench.hub.wakeups(), [stream]);
    assert!(bench.hub.take(stream).is_empty());
    assert!(bench.hub.plan(stream).unwrap().read(&Broken).is_err());
    let told = bench.drain(stream);
    assert_eq!(told[0].events[0].prev_kv.as_ref().unwrap().value, "1");
}
