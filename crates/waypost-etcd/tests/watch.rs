//! Watches that survive what happens to their stream, and say what cannot be survived.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on must fail at once")]

use std::time::Duration;

use waypost_etcd::{
    Client, ClientOptions, Delete, EndpointOrder, ErrorKind, EventKind, KeyRange, Put, ResetReason,
    WatchEvent, WatchId, WatchSpec, Watcher,
};
use waypost_testkit::{Cluster, Etcd, EtcdVersion, Proxy, for_each_etcd, for_each_real_etcd};

fn client(url: impl Into<String>) -> Client {
    Client::new(ClientOptions::new([url.into()])).expect("options")
}

async fn started(watcher: &mut Watcher) -> i64 {
    loop {
        match watcher.next().await {
            WatchEvent::Started { revision, .. } => return revision,
            WatchEvent::Interrupted { .. } | WatchEvent::Progress { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The values of the next `count` puts.
async fn puts(watcher: &mut Watcher, count: usize) -> Vec<String> {
    let mut values = Vec::new();
    while values.len() < count {
        if let WatchEvent::Events { events, .. } = watcher.next().await {
            values.extend(events.iter().map(|event| String::from_utf8_lossy(&event.kv.value).into_owned()));
        }
    }
    values
}

async fn reset(watcher: &mut Watcher) -> (WatchId, ResetReason) {
    loop {
        if let WatchEvent::Reset { watch, reason } = watcher.next().await {
            return (watch, reason);
        }
    }
}

for_each_etcd! {
    async fn many_watches_on_one_stream(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let proxy = Proxy::start(&etcd.authority()).await;
        let client = client(proxy.url());
        let mut watcher = client.watch();
        let ids: Vec<_> =
            (0..500).map(|index| watcher.add(WatchSpec::new(KeyRange::key(format!("k/{index}"))))).collect();
        for _ in &ids {
            started(&mut watcher).await;
        }
        client.put(Put::new("k/123", "v")).await.expect("put");
        match watcher.next().await {
            WatchEvent::Events { watch, events, revision } => {
                assert_eq!((watch, events.len(), revision), (ids[123], 1, 2));
                assert_eq!(events[0].kind, EventKind::Put);
            }
            other => panic!("{other:?}"),
        }
        watcher.remove(ids[123]);
        client.put(Put::new("k/7", "v")).await.expect("put");
        assert!(matches!(watcher.next().await, WatchEvent::Events { watch, .. } if watch == ids[7]));
        assert_eq!(proxy.accepted(), 1);
    }

    async fn options_of_a_watch(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client(etcd.url());
        client.put(Put::new("k", "1")).await.expect("put");
        client.put(Put::new("k", "2")).await.expect("put");
        client.delete(Delete::key("k")).await.expect("delete");
        let mut watcher = client.watch();
        watcher.add(WatchSpec::new(KeyRange::key("k")).from(2).prev_kv());
        started(&mut watcher).await;
        let WatchEvent::Events { events, revision, .. } = watcher.next().await else { panic!("history") };
        assert_eq!(revision, 4);
        assert_eq!(events.iter().map(|event| event.kind).collect::<Vec<_>>(), [EventKind::Put, EventKind::Put, EventKind::Delete]);
        assert_eq!(&events[1].prev_kv.as_ref().expect("previous").value[..], b"1");
        let mut watcher = client.watch();
        watcher.add(WatchSpec::new(KeyRange::key("k")).from(2).only_deletes());
        started(&mut watcher).await;
        let WatchEvent::Events { events, .. } = watcher.next().await else { panic!("history") };
        assert_eq!(events.len(), 1);
    }

    async fn nothing_is_missed_or_doubled_over_broken_streams(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let proxy = Proxy::start(&etcd.authority()).await;
        let watching = client(proxy.url());
        let writing = client(etcd.url());
        let mut watcher = watching.watch();
        watcher.add(WatchSpec::new(KeyRange::prefix("k/")));
        started(&mut watcher).await;
        let writer = tokio::spawn(async move {
            for index in 0..2000 {
                writing.put(Put::new(format!("k/{}", index % 7), format!("{index}"))).await.expect("put");
                if index % 100 == 50 {
                    proxy.sever();
                }
            }
            proxy
        });
        let expected: Vec<String> = (0..2000).map(|index| index.to_string()).collect();
        assert_eq!(puts(&mut watcher, 2000).await, expected);
        writer.await.expect("writer");
    }

    async fn events_larger_than_a_message_come_in_one_piece(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client(etcd.url());
        for index in 0..12 {
            client.put(Put::new(format!("k/{index:02}"), vec![b'x'; 1_000_000])).await.expect("put");
        }
        let mut watcher = client.watch();
        watcher.add(WatchSpec::new(KeyRange::prefix("k/")).from(2));
        let values = puts(&mut watcher, 12).await;
        assert!(values.iter().all(|value| value.len() == 1_000_000));
    }

    async fn compaction_while_away_is_a_reset(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let proxy = Proxy::start(&etcd.authority()).await;
        let (watching, writing) = (client(proxy.url()), client(etcd.url()));
        let mut watcher = watching.watch();
        let watch = watcher.add(WatchSpec::new(KeyRange::key("k")));
        started(&mut watcher).await;
        proxy.refuse().await;
        assert!(matches!(watcher.next().await, WatchEvent::Interrupted { .. }));
        for _ in 0..5 {
            writing.put(Put::new("k", "v")).await.expect("put");
        }
        writing.compact(5, true).await.expect("compact");
        proxy.restore().await;
        let (which, reason) = reset(&mut watcher).await;
        assert_eq!(which, watch);
        assert_eq!(reason, ResetReason::Compacted { compact_revision: 5 });
        watcher.add(WatchSpec::new(KeyRange::key("k")).from(6));
        assert_eq!(puts(&mut watcher, 1).await, ["v"]);
    }

    async fn a_store_that_went_back_is_a_reset(version: EtcdVersion) {
        let mut etcd = Etcd::start(version).await;
        let client = client(etcd.url());
        for _ in 0..10 {
            client.put(Put::new("k", "v")).await.expect("put");
        }
        let mut watcher = client.watch();
        watcher.add(WatchSpec::new(KeyRange::key("k")).from(2));
        puts(&mut watcher, 10).await;
        etcd.kill().await;
        etcd.wipe_and_restart().await;
        assert_eq!(reset(&mut watcher).await.1, ResetReason::RevisionWentBack { seen: 11, now: 1 });
    }

    async fn another_cluster_is_a_reset(version: EtcdVersion) {
        let mut etcd = Etcd::start(version).await;
        let client = client(etcd.url());
        let mut watcher = client.watch();
        watcher.add(WatchSpec::new(KeyRange::key("k")));
        started(&mut watcher).await;
        etcd.kill().await;
        etcd.change_cluster_id();
        etcd.wipe_and_restart().await;
        assert!(matches!(reset(&mut watcher).await.1, ResetReason::ClusterChanged { .. }));
    }

    async fn an_idle_store_is_no_reason_to_leave(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let proxy = Proxy::start(&etcd.authority()).await;
        client(etcd.url()).put(Put::new("k", "v")).await.expect("put");
        let options = ClientOptions::new([proxy.url()]).keepalive(Duration::from_millis(200), Duration::from_secs(5));
        let mut watcher = Client::new(options).expect("options").watch();
        watcher.add(WatchSpec::new(KeyRange::key("k")).from(3));
        started(&mut watcher).await;
        for _ in 0..3 {
            assert!(matches!(watcher.next().await, WatchEvent::Progress { revision: 2 }));
        }
        assert_eq!(proxy.accepted(), 1);
    }

    async fn a_watch_that_is_added_and_removed_does_no_harm(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client(etcd.url());
        let mut watcher = client.watch();
        let watch = watcher.add(WatchSpec::new(KeyRange::key("k")));
        watcher.remove(watch);
        watcher.add(WatchSpec::new(KeyRange::key("k")).from(1));
        client.put(Put::new("k", "v")).await.expect("put");
        loop {
            match watcher.next().await {
                WatchEvent::Events { events, .. } => break assert_eq!(events.len(), 1),
                WatchEvent::Started { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn an_event_above_the_limit_is_refused_by_name(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        client(etcd.url()).put(Put::new("k", vec![0; 50_000])).await.expect("put");
        let small = Client::new(ClientOptions::new([etcd.url()]).max_receive_bytes(10_000)).expect("options");
        let mut watcher = small.watch();
        let watch = watcher.add(WatchSpec::new(KeyRange::key("k")).from(2));
        started(&mut watcher).await;
        match watcher.next().await {
            WatchEvent::Refused { watch: refused, error } => {
                assert_eq!((refused, error.kind()), (watch, ErrorKind::TooLarge), "{error}");
            }
            other => panic!("{other:?}"),
        }
    }

    async fn a_half_open_stream_is_found_and_left(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let (first, second) = (Proxy::start(&etcd.authority()).await, Proxy::start(&etcd.authority()).await);
        let options = ClientOptions::new([first.url(), second.url()])
            .endpoint_order(EndpointOrder::Listed)
            .keepalive(Duration::from_millis(300), Duration::from_millis(300));
        let watching = Client::new(options).expect("options");
        let mut watcher = watching.watch();
        watcher.add(WatchSpec::new(KeyRange::key("k")));
        started(&mut watcher).await;
        first.blackhole();
        client(etcd.url()).put(Put::new("k", "v")).await.expect("put");
        assert_eq!(puts(&mut watcher, 1).await, ["v"]);
        assert_eq!(second.accepted(), 1);
    }

    async fn a_refusal_is_told_and_a_bad_token_is_renewed(version: EtcdVersion) {
        let mut etcd = Etcd::start(version).await;
        let client = Client::new(ClientOptions::new([etcd.url()]).user("root", "pw")).expect("options");
        let mut watcher = client.watch();
        let watch = watcher.add(WatchSpec::new(KeyRange::new("z", "a")));
        let WatchEvent::Refused { watch: refused, error } = watcher.next().await else { panic!("refused") };
        assert_eq!((refused, error.kind()), (watch, ErrorKind::InvalidArgument));
        watcher.add(WatchSpec::new(KeyRange::key("k")));
        started(&mut watcher).await;
        etcd.enable_auth("pw").await;
        etcd.stop().await;
        etcd.restart().await;
        // The stream breaks, and resumes with a token that it fetches when it is refused.
        started(&mut watcher).await;
        client.put(Put::new("k", "v")).await.expect("put");
        assert_eq!(puts(&mut watcher, 1).await, ["v"]);
        let nobody = Client::new(ClientOptions::new([etcd.url()])).expect("options");
        let mut watcher = nobody.watch();
        watcher.add(WatchSpec::new(KeyRange::key("k")));
        let WatchEvent::Refused { error, .. } = watcher.next().await else { panic!("refused") };
        assert!(matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::Unauthenticated), "{error}");
    }
}

for_each_real_etcd! {
    async fn a_member_cut_off_from_the_others_is_left(version: EtcdVersion) {
        let cluster = Cluster::start(version, 3).await;
        let leader = cluster.leader().await;
        let mut urls = cluster.urls();
        urls.rotate_left(leader);
        let options = ClientOptions::new(urls).endpoint_order(EndpointOrder::Listed);
        let client = Client::new(options).expect("options");
        let mut watcher = client.watch();
        watcher.add(WatchSpec::new(KeyRange::key("k")));
        started(&mut watcher).await;
        cluster.partition(leader);
        let elsewhere = cluster.urls()[(leader + 1) % 3].clone();
        let writing = Client::new(ClientOptions::new([elsewhere])).expect("options");
        while let Err(error) = writing.put(Put::new("k", "v").idempotent()).await {
            assert!(error.is_transient(), "{error}");
        }
        assert_eq!(puts(&mut watcher, 1).await[0], "v");
    }
}
