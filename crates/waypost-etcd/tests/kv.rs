//! Keys, transactions, pages, limits and typed errors, asked of real servers.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on must fail at once")]

use waypost_etcd::{
    Client, ClientOptions, Compare, Delete, ErrorKind, KeyRange, Op, Put, Range, SortOrder, SortTarget, Txn,
};
use waypost_testkit::{Etcd, EtcdVersion, for_each_etcd};

fn client(etcd: &Etcd) -> Client {
    Client::new(ClientOptions::new([etcd.url()])).expect("options")
}

for_each_etcd! {
    async fn range_with_every_option(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client(&etcd);
        for (key, value) in [("a/1", "3"), ("a/2", "1"), ("a/3", "2"), ("b/1", "x")] {
            client.put(Put::new(key, value)).await.expect("put");
        }
        let keys = async |range: Range| -> Vec<String> {
            let answer = client.range(range).await.expect("range");
            answer.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect()
        };
        assert_eq!(keys(Range::prefix("a/")).await, ["a/1", "a/2", "a/3"]);
        assert_eq!(keys(Range::prefix("a/").sort(SortTarget::Value, SortOrder::Descend)).await, ["a/1", "a/3", "a/2"]);
        assert_eq!(keys(Range::prefix("a/").limit(2)).await, ["a/1", "a/2"]);
        assert_eq!(keys(Range::new(KeyRange::from("a/3"))).await, ["a/3", "b/1"]);
        assert_eq!(keys(Range::new(KeyRange::all())).await.len(), 4);
        assert_eq!(keys(Range::prefix("a/").revision(2)).await, ["a/1"]);
        assert_eq!(keys(Range::prefix("a/").min_mod_revision(3).max_mod_revision(3)).await, ["a/2"]);
        assert_eq!(keys(Range::prefix("a/").min_create_revision(4).max_create_revision(9)).await, ["a/3"]);
        assert_eq!(keys(Range::prefix("a/").serializable()).await.len(), 3);
        let answer = client.range(Range::prefix("a/").count_only()).await.expect("count");
        assert_eq!((answer.count, answer.kvs.len()), (3, 0));
        let answer = client.range(Range::prefix("a/").keys_only()).await.expect("keys");
        assert!(answer.kvs.iter().all(|kv| kv.value.is_empty()));
    }

    async fn pages_are_of_one_revision(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client(&etcd);
        for index in 0..25 {
            client.put(Put::new(format!("p/{index:03}"), "v")).await.expect("put");
        }
        let mut pages = client.pages(KeyRange::prefix("p/"), 10);
        let first = pages.next().await.expect("a page").expect("first");
        assert!(first.more);
        // A change between two pages is not seen by the second.
        client.delete(Delete::key("p/020")).await.expect("delete");
        client.put(Put::new("p/0205", "v")).await.expect("put");
        let mut kvs = first.kvs;
        while let Some(page) = pages.next().await {
            let page = page.expect("page");
            assert_eq!(page.revision, first.revision);
            kvs.extend(page.kvs);
        }
        let keys: Vec<_> = kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect();
        assert_eq!(keys, (0..25).map(|index| format!("p/{index:03}")).collect::<Vec<_>>());
        let mut empty = client.pages(KeyRange::prefix("none/"), 10);
        assert!(empty.next().await.expect("one page").expect("page").kvs.is_empty());
        assert!(empty.next().await.is_none());
    }

    async fn pages_too_large_for_an_answer_are_halved(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = Client::new(ClientOptions::new([etcd.url()]).max_receive_bytes(100_000)).expect("options");
        for index in 0..30 {
            client.put(Put::new(format!("p/{index:02}"), vec![0; 20_000])).await.expect("put");
        }
        let mut pages = client.pages(KeyRange::prefix("p/"), 1000);
        let mut count = 0;
        while let Some(page) = pages.next().await {
            count += page.expect("page").kvs.len();
        }
        assert_eq!(count, 30);
        // One key that exceeds the limit by itself is an error, not a loop.
        client.put(Put::new("p/30", vec![0; 200_000])).await.expect("put");
        let mut pages = client.pages(KeyRange::key("p/30"), 1000);
        assert_eq!(pages.next().await.expect("a page").expect_err("too large").kind(), ErrorKind::TooLarge);
    }

    async fn transactions_compare_and_act(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client(&etcd);
        let create = Txn::new()
            .when([Compare::create_revision("k").equal(0)])
            .then([Op::put(Put::new("k", "1"))])
            .otherwise([Op::range(Range::key("k"))]);
        assert!(client.txn(create.clone()).await.expect("txn").succeeded);
        assert!(!client.txn(create).await.expect("txn").succeeded);
        for (compare, holds) in [
            (Compare::value("k").equal("1"), true),
            (Compare::version("k").greater(1), false),
            (Compare::lease("k").equal(0), true),
            (Compare::mod_revision("k").less(100), true),
            (Compare::mod_revision("").in_range(KeyRange::prefix("k")).not_equal(0), true),
        ] {
            let answer = client.txn(Txn::new().when([compare.clone()])).await.expect("txn");
            assert_eq!(answer.succeeded, holds, "{compare:?}");
        }
        let nested = Txn::new().then([Op::txn(Txn::new().then([Op::delete(Delete::key("k"))]))]);
        assert!(client.txn(nested).await.expect("txn").succeeded);
        assert_eq!(client.range(Range::key("k")).await.expect("range").count, 0);
    }

    async fn puts_keep_and_answer_what_was_there(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client(&etcd);
        let lease = client.lease_grant(std::time::Duration::from_secs(60), None).await.expect("grant");
        client.put(Put::new("k", "1").lease(lease.id)).await.expect("put");
        let answer = client.put(Put::new("k", "2").prev_kv().ignore_lease()).await.expect("put");
        assert_eq!(&answer.prev_kv.expect("previous").value[..], b"1");
        client.put(Put::new("k", "").ignore_value()).await.expect("put");
        let kv = client.range(Range::key("k")).await.expect("range").kvs.remove(0);
        assert_eq!((&kv.value[..], kv.lease), (&b"2"[..], 0));
        let deleted = client.delete(Delete::prefix("k").prev_kv()).await.expect("delete");
        assert_eq!((deleted.deleted, deleted.prev_kvs.len()), (1, 1));
    }

    async fn errors_are_typed_and_name_key_and_endpoint(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = client(&etcd);
        for _ in 0..3 {
            client.put(Put::new("k", "v")).await.expect("put");
        }
        client.compact(3, true).await.expect("compact");
        let error = client.range(Range::key("k").revision(2)).await.expect_err("compacted");
        assert_eq!(error.kind(), ErrorKind::Compacted);
        assert_eq!((error.key(), error.endpoint()), (Some(&b"k"[..]), Some(etcd.url().as_str())));
        let error = client.range(Range::key("k").revision(99)).await.expect_err("future");
        assert_eq!(error.kind(), ErrorKind::FutureRevision);
        let error = client.put(Put::new("k", "v").lease(12345)).await.expect_err("no lease");
        assert_eq!(error.kind(), ErrorKind::LeaseNotFound);
        let error = client.put(Put::new("absent", "").ignore_value()).await.expect_err("no key");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let error = client.put(Put::new("", "v")).await.expect_err("empty key");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        let error = client.put(Put::new("k", vec![0; 1_600_000])).await.expect_err("too large for etcd");
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        let error = client.put(Put::new("k", vec![0; 3_000_000])).await.expect_err("too large for us");
        assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}: {:?}", std::error::Error::source(&error));
        let error = client.lease_revoke(777).await.expect_err("no lease");
        assert_eq!(error.kind(), ErrorKind::LeaseNotFound);
    }

    async fn size_limits_are_options(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let small = Client::new(ClientOptions::new([etcd.url()]).max_receive_bytes(10_000)).expect("options");
        small.put(Put::new("k", vec![0; 20_000])).await.expect("put");
        let error = small.range(Range::key("k")).await.expect_err("too large an answer");
        assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
        let large = Client::new(ClientOptions::new([etcd.url()]).max_receive_bytes(30_000)).expect("options");
        assert_eq!(large.range(Range::key("k")).await.expect("range").kvs[0].value.len(), 20_000);
    }

    async fn status_members_and_snapshot(version: EtcdVersion) {
        use futures::TryStreamExt;
        let etcd = Etcd::start(version).await;
        let client = client(&etcd);
        client.put(Put::new("k", "v")).await.expect("put");
        let status = client.status().await.expect("status");
        assert!(status.version.starts_with("3."));
        assert_eq!(client.status_of(&etcd.url()).await.expect("status").leader, status.leader);
        assert_eq!(client.status_of("http://nowhere").await.expect_err("not ours").kind(), ErrorKind::Config);
        assert_eq!(client.member_list().await.expect("members").len(), 1);
        let parts: Vec<_> = client.snapshot().await.expect("snapshot").try_collect().await.expect("parts");
        assert_eq!(parts.last().expect("parts").remaining_bytes, 0);
        let bytes: usize = parts.iter().map(|part| part.blob.len()).sum();
        assert_eq!(bytes % 512, 32, "a bbolt file and its SHA-256");
    }
}
