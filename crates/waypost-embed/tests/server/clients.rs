//! Our own client.

use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;
use waypost_embed::server::AutoCompaction;
use waypost_etcd::{
    Client, ClientOptions, Compare, Delete, Error, KeyRange, Op, Put, Range, Txn, WatchEvent, WatchSpec,
};

use crate::support::{Ctl, Fixture, PATIENCE};

const TTL: Duration = Duration::from_secs(60);

#[tokio::test]
async fn many_writers_get_revisions_of_their_own() {
    let fixture = Fixture::start().await;
    let client = fixture.client();
    let writers = (0..64).map(|writer| {
        let client = client.clone();
        tokio::spawn(async move {
            let mut revisions = Vec::new();
            for _ in 0..10 {
                let put = client.put(Put::new(format!("w/{writer}"), "v")).await.unwrap();
                revisions.push(put.header.unwrap().revision);
                let read = client.range(Range::key(format!("w/{writer}"))).await.unwrap();
                assert_eq!(read.kvs[0].mod_revision, *revisions.last().unwrap(), "one reads what one wrote");
            }
            revisions
        })
    });
    let mut all = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        all.extend(writer.await.unwrap());
    }
    all.sort_unstable();
    assert_eq!(all, (2..642).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_transaction_decides_once() {
    let fixture = Fixture::start().await;
    let client = fixture.client();
    let create = || {
        Txn::new()
            .when([Compare::version("leader").equal(0)])
            .then([Op::put(Put::new("leader", "me"))])
            .otherwise([Op::range(Range::key("leader"))])
    };
    assert!(client.txn(create()).await.unwrap().succeeded);
    let again = client.txn(create()).await.unwrap();
    assert!(!again.succeeded);
    assert_eq!(again.header.unwrap().revision, 2);
    let compared = Txn::new().when([Compare::value("leader").equal("me")]);
    assert!(client.txn(compared).await.unwrap().succeeded);
}

#[tokio::test]
async fn a_watcher_is_told_of_every_change() {
    let fixture = Fixture::start().await;
    let client = fixture.client();
    let mut watcher = client.watch();
    watcher.add(WatchSpec::new(KeyRange::prefix("w/")).from(1));
    client.put(Put::new("w/1", "one")).await.unwrap();
    assert_eq!(keys(&mut watcher, 1).await, ["w/1"]);
    client.put(Put::new("w/2", "two")).await.unwrap();
    client.delete(Delete::key("w/1")).await.unwrap();
    assert_eq!(keys(&mut watcher, 2).await, ["w/2", "w/1"]);
}

async fn keys(watcher: &mut waypost_etcd::Watcher, wanted: usize) -> Vec<String> {
    let mut keys = Vec::new();
    while keys.len() < wanted {
        let event = tokio::time::timeout(PATIENCE, watcher.next()).await.expect("an event");
        if let WatchEvent::Events { events, .. } = event {
            keys.extend(events.iter().map(|event| String::from_utf8_lossy(event.key()).into_owned()));
        }
    }
    keys
}

#[tokio::test]
async fn a_lease_that_is_not_renewed_ends_with_its_keys() {
    let fixture = Fixture::start_with(|builder| builder.min_lease_ttl(1)).await;
    let client = fixture.client();
    let lease = client.lease_grant(Duration::from_secs(1), None).await.unwrap();
    client.put(Put::new("leased", "v").lease(lease.id)).await.unwrap();
    waypost_testkit::eventually("the key is gone", PATIENCE, async || {
        let read = client.range(Range::key("leased")).await.unwrap();
        read.kvs.is_empty().then_some(())
    })
    .await;
    assert!(client.leases().await.unwrap().is_empty());
}

/// Waits for the lock that is called `lock`.
fn waits(client: &Client, lease: i64) -> JoinHandle<Result<Bytes, Error>> {
    let client = client.clone();
    tokio::spawn(async move { client.lock("lock", lease).await })
}

/// Returns when so many hold the lock or wait for it.
async fn contenders(client: &Client, count: i64) {
    waypost_testkit::eventually("each has a key", PATIENCE, async || {
        let keys = client.range(Range::prefix("lock/").count_only()).await.unwrap();
        (keys.count == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_waiter_that_gives_up_leaves_no_key() {
    let fixture = Fixture::start().await;
    let client = fixture.client();
    let one = client.lease_grant(TTL, None).await.unwrap();
    let two = client.lease_grant(TTL, None).await.unwrap();
    let held = client.lock("lock", one.id).await.unwrap();
    let waiting = waits(&client, two.id);
    contenders(&client, 2).await;
    waiting.abort();
    contenders(&client, 1).await;
    client.unlock(held).await.unwrap();
    client.lock("lock", two.id).await.unwrap();
}

#[tokio::test]
async fn a_lock_goes_to_the_next_one() {
    let fixture = Fixture::start().await;
    let client = fixture.client();
    let one = client.lease_grant(TTL, None).await.unwrap();
    let two = client.lease_grant(TTL, None).await.unwrap();
    let held = client.lock("lock", one.id).await.unwrap();
    assert_eq!(client.lock("lock", one.id).await.unwrap(), held, "the same lease has it already");
    let waiting = waits(&client, two.id);
    client.lease_revoke(one.id).await.unwrap();
    let key = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(key, format!("lock/{:x}", two.id));
}

#[tokio::test]
async fn a_waiter_is_still_known_after_a_change_of_users() {
    let fixture = Fixture::start().await;
    for line in ["user add root:secret", "user grant-role root root", "auth enable"] {
        fixture.ctl(Ctl::V3_5, line).await;
    }
    let client = Client::new(ClientOptions::new([fixture.url()]).user("root", "secret")).unwrap();
    let one = client.lease_grant(TTL, None).await.unwrap();
    let two = client.lease_grant(TTL, None).await.unwrap();
    let held = client.lock("lock", one.id).await.unwrap();
    let waiting = waits(&client, two.id);
    contenders(&client, 2).await;
    fixture.ctl(Ctl::V3_5, "--user root:secret user add ann:pass").await;
    client.unlock(held).await.unwrap();
    tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_long_range_is_of_one_revision() {
    let fixture = Fixture::start().await;
    let client = fixture.client();
    for first in (0..600).step_by(100) {
        let puts = (first..first + 100).map(|key| Op::put(Put::new(format!("k/{key:03}"), key.to_string())));
        client.txn(Txn::new().then(puts)).await.unwrap();
    }
    let writer = tokio::spawn({
        let client = client.clone();
        async move {
            for round in 0..20 {
                let put = |key| Op::put(Put::new(key, format!("round {round}")));
                let both = client.txn(Txn::new().then([put("k/000"), put("k/599")])).await.unwrap();
                client.compact(both.header.unwrap().revision, false).await.unwrap();
            }
        }
    });
    while !writer.is_finished() {
        let kvs = client.range(Range::prefix("k/")).await.unwrap().kvs;
        assert_eq!(kvs.len(), 600);
        assert_eq!(kvs[0].mod_revision == 2, kvs[599].mod_revision == 7, "both or none");
        if kvs[0].mod_revision != 2 {
            assert_eq!(kvs[0].mod_revision, kvs[599].mod_revision);
        }
    }
    writer.await.unwrap();
}

#[tokio::test]
async fn those_who_observe_are_told_of_each_leader() {
    let fixture = Fixture::start().await;
    let client = fixture.client();
    let mut seen = client.observe("chief").await.unwrap();
    let lease = client.lease_grant(TTL, None).await.unwrap();
    let leadership = client.campaign("chief", lease.id, "first").await.unwrap();
    assert_eq!(seen.next().await.unwrap().unwrap().value, "first");
    client.proclaim(&leadership, "second").await.unwrap();
    assert_eq!(seen.next().await.unwrap().unwrap().value, "second");
    client.resign(leadership).await.unwrap();
    assert!(client.leader("chief").await.unwrap().is_none());
    client.campaign("chief", lease.id, "third").await.unwrap();
    assert_eq!(seen.next().await.unwrap().unwrap().value, "third");
}

#[tokio::test]
async fn history_is_given_up_by_age() {
    let when = AutoCompaction::Periodic(Duration::from_secs(1));
    let fixture = Fixture::start_with(|builder| builder.auto_compaction(when)).await;
    let client = fixture.client();
    for value in 0..5 {
        client.put(Put::new("a", value.to_string())).await.unwrap();
    }
    waypost_testkit::eventually("revision 2 is compacted", PATIENCE, async || {
        client.put(Put::new("b", "tick")).await.unwrap();
        client.range(Range::key("a").revision(2)).await.is_err().then_some(())
    })
    .await;
    assert_eq!(client.range(Range::key("a")).await.unwrap().kvs[0].value, "4");
}

/// As etcd since 3.5.21, the server answers no progress request while a watch begins after its revision. Our client
/// must not take that for a broken stream.
#[tokio::test]
async fn a_watch_on_an_idle_store_stays_up() {
    let fixture = Fixture::start().await;
    let options = ClientOptions::new([fixture.url()]).keepalive(Duration::from_millis(100), PATIENCE);
    let client = Client::new(options).unwrap();
    let revision = client.put(Put::new("k", "v")).await.unwrap().header.unwrap().revision;
    let mut watcher = client.watch();
    watcher.add(WatchSpec::new(KeyRange::key("k")).from(revision + 1));
    let mut progress = 0;
    while progress < 3 {
        match watcher.next().await {
            WatchEvent::Started { .. } => {}
            WatchEvent::Progress { .. } => progress += 1,
            other => panic!("{other:?}"),
        }
    }
}
